/* Messages from Python to Erlang processes.  erl_nif side. */
#include "send.h"

#include "../term/local_node.h"
#include "../term/nif_terms.h"
#include "atoms_nif.h"

#include <erl_nif.h>
#include <pthread.h>
#include <string.h>

#define PID_EXT_MAX 512 /* a node name has at most 255 characters */

static pthread_key_t env_key;
static pthread_once_t env_once = PTHREAD_ONCE_INIT;
static int env_key_made;

static void
free_env(void *env)
{
  enif_free_env(env);
}

static void
make_env_key(void)
{
  env_key_made = pthread_key_create(&env_key, free_env) == 0;
}

/* Any thread.  The calling thread's own environment, empty; freed when the thread ends. */
static ErlNifEnv *
own_env(void)
{
  pthread_once(&env_once, make_env_key);
  if (!env_key_made) {
    return NULL;
  }
  ErlNifEnv *env = pthread_getspecific(env_key);
  if (env == NULL && (env = enif_alloc_env()) != NULL && pthread_setspecific(env_key, env) != 0) {
    enif_free_env(env);
    env = NULL;
  }
  return env;
}

/* Sends what is in env, which is empty afterwards. */
static int
deliver(ErlNifEnv *env, const ErlNifPid *to, ERL_NIF_TERM message)
{
  enif_send(NULL, to, env, message);
  /* Also after a send that took the terms: env goes on writing where they are until it is cleared. */
  enif_clear_env(env);
  return SEND_OK;
}

/* Through the relay process: {send, To, Message}. */
static int
relay(ErlNifEnv *env, ERL_NIF_TERM to, ERL_NIF_TERM message)
{
  ErlNifPid process;
  if (!enif_whereis_pid(NULL, vm_atoms.beamloop_relay, &process)) {
    enif_clear_env(env);
    return SEND_NO_RELAY;
  }
  return deliver(env, &process, enif_make_tuple3(env, vm_atoms.send, to, message));
}

int
send_to_pid(const uint8_t *pid, size_t pid_size, uint8_t *message, size_t size)
{
  ErlNifEnv *env = own_env();
  if (env == NULL || pid_size >= PID_EXT_MAX) {
    return env == NULL ? SEND_NO_MEMORY : SEND_BAD_TERM;
  }
  uint8_t whole[PID_EXT_MAX + 1];
  whole[0] = 131;
  memcpy(whole + 1, pid, pid_size);
  ERL_NIF_TERM to, term;
  if (enif_binary_to_term(env, whole, pid_size + 1, &to, 0) == 0 || !enif_is_pid(env, to) ||
      !nif_term_build(env, message, size, &term)) {
    enif_clear_env(env);
    return SEND_BAD_TERM;
  }
  ErlNifPid process;
  if (!enif_get_local_pid(env, to, &process)) {
    /* It may be from here all the same, encoded while this node had no name. */
    size_t renamed = local_node_rename(pid, pid_size, whole + 1, PID_EXT_MAX);
    if (renamed == 0 || enif_binary_to_term(env, whole, renamed + 1, &to, 0) == 0 ||
        !enif_get_local_pid(env, to, &process)) {
      return relay(env, to, term);
    }
  }
  return deliver(env, &process, term);
}

int
send_to_name(const char *name, size_t name_size, uint8_t *message, size_t size)
{
  ErlNifEnv *env = own_env();
  if (env == NULL) {
    return SEND_NO_MEMORY;
  }
  /* The emulator's atom functions take Latin-1 only: any other name goes through the codec. */
  uint8_t whole[4 + 1020] = {131, 118, (uint8_t)(name_size >> 8), (uint8_t)name_size};
  ERL_NIF_TERM atom, term;
  if (name_size > 1020) {
    return SEND_NO_NAME;
  }
  memcpy(whole + 4, name, name_size);
  ErlNifPid process;
  int found = enif_binary_to_term(env, whole, name_size + 4, &atom, ERL_NIF_BIN2TERM_SAFE) != 0 &&
              enif_whereis_pid(NULL, atom, &process);
  if (!found || !nif_term_build(env, message, size, &term)) {
    enif_clear_env(env);
    return found ? SEND_BAD_TERM : SEND_NO_NAME;
  }
  return deliver(env, &process, term);
}
