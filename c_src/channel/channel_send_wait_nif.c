/* Erlang processes that wait for room in a channel.
 *
 * The message stays with the queue, which takes it in when there is room.  Until then a process can
 * take it back (nif_channel_send_cancel), and one that dies has it taken back.  The queue's lock
 * decides which of the two it is.  A sender is a resource, held by the queue's list while it waits;
 * it holds the channel's handle, so that a channel to which somebody is sending does not close for
 * want of references.
 */
#include <stdatomic.h>

#include "channel_nif.h"
#include "channel_nif_internal.h"
#include "../term/handles.h"

typedef struct sender {
  queue_sender base;
  channel_handle *handle; /* one count; NULL before it is through */
  message_attachment *attachment;
  ErlNifPid pid;
  ErlNifMonitor monitor;
  ErlNifEnv *env; /* of ref, and of the message that tells the process; while it waits */
  ERL_NIF_TERM ref;
  atomic_int taken_back; /* or tried */
} sender;

static ErlNifResourceType *sender_type;

/* No lock held; once, by whoever ended the wait.  With refused, the message was not sent. */
static void
end_wait(sender *s, int refused)
{
  if (refused) {
    s->attachment->release(s->attachment);
  }
  enif_free_env(s->env);
  s->env = NULL;
  enif_release_resource(s);
}

/* Any thread, no lock held.  Tells the process what became of its message. */
static void
tell(void *arg)
{
  sender *s = arg;
  int result = s->base.result; /* written by this thread */
  enif_demonitor_process(NULL, s, &s->monitor);
  ERL_NIF_TERM answer = channel_make_result(s->env, result);
  enif_send(NULL, &s->pid, s->env, enif_make_tuple2(s->env, s->ref, answer));
  end_wait(s, result != QUEUE_OK);
}

/* Queue's lock held. */
static int
wake_sender(queue_sender *base, queue_laters *laters)
{
  queue_later(laters, tell, base);
  return 0;
}

/* 1 when the message was taken back, 0 when it is too late: the process is told. */
static int
take_back(sender *s)
{
  if (atomic_exchange(&s->taken_back, 1) ||
      !queue_send_cancel(&s->handle->channel->to_python, &s->base)) {
    return 0;
  }
  end_wait(s, 1);
  return 1;
}

static void
process_died(ErlNifEnv *env, void *resource, ErlNifPid *pid, ErlNifMonitor *monitor)
{
  (void)env, (void)pid, (void)monitor;
  take_back(resource);
}

static void
sender_destroyed(ErlNifEnv *env, void *resource)
{
  sender *s = resource;
  (void)env;
  if (s->handle != NULL) {
    handle_release(s->handle);
  }
}

int
channel_send_nif_load(ErlNifEnv *env)
{
  ErlNifResourceTypeInit init = {.dtor = sender_destroyed, .down = process_died};
  sender_type = enif_open_resource_type_x(env, "py_channel_sender", &init,
                                          ERL_NIF_RT_CREATE | ERL_NIF_RT_TAKEOVER, NULL);
  return sender_type == NULL ? -1 : 0;
}

/* For the calling process; NULL when memory is short.  With one count, which becomes the list's. */
static sender *
new_sender(ErlNifEnv *env, channel_handle *handle, ERL_NIF_TERM ref)
{
  sender *s = enif_alloc_resource(sender_type, sizeof(*s));
  if (s == NULL) {
    return NULL;
  }
  *s = (sender){.base = {.wake = wake_sender, .kind = QUEUE_PROCESS}};
  s->env = enif_alloc_env();
  if (s->env == NULL) {
    enif_release_resource(s);
    return NULL;
  }
  s->ref = enif_make_copy(s->env, ref);
  handle_keep(handle);
  s->handle = handle;
  enif_self(env, &s->pid);
  /* Before it waits, so that whoever serves it finds the monitor.  The process lives: it is here. */
  enif_monitor_process(env, s, &s->pid, &s->monitor);
  return s;
}

ERL_NIF_TERM
channel_send_or_wait(ErlNifEnv *env, channel_handle *handle, ERL_NIF_TERM ref, size_t size,
                     message_attachment *attachment)
{
  sender *s = new_sender(env, handle, ref);
  if (s == NULL) {
    attachment->release(attachment);
    return channel_make_result(env, QUEUE_NO_MEMORY);
  }
  s->attachment = attachment;
  /* Once it waits, it may be over at any instant. */
  ERL_NIF_TERM waits = enif_make_tuple2(env, channel_atoms.wait, enif_make_resource(env, s));
  int result = queue_send_wait(&handle->channel->to_python, &s->base, size, attachment);
  if (result == QUEUE_EMPTY) {
    return waits;
  }
  enif_demonitor_process(env, s, &s->monitor);
  end_wait(s, result != QUEUE_OK);
  return channel_make_result(env, result);
}

ERL_NIF_TERM
nif_channel_send_cancel(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{ /* (Sender) */
  void *s;
  (void)argc;
  if (!enif_get_resource(env, argv[0], sender_type, &s)) {
    return enif_make_badarg(env);
  }
  int taken_back = take_back(s);
  if (taken_back) {
    enif_demonitor_process(env, s, &((sender *)s)->monitor);
  }
  return taken_back ? channel_atoms.true_ : channel_atoms.false_;
}
