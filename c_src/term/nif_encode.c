/* Small plain terms to external term format, on the caller's scheduler.
 *
 * Work is bounded by the bytes written: kinds of terms whose size cannot be seen from here before
 * the emulator has encoded them (funs, bit strings, integers beyond 64 bits) are declined. */
#include "nif_encode.h"

#include <stdatomic.h>
#include <string.h>

#include "handles.h"
#include "nif_terms.h"
#include "term_ext.h"

/* What a term costs, in nanoseconds, by estimate: one that is written here, and one by the emulator. */
#define COST_HERE 20
#define COST_BY_EMULATOR 400

/* Scheduler threads have small stacks. */
#define MAX_DEPTH 32

typedef struct writer {
  ErlNifEnv *env;
  nif_encoding *out;
  unsigned depth;
} writer;

static int put_term(writer *w, ERL_NIF_TERM term);

/* Room for size more bytes: where they go, or NULL when there is none. */
static inline uint8_t *
room(writer *w, size_t size)
{
  nif_encoding *out = w->out;
  if (out->capacity - out->size < size) {
    return NULL;
  }
  uint8_t *p = out->data + out->size;
  out->size += size;
  return p;
}

/* A tag and a 32-bit count. */
static int
put_head(writer *w, uint8_t tag, size_t count)
{
  uint8_t *p = count > UINT32_MAX ? NULL : room(w, 5);
  if (p == NULL) {
    return 0;
  }
  p[0] = tag;
  ext_put_u32(p + 1, (uint32_t)count);
  return 1;
}

/* As the emulator encodes it: what is small and must name its node, or an atom beyond Latin-1. */
static int
put_by_emulator(writer *w, ERL_NIF_TERM term)
{
  ErlNifBinary ext;
  w->out->cost += COST_BY_EMULATOR;
  if (!enif_term_to_binary(w->env, term, &ext)) {
    return 0;
  }
  uint8_t *p = room(w, ext.size - 1);
  if (p != NULL) {
    memcpy(p, ext.data + 1, ext.size - 1);
  }
  enif_release_binary(&ext);
  return p != NULL;
}

/* --- local pids: the emulator needs longer for one than for all the rest of a small message --- */

#define PIDS 64
#define PID_EXT_MAX 40

/* What a scheduler has encoded lately.  A local pid is the same word for as long as it means the same
 * process, and its encoding depends on the node's name and its incarnation besides:  the latter
 * changes with the process that runs distribution. */
typedef struct encoded_pid {
  ERL_NIF_TERM pid, node, net_kernel;
  uint8_t size;
  uint8_t ext[PID_EXT_MAX];
} encoded_pid;

static _Thread_local encoded_pid encoded_pids[PIDS];

/* The pid of net_kernel, or 0. */
static ERL_NIF_TERM
net_kernel_pid(ErlNifEnv *env)
{
  /* An atom is the same word in every environment, for ever; 0 until made. */
  static _Atomic ERL_NIF_TERM net_kernel;
  ERL_NIF_TERM name = atomic_load_explicit(&net_kernel, memory_order_relaxed);
  ErlNifPid pid;
  if (name == 0) {
    name = enif_make_atom(env, "net_kernel");
    atomic_store_explicit(&net_kernel, name, memory_order_relaxed);
  }
  return enif_whereis_pid(env, name, &pid) ? pid.pid : 0;
}

static int
put_pid(writer *w, ERL_NIF_TERM term)
{
  ErlNifPid local;
  if (w->out->node == 0 || !enif_get_local_pid(w->env, term, &local)) {
    return put_by_emulator(w, term);
  }
  encoded_pid *known = &encoded_pids[(term >> 4) % PIDS];
  ERL_NIF_TERM net_kernel = net_kernel_pid(w->env);
  if (known->pid == term && known->node == w->out->node && known->net_kernel == net_kernel) {
    uint8_t *p = room(w, known->size);
    if (p != NULL) {
      memcpy(p, known->ext, known->size);
    }
    return p != NULL;
  }
  size_t start = w->out->size;
  if (!put_by_emulator(w, term)) {
    return 0;
  }
  size_t size = w->out->size - start;
  if (size <= PID_EXT_MAX) {
    *known = (encoded_pid){term, w->out->node, net_kernel, (uint8_t)size, {0}};
    memcpy(known->ext, w->out->data + start, size);
  }
  return 1;
}

