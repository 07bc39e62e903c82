/* erlang.channel.Channel: the type, and receiving on a thread. */
#include "channel_python.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <structmember.h>

#include "../term/term_link.h"

#define BINARY_HEADER_SIZE 6 /* version, tag, four bytes of length */
#define BINARY_TAG 109
#define EXTERNAL_VERSION 131
#define BURST_GAP 3000 /* nanoseconds that a thread waits awake for the next message of a burst */

void
channel_set_closed(const channel_object *self)
{
  const channel_state *state = self->state;
  PyErr_SetString(self->channel->bytes ? state->byte_channel_closed : state->channel_closed,
                  "the channel is closed");
}

int
channel_check(const channel_state *state, PyObject *object)
{
  return PyObject_TypeCheck(object, state->channel_type) ||
         PyObject_TypeCheck(object, state->byte_channel_type);
}

int
channel_parse_timeout(PyObject *timeout, int64_t *out)
{
  *out = -1;
  if (timeout == NULL || timeout == Py_None) {
    return 0;
  }
  double seconds = PyFloat_AsDouble(timeout);
  if (seconds == -1.0 && PyErr_Occurred()) {
    return -1;
  }
  if (isnan(seconds) || seconds < 0) {
    PyErr_SetString(PyExc_ValueError, "timeout must be None or a number of seconds from 0 on");
    return -1;
  }
  /* More than a century is for ever. */
  *out = seconds > 4e9 ? -1 : (int64_t)(seconds * 1e9);
  return 0;
}

/* A message does not keep the handle of the channel that it is in, which would keep itself: when Erlang
 * has dropped that handle meanwhile, the channel gets another one. */
static void *
find_own(const uint8_t *ext, size_t size, void *arg, enum handle_kind *kind)
{
  channel *c = arg;
  *kind = HANDLE_CHANNEL;
  return handles_has_number(ext, size, &c->number) ? channel_keep_handle(c) : NULL;
}

static PyObject *
decode_encoded(channel *c, const uint8_t *data, size_t size, unsigned flags)
{
  return term_link_decode_finding(data, size, flags, find_own, c);
}

/* The parts are one large binary, behind its header, and nothing else. */
static int
is_bare_binary(const message_attachment *a)
{
  if (a->part_count != 2 || a->parts[0].size != BINARY_HEADER_SIZE) {
    return 0;
  }
  const uint8_t *head = a->parts[0].data;
  size_t size = (size_t)head[2] << 24 | (size_t)head[3] << 16 | (size_t)head[4] << 8 | head[5];
  return head[0] == EXTERNAL_VERSION && head[1] == BINARY_TAG && size == a->parts[1].size;
}

static PyObject *
decode_parts(channel *c, const message *m, unsigned flags)
{
  const message_attachment *a = m->attachment;
  if (is_bare_binary(a)) {
    const char *data = (const char *)a->parts[1].data;
    Py_ssize_t size = (Py_ssize_t)a->parts[1].size;
    if (!(flags & TERM_BINARIES_STR)) {
      return PyBytes_FromStringAndSize(data, size);
    }
    PyObject *text = PyUnicode_DecodeUTF8(data, size, "strict");
    if (text != NULL) {
      return text;
    }
    PyErr_Clear(); /* the codec says what is wrong */
  }
  if (a->part_count == 1) {
    return decode_encoded(c, a->parts[0].data, m->size, flags);
  }
  uint8_t *flat = malloc(m->size + 1);
  if (flat == NULL) {
    return PyErr_NoMemory();
  }
  size_t end = 0;
  for (size_t i = 0; i < a->part_count; i++) {
    memcpy(flat + end, a->parts[i].data, a->parts[i].size);
    end += a->parts[i].size;
  }
  PyObject *object = decode_encoded(c, flat, end, flags);
  free(flat);
  return object;
}

