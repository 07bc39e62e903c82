/* What async_receive() and __anext__() return: an awaitable in C.
 *
 * It is a coroutine to whoever drives it (send, throw, close), so that create_task, gather and wait_for
 * take it.  When a message is there it returns it at once.  When none is, it puts itself among the
 * queue's waiters and yields itself to the task, acting as the future that the task waits for: asyncio
 * asks a yielded object for _asyncio_future_blocking, get_loop, add_done_callback, cancel and result.
 * Waking runs the task's step straight from the event.  The message is claimed in that step, by send;
 * an exception thrown in, close, or the end of the object or of the loop gives it back instead.
 */
#include "channel_python.h"

#include <stddef.h>
#include <time.h>

#include "thread_wait.h"

#define STREAK_MAX 64        /* messages that one channel gives before the loop gets a turn */
#define TURN_MAX 1000000     /* nanoseconds, likewise */
#define POLL_INTERVAL 100e-6 /* seconds */
#define FREE_MAX 64          /* finished awaitables that are kept */

enum await_phase {
  PHASE_NEW,      /* nobody has awaited it yet */
  PHASE_YIELDED,  /* gave the loop a turn before looking for a message */
  PHASE_WAITING,  /* among the queue's waiters, or woken and not resumed yet */
  PHASE_FINISHED, /* returned, raised or closed */
};

struct channel_await {
  PyObject_HEAD
  queue_waiter waiter;
  gate_link link;
  channel_state *state;
  channel_object *channel; /* NULL when it only gives a value, and when finished */
  PyObject *value;         /* what it gives then */
  enum channel_await_kind kind;
  enum await_phase phase;
  int64_t timeout;  /* nanoseconds, or -1 */
  int64_t deadline; /* monotonic, when it waits with a timeout */
  int blocking;    /* _asyncio_future_blocking */
  int done;        /* as a future: its callback was run or is scheduled */
  int timed_out;
  int cancelled;
  PyObject *cancel_message;
  PyObject *loop;     /* that it waits on */
  PyObject *callback; /* of the task that waits */
  PyObject *context;
  PyObject *timer; /* handle of the timeout, or of the next poll */
  channel_await *next_free;
};

static queue *
queue_of(channel_await *self)
{
  return &self->channel->channel->to_python;
}

/* Finished ones are kept for the next receives: in a loop over a channel one object serves for all.  It
 * is tracked by the cyclic GC only while it waits: before, it refers to nothing that could refer back
 * but the channel. */
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
    self->timeout = timeout;
  }
  return (PyObject *)self;
}

PyObject *
channel_await_done(channel_state *state, PyObject *value)
{
  channel_await *self = await_alloc(state);
  if (self != NULL) {
    self->value = Py_NewRef(value);
  }
  return (PyObject *)self;
}

/* --- waking ------------------------------------------------------------------------------------ */

static channel_await *
of_waiter(queue_waiter *w)
{
  return (channel_await *)((char *)w - offsetof(channel_await, waiter));
}

/* Queue's lock held, no GIL. */
static int
wake_through_gate(queue_waiter *w, enum queue_wake_reason reason)
{
  (void)reason;
  return gate_wake(&of_waiter(w)->link);
}

/* Queue's lock held, no GIL.  One that polls looks for itself. */
static int
wake_by_polling(queue_waiter *w, enum queue_wake_reason reason)
{
  (void)w, (void)reason;
  return 0;
}

/* Calls the task's callback in its context, now. */
static int
run_callback(channel_await *self)
{
  PyObject *callback = self->callback;
  PyObject *context = self->context;
  if (callback == NULL) {
    return 0; /* add_done_callback schedules it when it comes */
  }
  self->callback = NULL;
  self->context = NULL;
  PyObject *result = NULL;
  if (PyContext_Enter(context) == 0) {
    result = PyObject_CallOneArg(callback, (PyObject *)self);
    if (PyContext_Exit(context) < 0) {
      Py_CLEAR(result);
    }
  }
  Py_DECREF(callback);
  Py_DECREF(context);
  Py_XDECREF(result);
  return result == NULL ? -1 : 0;
}

int
channel_await_run(channel_await *self)
{
  if (self->done || self->phase != PHASE_WAITING) {
    return 0;
  }
  self->done = 1;
  return run_callback(self);
}

/* Schedules the callback for the loop's next turn. */
static int
schedule_callback(channel_await *self)
{
  PyObject *args[] = {self->loop, self->callback, (PyObject *)self, self->context};
  self->done = 1;
  if (self->callback == NULL) {
    return 0;
  }
  PyObject *handle = PyObject_VectorcallMethod(self->state->name_call_soon, args,
                                               3 | PY_VECTORCALL_ARGUMENTS_OFFSET,
                                               self->state->call_soon_keywords);
  Py_CLEAR(self->callback);
  Py_CLEAR(self->context);
  Py_XDECREF(handle);
  return handle == NULL ? -1 : 0;
}

