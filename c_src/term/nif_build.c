/* Terms with large maps, built on threads that are no schedulers.
 *
 * The emulator's decoder sorts the entries of a map with more than 128 of them by a random pivot that
 * it takes from the scheduler it runs on; on any other thread it reads a null pointer.  Such a map is
 * built here entry by entry; all that is no container goes through the emulator's decoder.
 */
#include "nif_terms.h"

#include <stdlib.h>

#include "term_ext.h"

#define SORTED_SAFELY 128 /* entries; see erts_qsort() */
#define FUN_HEAD_SIZE 30

typedef struct builder {
  ErlNifEnv *env;
  uint8_t *p; /* the next term's tag; the byte before it has been read */
  uint8_t *end;
} builder;

/* Whether a map with more entries may be among these bytes, which may be part of something else, too: a
 * pid's number, the contents of a binary. */
static int
may_have_large_map(const uint8_t *data, const uint8_t *end)
{
  while (end - data >= 5 && (data = memchr(data, EXT_MAP, (size_t)(end - data) - 4)) != NULL) {
    uint32_t entries = ext_get_u32(data + 1);
    if (entries > SORTED_SAFELY && entries <= (size_t)(end - data) / 2) {
      return 1;
    }
    data++;
  }
  return 0;
}

/* The size of an encoded atom at p, or more than is left. */
static size_t
atom_size(const uint8_t *p, size_t left)
{
  size_t head = left > 0 && (p[0] == EXT_SMALL_ATOM_UTF8 || p[0] == EXT_SMALL_ATOM) ? 2 : 3;
  if (left < head) {
    return SIZE_MAX / 2;
  }
  return head + (head == 2 ? p[1] : ext_get_u16(p + 1));
}

/* The size of a number, or of what names a node; more than left when it is cut short or unknown. */
static size_t
leaf_size(const uint8_t *p, size_t left)
{
  switch (p[0]) {
  case EXT_NIL:
    return 1;
  case EXT_SMALL_INTEGER:
    return 2;
  case EXT_INTEGER:
    return 5;
  case EXT_NEW_FLOAT:
    return 9;
  case EXT_SMALL_BIG:
    return left < 2 ? SIZE_MAX : 3 + (size_t)p[1];
  case EXT_SMALL_ATOM_UTF8:
  case EXT_SMALL_ATOM:
  case EXT_ATOM_UTF8:
  case EXT_ATOM:
    return atom_size(p, left);
  case EXT_NEW_PID:
  case EXT_V4_PORT:
    return 1 + atom_size(p + 1, left - 1) + 12;
  case EXT_NEW_PORT:
    return 1 + atom_size(p + 1, left - 1) + 8;
  case EXT_NEWER_REFERENCE:
    return left < 3 ? SIZE_MAX
                    : 3 + atom_size(p + 3, left - 3) + 4 + 4 * (size_t)ext_get_u16(p + 1);
  default:
    return SIZE_MAX;
  }
}

/* What comes at p, without the terms inside of it: its size, as leaf_size, and how many these are. */
static size_t
skip_shell(const uint8_t *p, size_t left, uint64_t *inside)
{
  uint32_t count = left >= 5 ? ext_get_u32(p + 1) : 0;
  *inside = 0;
  switch (p[0]) {
  case EXT_STRING:
    return left < 3 ? SIZE_MAX : 3 + (size_t)ext_get_u16(p + 1);
  case EXT_BINARY:
    return left < 5 ? SIZE_MAX : 5 + (size_t)count;
  case EXT_BIT_BINARY:
  case EXT_LARGE_BIG:
    return left < 5 ? SIZE_MAX : 6 + (size_t)count;
  case EXT_EXPORT:
    *inside = 3;
    return 1;
  case EXT_SMALL_TUPLE:
    *inside = left < 2 ? 0 : p[1];
    return 2;
  case EXT_LARGE_TUPLE:
    *inside = count;
    return 5;
  case EXT_LIST:
    *inside = (uint64_t)count + 1;
    return 5;
  case EXT_MAP:
    *inside = 2 * (uint64_t)count;
    return 5;
  case EXT_NEW_FUN: /* size, arity, uniq, index, free variables; module, two numbers, pid */
    *inside = left < FUN_HEAD_SIZE ? 0 : 4 + (uint64_t)ext_get_u32(p + FUN_HEAD_SIZE - 4);
    return FUN_HEAD_SIZE;
  default:
    return leaf_size(p, left);
  }
}

