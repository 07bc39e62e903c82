/* What async_receive(), __anext__(), async_receive_many(), select() and async_send() return: an awaitable in C.
 *
 * It is a coroutine to whoever drives it (send, throw, close), so that create_task, gather and
 * wait_for take it.  When it can do its work at once it returns at once.  Else it puts itself
 * among the queue's waiters and yields itself to the task, acting as the future that the task waits
 * for: asyncio asks a yielded object for _asyncio_future_blocking, get_loop, add_done_callback,
 * cancel and result.  Waking runs the task's step straight from the event.  The message is claimed
 * (or sent, into room that was reserved for it) in that step, by send; an exception thrown in, close,
 * or the end of the object or of the loop gives message or room back instead.
 */
#include "channel_await.h"

#include <stddef.h>
#include <time.h>

#define STREAK_MAX 64    /* messages that one channel gives before the loop gets a turn */
#define TURN_MAX 1000000 /* nanoseconds, likewise */
#define FREE_MAX 64      /* finished awaitables that are kept */

/* Finished ones are kept for the next receives: in a loop over a channel one object serves for
 * all.  It is tracked by the cyclic GC only while it waits: before, it refers to nothing that could
 * refer back but the channel. */
static channel_await *
await_alloc(channel_state *state)
{
  channel_await *self = state->free_awaits;
  if (self != NULL) {
    state->free_awaits = self->next_free;
    state->free_await_count--;
    self->next_free = NULL;
    PyObject_Init((PyObject *)self, state->await_type);
    return self;
  }
  self = PyObject_GC_New(channel_await, state->await_type);
  if (self != NULL) {
    memset((char *)self + sizeof(PyObject), 0, sizeof(*self) - sizeof(PyObject));
    self->state = state;
    self->link.await = self;
  }
  return self;
}

void
channel_await_free_all(channel_state *state)
{
  channel_await *self;
  while ((self = state->free_awaits) != NULL) {
    state->free_awaits = self->next_free;
    PyObject_GC_Del(self);
  }
  state->free_await_count = 0;
}

PyObject *
channel_await_new(channel_object *channel, enum channel_await_kind kind, int64_t timeout)
{
  channel_await *self = await_alloc(channel->state);
  if (self != NULL) {
    self->channel = (channel_object *)Py_NewRef(channel);
    self->kind = kind;
    self->bytes = channel->channel->bytes;
    self->timeout = timeout;
  }
  return (PyObject *)self;
}

PyObject *
channel_await_new_send(channel_object *channel, channel_outgoing *out, int64_t timeout)
{
  PyObject *self = channel_await_new(channel, AWAIT_SEND, timeout);
  if (self == NULL) {
    outgoing_clear(out);
  } else {
    ((channel_await *)self)->out = *out;
  }
  return self;
}

PyObject *
channel_await_new_drained(channel_object *channel, size_t mark)
{
  PyObject *self = channel_await_new(channel, AWAIT_DRAINED, -1);
  if (self != NULL) {
    ((channel_await *)self)->drain.mark = mark;
  }
  return self;
}

PyObject *
channel_await_new_many(channel_object *channel, Py_ssize_t max, int64_t timeout)
{
  PyObject *self = channel_await_new(channel, AWAIT_MANY, timeout);
  if (self != NULL) {
    ((channel_await *)self)->max = max;
  }
  return self;
}

PyObject *
channel_await_new_select(queue_select *select, PyObject *channels, int64_t timeout)
{
  channel_object *leader = (channel_object *)PyTuple_GET_ITEM(channels, 0);
  for (Py_ssize_t i = 1; i < PyTuple_GET_SIZE(channels) && !leader->poll; i++) {
    channel_object *other = (channel_object *)PyTuple_GET_ITEM(channels, i);
    leader = other->poll ? other : leader; /* one that polls has all of them polled */
  }
  channel_await *self = (channel_await *)channel_await_new(leader, AWAIT_SELECT, timeout);
  if (self == NULL) {
    queue_select_free(select);
    return NULL;
  }
  select->owner = self;
  self->select = select;
  self->channels = Py_NewRef(channels);
  return (PyObject *)self;
}

PyObject *
channel_await_done(channel_state *state, PyObject *value)
{
  channel_await *self = await_alloc(state);
  if (self != NULL) {
    self->kind = AWAIT_RECEIVE;
    self->value = Py_NewRef(value);
  }
  return (PyObject *)self;
}

/* --- the coroutine --- */

