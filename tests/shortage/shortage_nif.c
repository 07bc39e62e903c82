/* shortage.h for Erlang. */
#include "shortage.h"

#include <erl_nif.h>

static ERL_NIF_TERM
nif_install(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{ /* (): how many addresses were replaced */
  (void)argc;
  (void)argv;
  return enif_make_int(env, shortage_install());
}

static ERL_NIF_TERM
nif_arm(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{ /* (Nth, 0 | 1, Kinds) */
  long nth;
  int lasting;
  unsigned kinds;
  (void)argc;
  if (!enif_get_long(env, argv[0], &nth) || !enif_get_int(env, argv[1], &lasting) ||
      !enif_get_uint(env, argv[2], &kinds)) {
    return enif_make_badarg(env);
  }
  shortage_arm(nth, lasting, kinds, 0);
  return enif_make_atom(env, "ok");
}

static ERL_NIF_TERM
nif_disarm(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{ /* (): {Counted, Failed, Name} */
  (void)argc;
  (void)argv;
  long counted = shortage_disarm();
  return enif_make_tuple3(env, enif_make_long(env, counted), enif_make_long(env, shortage_failed()),
                          enif_make_atom(env, shortage_name()));
}

static ERL_NIF_TERM
nif_held(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{ /* () */
  (void)argc;
  (void)argv;
  return enif_make_long(env, shortage_held());
}

static ErlNifFunc functions[] = {{"install", 0, nif_install, 0},
                                 {"arm", 3, nif_arm, 0},
                                 {"disarm", 0, nif_disarm, 0},
                                 {"held", 0, nif_held, 0}};

ERL_NIF_INIT(shortage, functions, NULL, NULL, NULL, NULL)
