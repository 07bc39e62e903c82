/* Calls on the Erlang side: the resource, its answer, its cancellation.  erl_nif side. */
#include "call_nif.h"

#include "../term/nif_terms.h"
#include "atoms_nif.h"
#include "hosted_nif.h"
#include "inbox.h"
#include "runtime.h"

#include <stdlib.h>
#include <string.h>

typedef struct call_resource {
  vm_call call; /* first */
  ErlNifPid caller;
  ErlNifMonitor monitor; /* of the caller; set before the call is submitted */
  atomic_int taken;      /* the caller took the answer out of its mailbox, or gave it up */
  ErlNifEnv *reply_env;  /* of the answer, made once; holds ref; who moved state away owns it */
  ERL_NIF_TERM ref;
  ErlNifEnv *payload_env; /* the thread that runs the call, once it is submitted */
  ERL_NIF_TERM payload;   /* iodata in payload_env, beside the live handles that it names */
} call_resource;

static ErlNifResourceType *call_type;
static atomic_size_t live_calls;

/* ---- the resource ---- */

static void
call_destroyed(ErlNifEnv *env, void *object)
{
  (void)env;
  call_resource *r = object;
  if (r->reply_env != NULL) {
    enif_free_env(r->reply_env);
  }
  if (r->payload_env != NULL) {
    enif_free_env(r->payload_env);
  }
  if (r->call.inbox != NULL) {
    inbox_decref(r->call.inbox);
  }
  atomic_fetch_sub(&live_calls, 1);
}

/* Scheduler thread: the caller died. */
static void
caller_down(ErlNifEnv *env, void *object, ErlNifPid *pid, ErlNifMonitor *monitor)
{
  (void)env;
  (void)pid;
  (void)monitor;
  call_cancel(&((call_resource *)object)->call);
}

int
call_nif_load(ErlNifEnv *env, ErlNifResourceFlags flags)
{
  ErlNifResourceTypeInit init = {.dtor = call_destroyed, .down = caller_down};
  call_type = enif_open_resource_type_x(env, "beamloop_call", &init, flags, NULL);
  return call_type == NULL ? -1 : 0;
}

size_t
call_live_count(void)
{
  return atomic_load(&live_calls);
}

void
call_keep(vm_call *call)
{
  enif_keep_resource(call);
}

void
call_release(vm_call *call)
{
  enif_release_resource(call);
}

/* ---- the payload ---- */

int
call_payload(vm_call *call, const uint8_t **data, size_t *size)
{
  call_resource *r = (call_resource *)call;
  ErlNifBinary flat;
  if (r->payload_env == NULL || !enif_inspect_iolist_as_binary(r->payload_env, r->payload, &flat)) {
    return -1;
  }
  *data = flat.data;
  *size = flat.size;
  return 0;
}

void
call_forget_payload(vm_call *call)
{
  call_resource *r = (call_resource *)call;
  if (r->payload_env != NULL) {
    enif_free_env(r->payload_env);
    r->payload_env = NULL;
  }
}

/* ---- the answer ---- */

/* Any thread.  The right to end the call: 1 once, 0 ever after. */
static int
claim(vm_call *call, int state)
{
  int pending = CALL_PENDING;
  return atomic_compare_exchange_strong(&call->state, &pending, state);
}

/* The claimer.  Sends {beamloop, Ref, Answer} to a caller that waits for it. */
static int
send_answer(call_resource *r, ERL_NIF_TERM answer)
{
  if (r->call.detached) {
    return 1;
  }
  enif_demonitor_process(NULL, r, &r->monitor);
  ERL_NIF_TERM message = enif_make_tuple3(r->reply_env, vm_atoms.beamloop, r->ref, answer);
  enif_send(NULL, &r->caller, r->reply_env, message);
  return 1;
}

static ERL_NIF_TERM
error_tuple(ErlNifEnv *env, ERL_NIF_TERM reason)
{
  return enif_make_tuple2(env, vm_atoms.error, reason);
}