/* Latin-1 text as the UTF-8 that the newer encoding wants; at most 255 characters. */
static int
put_latin1_atom(writer *w, const char *text, unsigned length)
{
  uint8_t utf8[2 * EXT_ATOM_MAX_CHARS];
  unsigned size = 0;
  for (unsigned i = 0; i < length; i++) {
    uint8_t c = (uint8_t)text[i];
    if (c >= 0x80) {
      utf8[size++] = 0xc0 | c >> 6;
      c = 0x80 | (c & 0x3f);
    }
    utf8[size++] = c;
  }
  unsigned head = size > UINT8_MAX ? 3 : 2;
  uint8_t *p = room(w, head + size);
  if (p == NULL) {
    return 0;
  }
  if (head == 2) {
    p[0] = EXT_SMALL_ATOM_UTF8;
    p[1] = (uint8_t)size;
  } else {
    p[0] = EXT_ATOM_UTF8;
    ext_put_u16(p + 1, (uint16_t)size);
  }
  memcpy(p + head, utf8, size);
  return 1;
}

static int
put_atom(writer *w, ERL_NIF_TERM term)
{
  char text[EXT_ATOM_MAX_CHARS + 1];
  int size = enif_get_atom(w->env, term, text, sizeof(text), ERL_NIF_LATIN1);
  return size > 0 ? put_latin1_atom(w, text, (unsigned)size - 1) : put_by_emulator(w, term);
}

static int
put_big(writer *w, uint64_t magnitude, int negative)
{
  uint8_t *p = room(w, 3 + 8);
  if (p == NULL) {
    return 0;
  }
  uint8_t size = 0;
  for (; magnitude != 0; magnitude >>= 8) {
    p[3 + size++] = (uint8_t)magnitude;
  }
  p[0] = EXT_SMALL_BIG;
  p[1] = size;
  p[2] = (uint8_t)negative;
  w->out->size -= 8 - size;
  return 1;
}

static int
put_integer(writer *w, ERL_NIF_TERM term)
{
  ErlNifSInt64 value;
  ErlNifUInt64 large;
  if (!enif_get_int64(w->env, term, &value)) {
    return enif_get_uint64(w->env, term, &large) && put_big(w, large, 0);
  }
  if (value >= 0 && value <= UINT8_MAX) {
    uint8_t *p = room(w, 2);
    if (p == NULL) {
      return 0;
    }
    p[0] = EXT_SMALL_INTEGER;
    p[1] = (uint8_t)value;
    return 1;
  }
  if (value >= INT32_MIN && value <= INT32_MAX) {
    return put_head(w, EXT_INTEGER, (uint32_t)value);
  }
  return put_big(w, value < 0 ? 0 - (uint64_t)value : (uint64_t)value, value < 0);
}

static int
put_float(writer *w, ERL_NIF_TERM term)
{
  double value;
  uint8_t *p = room(w, 9);
  if (p == NULL || !enif_get_double(w->env, term, &value)) {
    return 0;
  }
  p[0] = EXT_NEW_FLOAT;
  ext_put_double(p + 1, value);
  return 1;
}

/* A bit string that is no binary is declined. */
static int
put_binary(writer *w, ERL_NIF_TERM term)
{
  ErlNifBinary binary;
  if (!enif_inspect_binary(w->env, term, &binary) || !put_head(w, EXT_BINARY, binary.size)) {
    return 0;
  }
  uint8_t *p = room(w, binary.size);
  if (p == NULL) {
    return 0;
  }
  memcpy(p, binary.data, binary.size);
  return 1;
}

static int
put_tuple(writer *w, ERL_NIF_TERM term)
{
  int arity;
  const ERL_NIF_TERM *elements;
  if (!enif_get_tuple(w->env, term, &arity, &elements)) {
    return 0;
  }
  if (arity <= UINT8_MAX) {
    uint8_t *p = room(w, 2);
    if (p == NULL) {
      return 0;
    }
    p[0] = EXT_SMALL_TUPLE;
    p[1] = (uint8_t)arity;
  } else if (!put_head(w, EXT_LARGE_TUPLE, (size_t)arity)) {
    return 0;
  }
  for (int i = 0; i < arity; i++) {
    if (!put_term(w, elements[i])) {
      return 0;
    }
  }
  return 1;
}

