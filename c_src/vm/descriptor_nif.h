/* Descriptors on their way to Python, of which Erlang can tell whether they have got there. */
#ifndef BEAMLOOP_VM_DESCRIPTOR_NIF_H
#define BEAMLOOP_VM_DESCRIPTOR_NIF_H

#include <erl_nif.h>

/* Scheduler thread, at load or upgrade.  0 or -1. */
int descriptor_nif_load(ErlNifEnv *env, ErlNifResourceFlags flags);

ERL_NIF_TERM nif_descriptor_offer(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]);
ERL_NIF_TERM nif_descriptor_withdraw(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]);

#endif
