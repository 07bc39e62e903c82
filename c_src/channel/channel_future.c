/* The future that a task sees in a channel's awaitable while it waits: asyncio asks a yielded object
 * for _asyncio_future_blocking, get_loop, add_done_callback, cancel and result.
 */
#include "channel_await.h"

static int
check_waiting(channel_await *self)
{
  if (self->phase != PHASE_WAITING || self->loop == NULL) {
    PyErr_SetString(PyExc_RuntimeError, "this channel operation is not waiting");
    return -1;
  }
  return 0;
}

/* None but while it waits, so that asyncio.isfuture() does not take one that is to be awaited
 * for a future that somebody else drives. */
PyObject *
await_future_get_blocking(PyObject *object, void *Py_UNUSED(closure))
{
  channel_await *self = (channel_await *)object;
  if (self->phase != PHASE_WAITING) {
    Py_RETURN_NONE;
  }
  return PyBool_FromLong(self->blocking);
}

int
await_future_set_blocking(PyObject *object, PyObject *value, void *Py_UNUSED(closure))
{
  int truth = value == NULL ? 0 : PyObject_IsTrue(value);
  if (truth < 0) {
    return -1;
  }
  ((channel_await *)object)->blocking = truth;
  return 0;
}

PyObject *
await_future_get_loop(PyObject *object, PyObject *Py_UNUSED(ignored))
{
  channel_await *self = (channel_await *)object;
  return check_waiting(self) < 0 ? NULL : Py_NewRef(self->loop);
}

PyObject *
await_future_add_done_callback(PyObject *object, PyObject *args, PyObject *kwargs)
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
    PyErr_SetString(PyExc_RuntimeError, "this channel operation is awaited already");
    return NULL;
  }
  context = context == NULL || context == Py_None ? PyContext_CopyCurrent() : Py_NewRef(context);
  if (context == NULL) {
    return NULL;
  }
  self->callback = Py_NewRef(callback);
  self->context = context;
  if (self->done && await_schedule_callback(self) < 0) {
    return NULL;
  }
  Py_RETURN_NONE;
}

PyObject *
await_future_remove_done_callback(PyObject *object, PyObject *callback)
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
PyObject *
await_future_cancel(PyObject *object, PyObject *args, PyObject *kwargs)
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
  await_withdraw(self);
  await_stop_timer(self);
  if (await_schedule_callback(self) < 0) {
    return NULL;
  }
  Py_RETURN_TRUE;
}

PyObject *
await_future_result(PyObject *object, PyObject *Py_UNUSED(ignored))
{
  channel_await *self = (channel_await *)object;
  if (self->cancelled) {
    await_set_cancelled(self);
    return NULL;
  }
  Py_RETURN_NONE;
}

PyObject *
await_future_done(PyObject *object, PyObject *Py_UNUSED(ignored))
{
  channel_await *self = (channel_await *)object;
  return PyBool_FromLong(self->done || self->phase == PHASE_FINISHED);
}

PyObject *
await_future_cancelled(PyObject *object, PyObject *Py_UNUSED(ignored))
{
  return PyBool_FromLong(((channel_await *)object)->cancelled);
}

void
await_set_cancelled(channel_await *self)
{
  if (self->cancel_message != NULL && self->cancel_message != Py_None) {
    PyErr_SetObject(self->state->cancelled_error, self->cancel_message);
  } else {
    PyErr_SetNone(self->state->cancelled_error);
  }
}