PyObject *
channel_decode_kept(channel *c, const message *m)
{
  unsigned flags = c->binaries_as_str ? TERM_BINARIES_STR : 0;
  if (c->bytes) {
    return byte_channel_decode(m);
  }
  return m->data != NULL ? decode_encoded(c, m->data, m->size, flags) : decode_parts(c, m, flags);
}

PyObject *
channel_decode(channel *c, message *m)
{
  PyObject *object = channel_decode_kept(c, m);
  message_release(m);
  return object;
}

/* --- waiting on a thread --- */

typedef struct thread_waiter {
  queue_waiter base;
  thread_wait *wait;
} thread_waiter;

/* No lock held. */
static void
wake_and_release(void *wait)
{
  thread_wait_wake(wait);
  thread_wait_decref(wait);
}

/* The thread needs the queue's lock as soon as it wakes up: better when it is free. */
void
channel_wake_thread(thread_wait *wait, queue_laters *laters)
{
  thread_wait_incref(wait);
  queue_later(laters, wake_and_release, wait);
}

/* Queue's lock held. */
static int
wake_thread(queue_waiter *base, enum queue_wake_reason reason, queue_laters *laters)
{
  (void)reason;
  channel_wake_thread(((thread_waiter *)base)->wait, laters);
  return 0;
}

/* Waits for a wake without the GIL: in a burst of messages for a moment before falling asleep.  A
 * thread_wait_result. */
static int
wait_without_gil(channel_object *self, thread_waiter *w, int64_t deadline)
{
  int bursting = self->burst >= CHANNEL_BURST_MIN;
  int slept;
  Py_BEGIN_ALLOW_THREADS
  bursting = bursting && thread_wait_spin(w->wait, BURST_GAP);
  slept = thread_wait_sleep(w->wait, deadline);
  Py_END_ALLOW_THREADS
  if (!bursting) {
    self->burst = 0;
  }
  return slept;
}

/* Sleeps until the waiter has its message: QUEUE_OK, QUEUE_CLOSED, or -1 with an exception
 * (timeout, cancelled). */
static int
await_message(channel_object *self, thread_waiter *w, int64_t deadline, message *m)
{
  queue *q = &self->channel->to_python;
  for (;;) {
    int slept = wait_without_gil(self, w, deadline);
    if (thread_wait_end(w->wait)) {
      queue_cancel(q, &w->base);
      PyErr_SetString(self->state->call_cancelled, "the caller is gone or has cancelled the call");
      return -1;
    }
    thread_wait_begin(w->wait);
    int result = queue_claim(q, &w->base, m);
    if (result != QUEUE_EMPTY) {
      return result;
    }
    if (slept == THREAD_WAIT_TIMEOUT) {
      queue_cancel(q, &w->base);
      PyErr_SetString(PyExc_TimeoutError, "no message came in time");
      return -1;
    }
  }
}

int
channel_warn_of_loop(channel_state *state, const char *what, const char *instead)
{
  PyObject *loop = channel_running_loop(state);
  if (loop == NULL) {
    return PyErr_Occurred() ? -1 : 0;
  }
  PyObject *debug = PyObject_CallMethodNoArgs(loop, state->name_get_debug);
  Py_DECREF(loop);
  int warn = debug == NULL ? -1 : PyObject_IsTrue(debug);
  Py_XDECREF(debug);
  if (warn > 0) {
    return PyErr_WarnFormat(
        PyExc_RuntimeWarning, 1,
        "%s() stops the event loop that runs on this thread; await %s() instead", what, instead);
  }
  return warn;
}

