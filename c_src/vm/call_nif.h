/* Calls on the Erlang side. */
#ifndef BEAMLOOP_VM_CALL_NIF_H
#define BEAMLOOP_VM_CALL_NIF_H

#include <erl_nif.h>

#include "call.h"

/* Scheduler thread, at load or upgrade.  0 or -1. */
int call_nif_load(ErlNifEnv *env, ErlNifResourceFlags flags);

/* Any thread.  Call resources that exist. */
size_t call_live_count(void);

ERL_NIF_TERM nif_call_submit(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]);
ERL_NIF_TERM nif_call_cancel(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]);
ERL_NIF_TERM nif_call_take(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]);
ERL_NIF_TERM nif_call_taken(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]);

#endif