/* --- the timer: timeouts, and polling ---------------------------------------------------------- */

static PyObject *timer_due(PyObject *object, PyObject *ignored);

static PyMethodDef timer_definition = {"_channel_timer", timer_due, METH_NOARGS, NULL};

static int
start_timer(channel_await *self, double seconds)
{
  PyObject *delay = PyFloat_FromDouble(seconds);
  PyObject *callback = PyCFunction_New(&timer_definition, (PyObject *)self);
  if (delay != NULL && callback != NULL) {
    Py_XSETREF(self->timer, PyObject_CallMethodObjArgs(self->loop, self->state->name_call_later,
                                                       delay, callback, NULL));
  }
  Py_XDECREF(delay);
  Py_XDECREF(callback);
  return self->timer == NULL ? -1 : 0;
}

static void
stop_timer(channel_await *self)
{
  PyObject *timer = self->timer;
  PyObject *type, *value, *traceback;
  if (timer == NULL) {
    return;
  }
  self->timer = NULL;
  PyErr_Fetch(&type, &value, &traceback);
  PyObject *result = PyObject_CallMethodNoArgs(timer, self->state->name_cancel);
  if (result == NULL) {
    PyErr_WriteUnraisable(timer);
  }
  Py_XDECREF(result);
  Py_DECREF(timer);
  PyErr_Restore(type, value, traceback);
}

static int
polls(const channel_await *self)
{
  return self->waiter.wake == wake_by_polling;
}

/* The loop calls this.  What was handed before the time was up is delivered. */
static PyObject *
timer_due(PyObject *object, PyObject *Py_UNUSED(ignored))
{
  channel_await *self = (channel_await *)object;
  Py_CLEAR(self->timer);
  if (self->done || self->phase != PHASE_WAITING) {
    Py_RETURN_NONE;
  }
  int over = !polls(self) || (self->timeout >= 0 && thread_wait_clock() >= self->deadline);
  if (over && queue_withdraw(queue_of(self), &self->waiter)) {
    self->timed_out = 1;
  } else if (!polls(self)) {
    Py_RETURN_NONE; /* woken: the event is under way */
  } else if (queue_is_waiting(queue_of(self), &self->waiter)) {
    if (start_timer(self, POLL_INTERVAL) < 0) {
      return NULL;
    }
    Py_RETURN_NONE;
  }
  if (channel_await_run(self) < 0) {
    return NULL;
  }
  Py_RETURN_NONE;
}

/* --- the coroutine ----------------------------------------------------------------------------- */

/* Stops waiting, if it does: gives back what it was handed. */
static void
withdraw(channel_await *self)
{
  if (self->phase == PHASE_WAITING && self->channel != NULL) {
    queue_cancel(queue_of(self), &self->waiter);
  }
  gate_leave(&self->link);
}

/* The caller holds a reference. */
static void
finish(channel_await *self)
{
  if (self->phase == PHASE_WAITING) {
    withdraw(self);
    stop_timer(self);
    Py_CLEAR(self->callback);
    Py_CLEAR(self->context);
  }
  self->phase = PHASE_FINISHED;
  Py_CLEAR(self->channel);
  Py_CLEAR(self->loop);
  Py_CLEAR(self->value);
}

void
channel_await_loop_closed(channel_await *self)
{
  withdraw(self);
}

static PySendResult
fail(channel_await *self)
{
  finish(self);
  return PYGEN_ERROR;
}

/* A message was claimed, or the channel is closed and drained. */
static PySendResult
conclude(channel_await *self, int result, message *m, PyObject **out)
{
  if (result == QUEUE_OK) {
    *out = channel_decode(m);
    finish(self);
    return *out == NULL ? PYGEN_ERROR : PYGEN_RETURN;
  }
  if (self->kind == AWAIT_NEXT) {
    PyErr_SetNone(PyExc_StopAsyncIteration);
  } else {
    channel_set_closed(self->state);
  }
  return fail(self);
}

/* The loop that runs on this thread, as a new reference; NULL with an exception. */
static PyObject *
running_loop(channel_state *state)
{
  if (channel_state_open_loops(state) < 0) {
    return NULL;
  }
  PyObject *loop = state->loop_api->running();
  if (loop != NULL) {
    return Py_NewRef(loop);
  }
  loop = PyObject_CallNoArgs(state->get_running_loop);
  if (loop == Py_None) {
    Py_DECREF(loop);
    PyErr_SetString(PyExc_RuntimeError, "no running event loop");
    return NULL;
  }
  return loop;
}