int
channel_receive_message(channel_object *self, int64_t timeout, message *m)
{
  queue *q = &self->channel->to_python;
  int result = queue_take(q, m);
  if (result != QUEUE_EMPTY) {
    self->burst++;
    return result;
  }
  int bytes = self->channel->bytes;
  if (channel_warn_of_loop(self->state, bytes ? "receive_bytes" : "receive",
                           bytes ? "async_receive_bytes" : "async_receive") < 0) {
    return -1;
  }
  thread_waiter w = {.base = {.wake = wake_thread, .kind = QUEUE_THREAD},
                     .wait = thread_wait_current()};
  if (w.wait == NULL) {
    PyErr_NoMemory();
    return -1;
  }
  int64_t deadline = timeout < 0 ? THREAD_WAIT_FOREVER : thread_wait_clock() + timeout;
  thread_wait_begin(w.wait);
  result = queue_wait(q, &w.base, m);
  if (result == QUEUE_EMPTY) {
    result = await_message(self, &w, deadline, m);
  }
  thread_wait_end(w.wait);
  return result;
}

/* --- methods --- */

static channel *
queue_owner(PyObject *self)
{
  return ((channel_object *)self)->channel;
}

void
channel_dealloc(PyObject *object)
{
  channel_object *self = (channel_object *)object;
  PyTypeObject *type = Py_TYPE(object);
  if (self->weakrefs != NULL) {
    PyObject_ClearWeakRefs(object);
  }
  if (self->channel != NULL) {
    if (!atomic_load(&self->channel->given)) {
      channel_drop_held(self->channel);
    }
    channel_decref(self->channel);
  }
  type->tp_free(object);
  Py_DECREF(type);
}

static PyObject *
channel_receive(PyObject *self, PyObject *args, PyObject *kwargs)
{
  static char *keywords[] = {"timeout", NULL};
  PyObject *timeout = NULL;
  int64_t nanoseconds;
  message m;
  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|O:receive", keywords, &timeout) ||
      channel_parse_timeout(timeout, &nanoseconds) < 0) {
    return NULL;
  }
  int result = channel_receive_message((channel_object *)self, nanoseconds, &m);
  if (result == QUEUE_OK) {
    return channel_decode(queue_owner(self), &m);
  }
  if (result == QUEUE_CLOSED) {
    channel_set_closed((channel_object *)self);
  }
  return NULL;
}

PyObject *
channel_iternext(PyObject *self)
{
  message m;
  /* QUEUE_CLOSED ends the iteration: NULL without an exception. */
  return channel_receive_message((channel_object *)self, -1, &m) == QUEUE_OK
             ? channel_decode(queue_owner(self), &m)
             : NULL;
}

static PyObject *
channel_try_receive(PyObject *self, PyObject *args, PyObject *kwargs)
{
  static char *keywords[] = {"default", NULL};
  PyObject *fallback = Py_None;
  message m;
  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|O:try_receive", keywords, &fallback)) {
    return NULL;
  }
  switch (queue_take(&queue_owner(self)->to_python, &m)) {
  case QUEUE_OK:
    return channel_decode(queue_owner(self), &m);
  case QUEUE_EMPTY:
    return Py_NewRef(fallback);
  default:
    channel_set_closed((channel_object *)self);
    return NULL;
  }
}

static PyObject *
channel_async_receive(PyObject *self, PyObject *args, PyObject *kwargs)
{
  static char *keywords[] = {"timeout", NULL};
  PyObject *timeout = NULL;
  int64_t nanoseconds;
  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|O:async_receive", keywords, &timeout) ||
      channel_parse_timeout(timeout, &nanoseconds) < 0) {
    return NULL;
  }
  return channel_await_new((channel_object *)self, AWAIT_RECEIVE, nanoseconds);
}

PyObject *
channel_anext(PyObject *self)
{
  return channel_await_new((channel_object *)self, AWAIT_NEXT, -1);
}

PyObject *
channel_close_method(PyObject *self, PyObject *Py_UNUSED(ignored))
{
  channel_close(queue_owner(self));
  Py_RETURN_NONE;
}

PyObject *
channel_exit(PyObject *self, PyObject *Py_UNUSED(args))
{
  channel_close(queue_owner(self));
  Py_RETURN_FALSE;
}