int
call_reply_value(vm_call *call, uint8_t *ext, size_t size)
{
  call_resource *r = (call_resource *)call;
  if (!claim(call, CALL_REPLIED)) {
    return 0;
  }
  ERL_NIF_TERM value;
  if (!nif_term_build(r->reply_env, ext, size, &value)) {
    return send_answer(r, error_tuple(r->reply_env, vm_atoms.bad_result));
  }
  return send_answer(r, enif_make_tuple2(r->reply_env, vm_atoms.ok, value));
}

int
call_reply_done(vm_call *call)
{
  return claim(call, CALL_REPLIED) ? send_answer((call_resource *)call, vm_atoms.ok) : 0;
}

static ERL_NIF_TERM
make_binary(ErlNifEnv *env, call_text text)
{
  ERL_NIF_TERM term;
  unsigned char *data = enif_make_new_binary(env, text.size, &term);
  if (data != NULL && text.size > 0) {
    memcpy(data, text.data, text.size);
  }
  return term;
}

/* An exception's name: an atom where one exists, so that Python cannot fill the atom table. */
static ERL_NIF_TERM
make_name(ErlNifEnv *env, call_text name)
{
  ERL_NIF_TERM atom;
  for (size_t i = 0; i < name.size; i++) {
    if ((unsigned char)name.data[i] > 127) {
      return make_binary(env, name);
    }
  }
  if (name.size < 256 &&
      enif_make_existing_atom_len(env, name.data, name.size, &atom, ERL_NIF_LATIN1)) {
    return atom;
  }
  return make_binary(env, name);
}

int
call_reply_error(vm_call *call, const call_error *error)
{
  call_resource *r = (call_resource *)call;
  if (!claim(call, CALL_REPLIED)) {
    return 0;
  }
  ErlNifEnv *env = r->reply_env;
  ERL_NIF_TERM lines = enif_make_list(env, 0);
  for (size_t i = error->traceback_count; i > 0; i--) {
    lines = enif_make_list_cell(env, make_binary(env, error->traceback[i - 1]), lines);
  }
  ERL_NIF_TERM reason =
      enif_make_tuple3(env, make_name(env, error->name), make_binary(env, error->message), lines);
  return send_answer(r, error_tuple(env, reason));
}

int
call_reply_reason(vm_call *call, const char *reason)
{
  call_resource *r = (call_resource *)call;
  if (!claim(call, CALL_REPLIED)) {
    return 0;
  }
  return send_answer(r, error_tuple(r->reply_env, enif_make_atom(r->reply_env, reason)));
}

int
call_cancel(vm_call *call)
{
  if (!claim(call, CALL_CANCELLED)) {
    return 0;
  }
  if (call->inbox != NULL) {
    inbox_cancel(call->inbox, call);
  } else if (pool_remove(runtime_pool(), &call->job)) {
    call_release(call);
  } else {
    call_keep(call);
    call->interruption.run = call_interrupt;
    service_post(&call->interruption);
  }
  return 1;
}

/* ---- NIFs ---- */

/* A list of one binary is that binary: it then needs no flattening. */
static ERL_NIF_TERM
single(ErlNifEnv *env, ERL_NIF_TERM iodata)
{
  ERL_NIF_TERM head, tail;
  if (enif_get_list_cell(env, iodata, &head, &tail) && enif_is_empty_list(env, tail)) {
    return head;
  }
  return iodata;
}

/* Scheduler thread.  A new call of the calling process; NULL when memory is short. */
static call_resource *
call_new(ErlNifEnv *env, ERL_NIF_TERM ref, ERL_NIF_TERM payload, ERL_NIF_TERM handles, int detached)
{
  call_resource *r = enif_alloc_resource(call_type, sizeof(*r));
  if (r == NULL) {
    return NULL;
  }
  memset(r, 0, sizeof(*r));
  atomic_fetch_add(&live_calls, 1);
  enif_self(env, &r->caller);
  r->reply_env = enif_alloc_env();
  r->payload_env = enif_alloc_env();
  /* Nobody waits for a detached call, which outlives who started it. */
  r->call.detached = detached;
  if (r->reply_env == NULL || r->payload_env == NULL ||
      (!detached && enif_monitor_process(env, r, &r->caller, &r->monitor) != 0)) {
    enif_release_resource(r);
    return NULL;
  }
  r->ref = enif_make_copy(r->reply_env, ref);
  r->payload = enif_make_copy(r->payload_env, single(env, payload));
  enif_make_copy(r->payload_env, handles);
  r->call.job.run = call_run;
  r->call.job.drop = call_drop;
  return r;
}

