/* The node's present name, read from a reference that is made and encoded for it. */
#include <erl_nif.h>
#include <stdatomic.h>
#include <string.h>

#include "local_node.h"
#include "term_ext.h"

/* Where the parts of an encoded pid, port or reference lie. */
typedef struct layout {
  size_t node; /* the node's atom, and how many bytes it takes */
  size_t node_size;
  size_t creation; /* four bytes */
} layout;

/* 1, or 0 when ext is none of these in its newest form. */
static int
find_layout(const uint8_t *ext, size_t size, layout *where)
{
  if (size < 8) {
    return 0;
  }
  where->node = ext[0] == EXT_NEWER_REFERENCE ? 3 : 1;
  const uint8_t *atom = ext + where->node;
  int small = atom[0] == EXT_SMALL_ATOM_UTF8 || atom[0] == EXT_SMALL_ATOM;
  where->node_size = small ? 2 + (size_t)atom[1] : 3 + (size_t)ext_get_u16(atom + 1);
  size_t rest = where->node + where->node_size;
  if (size < rest + 8) {
    return 0;
  }
  switch (ext[0]) {
  case EXT_NEW_PID:
  case EXT_NEW_PORT:
  case EXT_V4_PORT:
    where->creation = size - 4;
    return 1;
  case EXT_NEWER_REFERENCE:
    where->creation = rest;
    return 1;
  default:
    return 0;
  }
}

static int
is_nameless(const uint8_t *ext, const layout *where)
{
  static const char nameless[] = "nonode@nohost";
  size_t length = sizeof(nameless) - 1;
  size_t end = where->node + where->node_size;
  return (where->node_size == 2 + length || where->node_size == 3 + length) &&
         memcmp(ext + end - length, nameless, length) == 0 &&
         ext_get_u32(ext + where->creation) == 0;
}

/* Distribution runs or is about to: a process of this name is there. */
static int
is_distributed(void)
{
  /* An atom is the same word in every environment, for ever; 0 until made. */
  static _Atomic ERL_NIF_TERM net_kernel;
  ERL_NIF_TERM name = atomic_load_explicit(&net_kernel, memory_order_relaxed);
  ErlNifPid pid;
  if (name == 0) {
    ErlNifEnv *env = enif_alloc_env();
    if (env == NULL) {
      return 0;
    }
    name = enif_make_atom(env, "net_kernel");
    enif_free_env(env);
    atomic_store_explicit(&net_kernel, name, memory_order_relaxed);
  }
  return enif_whereis_pid(NULL, name, &pid);
}

/* The encoding of a new reference, version byte included, in a binary to release; 0 or -1. */
static int
encode_reference(ErlNifBinary *out)
{
  ErlNifEnv *env = enif_alloc_env();
  if (env == NULL) {
    return -1;
  }
  int good = enif_term_to_binary(env, enif_make_ref(env), out);
  enif_free_env(env);
  return good ? 0 : -1;
}

/* ext with the node and the creation of sample; the size, or 0. */
static size_t
rename_after(const uint8_t *ext, size_t size, const layout *where, const uint8_t *sample,
             size_t sample_size, uint8_t *out, size_t capacity)
{
  layout now;
  if (!find_layout(sample, sample_size, &now) || is_nameless(sample, &now)) {
    return 0;
  }
  size_t rest = where->node + where->node_size;
  size_t whole = size - where->node_size + now.node_size;
  if (whole > capacity) {
    return 0;
  }
  memcpy(out, ext, where->node);
  memcpy(out + where->node, sample + now.node, now.node_size);
  memcpy(out + where->node + now.node_size, ext + rest, size - rest);
  memcpy(out + where->creation - where->node_size + now.node_size, sample + now.creation, 4);
  return whole;
}

size_t
local_node_rename(const uint8_t *ext, size_t size, uint8_t *out, size_t capacity)
{
  layout where;
  ErlNifBinary sample;
  if (!find_layout(ext, size, &where) || !is_nameless(ext, &where) || !is_distributed() ||
      encode_reference(&sample) != 0) {
    return 0;
  }
  size_t renamed = rename_after(ext, size, &where, sample.data + 1, sample.size - 1, out, capacity);
  enif_release_binary(&sample);
  return renamed;
}