PyObject *
channel_enter(PyObject *self, PyObject *Py_UNUSED(ignored))
{
  return Py_NewRef(self);
}

PyObject *
channel_aenter(PyObject *self, PyObject *Py_UNUSED(ignored))
{
  return channel_await_done(((channel_object *)self)->state, self);
}

PyObject *
channel_aexit(PyObject *self, PyObject *Py_UNUSED(args))
{
  channel_close(queue_owner(self));
  return channel_await_done(((channel_object *)self)->state, Py_False);
}

/* --- the type --- */

Py_ssize_t
channel_length(PyObject *self)
{
  queue_info info;
  queue_get_info(&queue_owner(self)->to_python, &info);
  return (Py_ssize_t)info.messages;
}

PyObject *
channel_get_closed(PyObject *self, void *Py_UNUSED(closure))
{
  queue_info info;
  queue_get_info(&queue_owner(self)->to_python, &info);
  return PyBool_FromLong(info.closed);
}

/* A channel is true, empty or not. */
int
channel_bool(PyObject *Py_UNUSED(self))
{
  return 1;
}

PyObject *
channel_repr(PyObject *self)
{
  queue_info info;
  queue_get_info(&queue_owner(self)->to_python, &info);
  return PyUnicode_FromFormat("<%s at %p: %zu queued, %zu bytes, %zu waiting%s>",
                              Py_TYPE(self)->tp_name, queue_owner(self), info.messages, info.size,
                              queue_count_kinds(info.waiters), info.closed ? ", closed" : "");
}

Py_hash_t
channel_hash(PyObject *self)
{
  return _Py_HashPointer(queue_owner(self));
}

PyObject *
channel_compare(PyObject *self, PyObject *other, int op)
{
  channel_state *state = ((channel_object *)self)->state;
  if (!channel_check(state, other) || (op != Py_EQ && op != Py_NE)) {
    Py_RETURN_NOTIMPLEMENTED;
  }
  return PyBool_FromLong((queue_owner(self) == queue_owner(other)) == (op == Py_EQ));
}

