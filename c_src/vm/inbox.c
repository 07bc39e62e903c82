/* How calls reach an event loop. */
#include "inbox.h"

#include "../loop/lock_check.h"

#include <pthread.h>
#include <stdlib.h>

struct inbox {
  atomic_uint refs;
  pthread_mutex_t lock; /* guards all below */
  const loop_api *api;  /* never changes, as core and source */
  loop_core *core;
  uint64_t source;
  vm_call *head;
  vm_call *tail;
  vm_call *cancelled;
  int stop;
  int posted; /* an event is on its way */
  int closed;
};

static pthread_mutex_t default_lock = PTHREAD_MUTEX_INITIALIZER;
static inbox *default_inbox; /* guarded by default_lock */

inbox *
inbox_new(const loop_api *api, loop_core *core, uint64_t source)
{
  inbox *in = calloc(1, sizeof(*in));
  if (in == NULL || pthread_mutex_init(&in->lock, NULL) != 0) {
    free(in);
    return NULL;
  }
  atomic_init(&in->refs, 1);
  in->api = api;
  in->core = core;
  in->source = source;
  return in;
}

void
inbox_incref(inbox *in)
{
  atomic_fetch_add(&in->refs, 1);
}

void
inbox_decref(inbox *in)
{
  unsigned before = atomic_fetch_sub(&in->refs, 1);
  assert(before > 0);
  if (before != 1) {
    return;
  }
  in->api->core_decref(in->core);
  pthread_mutex_destroy(&in->lock);
  free(in);
}

/* Lock held.  One event is enough for all that is in. */
static void
tell_loop(inbox *in)
{
  assert(lock_is_held(&in->lock) && !in->closed);
  if (!in->posted && in->api->post(in->core, in->source, LOOP_EVENT_SOURCE) == 0) {
    in->posted = 1;
  }
}

int
inbox_submit(inbox *in, vm_call *call)
{
  pthread_mutex_lock(&in->lock);
  int refused = in->closed;
  if (!refused) {
    call->next = NULL;
    if (in->tail != NULL) {
      in->tail->next = call;
    } else {
      in->head = call;
    }
    in->tail = call;
    tell_loop(in);
  }
  pthread_mutex_unlock(&in->lock);
  return refused ? -1 : 0;
}

void
inbox_cancel(inbox *in, vm_call *call)
{
  pthread_mutex_lock(&in->lock);
  if (!in->closed) {
    call_keep(call);
    call->next_cancelled = in->cancelled;
    in->cancelled = call;
    tell_loop(in);
  }
  pthread_mutex_unlock(&in->lock);
}

void
inbox_stop(inbox *in)
{
  pthread_mutex_lock(&in->lock);
  if (!in->closed) {
    in->stop = 1;
    tell_loop(in);
  }
  pthread_mutex_unlock(&in->lock);
}

/* Lock held. */
static inbox_content
take_all(inbox *in)
{
  assert(lock_is_held(&in->lock) && (in->head == NULL) == (in->tail == NULL));
  inbox_content content = {in->head, in->cancelled, in->stop};
  in->head = in->tail = in->cancelled = NULL;
  in->stop = 0;
  in->posted = 0;
  return content;
}

inbox_content
inbox_take(inbox *in)
{
  pthread_mutex_lock(&in->lock);
  inbox_content content = take_all(in);
  pthread_mutex_unlock(&in->lock);
  return content;
}

void
inbox_close(inbox *in)
{
  pthread_mutex_lock(&in->lock);
  in->closed = 1;
  inbox_content content = take_all(in);
  pthread_mutex_unlock(&in->lock);
  while (content.calls != NULL) {
    vm_call *call = content.calls;
    content.calls = call->next;
    call_reply_reason(call, "not_running");
    call_release(call);
  }
  while (content.cancelled != NULL) {
    vm_call *call = content.cancelled;
    content.cancelled = call->next_cancelled;
    call_release(call);
  }
}

inbox *
inbox_default(void)
{
  pthread_mutex_lock(&default_lock);
  inbox *in = default_inbox;
  if (in != NULL) {
    inbox_incref(in);
  }
  pthread_mutex_unlock(&default_lock);
  return in;
}

void
inbox_set_default(inbox *in)
{
  pthread_mutex_lock(&default_lock);
  inbox *before = default_inbox;
  default_inbox = in;
  pthread_mutex_unlock(&default_lock);
  if (before != NULL) {
    inbox_decref(before);
  }
}
