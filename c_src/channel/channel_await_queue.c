/* What an awaitable does at its queue: it takes a message, of one queue or of several,
 * or sends one. */
#include "channel_await.h"

static queue *
to_python(channel_await *self)
{
  return &self->channel->channel->to_python;
}

static queue *
to_erlang(channel_await *self)
{
  return &self->channel->channel->to_erlang;
}

/* Without waiting. */
static int
look_drained(channel_await *self)
{
  queue_info info;
  queue_get_info(to_erlang(self), &info);
  if (info.size <= self->drain.mark) {
    return QUEUE_OK;
  }
  return info.closed ? QUEUE_CLOSED : QUEUE_EMPTY;
}

/* The wait for it is over, or there was none.  It was drained then, whatever has been sent since. */
static int
end_drained(channel_await *self)
{
  return look_drained(self) == QUEUE_CLOSED ? QUEUE_CLOSED : QUEUE_OK;
}

int
await_try(channel_await *self, message *m)
{
  if (self->select != NULL) {
    return queue_select_take(self->select, select_first(self), m, &self->arm);
  }
  if (await_receives(self)) {
    return queue_take(to_python(self), m);
  }
  if (self->kind == AWAIT_DRAINED) {
    return look_drained(self);
  }
  int result = outgoing_send(&self->out, self->channel->channel);
  return result == QUEUE_BUSY ? QUEUE_EMPTY : result;
}

/* Room has been granted. */
static int
use_room(channel_await *self)
{
  return outgoing_send_granted(&self->out, self->channel->channel, &self->sender);
}

int
await_wait(channel_await *self, message *m)
{
  if (self->select != NULL) {
    return queue_select_wait(self->select, select_first(self), m, &self->arm);
  }
  if (await_receives(self)) {
    return queue_wait(to_python(self), &self->waiter, m);
  }
  if (self->kind == AWAIT_DRAINED) {
    int waits = queue_drain_wait(to_erlang(self), &self->drain, self->drain.mark);
    return waits ? QUEUE_EMPTY : end_drained(self);
  }
  int result = queue_send_wait(to_erlang(self), &self->sender, self->out.size, NULL);
  return result == QUEUE_OK ? use_room(self) : result;
}

int
await_claim(channel_await *self, message *m)
{
  if (self->select != NULL) {
    return queue_select_claim(self->select, m, &self->arm);
  }
  if (await_receives(self)) {
    return queue_claim(to_python(self), &self->waiter, m);
  }
  if (self->kind == AWAIT_DRAINED) {
    return await_still_waits(self) ? QUEUE_EMPTY : end_drained(self);
  }
  int result = queue_send_end(to_erlang(self), &self->sender);
  return result == QUEUE_OK ? use_room(self) : result;
}

void
await_give_up(channel_await *self)
{
  if (self->select != NULL) {
    queue_select_cancel(self->select);
  } else if (self->kind == AWAIT_DRAINED) {
    queue_drain_cancel(to_erlang(self), &self->drain);
  } else if (self->kind != AWAIT_SEND) {
    queue_cancel(to_python(self), &self->waiter);
  } else {
    queue_send_cancel(to_erlang(self), &self->sender);
  }
}

int
await_time_out(channel_await *self)
{
  if (self->select != NULL) {
    return queue_select_withdraw(self->select);
  }
  if (self->kind == AWAIT_DRAINED) {
    return queue_drain_cancel(to_erlang(self), &self->drain);
  }
  return self->kind != AWAIT_SEND ? queue_withdraw(to_python(self), &self->waiter)
                                  : queue_send_withdraw(to_erlang(self), &self->sender);
}

int
await_still_waits(channel_await *self)
{
  if (self->select != NULL) {
    return queue_select_is_waiting(self->select);
  }
  if (self->kind == AWAIT_DRAINED) {
    return queue_drain_is_waiting(to_erlang(self), &self->drain);
  }
  return self->kind != AWAIT_SEND ? queue_is_waiting(to_python(self), &self->waiter)
                                  : queue_sender_is_waiting(to_erlang(self), &self->sender);
}
