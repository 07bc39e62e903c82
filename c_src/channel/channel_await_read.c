/* What an awaitable does that reads a byte channel as a stream: it may need several messages. */
#include "byte_read.h"
#include "channel_await.h"

PyObject *
channel_await_new_read(channel_object *channel, byte_read *read, int64_t timeout)
{
  channel_await *self = (channel_await *)channel_await_new(channel, AWAIT_READ, timeout);
  if (self == NULL) {
    byte_read_clear(read);
    PyMem_Free(read);
    return NULL;
  }
  self->read = read;
  return (PyObject *)self;
}

int
await_read_begin(channel_await *self, PyObject **out)
{
  return byte_read_at_once(self->read, out) || byte_read_begin(self->read) < 0;
}

int
await_read_feed(channel_await *self, int result, message *m, PyObject **out)
{
  if (result == QUEUE_OK) {
    return byte_read_feed(self->read, m, out) == READ_DONE;
  }
  *out = byte_read_end(self->read);
  return 1;
}

void
await_read_on(channel_await *self)
{
  if (self->phase != PHASE_WAITING) {
    return;
  }
  gate_leave(&self->link);
  await_stop_timer(self);
  self->phase = PHASE_YIELDED;
  if (self->timeout >= 0) {
    int64_t left = self->deadline - thread_wait_clock();
    self->timeout = left > 0 ? left : 0;
  }
}

void
await_read_clear(channel_await *self)
{
  byte_read_clear(self->read);
  PyMem_Free(self->read);
  self->read = NULL;
}
