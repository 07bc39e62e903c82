/* Start, stop and counters of the interpreter, for Erlang. */
#ifdef HAVE_CONFIG_H
#include <config.h>
#endif

#include "interp_nif.h"

#include "../term/atoms.h"
#include "atoms_nif.h"
#include "call_nif.h"
#include "descriptors.h"
#include "hosted_nif.h"
#include "object_handle.h"
#include "runtime.h"

#include <stdlib.h>
#include <string.h>

#ifndef BEAMLOOP_PYTHON
#define BEAMLOOP_PYTHON "/usr/bin/python3"
#endif

struct notice {
  ErlNifPid pid;
  ErlNifEnv *env; /* holds ref */
  ERL_NIF_TERM ref;
};

/* Scheduler thread.  A notice for the calling process, or NULL (memory). */
static notice *
notice_new(ErlNifEnv *env, ERL_NIF_TERM ref)
{
  notice *n = malloc(sizeof(*n));
  if (n == NULL || (n->env = enif_alloc_env()) == NULL) {
    free(n);
    return NULL;
  }
  enif_self(env, &n->pid);
  n->ref = enif_make_copy(n->env, ref);
  return n;
}

static ERL_NIF_TERM
make_text(ErlNifEnv *env, const char *text)
{
  ERL_NIF_TERM term;
  size_t size = strlen(text);
  unsigned char *data = enif_make_new_binary(env, size, &term);
  if (data != NULL) {
    memcpy(data, text, size);
  }
  return term;
}

void
notice_send(notice *n, const char *error)
{
  ERL_NIF_TERM answer = vm_atoms.ok;
  if (error != NULL) {
    answer = enif_make_tuple2(n->env, vm_atoms.error, make_text(n->env, error));
  }
  enif_send(NULL, &n->pid, n->env, enif_make_tuple3(n->env, vm_atoms.beamloop, n->ref, answer));
  enif_free_env(n->env);
  free(n);
}

/* Scheduler thread.  A malloc'ed string of a binary without null bytes, or NULL. */
static char *
string_of(ErlNifEnv *env, ERL_NIF_TERM term)
{
  ErlNifBinary binary;
  if (!enif_inspect_binary(env, term, &binary) || memchr(binary.data, 0, binary.size) != NULL) {
    return NULL;
  }
  char *string = malloc(binary.size + 1);
  if (string != NULL) {
    memcpy(string, binary.data, binary.size);
    string[binary.size] = '\0';
  }
  return string;
}

ERL_NIF_TERM
nif_default_python(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{ /* (): the interpreter that the library was configured for, a binary */
  (void)argc;
  (void)argv;
  return make_text(env, BEAMLOOP_PYTHON);
}

ERL_NIF_TERM
nif_interp_start(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{ /* (Ref, Executable, Packages, MaxWorkers, MaxQueued, IdleMs, MaxNewAtoms):
   * {beamloop, Ref, _} follows */
  runtime_config config = {0};
  ErlNifUInt64 workers, queued, atoms;
  ErlNifSInt64 idle;
  (void)argc;
  if (!enif_is_ref(env, argv[0]) || !enif_get_uint64(env, argv[3], &workers) || workers == 0 ||
      !enif_get_uint64(env, argv[4], &queued) || !enif_get_int64(env, argv[5], &idle) || idle < 0 ||
      !enif_get_uint64(env, argv[6], &atoms)) {
    return enif_make_badarg(env);
  }
  config.executable = string_of(env, argv[1]);
  config.packages = string_of(env, argv[2]);
  config.limits = (pool_limits){(size_t)workers, (size_t)queued, idle};
  notice *n =
      config.executable == NULL || config.packages == NULL ? NULL : notice_new(env, argv[0]);
  if (n == NULL) {
    free(config.executable);
    free(config.packages);
    return enif_make_badarg(env);
  }
  atoms_set_limit((size_t)atoms);
  runtime_start(&config, n);
  return vm_atoms.ok;
}

ERL_NIF_TERM
nif_interp_stop(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{ /* (Ref, Milliseconds): {beamloop, Ref, _} follows within about that time */
  ErlNifSInt64 milliseconds;
  (void)argc;
  if (!enif_is_ref(env, argv[0]) || !enif_get_int64(env, argv[1], &milliseconds) ||
      milliseconds < 0) {
    return enif_make_badarg(env);
  }
  notice *n = notice_new(env, argv[0]);
  if (n == NULL) {
    return enif_make_badarg(env);
  }
  runtime_stop(milliseconds, n);
  return vm_atoms.ok;
}

ERL_NIF_TERM
nif_interp_atexit(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{ /* (Ref): {beamloop, Ref, ok} follows when the functions have run */
  (void)argc;
  notice *n = enif_is_ref(env, argv[0]) ? notice_new(env, argv[0]) : NULL;
  if (n == NULL) {
    return enif_make_badarg(env);
  }
  runtime_run_atexit(n);
  return vm_atoms.ok;
}

static const char *
phase_name(enum runtime_phase phase)
{
  switch (phase) {
  case RUNTIME_STARTING:
    return "starting";
  case RUNTIME_RUNNING:
    return "running";
  case RUNTIME_STOPPING:
    return "stopping";
  case RUNTIME_FAILED:
    return "failed";
  default:
    return "stopped";
  }
}

ERL_NIF_TERM
nif_info(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{ /* (): a map of counters */
  (void)argc;
  (void)argv;
  pool_stats stats = {0, 0, 0, 0};
  if (runtime_pool() != NULL) {
    stats = pool_get_stats(runtime_pool());
  }
  const struct {
    const char *key;
    size_t value;
  } counters[] = {
      {"workers", stats.workers},
      {"idle_workers", stats.idle},
      {"queued", stats.queued},
      {"abandoned_workers", stats.abandoned},
      {"calls", call_live_count()},
      {"objects", object_handle_count()},
      {"pending_decrefs", object_drops_pending()},
      {"loops", hosted_live_count()},
      {"descriptors", descriptors_count()},
      {"new_atoms", atoms_made()},
  };
  ERL_NIF_TERM map = enif_make_new_map(env);
  enif_make_map_put(env, map, enif_make_atom(env, "state"),
                    enif_make_atom(env, phase_name(runtime_get_phase())), &map);
  for (size_t i = 0; i < sizeof(counters) / sizeof(counters[0]); i++) {
    enif_make_map_put(env, map, enif_make_atom(env, counters[i].key),
                      enif_make_uint64(env, counters[i].value), &map);
  }
  return map;
}
