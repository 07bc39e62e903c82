/* Start, stop and counters of the interpreter, for Erlang. */
#ifndef BEAMLOOP_VM_INTERP_NIF_H
#define BEAMLOOP_VM_INTERP_NIF_H

#include <erl_nif.h>

ERL_NIF_TERM nif_default_python(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]);
ERL_NIF_TERM nif_interp_start(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]);
ERL_NIF_TERM nif_interp_stop(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]);
ERL_NIF_TERM nif_interp_atexit(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]);
ERL_NIF_TERM nif_info(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]);

#endif
