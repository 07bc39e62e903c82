/* Terms and their external format on the erl_nif side: what the parts of the NIF share. */
#ifndef BEAMLOOP_NIF_TERMS_H
#define BEAMLOOP_NIF_TERMS_H

#include <erl_nif.h>
#include <stddef.h>
#include <stdint.h>

/* Any thread that may use env.  The term of a whole encoding (version byte included, nothing behind
 * it).  1, or 0 when the bytes are no term: *term is untouched then. */
int nif_term_from_ext(ErlNifEnv *env, const uint8_t *data, size_t size, ERL_NIF_TERM *term);

/* As nif_term_from_ext, on a thread that is no scheduler: only this may decode what Python encoded.
 * The bytes change meanwhile. */
int nif_term_build(ErlNifEnv *env, uint8_t *data, size_t size, ERL_NIF_TERM *term);

/* As nif_term_from_ext, for an encoding without its version byte of at most NIF_TERM_BARE_MAX bytes
 * (a pid, port or reference). */
#define NIF_TERM_BARE_MAX 2048
int nif_term_from_bare(ErlNifEnv *env, const uint8_t *data, size_t size, ERL_NIF_TERM *term);

/* Any thread that may use env.  The live resource of a registered type (nif_encode_register_type)
 * that this term refers to, borrowed from the term; NULL when it is none. */
void *nif_term_resource(ErlNifEnv *env, ERL_NIF_TERM term);

#endif
