/* Opaque Python objects on the Erlang side. */
#ifndef BEAMLOOP_VM_OBJECT_NIF_H
#define BEAMLOOP_VM_OBJECT_NIF_H

#include <erl_nif.h>

/* Scheduler thread, at load or upgrade.  0 or -1. */
int object_nif_load(ErlNifEnv *env, ErlNifResourceFlags flags);

#endif