/* Decides how it will be woken: 0, or -1 with an exception. */
static int
choose_wake(channel_await *self)
{
  channel_gate *gate = NULL;
  Py_XSETREF(self->loop, running_loop(self->state));
  if (self->loop == NULL) {
    return -1;
  }
  if (!self->channel->poll) {
    gate = channel_gate_for(self->state, self->loop);
    if (gate == NULL && PyErr_Occurred()) {
      return -1;
    }
  }
  self->waiter.wake = gate != NULL ? wake_through_gate : wake_by_polling;
  if (gate != NULL) {
    gate_enter(gate, &self->link);
  }
  return 0;
}

static int
start_timers(channel_await *self)
{
  if (self->timeout >= 0) {
    self->deadline = thread_wait_clock() + self->timeout;
  }
  if (polls(self)) {
    return start_timer(self, POLL_INTERVAL);
  }
  return self->timeout >= 0 ? start_timer(self, (double)self->timeout / 1e9) : 0;
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

/* Claims a message that is there, or waits for one. */
static PySendResult
take_or_wait(channel_await *self, PyObject **out)
{
  message m;
  int result = queue_take(queue_of(self), &m);
  if (result != QUEUE_EMPTY) {
    return conclude(self, result, &m, out);
  }
  if (self->timeout == 0) {
    PyErr_SetString(PyExc_TimeoutError, "no message is there");
    return fail(self);
  }
  if (choose_wake(self) < 0) {
    return fail(self);
  }
  self->phase = PHASE_WAITING;
  if (!PyObject_GC_IsTracked((PyObject *)self)) {
    PyObject_GC_Track(self);
  }
  note_turn(self->channel);
  result = queue_wait(queue_of(self), &self->waiter, &m);
  if (result != QUEUE_EMPTY) {
    return conclude(self, result, &m, out);
  }
  if (start_timers(self) < 0) {
    return fail(self);
  }
  return yield_self(self, out);
}

static void
set_cancelled(channel_await *self)
{
  if (self->cancel_message != NULL && self->cancel_message != Py_None) {
    PyErr_SetObject(self->state->cancelled_error, self->cancel_message);
  } else {
    PyErr_SetNone(self->state->cancelled_error);
  }
}

/* Resumed after it has waited. */
static PySendResult
resume(channel_await *self, PyObject **out)
{
  message m;
  if (self->callback != NULL) {
    PyErr_SetString(PyExc_RuntimeError, "this channel receive is awaited already");
    return PYGEN_ERROR;
  }
  self->blocking = 0;
  if (self->cancelled) {
    set_cancelled(self);
    return fail(self);
  }
  if (self->timed_out) {
    PyErr_SetString(PyExc_TimeoutError, "no message came in time");
    return fail(self);
  }
  if (self->link.gate == NULL && !polls(self)) {
    return take_or_wait(self, out); /* its loop was closed meanwhile */
  }
  int result = queue_claim(queue_of(self), &self->waiter, &m);
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
    if (owes_turn(self->channel)) {
      note_turn(self->channel);
      self->phase = PHASE_YIELDED;
      *out = Py_NewRef(Py_None);
      return PYGEN_NEXT;
    }
    return take_or_wait(self, out);
  case PHASE_YIELDED:
    return take_or_wait(self, out);
  case PHASE_WAITING:
    return resume(self, out);
  default:
    PyErr_SetString(PyExc_RuntimeError, "cannot reuse an already awaited channel receive");
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
    PyErr_Format(PyExc_TypeError, "throw() takes an exception, not %.100s",
                 Py_TYPE(type)->tp_name);
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

/* --- the future that the task sees --------------------------------------------------------------- */

static int
check_waiting(channel_await *self)
{
  if (self->phase != PHASE_WAITING || self->loop == NULL) {
    PyErr_SetString(PyExc_RuntimeError, "this channel receive is not waiting");
    return -1;
  }
  return 0;
}

/* None but while it waits, so that asyncio.isfuture() does not take a receive that is to be awaited for
 * a future that somebody else drives. */
static PyObject *
get_blocking(PyObject *object, void *Py_UNUSED(closure))
{
  channel_await *self = (channel_await *)object;
  if (self->phase != PHASE_WAITING) {
    Py_RETURN_NONE;
  }
  return PyBool_FromLong(self->blocking);
}

static int
set_blocking(PyObject *object, PyObject *value, void *Py_UNUSED(closure))
{
  int truth = value == NULL ? 0 : PyObject_IsTrue(value);
  if (truth < 0) {
    return -1;
  }
  ((channel_await *)object)->blocking = truth;
  return 0;
}

static PyObject *
future_get_loop(PyObject *object, PyObject *Py_UNUSED(ignored))
{
  channel_await *self = (channel_await *)object;
  return check_waiting(self) < 0 ? NULL : Py_NewRef(self->loop);
}

static PyObject *
future_add_done_callback(PyObject *object, PyObject *args, PyObject *kwargs)
{
  static char *keywords[] = {"", "context", NULL};
  channel_await *self = (channel_await *)object;
  PyObject *callback, *context = NULL;
  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|$O:add_done_callback", keywords, &callback,
                                   &context) ||
      check_waiting(self) < 0) {
    return NULL;
  }
  if (self->callback != NULL) {
    PyErr_SetString(PyExc_RuntimeError, "this channel receive is awaited already");
    return NULL;
  }
  context = context == NULL || context == Py_None ? PyContext_CopyCurrent() : Py_NewRef(context);
  if (context == NULL) {
    return NULL;
  }
  self->callback = Py_NewRef(callback);
  self->context = context;
  if (self->done && schedule_callback(self) < 0) {
    return NULL;
  }
  Py_RETURN_NONE;
}

