/* Erlang processes that wait until Python has received most of what is queued.
 *
 * Such a wait is a resource, held by the queue's list; it holds the channel's handle.
 */
#include "channel_nif.h"
#include "channel_nif_internal.h"
#include "../term/handles.h"

typedef struct drain {
  queue_drain base;
  channel_handle *handle; /* one count */
  ErlNifPid pid;
  ErlNifMonitor monitor;
  ErlNifEnv *env; /* of ref, and of what tells the process; while it waits */
  ERL_NIF_TERM ref;
} drain;

static ErlNifResourceType *drain_type;

static queue *
queue_of(drain *d)
{
  return &d->handle->channel->to_python;
}

/* No lock held; once, by whoever took it off the list. */
static void
end_wait(drain *d)
{
  enif_free_env(d->env);
  d->env = NULL;
  enif_release_resource(d);
}

/* Any thread, no lock held. */
static void
tell(void *arg)
{
  drain *d = arg;
  enif_demonitor_process(NULL, d, &d->monitor);
  enif_send(NULL, &d->pid, d->env, enif_make_tuple2(d->env, d->ref, channel_atoms.drained));
  end_wait(d);
}

/* Queue's lock held. */
static void
wake_process(queue_drain *base, queue_laters *laters)
{
  queue_later(laters, tell, base);
}

static void
process_died(ErlNifEnv *env, void *resource, ErlNifPid *pid, ErlNifMonitor *monitor)
{
  drain *d = resource;
  (void)env, (void)pid, (void)monitor;
  if (queue_drain_cancel(queue_of(d), &d->base)) {
    end_wait(d);
  }
}

static void
drain_destroyed(ErlNifEnv *env, void *resource)
{
  (void)env;
  handle_release(((drain *)resource)->handle);
}

int
byte_drain_nif_load(ErlNifEnv *env)
{
  ErlNifResourceTypeInit init = {.dtor = drain_destroyed, .down = process_died};
  drain_type = enif_open_resource_type_x(env, "py_byte_channel_drain", &init,
                                         ERL_NIF_RT_CREATE | ERL_NIF_RT_TAKEOVER, NULL);
  return drain_type == NULL ? -1 : 0;
}

/* For the calling process; NULL when memory is short.  With one count, which becomes the list's. */
static drain *
new_drain(ErlNifEnv *env, channel_handle *handle, size_t mark, ERL_NIF_TERM ref)
{
  ErlNifEnv *own = enif_alloc_env();
  drain *d = own == NULL ? NULL : enif_alloc_resource(drain_type, sizeof(*d));
  if (d == NULL) {
    if (own != NULL) {
      enif_free_env(own);
    }
    return NULL;
  }
  *d = (drain){.base = {.wake = wake_process, .mark = mark}, .env = own};
  d->ref = enif_make_copy(own, ref);
  handle_keep(handle);
  d->handle = handle;
  enif_self(env, &d->pid);
  /* The process lives: it is here. */
  enif_monitor_process(env, d, &d->pid, &d->monitor);
  return d;
}

ERL_NIF_TERM
nif_byte_channel_drain(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{ /* (Channel, Above, Mark, Ref) */
  channel_handle *h = channel_nif_get_bytes(env, argv[0]);
  ErlNifUInt64 above, mark;
  queue_info info;
  (void)argc;
  if (h == NULL || !enif_get_uint64(env, argv[1], &above) ||
      !enif_get_uint64(env, argv[2], &mark) || !enif_is_ref(env, argv[3])) {
    return enif_make_badarg(env);
  }
  queue_get_info(&h->channel->to_python, &info);
  if (info.size <= above) {
    return channel_atoms.ok;
  }
  drain *d = new_drain(env, h, mark, argv[3]);
  if (d == NULL) {
    return channel_make_error(env, channel_atoms.system_limit);
  }
  if (queue_drain_wait(&h->channel->to_python, &d->base, above)) {
    return channel_atoms.wait;
  }
  enif_demonitor_process(env, d, &d->monitor);
  end_wait(d);
  return channel_atoms.ok;
}
