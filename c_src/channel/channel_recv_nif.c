/* Receiving in Erlang, and processes that wait for a message.
 *
 * A process that waits is told by {Ref, handed} that a message is its own to claim, or that the
 * channel is closed; nothing else ever gets into its mailbox.  Until it has claimed the message, that
 * is the channel's: when the process dies, the next one gets it.  A receiver is a resource, held by the
 * queue's list while it waits; it holds the channel's handle, so that a channel for which somebody
 * waits does not close for want of references.
 */
#include "channel_nif.h"
#include "channel_nif_internal.h"
#include "../term/handles.h"

typedef struct receiver {
  queue_waiter base;
  channel_handle *handle; /* one count */
  ErlNifPid pid;
  ErlNifMonitor monitor;
  ErlNifEnv *env; /* of ref, and of what tells the process; of whoever takes it off the list */
  ERL_NIF_TERM ref;
} receiver;

static ErlNifResourceType *receiver_type;

static queue *
queue_of(receiver *r)
{
  return &r->handle->channel->to_erlang;
}

/* No lock held; once, by whoever took it off the list. */
static void
end_wait(receiver *r)
{
  enif_free_env(r->env);
  r->env = NULL;
  enif_release_resource(r);
}

/* Any thread, no lock held. */
static void
tell(void *arg)
{
  receiver *r = arg;
  enif_send(NULL, &r->pid, r->env, enif_make_tuple2(r->env, r->ref, channel_atoms.handed));
  end_wait(r);
}

/* Queue's lock held. */
static int
wake_process(queue_waiter *base, enum queue_wake_reason reason, queue_laters *laters)
{
  (void)reason;
  queue_later(laters, tell, base);
  return 0;
}

/* 1 when it waited and waits no more, 0 when it has been told. */
static int
stop_waiting(receiver *r)
{
  int waited = queue_withdraw(queue_of(r), &r->base);
  if (waited) {
    end_wait(r);
  }
  return waited;
}

static void
process_died(ErlNifEnv *env, void *resource, ErlNifPid *pid, ErlNifMonitor *monitor)
{
  receiver *r = resource;
  (void)env, (void)pid, (void)monitor;
  if (!stop_waiting(r)) {
    queue_cancel(queue_of(r), &r->base);
  }
}

static void
receiver_destroyed(ErlNifEnv *env, void *resource)
{
  receiver *r = resource;
  (void)env;
  queue_cancel(queue_of(r), &r->base);
  handle_release(r->handle);
}

int
channel_recv_nif_load(ErlNifEnv *env)
{
  ErlNifResourceTypeInit init = {.dtor = receiver_destroyed, .down = process_died};
  receiver_type = enif_open_resource_type_x(env, "py_channel_receiver", &init,
                                            ERL_NIF_RT_CREATE | ERL_NIF_RT_TAKEOVER, NULL);
  return receiver_type == NULL ? -1 : 0;
}

/* What Erlang gets for a message (consumed), or for there being none. */
static ERL_NIF_TERM
make_answer(ErlNifEnv *env, const channel_handle *h, int result, message *m)
{
  switch (result) {
  case QUEUE_OK:
    return h->channel->bytes ? channel_make_received_bytes(env, m) : channel_make_received(env, m);
  case QUEUE_EMPTY:
    return channel_atoms.empty;
  default:
    return channel_make_error(env, channel_atoms.closed);
  }
}

ERL_NIF_TERM
nif_channel_take(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{ /* (Channel, Kind) */
  channel_handle *h = channel_nif_get_kind(env, argv[0], argv[1]);
  message m;
  (void)argc;
  if (h == NULL) {
    return enif_make_badarg(env);
  }
  return make_answer(env, h, queue_take(&h->channel->to_erlang, &m), &m);
}

/* For the calling process; NULL when memory is short.  With one count, which becomes the list's. */
static receiver *
new_receiver(ErlNifEnv *env, channel_handle *handle, ERL_NIF_TERM ref)
{
  ErlNifEnv *own = enif_alloc_env();
  receiver *r = own == NULL ? NULL : enif_alloc_resource(receiver_type, sizeof(*r));
  if (r == NULL) {
    if (own != NULL) {
      enif_free_env(own);
    }
    return NULL;
  }
  *r = (receiver){.base = {.wake = wake_process, .kind = QUEUE_PROCESS}, .env = own};
  r->ref = enif_make_copy(own, ref);
  handle_keep(handle);
  r->handle = handle;
  enif_self(env, &r->pid);
  /* The process lives: it is here. */
  enif_monitor_process(env, r, &r->pid, &r->monitor);
  return r;
}

ERL_NIF_TERM
nif_channel_recv_wait(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{ /* (Channel, Kind, Ref) */
  channel_handle *h = channel_nif_get_kind(env, argv[0], argv[1]);
  message m;
  (void)argc;
  if (h == NULL || !enif_is_ref(env, argv[2])) {
    return enif_make_badarg(env);
  }
  receiver *r = new_receiver(env, h, argv[2]);
  if (r == NULL) {
    return channel_make_error(env, channel_atoms.system_limit);
  }
  /* Once it waits, it may be over at any instant. */
  ERL_NIF_TERM waits = enif_make_tuple2(env, channel_atoms.wait, enif_make_resource(env, r));
  int result = queue_wait(&h->channel->to_erlang, &r->base, &m);
  if (result == QUEUE_EMPTY) {
    return waits;
  }
  enif_demonitor_process(env, r, &r->monitor);
  end_wait(r);
  return make_answer(env, h, result, &m);
}

ERL_NIF_TERM
nif_channel_recv_claim(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{ /* (Receiver) */
  void *resource;
  message m;
  (void)argc;
  if (!enif_get_resource(env, argv[0], receiver_type, &resource)) {
    return enif_make_badarg(env);
  }
  receiver *r = resource;
  int result = queue_claim(queue_of(r), &r->base, &m);
  if (result != QUEUE_EMPTY) {
    enif_demonitor_process(env, r, &r->monitor);
  }
  return make_answer(env, r->handle, result, &m);
}

/* With give_back what it was handed goes to the next. */
static ERL_NIF_TERM
stop_receiver(ErlNifEnv *env, ERL_NIF_TERM term, int give_back)
{
  void *resource;
  if (!enif_get_resource(env, term, receiver_type, &resource)) {
    return enif_make_badarg(env);
  }
  receiver *r = resource;
  int waited = stop_waiting(r);
  if (!waited && give_back) {
    queue_cancel(queue_of(r), &r->base);
  }
  if (waited || give_back) {
    enif_demonitor_process(env, r, &r->monitor);
  }
  return waited ? channel_atoms.true_ : channel_atoms.false_;
}

ERL_NIF_TERM
nif_channel_recv_cancel(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{ /* (Receiver) */
  (void)argc;
  return stop_receiver(env, argv[0], 0);
}

ERL_NIF_TERM
nif_channel_recv_give_up(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{ /* (Receiver) */
  (void)argc;
  return stop_receiver(env, argv[0], 1);
}