/* Proper or improper; the count is filled in when it is known. */
static int
put_list(writer *w, ERL_NIF_TERM term)
{
  ERL_NIF_TERM head;
  uint32_t count = 0;
  size_t at = w->out->size + 1;
  if (!enif_is_empty_list(w->env, term) && !put_head(w, EXT_LIST, 0)) {
    return 0;
  }
  while (enif_get_list_cell(w->env, term, &head, &term)) {
    if (!put_term(w, head)) {
      return 0;
    }
    count++;
  }
  if (count > 0) {
    ext_put_u32(w->out->data + at, count);
  }
  if (!enif_is_empty_list(w->env, term)) {
    return put_term(w, term);
  }
  uint8_t *p = room(w, 1);
  if (p == NULL) {
    return 0;
  }
  *p = EXT_NIL;
  return 1;
}

static int
put_map(writer *w, ERL_NIF_TERM term)
{
  size_t size;
  ErlNifMapIterator iterator;
  ERL_NIF_TERM key;
  ERL_NIF_TERM value;
  if (!enif_get_map_size(w->env, term, &size) || !put_head(w, EXT_MAP, size) ||
      !enif_map_iterator_create(w->env, term, &iterator, ERL_NIF_MAP_ITERATOR_FIRST)) {
    return 0;
  }
  int good = 1;
  while (good && enif_map_iterator_get_pair(w->env, &iterator, &key, &value)) {
    good = put_term(w, key) && put_term(w, value);
    enif_map_iterator_next(w->env, &iterator);
  }
  enif_map_iterator_destroy(w->env, &iterator);
  return good;
}

static int
put_reference(writer *w, ERL_NIF_TERM term)
{
  void *resource = nif_term_resource(w->env, term);
  if (resource != NULL) {
    if (w->out->handle_count == NIF_ENCODE_MAX_HANDLES) {
      return 0;
    }
    enif_keep_resource(resource);
    w->out->handles[w->out->handle_count++] = resource;
  }
  return put_by_emulator(w, term);
}

static int
put_nested(writer *w, ERL_NIF_TERM term, int (*put)(writer *, ERL_NIF_TERM))
{
  if (w->depth == MAX_DEPTH) {
    return 0;
  }
  w->depth++;
  int good = put(w, term);
  w->depth--;
  return good;
}

/* 1, or 0 declined. */
static int
put_term(writer *w, ERL_NIF_TERM term)
{
  w->out->cost += COST_HERE;
  switch (enif_term_type(w->env, term)) {
  case ERL_NIF_TERM_TYPE_ATOM:
    return put_atom(w, term);
  case ERL_NIF_TERM_TYPE_BITSTRING:
    return put_binary(w, term);
  case ERL_NIF_TERM_TYPE_FLOAT:
    return put_float(w, term);
  case ERL_NIF_TERM_TYPE_INTEGER:
    return put_integer(w, term);
  case ERL_NIF_TERM_TYPE_LIST:
    return put_nested(w, term, put_list);
  case ERL_NIF_TERM_TYPE_MAP:
    return put_nested(w, term, put_map);
  case ERL_NIF_TERM_TYPE_TUPLE:
    return put_nested(w, term, put_tuple);
  case ERL_NIF_TERM_TYPE_PID:
    return put_pid(w, term);
  case ERL_NIF_TERM_TYPE_PORT:
    return put_by_emulator(w, term);
  case ERL_NIF_TERM_TYPE_REFERENCE:
    return put_reference(w, term);
  default:
    return 0;
  }
}

int
nif_encode_small(ErlNifEnv *env, ERL_NIF_TERM term, nif_encoding *out)
{
  writer w = {.env = env, .out = out};
  out->size = 0;
  out->cost = 0;
  out->handle_count = 0;
  uint8_t *p = room(&w, 1);
  if (p != NULL) {
    *p = EXT_VERSION;
    if (put_term(&w, term)) {
      return 1;
    }
  }
  while (out->handle_count > 0) {
    handle_release(out->handles[--out->handle_count]);
  }
  return 0;
}