static PyObject *
future_remove_done_callback(PyObject *object, PyObject *callback)
{
  channel_await *self = (channel_await *)object;
  int same = self->callback == NULL ? 0 : PyObject_RichCompareBool(self->callback, callback, Py_EQ);
  if (same < 0) {
    return NULL;
  }
  if (same) {
    Py_CLEAR(self->callback);
    Py_CLEAR(self->context);
  }
  return PyLong_FromLong(same);
}

/* Gives back what it was handed and lets the task run, which will be thrown CancelledError. */
static PyObject *
future_cancel(PyObject *object, PyObject *args, PyObject *kwargs)
{
  static char *keywords[] = {"msg", NULL};
  channel_await *self = (channel_await *)object;
  PyObject *text = Py_None;
  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|O:cancel", keywords, &text)) {
    return NULL;
  }
  if (self->phase != PHASE_WAITING || self->done) {
    Py_RETURN_FALSE;
  }
  self->cancelled = 1;
  Py_XSETREF(self->cancel_message, Py_NewRef(text));
  withdraw(self);
  stop_timer(self);
  if (schedule_callback(self) < 0) {
    return NULL;
  }
  Py_RETURN_TRUE;
}

static PyObject *
future_result(PyObject *object, PyObject *Py_UNUSED(ignored))
{
  channel_await *self = (channel_await *)object;
  if (self->cancelled) {
    set_cancelled(self);
    return NULL;
  }
  Py_RETURN_NONE;
}

static PyObject *
future_done(PyObject *object, PyObject *Py_UNUSED(ignored))
{
  channel_await *self = (channel_await *)object;
  return PyBool_FromLong(self->done || self->phase == PHASE_FINISHED);
}

static PyObject *
future_cancelled(PyObject *object, PyObject *Py_UNUSED(ignored))
{
  return PyBool_FromLong(((channel_await *)object)->cancelled);
}

/* --- the type ------------------------------------------------------------------------------------ */

static PyObject *
get_name(PyObject *object, void *Py_UNUSED(closure))
{
  return PyUnicode_FromString(((channel_await *)object)->kind == AWAIT_NEXT ? "Channel.__anext__"
                                                                            : "Channel.async_receive");
}

static PyObject *
await_repr(PyObject *object)
{
  static const char *const phases[] = {"not awaited", "giving way", "waiting", "finished"};
  channel_await *self = (channel_await *)object;
  return PyUnicode_FromFormat("<%s %s at %p>",
                              self->kind == AWAIT_NEXT ? "Channel.__anext__" : "Channel.async_receive",
                              phases[self->phase], self);
}

static int
await_traverse(PyObject *object, visitproc visit, void *arg)
{
  channel_await *self = (channel_await *)object;
  Py_VISIT(Py_TYPE(object));
  Py_VISIT(self->channel);
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
    {"get_loop", future_get_loop, METH_NOARGS, NULL},
    {"add_done_callback", (PyCFunction)(void (*)(void))future_add_done_callback,
     METH_VARARGS | METH_KEYWORDS, NULL},
    {"remove_done_callback", future_remove_done_callback, METH_O, NULL},
    {"cancel", (PyCFunction)(void (*)(void))future_cancel, METH_VARARGS | METH_KEYWORDS, NULL},
    {"result", future_result, METH_NOARGS, NULL},
    {"done", future_done, METH_NOARGS, NULL},
    {"cancelled", future_cancelled, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef await_getset[] = {
    {"_asyncio_future_blocking", get_blocking, set_blocking, NULL, NULL},
    {"__name__", get_name, NULL, NULL, NULL},
    {"__qualname__", get_name, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot await_slots[] = {
    {Py_tp_doc, "The next message of a channel, to be awaited."},
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
    .name = "erlang.channel._Receive",
    .basicsize = sizeof(channel_await),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION |
             Py_TPFLAGS_IMMUTABLETYPE,
    .slots = await_slots,
};