/* Scheduler thread.  Hands the call to a worker or to its loop: an atom. */
static ERL_NIF_TERM
submit(call_resource *r)
{
  if (runtime_get_phase() != RUNTIME_RUNNING) {
    return vm_atoms.not_running;
  }
  call_keep(&r->call);
  int result;
  if (r->call.inbox != NULL) {
    result = inbox_submit(r->call.inbox, &r->call) == 0 ? POOL_OK : POOL_STOPPED;
  } else {
    result = pool_submit(runtime_pool(), &r->call.job, 0);
  }
  if (result == POOL_OK) {
    return vm_atoms.ok;
  }
  call_release(&r->call);
  return result == POOL_OVERLOADED ? vm_atoms.overloaded : vm_atoms.not_running;
}

/* Scheduler thread.  Makes and submits a call; takes over the count of in. */
static ERL_NIF_TERM
start_call(ErlNifEnv *env, const ERL_NIF_TERM argv[], enum call_kind kind, unsigned flags,
           inbox *in)
{
  int detached = enif_is_identical(argv[6], vm_atoms.true_);
  call_resource *r = call_new(env, argv[0], argv[2], argv[3], detached);
  if (r == NULL) {
    if (in != NULL) {
      inbox_decref(in);
    }
    return error_tuple(env, vm_atoms.enomem);
  }
  r->call.kind = kind;
  r->call.decode_flags = flags;
  r->call.inbox = in;
  ERL_NIF_TERM result = submit(r);
  if (enif_is_identical(result, vm_atoms.ok)) {
    result = enif_make_tuple2(env, vm_atoms.ok, enif_make_resource(env, r));
  } else {
    result = error_tuple(env, result);
  }
  enif_release_resource(r);
  return result;
}

ERL_NIF_TERM
nif_call_submit(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{ /* (Ref, Kind, Payload, Handles, DecodeFlags, Loop, Detached): {ok, Call} | {error, Reason} */
  int kind;
  unsigned flags;
  inbox *in = NULL;
  int bad = 0;
  (void)argc;
  if (!enif_is_ref(env, argv[0]) || !enif_get_int(env, argv[1], &kind) || kind < CALL_FUNCTION ||
      kind > CALL_COROUTINE || !enif_get_uint(env, argv[4], &flags) ||
      !enif_is_list(env, argv[3])) {
    return enif_make_badarg(env);
  }
  if (kind == CALL_COROUTINE && (in = hosted_inbox(env, argv[5], &bad)) == NULL) {
    return bad ? enif_make_badarg(env) : error_tuple(env, vm_atoms.not_running);
  }
  return start_call(env, argv, (enum call_kind)kind, flags, in);
}

ERL_NIF_TERM
nif_call_cancel(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{ /* (Call): true when no answer will come, false when it has been sent */
  void *object;
  (void)argc;
  if (!enif_get_resource(env, argv[0], call_type, &object)) {
    return enif_make_badarg(env);
  }
  call_resource *r = object;
  int cancelled = call_cancel(&r->call);
  if (cancelled) {
    enif_demonitor_process(env, r, &r->monitor);
  }
  return cancelled || atomic_load(&r->call.state) == CALL_CANCELLED ? vm_atoms.true_
                                                                    : vm_atoms.false_;
}

ERL_NIF_TERM
nif_call_take(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{ /* (Call): ok; the caller took the answer out of its mailbox, or gave it up */
  void *object;
  (void)argc;
  if (!enif_get_resource(env, argv[0], call_type, &object)) {
    return enif_make_badarg(env);
  }
  atomic_store(&((call_resource *)object)->taken, 1);
  return vm_atoms.ok;
}

ERL_NIF_TERM
nif_call_taken(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{ /* (Call): whether nif_call_take came before */
  void *object;
  (void)argc;
  if (!enif_get_resource(env, argv[0], call_type, &object)) {
    return enif_make_badarg(env);
  }
  return atomic_load(&((call_resource *)object)->taken) ? vm_atoms.true_ : vm_atoms.false_;
}
