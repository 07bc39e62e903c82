/* Small plain terms to external term format on a scheduler thread (erl_nif side, no Python). */
#ifndef BEAMLOOP_NIF_ENCODE_H
#define BEAMLOOP_NIF_ENCODE_H

#include <erl_nif.h>
#include <stddef.h>
#include <stdint.h>

#define NIF_ENCODE_MAX_HANDLES 8

typedef struct nif_encoding {
  ERL_NIF_TERM node; /* what node() gives now, by which encoded pids are remembered; 0: none are */
  uint8_t *data;     /* the caller's scratch, at most 4 KB used */
  size_t capacity;
  size_t size;   /* written, version byte included */
  unsigned cost; /* about how many nanoseconds it took; also of a term that was declined */
  unsigned handle_count;
  void *handles
      [NIF_ENCODE_MAX_HANDLES]; /* resources met in the term, each kept once for the caller */
} nif_encoding;

/* Scheduler thread.  1 encoded; 0 declined (too large, too deep, too many handles, or a kind of term
 * that only the emulator can encode in bulk): nothing is kept then and the Erlang wrapper sends
 * term_to_iovec instead.  Bounded: O(capacity) work. */
int nif_encode_small(ErlNifEnv *env, ERL_NIF_TERM term, nif_encoding *out);

/* While the library loads, before anything can be encoded: terms of resources of this type are live
 * handles.  Registering again does nothing.  0, or -1 when there are too many. */
int nif_encode_register_type(ErlNifResourceType *type);

#endif