/* Whether the term at p has a large map inside, or is nothing that the emulator makes. */
static int
has_large_map(const uint8_t *p, const uint8_t *end)
{
  for (uint64_t terms = 1; terms > 0; terms--) {
    uint64_t inside;
    size_t left = (size_t)(end - p);
    size_t size = left == 0 ? SIZE_MAX : skip_shell(p, left, &inside);
    if (size > left || (p[0] == EXT_MAP && inside > 2 * SORTED_SAFELY)) {
      return 1;
    }
    p += size;
    terms += inside;
  }
  return 0;
}

static int build(builder *b, ERL_NIF_TERM *out);

/* What the emulator decodes as a whole.  It wants a version byte before the term. */
static int
build_leaf(builder *b, ERL_NIF_TERM *out)
{
  /* Nothing but the emulator can make a fun, and its environment may hold any term. */
  if (b->p[0] == EXT_NEW_FUN && has_large_map(b->p, b->end)) {
    return 0;
  }
  uint8_t before = b->p[-1];
  b->p[-1] = EXT_VERSION;
  size_t used = enif_binary_to_term(b->env, b->p - 1, (size_t)(b->end - b->p) + 1, out, 0);
  b->p[-1] = before;
  if (used < 2) {
    return 0;
  }
  b->p += used - 1;
  return 1;
}

/* That many terms, each of one byte at least, in an array to free; NULL when they are not there. */
static ERL_NIF_TERM *
build_array(builder *b, size_t count)
{
  if (count > (size_t)(b->end - b->p)) {
    return NULL;
  }
  ERL_NIF_TERM *terms = malloc((count + 1) * sizeof(*terms));
  for (size_t i = 0; terms != NULL && i < count; i++) {
    if (!build(b, &terms[i])) {
      free(terms);
      terms = NULL;
    }
  }
  return terms;
}

static int
build_list(builder *b, size_t count, ERL_NIF_TERM *out)
{
  ERL_NIF_TERM *terms = build_array(b, count);
  int good = terms != NULL && build(b, out);
  while (good && count > 0) {
    *out = enif_make_list_cell(b->env, terms[--count], *out);
  }
  free(terms);
  return good;
}

static int
build_tuple(builder *b, size_t count, ERL_NIF_TERM *out)
{
  ERL_NIF_TERM *terms = build_array(b, count);
  if (terms != NULL) {
    *out = enif_make_tuple_from_array(b->env, terms, (unsigned)count);
  }
  free(terms);
  return terms != NULL;
}

/* Two keys that are the same term make no map, as in the emulator's decoder. */
static int
build_map(builder *b, size_t count, ERL_NIF_TERM *out)
{
  ERL_NIF_TERM *pairs = count > SIZE_MAX / 4 ? NULL : build_array(b, 2 * count);
  size_t at_once = count > SORTED_SAFELY ? SORTED_SAFELY : count;
  ERL_NIF_TERM *keys = pairs == NULL ? NULL : malloc((2 * at_once + 1) * sizeof(*keys));
  int good = keys != NULL;
  for (size_t i = 0; good && i < at_once; i++) {
    keys[i] = pairs[2 * i];
    keys[at_once + i] = pairs[2 * i + 1];
  }
  good = good && enif_make_map_from_arrays(b->env, keys, keys + at_once, at_once, out);
  for (size_t i = at_once; good && i < count; i++) {
    good = enif_make_map_put(b->env, *out, pairs[2 * i], pairs[2 * i + 1], out);
  }
  size_t size;
  good = good && enif_get_map_size(b->env, *out, &size) && size == count;
  free(keys);
  free(pairs);
  return good;
}

/* Containers nest no deeper than the encoder went, which left room on the same stack. */
static int
build(builder *b, ERL_NIF_TERM *out)
{
  size_t left = (size_t)(b->end - b->p);
  if (left == 0) {
    return 0;
  }
  uint8_t tag = b->p[0];
  if (tag == EXT_SMALL_TUPLE && left >= 2) {
    b->p += 2;
    return build_tuple(b, b->p[-1], out);
  }
  if (left < 5 || (tag != EXT_LARGE_TUPLE && tag != EXT_LIST && tag != EXT_MAP)) {
    return build_leaf(b, out);
  }
  size_t count = ext_get_u32(b->p + 1);
  b->p += 5;
  switch (tag) {
  case EXT_LARGE_TUPLE:
    return build_tuple(b, count, out);
  case EXT_LIST:
    return build_list(b, count, out);
  default:
    return build_map(b, count, out);
  }
}

int
nif_term_build(ErlNifEnv *env, uint8_t *data, size_t size, ERL_NIF_TERM *term)
{
  if (!may_have_large_map(data, data + size)) {
    return nif_term_from_ext(env, data, size, term);
  }
  builder b = {env, data + 1, data + size};
  ERL_NIF_TERM made;
  if (size < 2 || data[0] != EXT_VERSION || !build(&b, &made) || b.p != b.end) {
    return 0;
  }
  *term = made;
  return 1;
}
