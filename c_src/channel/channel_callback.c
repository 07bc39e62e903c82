/* Channel._channel_wait: a one-shot wait that is reported to a loop by number, and can be withdrawn. */
#include "channel_python.h"

#include <stdatomic.h>
#include <stdlib.h>

/* One count is the queue's while it waits, one the Python object's. */
typedef struct callback_waiter {
  queue_waiter base;
  atomic_int refs;
  const loop_api *api; /* constant, and so the rest */
  loop_core *core;     /* counted */
  uint64_t id;
} callback_waiter;

/* What _channel_wait returns. */
typedef struct callback_object {
  PyObject_HEAD
  channel *channel; /* counted */
  callback_waiter *waiter;
} callback_object;

/* Any thread, GIL or not. */
static void
drop(callback_waiter *w)
{
  if (atomic_fetch_sub_explicit(&w->refs, 1, memory_order_acq_rel) == 1) {
    w->api->core_decref(w->core);
    free(w);
  }
}

/* Queue's lock held, no GIL. */
static int
wake_callback(queue_waiter *base, enum queue_wake_reason reason, queue_laters *laters)
{
  callback_waiter *w = (callback_waiter *)base;
  (void)laters;
  if (reason != QUEUE_WAKE_DROP) {
    w->api->post(w->core, w->id, LOOP_EVENT_TIMER);
  }
  drop(w);
  return 0;
}

/* NULL with an exception. */
static callback_waiter *
new_waiter(channel_state *state, PyObject *loop, uint64_t id)
{
  loop_core *core = state->loop_api->core_of(loop);
  if (core == NULL) {
    PyErr_SetString(PyExc_TypeError, "_channel_wait() needs an ErlangEventLoop");
    return NULL;
  }
  callback_waiter *w = calloc(1, sizeof(*w));
  if (w == NULL) {
    state->loop_api->core_decref(core);
    PyErr_NoMemory();
    return NULL;
  }
  w->base = (queue_waiter){.wake = wake_callback, .notify = 1};
  atomic_init(&w->refs, 2);
  w->api = state->loop_api;
  w->core = core;
  w->id = id;
  return w;
}

static void
withdraw(callback_object *self)
{
  if (queue_withdraw(&self->channel->to_python, &self->waiter->base)) {
    drop(self->waiter);
  }
}

/* The handle that the loop has under the number, as a new reference; NULL without an exception when it
 * has none. */
static PyObject *
handle_of(PyObject *loop, PyObject *id)
{
  PyObject *timers = PyObject_GetAttrString(loop, "_timers");
  if (timers == NULL) {
    return NULL;
  }
  PyObject *handle = PyObject_GetItem(timers, id);
  Py_DECREF(timers);
  if (handle == NULL && PyErr_ExceptionMatches(PyExc_KeyError)) {
    PyErr_Clear();
  }
  return handle;
}

/* Has the wait withdrawn when the handle goes away: 0, or -1 with an exception. */
static int
follow_handle(channel_state *state, callback_object *wait, PyObject *handle)
{
  PyObject *cancel = PyObject_GetAttr((PyObject *)wait, state->name_cancel);
  if (cancel == NULL) {
    return -1;
  }
  PyObject *finalizer = PyObject_CallFunctionObjArgs(state->finalize, handle, cancel, NULL);
  Py_DECREF(cancel);
  if (finalizer == NULL) {
    return -1;
  }
  int result = PyObject_SetAttrString(finalizer, "atexit", Py_False);
  Py_DECREF(finalizer);
  return result;
}

/* 0, or -1 with an exception. */
static int
start(channel_state *state, callback_object *wait, PyObject *loop, PyObject *id)
{
  PyObject *handle = handle_of(loop, id);
  if (handle == NULL && PyErr_Occurred()) {
    return -1;
  }
  int result = handle == NULL ? 0 : follow_handle(state, wait, handle);
  Py_XDECREF(handle);
  return result;
}

PyObject *
channel_wait_method(PyObject *object, PyObject *args)
{
  channel_object *self = (channel_object *)object;
  channel_state *state = self->state;
  PyObject *number, *loop;
  if (!PyArg_ParseTuple(args, "OO:_channel_wait", &number, &loop) ||
      channel_state_open_loops(state) < 0) {
    return NULL;
  }
  unsigned long long id = PyLong_AsUnsignedLongLong(number);
  if (id == (unsigned long long)-1 && PyErr_Occurred()) {
    return NULL;
  }
  callback_waiter *w = new_waiter(state, loop, id);
  if (w == NULL) {
    return NULL;
  }
  callback_object *wait = PyObject_New(callback_object, state->callback_type);
  if (wait == NULL) {
    drop(w);
    drop(w);
    return NULL;
  }
  wait->channel = self->channel;
  wait->waiter = w;
  channel_incref(self->channel);
  if (queue_notify(&self->channel->to_python, &w->base) == QUEUE_OK) {
    wake_callback(&w->base, QUEUE_WAKE_NOTIFY, NULL);
  } else if (start(state, wait, loop, number) < 0) {
    withdraw(wait);
    Py_CLEAR(wait);
  }
  return (PyObject *)wait;
}

/* --- the type --- */

static PyObject *
callback_cancel(PyObject *self, PyObject *Py_UNUSED(ignored))
{
  withdraw((callback_object *)self);
  Py_RETURN_NONE;
}

/* The wait goes on without its object. */
static void
callback_dealloc(PyObject *object)
{
  callback_object *self = (callback_object *)object;
  PyTypeObject *type = Py_TYPE(object);
  drop(self->waiter);
  channel_decref(self->channel);
  PyObject_Free(self);
  Py_DECREF(type);
}

static PyMethodDef callback_methods[] = {
    {"cancel", callback_cancel, METH_NOARGS,
     "cancel()\n\nWithdraws the wait, unless it is over: nothing is reported any more."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot callback_slots[] = {
    {Py_tp_doc, "A wait that a loop is told of by number."},
    {Py_tp_dealloc, callback_dealloc},
    {Py_tp_methods, callback_methods},
    {0, NULL},
};

PyType_Spec channel_callback_spec = {
    .name = "erlang.channel._CallbackWait",
    .basicsize = sizeof(callback_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = callback_slots,
};
