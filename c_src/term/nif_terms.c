/* The emulator's own conversions, wrapped, and the resource types whose terms are live handles. */
#include "nif_terms.h"

#include <stdatomic.h>

#include "atoms.h"
#include "nif_encode.h"
#include "term_ext.h"

#define MAX_TYPES 8

/* Written while the library loads, before anything can use it, and constant afterwards. */
static ErlNifResourceType *types[MAX_TYPES];
static unsigned type_count;

int
nif_encode_register_type(ErlNifResourceType *type)
{
  for (unsigned i = 0; i < type_count; i++) {
    if (types[i] == type) {
      return 0;
    }
  }
  if (type_count == MAX_TYPES) {
    return -1;
  }
  types[type_count++] = type;
  return 0;
}

void *
nif_term_resource(ErlNifEnv *env, ERL_NIF_TERM term)
{
  void *resource;
  for (unsigned i = 0; i < type_count; i++) {
    if (enif_get_resource(env, term, types[i], &resource)) {
      return resource;
    }
  }
  return NULL;
}

int
nif_term_from_ext(ErlNifEnv *env, const uint8_t *data, size_t size, ERL_NIF_TERM *term)
{
  ERL_NIF_TERM made;
  if (enif_binary_to_term(env, data, size, &made, 0) != size) {
    return 0;
  }
  *term = made;
  return 1;
}

int
nif_term_from_bare(ErlNifEnv *env, const uint8_t *data, size_t size, ERL_NIF_TERM *term)
{
  uint8_t whole[1 + NIF_TERM_BARE_MAX];
  if (size > NIF_TERM_BARE_MAX) {
    return 0;
  }
  whole[0] = EXT_VERSION;
  memcpy(whole + 1, data, size);
  return nif_term_from_ext(env, whole, size + 1, term);
}

static atomic_size_t atoms_limit = SIZE_MAX;
static atomic_size_t atoms_count;

void
atoms_set_limit(size_t limit)
{
  atomic_store(&atoms_limit, limit);
}

size_t
atoms_made(void)
{
  return atomic_load(&atoms_count);
}

/* The decoder, as the functions for atoms know only Latin-1 before OTP 26. */
static int
decode_atom(const char *utf8, size_t size, ErlNifBinaryToTerm flags)
{
  uint8_t ext[4 + EXT_ATOM_MAX_BYTES];
  ERL_NIF_TERM atom;
  if (size > EXT_ATOM_MAX_BYTES) {
    return 0;
  }
  ErlNifEnv *env = enif_alloc_env();
  if (env == NULL) {
    return 0;
  }
  ext[0] = EXT_VERSION;
  ext[1] = EXT_ATOM_UTF8;
  ext_put_u16(ext + 2, (uint16_t)size);
  memcpy(ext + 4, utf8, size);
  int good = enif_binary_to_term(env, ext, size + 4, &atom, flags) != 0;
  enif_free_env(env);
  return good;
}

int
atoms_exist(const char *utf8, size_t size)
{
  return decode_atom(utf8, size, ERL_NIF_BIN2TERM_SAFE);
}

int
atoms_make(const char *utf8, size_t size)
{
  if (atoms_exist(utf8, size)) {
    return 0;
  }
  /* Counted first, so that threads together do not make more. */
  if (atomic_fetch_add(&atoms_count, 1) < atomic_load(&atoms_limit) && decode_atom(utf8, size, 0)) {
    return 0;
  }
  atomic_fetch_sub(&atoms_count, 1);
  return -1;
}
