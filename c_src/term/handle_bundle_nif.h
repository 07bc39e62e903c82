/* The Erlang face of bundles of handles. */
#ifndef BEAMLOOP_HANDLE_BUNDLE_NIF_H
#define BEAMLOOP_HANDLE_BUNDLE_NIF_H

#include <erl_nif.h>

/* While the library loads: 0 or -1. */
int handle_bundle_nif_load(ErlNifEnv *env, ErlNifResourceFlags flags);

/* The resource behind a live handle or a bundle of them, borrowed from the term; or NULL. */
void *handle_or_bundle(ErlNifEnv *env, ERL_NIF_TERM term);

/* nif_handle_bundle/1 (References, at most HANDLE_BUNDLE_MAX): a list of one bundle, which keeps those of
 * them that are live handles, or an empty one when none is. */
ERL_NIF_TERM nif_handle_bundle(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]);

#endif
