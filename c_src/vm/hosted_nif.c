/* Event loops that Erlang starts: the handle and its NIFs.  erl_nif side. */
#include "hosted_nif.h"

#include "atoms_nif.h"
#include "hosted.h"
#include "inbox.h"
#include "runtime.h"
#include "thread.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

typedef struct hosted_loop {
  ErlNifPid owner;
  ErlNifMonitor monitor;
  ErlNifEnv *env; /* the loop's thread; holds ref */
  ErlNifEnv
      *message; /* the loop's thread; empty: the owner is told whether there is memory or not */
  ERL_NIF_TERM ref;
  pthread_mutex_t lock;
  inbox *in; /* guarded by lock; counted; NULL before the loop is ready */
  int stop;  /* guarded by lock: asked to stop, perhaps before it was ready */
} hosted_loop;

static ErlNifResourceType *loop_type;
static atomic_size_t live_loops;

static void
loop_destroyed(ErlNifEnv *env, void *object)
{
  (void)env;
  hosted_loop *loop = object;
  if (loop->in != NULL) {
    inbox_decref(loop->in);
  }
  if (loop->env != NULL) {
    enif_free_env(loop->env);
  }
  if (loop->message != NULL) {
    enif_free_env(loop->message);
  }
  pthread_mutex_destroy(&loop->lock);
}

/* Any thread; takes the lock, then the inbox's. */
static void
stop_loop(hosted_loop *loop)
{
  pthread_mutex_lock(&loop->lock);
  loop->stop = 1;
  if (loop->in != NULL) {
    inbox_stop(loop->in);
  }
  pthread_mutex_unlock(&loop->lock);
}

/* Scheduler thread: the owner died. */
static void
owner_down(ErlNifEnv *env, void *object, ErlNifPid *pid, ErlNifMonitor *monitor)
{
  (void)env;
  (void)pid;
  (void)monitor;
  stop_loop(object);
}

int
hosted_nif_load(ErlNifEnv *env, ErlNifResourceFlags flags)
{
  ErlNifResourceTypeInit init = {.dtor = loop_destroyed, .down = owner_down};
  loop_type = enif_open_resource_type_x(env, "beamloop_loop", &init, flags, NULL);
  return loop_type == NULL ? -1 : 0;
}

size_t
hosted_live_count(void)
{
  return atomic_load(&live_loops);
}

/* The loop's thread.  {beamloop, Ref, Answer} to the owner. */
static void
tell_owner(hosted_loop *loop, ERL_NIF_TERM (*make_answer)(ErlNifEnv *env, const void *arg),
           const void *arg)
{
  ErlNifEnv *env = loop->message;
  ERL_NIF_TERM ref = enif_make_copy(env, loop->ref);
  enif_send(NULL, &loop->owner, env,
            enif_make_tuple3(env, vm_atoms.beamloop, ref, make_answer(env, arg)));
  enif_clear_env(env);
}

static ERL_NIF_TERM
answer_handle(ErlNifEnv *env, const void *arg)
{
  return enif_make_tuple2(env, vm_atoms.ok, enif_make_resource(env, (void *)(uintptr_t)arg));
}

static ERL_NIF_TERM
answer_error(ErlNifEnv *env, const void *arg)
{
  ERL_NIF_TERM text;
  size_t size = strlen(arg);
  memcpy(enif_make_new_binary(env, size, &text), arg, size);
  return enif_make_tuple2(env, vm_atoms.error, text);
}

static ERL_NIF_TERM
answer_stopped(ErlNifEnv *env, const void *arg)
{
  (void)env;
  (void)arg;
  return vm_atoms.stopped;
}

/* The loop's thread, with the GIL. */
static void
loop_ready(void *arg, inbox *in)
{
  hosted_loop *loop = arg;
  pthread_mutex_lock(&loop->lock);
  loop->in = in;
  if (loop->stop) {
    inbox_stop(in);
  }
  pthread_mutex_unlock(&loop->lock);
  tell_owner(loop, answer_handle, loop);
}

static void *
loop_thread(void *arg)
{
  hosted_loop *loop = arg;
  char error[RUNTIME_ERROR_SIZE];
  thread_set_name("beamloop_loop");
  int status = hosted_run(loop_ready, loop, error, sizeof(error));
  atomic_fetch_sub(&live_loops, 1);
  if (status == 0) {
    tell_owner(loop, answer_stopped, NULL);
  } else {
    tell_owner(loop, answer_error, error);
  }
  enif_release_resource(loop);
  return NULL;
}

struct inbox *
hosted_inbox(ErlNifEnv *env, ERL_NIF_TERM term, int *bad)
{
  void *object;
  *bad = 0;
  if (enif_is_identical(term, vm_atoms.default_)) {
    return inbox_default();
  }
  if (!enif_get_resource(env, term, loop_type, &object)) {
    *bad = 1;
    return NULL;
  }
  hosted_loop *loop = object;
  pthread_mutex_lock(&loop->lock);
  inbox *in = loop->in;
  if (in != NULL) {
    inbox_incref(in);
  }
  pthread_mutex_unlock(&loop->lock);
  return in;
}

/* Scheduler thread.  A loop without its thread, or NULL (memory). */
static hosted_loop *
loop_new(ErlNifEnv *env, ERL_NIF_TERM ref)
{
  hosted_loop *loop = enif_alloc_resource(loop_type, sizeof(*loop));
  if (loop == NULL) {
    return NULL;
  }
  memset(loop, 0, sizeof(*loop));
  pthread_mutex_init(&loop->lock, NULL);
  enif_self(env, &loop->owner);
  loop->env = enif_alloc_env();
  loop->message = enif_alloc_env();
  if (loop->env == NULL || loop->message == NULL ||
      enif_monitor_process(env, loop, &loop->owner, &loop->monitor) != 0) {
    enif_release_resource(loop);
    return NULL;
  }
  loop->ref = enif_make_copy(loop->env, ref);
  return loop;
}

ERL_NIF_TERM
nif_loop_start(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{ /* (Ref): {beamloop, Ref, {ok, Loop} | {error, Text}} follows, at the loop's end {beamloop, Ref, stopped} */
  (void)argc;
  if (!enif_is_ref(env, argv[0])) {
    return enif_make_badarg(env);
  }
  if (runtime_get_phase() != RUNTIME_RUNNING) {
    return enif_make_tuple2(env, vm_atoms.error, vm_atoms.not_running);
  }
  hosted_loop *loop = loop_new(env, argv[0]);
  if (loop == NULL) {
    return enif_make_tuple2(env, vm_atoms.error, vm_atoms.enomem);
  }
  atomic_fetch_add(&live_loops, 1);
  if (thread_spawn(loop_thread, loop) != 0) {
    atomic_fetch_sub(&live_loops, 1);
    enif_release_resource(loop);
    return enif_make_tuple2(env, vm_atoms.error, vm_atoms.enomem);
  }
  return vm_atoms.ok;
}

ERL_NIF_TERM
nif_loop_stop(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{ /* (Loop): ok */
  void *object;
  (void)argc;
  if (!enif_get_resource(env, argv[0], loop_type, &object)) {
    return enif_make_badarg(env);
  }
  stop_loop(object);
  return vm_atoms.ok;
}
