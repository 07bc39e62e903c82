/* Event loops that Erlang starts: the handle and its NIFs. */
#ifndef BEAMLOOP_VM_HOSTED_NIF_H
#define BEAMLOOP_VM_HOSTED_NIF_H

#include <erl_nif.h>

struct inbox;

/* Scheduler thread, at load or upgrade.  0 or -1. */
int hosted_nif_load(ErlNifEnv *env, ErlNifResourceFlags flags);

/* Any thread.  Loop threads that run. */
size_t hosted_live_count(void);

/* Scheduler thread.  The inbox that a loop handle or the atom `default` names, counted for the
 * caller; NULL with *bad == 0 when that loop does not run, with *bad == 1 for any other term. */
struct inbox *hosted_inbox(ErlNifEnv *env, ERL_NIF_TERM term, int *bad);

ERL_NIF_TERM nif_loop_start(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]);
ERL_NIF_TERM nif_loop_stop(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]);

#endif
