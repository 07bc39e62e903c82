/* How a channel's awaitable waits: it is woken through its loop's gate, or polls, and may have a
 * timeout.
 *
 * Waking runs the task's step straight from the event.
 */
#include "channel_await.h"

#include <stddef.h>

#include "thread_wait.h"

#define POLL_INTERVAL 100e-6 /* seconds */

/* --- waking --- */

static channel_await *
of_waiter(queue_waiter *w)
{
  return (channel_await *)((char *)w - offsetof(channel_await, waiter));
}

static channel_await *
of_sender(queue_sender *s)
{
  return (channel_await *)((char *)s - offsetof(channel_await, sender));
}

/* Queue's lock held, no GIL. */
static int
wake_through_gate(queue_waiter *w, enum queue_wake_reason reason, queue_laters *laters)
{
  (void)reason, (void)laters;
  return gate_wake(&of_waiter(w)->link);
}

/* Queue's lock held, no GIL. */
static int
wake_select_through_gate(queue_select *s, queue_laters *laters)
{
  (void)laters;
  return gate_wake(&((channel_await *)s->owner)->link);
}

/* Queue's lock held, no GIL. */
static int
wake_select_by_polling(queue_select *s, queue_laters *laters)
{
  (void)s, (void)laters;
  return 0;
}

/* Queue's lock held, no GIL.  One that polls looks for itself. */
static int
wake_by_polling(queue_waiter *w, enum queue_wake_reason reason, queue_laters *laters)
{
  (void)w, (void)reason, (void)laters;
  return 0;
}

/* Queue's lock held, no GIL. */
static int
wake_sender_through_gate(queue_sender *s, queue_laters *laters)
{
  (void)laters;
  return gate_wake(&of_sender(s)->link);
}

/* Queue's lock held, no GIL. */
static int
wake_sender_by_polling(queue_sender *s, queue_laters *laters)
{
  (void)s, (void)laters;
  return 0;
}

/* Queue's lock held, no GIL. */
static void
wake_drain_through_gate(queue_drain *d, queue_laters *laters)
{
  channel_await *self = (channel_await *)((char *)d - offsetof(channel_await, drain));
  (void)laters;
  gate_wake(&self->link);
}

/* Queue's lock held, no GIL. */
static void
wake_drain_by_polling(queue_drain *d, queue_laters *laters)
{
  (void)d, (void)laters;
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
int
await_schedule_callback(channel_await *self)
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

/* --- the timer: timeouts, and polling --- */

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

void
await_stop_timer(channel_await *self)
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

int
await_polls(const channel_await *self)
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
  int over = !await_polls(self) || (self->timeout >= 0 && thread_wait_clock() >= self->deadline);
  if (over && await_time_out(self)) {
    self->timed_out = 1;
  } else if (!await_polls(self)) {
    Py_RETURN_NONE; /* woken: the event is under way */
  } else if (await_still_waits(self)) {
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

/* Stops waiting, if it does: gives back what it was handed. */
void
await_withdraw(channel_await *self)
{
  if (self->phase == PHASE_WAITING && self->channel != NULL) {
    await_give_up(self);
  }
  gate_leave(&self->link);
}

void
channel_await_loop_closed(channel_await *self)
{
  await_withdraw(self);
}

PyObject *
channel_running_loop(channel_state *state)
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
    Py_CLEAR(loop);
  }
  return loop;
}

/* Decides how it will be woken: 0, or -1 with an exception. */
int
await_choose_wake(channel_await *self)
{
  channel_gate *gate = NULL;
  Py_XSETREF(self->loop, channel_running_loop(self->state));
  if (self->loop == NULL) {
    if (!PyErr_Occurred()) {
      PyErr_SetString(PyExc_RuntimeError, "no running event loop");
    }
    return -1;
  }
  if (!self->channel->poll) {
    gate = channel_gate_for(self->state, self->loop);
    if (gate == NULL && PyErr_Occurred()) {
      return -1;
    }
  }
  self->waiter.wake = gate != NULL ? wake_through_gate : wake_by_polling;
  self->sender.wake = gate != NULL ? wake_sender_through_gate : wake_sender_by_polling;
  self->drain.wake = gate != NULL ? wake_drain_through_gate : wake_drain_by_polling;
  if (self->select != NULL) {
    self->select->wake = gate != NULL ? wake_select_through_gate : wake_select_by_polling;
  }
  if (gate != NULL) {
    gate_enter(gate, &self->link);
  }
  if (self->timeout >= 0) {
    self->deadline = thread_wait_clock() + self->timeout;
  }
  return 0;
}

int
await_start_timers(channel_await *self)
{
  if (await_polls(self)) {
    return start_timer(self, POLL_INTERVAL);
  }
  return self->timeout >= 0 ? start_timer(self, (double)self->timeout / 1e9) : 0;
}