/* The caller holds a reference. */
static void
finish(channel_await *self)
{
  if (self->phase == PHASE_WAITING) {
    await_withdraw(self);
    await_stop_timer(self);
    Py_CLEAR(self->callback);
    Py_CLEAR(self->context);
  }
  self->phase = PHASE_FINISHED;
  if (self->kind == AWAIT_SEND) {
    outgoing_clear(&self->out);
  }
  if (self->select != NULL) {
    select_clear(self);
  }
  if (self->read != NULL) {
    await_read_clear(self);
  }
  Py_CLEAR(self->channel);
  Py_CLEAR(self->loop);
  Py_CLEAR(self->value);
}

static PySendResult
fail(channel_await *self)
{
  finish(self);
  return PYGEN_ERROR;
}

static PySendResult
conclude_send(channel_await *self, int result, PyObject **out)
{
  if (result != QUEUE_OK) {
    channel_set_send_error(self->channel, result);
    return fail(self);
  }
  *out = Py_NewRef(Py_None);
  finish(self);
  return PYGEN_RETURN;
}

/* What it returns for a message that was claimed, which is consumed; NULL with an exception. */
static PyObject *
receive_result(channel_await *self, message *m)
{
  switch (self->kind) {
  case AWAIT_MANY:
    return channel_gather(self->channel, m, self->max);
  case AWAIT_SELECT:
    return channel_select_result(PyTuple_GET_ITEM(self->channels, self->arm), m);
  default:
    return channel_decode(self->channel->channel, m);
  }
}

static PySendResult
conclude_value(channel_await *self, PyObject *value, PyObject **out)
{
  *out = value;
  finish(self);
  return value == NULL ? PYGEN_ERROR : PYGEN_RETURN;
}

static PySendResult
yield_self(channel_await *self, PyObject **out)
{
  self->blocking = 1;
  self->done = 0;
  *out = Py_NewRef(self);
  return PYGEN_NEXT;
}

