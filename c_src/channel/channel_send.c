/* Channel.send(), try_send() and async_send(), and what they raise. */
#include "channel_python.h"

#include "channel_outgoing.h"
#include "thread_wait.h"

#define SCRATCH_SIZE 1024

PyObject *
channel_set_send_error(const channel_object *self, int result)
{
  const channel_state *state = self->state;
  switch (result) {
  case QUEUE_CLOSED:
    channel_set_closed(self);
    return NULL;
  case QUEUE_TOO_LARGE:
    PyErr_SetString(state->message_too_large,
                    "the message is larger than the channel's max_size and will never fit");
    return NULL;
  case QUEUE_BUSY:
    return PyErr_Format(state->channel_full,
                        "the channel is full, and waiting for room here would stop the running "
                        "event loop; await %s() instead",
                        self->channel->bytes ? "async_send_bytes" : "async_send");
  default:
    return PyErr_NoMemory();
  }
}

/* --- waiting on a thread --- */

typedef struct thread_sender {
  queue_sender base;
  thread_wait *wait;
} thread_sender;

/* Queue's lock held. */
static int
wake_thread(queue_sender *base, queue_laters *laters)
{
  channel_wake_thread(((thread_sender *)base)->wait, laters);
  return 0;
}

/* Sleeps without the GIL until there is room: QUEUE_OK, it is granted; another queue_result; or -1
 * with an exception. */
static int
await_room(channel_object *self, thread_sender *s, int64_t deadline)
{
  queue *q = &self->channel->to_erlang;
  for (;;) {
    int slept;
    Py_BEGIN_ALLOW_THREADS
    slept = thread_wait_sleep(s->wait, deadline);
    Py_END_ALLOW_THREADS
    if (thread_wait_end(s->wait)) {
      queue_send_cancel(q, &s->base);
      PyErr_SetString(self->state->call_cancelled, "the caller is gone or has cancelled the call");
      return -1;
    }
    thread_wait_begin(s->wait);
    int result = queue_send_end(q, &s->base);
    if (result != QUEUE_EMPTY) {
      return result;
    }
    if (slept == THREAD_WAIT_TIMEOUT && queue_send_cancel(q, &s->base)) {
      PyErr_SetString(PyExc_TimeoutError, "there was no room in time");
      return -1;
    }
  }
}

/* Sends when there is room: a queue_result, or -1 with an exception. */
static int
send_when_there_is_room(channel_object *self, channel_outgoing *out, int64_t timeout)
{
  thread_sender s = {.base = {.wake = wake_thread, .kind = QUEUE_THREAD},
                     .wait = thread_wait_current()};
  if (s.wait == NULL) {
    return QUEUE_NO_MEMORY;
  }
  int64_t deadline = timeout < 0 ? THREAD_WAIT_FOREVER : thread_wait_clock() + timeout;
  thread_wait_begin(s.wait);
  int result = queue_send_wait(&self->channel->to_erlang, &s.base, out->size, NULL);
  if (result == QUEUE_EMPTY) {
    result = await_room(self, &s, deadline);
  }
  thread_wait_end(s.wait);
  return result == QUEUE_OK ? outgoing_send_granted(out, self->channel, &s.base) : result;
}

int
channel_send_on_thread(channel_object *self, channel_outgoing *out, int64_t timeout)
{
  int result = outgoing_send(out, self->channel);
  if (result != QUEUE_BUSY) {
    return result;
  }
  PyObject *loop = channel_running_loop(self->state);
  if (loop != NULL) {
    Py_DECREF(loop);
    return QUEUE_BUSY;
  }
  return PyErr_Occurred() ? -1 : send_when_there_is_room(self, out, timeout);
}

/* --- methods --- */

static int
parse_send(PyObject *args, PyObject *kwargs, const char *format, PyObject **term, int64_t *timeout)
{
  static char *keywords[] = {"", "timeout", NULL};
  PyObject *given = NULL;
  if (!PyArg_ParseTupleAndKeywords(args, kwargs, format, keywords, term, &given)) {
    return -1;
  }
  return channel_parse_timeout(given, timeout);
}

PyObject *
channel_send_method(PyObject *object, PyObject *args, PyObject *kwargs)
{
  channel_object *self = (channel_object *)object;
  uint8_t scratch[SCRATCH_SIZE];
  channel_outgoing out = {.buf = {scratch, 0, sizeof(scratch), 0}};
  PyObject *term;
  int64_t timeout;
  if (parse_send(args, kwargs, "O|O:send", &term, &timeout) < 0 ||
      outgoing_encode(&out, self->channel, term) < 0) {
    return NULL;
  }
  int result = channel_send_on_thread(self, &out, timeout);
  outgoing_clear(&out);
  if (result == QUEUE_OK) {
    Py_RETURN_NONE;
  }
  return result < 0 ? NULL : channel_set_send_error(self, result);
}

PyObject *
channel_try_send_method(PyObject *object, PyObject *term)
{
  channel_object *self = (channel_object *)object;
  uint8_t scratch[SCRATCH_SIZE];
  channel_outgoing out = {.buf = {scratch, 0, sizeof(scratch), 0}};
  if (outgoing_encode(&out, self->channel, term) < 0) {
    return NULL;
  }
  int result = outgoing_send(&out, self->channel);
  outgoing_clear(&out);
  if (result == QUEUE_OK || result == QUEUE_BUSY) {
    return PyBool_FromLong(result == QUEUE_OK);
  }
  return channel_set_send_error(self, result);
}

PyObject *
channel_async_send_method(PyObject *object, PyObject *args, PyObject *kwargs)
{
  channel_object *self = (channel_object *)object;
  channel_outgoing out = {.size = 0};
  PyObject *term;
  int64_t timeout;
  if (parse_send(args, kwargs, "O|O:async_send", &term, &timeout) < 0 ||
      outgoing_encode(&out, self->channel, term) < 0) {
    return NULL;
  }
  return channel_await_new_send(self, &out, timeout);
}

PyObject *
channel_close_write_method(PyObject *object, PyObject *Py_UNUSED(ignored))
{
  queue_close(&((channel_object *)object)->channel->to_erlang);
  Py_RETURN_NONE;
}