static PyMethodDef channel_methods[] = {
    {"receive", (PyCFunction)(void (*)(void))channel_receive, METH_VARARGS | METH_KEYWORDS,
     "receive(timeout=None)\n\nThe next message; waits for it without the GIL.  ChannelClosed when "
     "the\n"
     "channel is closed and drained; TimeoutError after timeout seconds."},
    {"try_receive", (PyCFunction)(void (*)(void))channel_try_receive, METH_VARARGS | METH_KEYWORDS,
     "try_receive(default=None)\n\nThe next message, or default when none is there.  ChannelClosed "
     "when\n"
     "the channel is closed and drained."},
    {"async_receive", (PyCFunction)(void (*)(void))channel_async_receive,
     METH_VARARGS | METH_KEYWORDS,
     "async_receive(timeout=None)\n\nAwait it for the next message.  ChannelClosed when the "
     "channel is\n"
     "closed and drained; TimeoutError after timeout seconds.  Cancelling loses no message."},
    {"receive_many", (PyCFunction)(void (*)(void))channel_receive_many,
     METH_VARARGS | METH_KEYWORDS,
     "receive_many(max, timeout=None)\n\nA list of the messages that are there, max at most; waits "
     "for the first as\n"
     "receive() does, and raises as it.  A message without a Python value is left for the next "
     "receive to\n"
     "raise TermError, unless it is the first."},
    {"async_receive_many", (PyCFunction)(void (*)(void))channel_async_receive_many,
     METH_VARARGS | METH_KEYWORDS,
     "async_receive_many(max, timeout=None)\n\nAwait it for what receive_many() returns.  "
     "Cancelling loses no message."},
    {"send", (PyCFunction)(void (*)(void))channel_send_method, METH_VARARGS | METH_KEYWORDS,
     "send(term, timeout=None)\n\nSends a message to Erlang; waits for room without the GIL, "
     "unless "
     "an\n"
     "event loop runs on this thread, which waiting would stop: then ChannelFull.  ChannelClosed "
     "when "
     "the\n"
     "channel is closed; MessageTooLarge when there will never be room; TimeoutError after "
     "timeout\n"
     "seconds; TypeError or ValueError for what is no term.  What raises was not sent."},
    {"try_send", channel_try_send_method, METH_O,
     "try_send(term)\n\nSends a message to Erlang if there is room, and says whether.  Raises as "
     "send()."},
    {"async_send", (PyCFunction)(void (*)(void))channel_async_send_method,
     METH_VARARGS | METH_KEYWORDS,
     "async_send(term, timeout=None)\n\nAwait it to send a message to Erlang as soon as there is "
     "room; raises\n"
     "as send().  The term is encoded at once.  Cancelled, it was not sent."},
    {"close", channel_close_method, METH_NOARGS,
     "close()\n\nCloses both directions: refuses further messages; what is queued can still be\n"
     "received.  Idempotent."},
    {"close_write", channel_close_write_method, METH_NOARGS,
     "close_write()\n\nCloses the direction to Erlang only.  Idempotent."},
    {"_channel_wait", channel_wait_method, METH_VARARGS,
     "_channel_wait(callback_id, loop)\n\nReports (callback_id, TIMER) to an ErlangEventLoop once, "
     "when a\n"
     "message is there to take or the channel is closed and drained.  Withdrawn when the handle\n"
     "that loop._timers has under the number goes away, or by cancel() of what it returns."},
    {"__enter__", channel_enter, METH_NOARGS, NULL},
    {"__exit__", channel_exit, METH_VARARGS, NULL},
    {"__aenter__", channel_aenter, METH_NOARGS, NULL},
    {"__aexit__", channel_aexit, METH_VARARGS, NULL},
    {"__class_getitem__", Py_GenericAlias, METH_O | METH_CLASS,
     "Channel[T]: of messages of type T."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef channel_getset[] = {
    {"closed", channel_get_closed, NULL,
     "Whether the direction to Python is closed, from either side.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef channel_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(channel_object, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot channel_slots[] = {
    {Py_tp_doc,
     "Channel(ref, *, poll=False)\n"
     "Channel(*, max_size=None, max_messages=None, high_watermark=None, low_watermark=None,\n"
     "        binaries='bytes', poll=False)\n\n"
     "Of the channel that ref, an erlang.ChannelRef, names; or of a new one, with the options of\n"
     "py_channel:new/1.  Sent to Erlang it is the same channel there, which closes when Erlang "
     "has\n"
     "dropped it.\n\n"
     "Iterating over it, or `async for`, takes messages until it is closed and drained.  Any\n"
     "number of threads and coroutines may receive and send; each message reaches one receiver.\n"
     "poll asks for polling where a coroutine waits on a foreign event loop.\n\n"
     "A message that has no Python value (two keys of a map that are equal in Python, say)\n"
     "raises TermError where it is received, and is gone; the channel goes on."},
    {Py_tp_new, channel_new},
    {Py_tp_dealloc, channel_dealloc},
    {Py_tp_repr, channel_repr},
    {Py_tp_hash, channel_hash},
    {Py_tp_richcompare, channel_compare},
    {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, channel_iternext},
    {Py_am_aiter, PyObject_SelfIter},
    {Py_am_anext, channel_anext},
    {Py_sq_length, channel_length},
    {Py_nb_bool, channel_bool},
    {Py_tp_methods, channel_methods},
    {Py_tp_getset, channel_getset},
    {Py_tp_members, channel_members},
    {0, NULL},
};

PyType_Spec channel_type_spec = {
    .name = "erlang.channel.Channel",
    .basicsize = sizeof(channel_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .slots = channel_slots,
};