static int64_t
coarse_clock(void)
{
  struct timespec now;
#ifdef CLOCK_MONOTONIC_COARSE
  clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
#else
  clock_gettime(CLOCK_MONOTONIC, &now);
#endif
  return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static void
note_turn(channel_object *channel)
{
  channel->streak = 0;
  channel->turn = coarse_clock();
}

/* Has this channel kept the loop for so long that others have to get their turn? */
static int
owes_turn(channel_object *channel)
{
  return ++channel->streak > STREAK_MAX || coarse_clock() - channel->turn > TURN_MAX;
}

/* Lets the loop run everything else once before looking for a message. */
static PySendResult
give_turn(channel_await *self, PyObject **out)
{
  note_turn(self->channel);
  self->phase = PHASE_YIELDED;
  *out = Py_NewRef(Py_None);
  return PYGEN_NEXT;
}

static PySendResult take_or_wait(channel_await *self, PyObject **out);

/* A read has another message, or the channel is closed. */
static PySendResult
conclude_read(channel_await *self, int result, message *m, PyObject **out)
{
  if (await_read_feed(self, result, m, out)) {
    return conclude_value(self, *out, out);
  }
  await_read_on(self);
  return owes_turn(self->channel) ? give_turn(self, out) : take_or_wait(self, out);
}

/* A message was claimed or sent, or the channel is closed and drained. */
static PySendResult
conclude(channel_await *self, int result, message *m, PyObject **out)
{
  if (self->kind == AWAIT_SEND || self->kind == AWAIT_DRAINED) {
    return conclude_send(self, result, out);
  }
  if (self->kind == AWAIT_READ) {
    return conclude_read(self, result, m, out);
  }
  if (result == QUEUE_OK) {
    return conclude_value(self, receive_result(self, m), out);
  }
  if (self->kind == AWAIT_NEXT) {
    PyErr_SetNone(PyExc_StopAsyncIteration);
  } else if (self->kind == AWAIT_SELECT) {
    PyErr_SetString(self->state->channel_closed, "all channels are closed");
  } else {
    channel_set_closed(self->channel);
  }
  return fail(self);
}

/* When nothing can be done: the next message of a burst is probably about to come. */
static int
may_come_soon(const channel_await *self)
{
  return self->phase == PHASE_NEW && await_receives(self) && self->timeout < 0 &&
         self->channel->burst >= CHANNEL_BURST_MIN;
}

static PySendResult
fail_timed_out(channel_await *self)
{
  PyErr_SetString(PyExc_TimeoutError, self->kind == AWAIT_SEND ? "there was no room in time"
                                                               : "no message came in time");
  return fail(self);
}

/* Does its work if that can be done now, or waits. */
static PySendResult
take_or_wait(channel_await *self, PyObject **out)
{
  message m;
  int result = await_try(self, &m);
  if (result != QUEUE_EMPTY) {
    self->channel->burst += (unsigned)await_receives(self);
    return conclude(self, result, &m, out);
  }
  if (may_come_soon(self)) {
    return give_turn(self, out);
  }
  if (self->timeout == 0) {
    return fail_timed_out(self);
  }
  if (await_choose_wake(self) < 0) {
    return fail(self);
  }
  self->phase = PHASE_WAITING;
  if (!PyObject_GC_IsTracked((PyObject *)self)) {
    PyObject_GC_Track(self);
  }
  if (await_receives(self)) {
    self->channel->burst = 0;
  }
  note_turn(self->channel);
  result = await_wait(self, &m);
  if (result != QUEUE_EMPTY) {
    return conclude(self, result, &m, out);
  }
  if (await_start_timers(self) < 0) {
    return fail(self);
  }
  return yield_self(self, out);
}

/* Resumed after it has waited. */
static PySendResult
resume(channel_await *self, PyObject **out)
{
  message m;
  if (self->callback != NULL) {
    PyErr_SetString(PyExc_RuntimeError, "this channel operation is awaited already");
    return PYGEN_ERROR;
  }
  self->blocking = 0;
  if (self->cancelled) {
    await_set_cancelled(self);
    return fail(self);
  }
  if (self->timed_out) {
    return fail_timed_out(self);
  }
  if (self->link.gate == NULL && !await_polls(self)) {
    return take_or_wait(self, out); /* its loop was closed meanwhile */
  }
  int result = await_claim(self, &m);
  return result == QUEUE_EMPTY ? yield_self(self, out) : conclude(self, result, &m, out);
}

static PySendResult
await_send(PyObject *object, PyObject *arg, PyObject **out)
{
  channel_await *self = (channel_await *)object;
  (void)arg;
  *out = NULL;
  switch (self->phase) {
  case PHASE_NEW:
    if (self->value != NULL) {
      *out = Py_NewRef(self->value);
      finish(self);
      return PYGEN_RETURN;
    }
    if (self->read != NULL && await_read_begin(self, out)) {
      return conclude_value(self, *out, out);
    }
    if (owes_turn(self->channel)) {
      return give_turn(self, out);
    }
    return take_or_wait(self, out);
  case PHASE_YIELDED:
    return take_or_wait(self, out);
  case PHASE_WAITING:
    return resume(self, out);
  default:
    PyErr_SetString(PyExc_RuntimeError, "cannot reuse an already awaited channel operation");
    return PYGEN_ERROR;
  }
}

/* Raises StopIteration with a value as it is, tuples and exceptions too. */
static void
set_stop_iteration(PyObject *value)
{
  PyObject *exception = PyObject_CallOneArg(PyExc_StopIteration, value);
  if (exception != NULL) {
    PyErr_SetObject(PyExc_StopIteration, exception);
    Py_DECREF(exception);
  }
}

static PyObject *
await_send_method(PyObject *self, PyObject *arg)
{
  PyObject *out;
  /* The awaitable must outlive the end of its wait. */
  Py_INCREF(self);
  PySendResult result = await_send(self, arg, &out);
  if (result == PYGEN_RETURN) {
    set_stop_iteration(out);
    Py_CLEAR(out);
  }
  Py_DECREF(self);
  return out;
}

static PyObject *
await_iternext(PyObject *self)
{
  return await_send_method(self, Py_None);
}

/* Sets the exception that throw(type[, value[, traceback]]) means. */
static void
set_thrown(PyObject *type, PyObject *value, PyObject *traceback)
{
  if (PyExceptionInstance_Check(type)) {
    PyErr_SetObject((PyObject *)Py_TYPE(type), type);
  } else if (PyExceptionClass_Check(type)) {
    PyErr_SetObject(type, value);
  } else {
    PyErr_Format(PyExc_TypeError, "throw() takes an exception, not %.100s", Py_TYPE(type)->tp_name);
    return;
  }
  if (traceback != NULL && traceback != Py_None) {
    PyObject *set_type, *set_value, *set_traceback;
    PyErr_Fetch(&set_type, &set_value, &set_traceback);
    Py_XSETREF(set_traceback, Py_NewRef(traceback));
    PyErr_Restore(set_type, set_value, set_traceback);
  }
}

static PyObject *
await_throw(PyObject *object, PyObject *args)
{
  PyObject *type, *value = NULL, *traceback = NULL;
  if (!PyArg_ParseTuple(args, "O|OO:throw", &type, &value, &traceback)) {
    return NULL;
  }
  finish((channel_await *)object);
  set_thrown(type, value, traceback);
  return NULL;
}

static PyObject *
await_close(PyObject *self, PyObject *Py_UNUSED(ignored))
{
  finish((channel_await *)self);
  Py_RETURN_NONE;
}

/* --- the type --- */

static const char *const names[] = {
    [AWAIT_RECEIVE] = "Channel.async_receive", [AWAIT_NEXT] = "Channel.__anext__",
    [AWAIT_SEND] = "Channel.async_send",       [AWAIT_MANY] = "Channel.async_receive_many",
    [AWAIT_SELECT] = "channel.select",
};

static const char *const byte_names[] = {
    [AWAIT_RECEIVE] = "ByteChannel.async_receive_bytes",
    [AWAIT_NEXT] = "ByteChannel.__anext__",
    [AWAIT_SEND] = "ByteChannel.async_send_bytes",
    [AWAIT_SELECT] = "channel.select",
    [AWAIT_READ] = "ByteChannel.async_read",
    [AWAIT_DRAINED] = "ByteChannel._async_drained",
};

static const char *
name_of(const channel_await *self)
{
  return (self->bytes ? byte_names : names)[self->kind];
}

static PyObject *
get_name(PyObject *object, void *Py_UNUSED(closure))
{
  return PyUnicode_FromString(name_of((channel_await *)object));
}

static PyObject *
await_repr(PyObject *object)
{
  static const char *const phases[] = {"not awaited", "giving way", "waiting", "finished"};
  channel_await *self = (channel_await *)object;
  return PyUnicode_FromFormat("<%s %s at %p>", name_of(self), phases[self->phase], self);
}

static int
await_traverse(PyObject *object, visitproc visit, void *arg)
{
  channel_await *self = (channel_await *)object;
  Py_VISIT(Py_TYPE(object));
  Py_VISIT(self->channel);
  Py_VISIT(self->channels);
  Py_VISIT(self->value);
  Py_VISIT(self->cancel_message);
  Py_VISIT(self->loop);
  Py_VISIT(self->callback);
  Py_VISIT(self->context);
  Py_VISIT(self->timer);
  return 0;
}

static int
await_clear(PyObject *object)
{
  channel_await *self = (channel_await *)object;
  Py_CLEAR(self->cancel_message);
  finish(self);
  return 0;
}

static void
await_dealloc(PyObject *object)
{
  channel_await *self = (channel_await *)object;
  channel_state *state = self->state;
  PyTypeObject *type = Py_TYPE(object);
  PyObject_GC_UnTrack(object);
  await_clear(object);
  if (state->free_await_count < FREE_MAX) {
    self->phase = PHASE_NEW;
    self->blocking = self->done = self->timed_out = self->cancelled = 0;
    self->next_free = state->free_awaits;
    state->free_awaits = self;
    state->free_await_count++;
  } else {
    PyObject_GC_Del(object);
  }
  Py_DECREF(type);
}

static PyMethodDef await_methods[] = {
    {"send", await_send_method, METH_O, NULL},
    {"throw", await_throw, METH_VARARGS, NULL},
    {"close", await_close, METH_NOARGS, NULL},
    {"get_loop", await_future_get_loop, METH_NOARGS, NULL},
    {"add_done_callback", (PyCFunction)(void (*)(void))await_future_add_done_callback,
     METH_VARARGS | METH_KEYWORDS, NULL},
    {"remove_done_callback", await_future_remove_done_callback, METH_O, NULL},
    {"cancel", (PyCFunction)(void (*)(void))await_future_cancel, METH_VARARGS | METH_KEYWORDS,
     NULL},
    {"result", await_future_result, METH_NOARGS, NULL},
    {"done", await_future_done, METH_NOARGS, NULL},
    {"cancelled", await_future_cancelled, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef await_getset[] = {
    {"_asyncio_future_blocking", await_future_get_blocking, await_future_set_blocking, NULL, NULL},
    {"__name__", get_name, NULL, NULL, NULL},
    {"__qualname__", get_name, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot await_slots[] = {
    {Py_tp_doc, "An operation of a channel, to be awaited."},
    {Py_tp_dealloc, await_dealloc},
    {Py_tp_traverse, await_traverse},
    {Py_tp_clear, await_clear},
    {Py_tp_repr, await_repr},
    {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, await_iternext},
    {Py_am_await, PyObject_SelfIter},
    {Py_am_send, await_send},
    {Py_tp_methods, await_methods},
    {Py_tp_getset, await_getset},
    {0, NULL},
};

PyType_Spec channel_await_spec = {
    .name = "erlang.channel._Operation",
    .basicsize = sizeof(channel_await),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION |
             Py_TPFLAGS_IMMUTABLETYPE,
    .slots = await_slots,
};
