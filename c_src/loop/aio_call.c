/* Awaitable calls of the streams' methods: coroutines in all but type.
 *
 * One that need not wait is done in its first step.  One that waits for data yields a single future,
 * the reader's _waiter, as asyncio's do.  What is neither goes on as asyncio's own coroutine, which
 * finds everything as it was. */
#define _GNU_SOURCE
#include "aio.h"
#include "awaitable.h"

#include <string.h>
#include <structmember.h>

#define FREE_CALLS 64

enum call_state {
  CALL_FRESH,
  CALL_WAITING,
  CALL_INNER, /* asyncio's coroutine goes on */
  CALL_DONE,
};

/* What an attempt without waiting came to. */
enum attempt {
  ATTEMPT_FAILED = -1,
  ATTEMPT_WAIT,
  ATTEMPT_DONE,
  ATTEMPT_ASYNCIO, /* asyncio's own method knows what to do */
};

typedef struct aio_call {
  PyObject_HEAD
  aio_state *state;
  PyObject *owner; /* whose method it is */
  aio_data *data;  /* the reader's; NULL for the other classes */
  PyObject *argument;
  PyObject *future; /* while it waits */
  PyObject *inner;  /* asyncio's coroutine */
  Py_ssize_t size;
  Py_ssize_t scanned; /* bytes that hold no separator */
  uint8_t method;
  uint8_t stage;
  bool running; /* a step is on the stack */
} aio_call;

static const char *const qualified[AIO_METHODS] = {
    [AIO_READ] = "StreamReader.read",
    [AIO_READEXACTLY] = "StreamReader.readexactly",
    [AIO_READUNTIL] = "StreamReader.readuntil",
    [AIO_READLINE] = "StreamReader.readline",
    [AIO_ANEXT] = "StreamReader.__anext__",
    [AIO_DRAIN] = "StreamWriter.drain",
    [AIO_DRAIN_HELPER] = "StreamReaderProtocol._drain_helper",
};

/* --- attempts: what can be done without waiting --------------------------------------------------- */

static enum attempt
take(aio_call *self, Py_ssize_t size, PyObject **result)
{
  *result = aio_data_take(self->data, size);
  if (*result != NULL && aio_data_resume(self->data, false) < 0)
    Py_CLEAR(*result);
  return *result == NULL ? ATTEMPT_FAILED : ATTEMPT_DONE;
}

static enum attempt
try_read(aio_call *self, PyObject **result)
{
  Py_ssize_t size = aio_data_size(self->data);

  if (size == 0 && !self->data->eof && self->stage == CALL_FRESH)
    return ATTEMPT_WAIT;
  return take(self, size < self->size ? size : self->size, result);
}

static enum attempt
try_readexactly(aio_call *self, PyObject **result)
{
  if (aio_data_size(self->data) >= self->size)
    return take(self, self->size, result);
  return self->data->eof ? ATTEMPT_ASYNCIO : ATTEMPT_WAIT;
}

static enum attempt
try_readuntil(aio_call *self, PyObject **result)
{
  const char *separator = self->argument == NULL ? "\n" : PyBytes_AS_STRING(self->argument);
  Py_ssize_t length = self->argument == NULL ? 1 : PyBytes_GET_SIZE(self->argument);
  Py_ssize_t size = aio_data_size(self->data);
  const char *start, *found;

  if (size - self->scanned >= length) {
    start = aio_data_start(self->data);
    found =
        memmem(start + self->scanned, (size_t)(size - self->scanned), separator, (size_t)length);
    self->scanned = found == NULL ? size + 1 - length : found - start;
    if ((double)self->scanned > self->data->limit_value)
      return ATTEMPT_ASYNCIO;
    if (found != NULL)
      return take(self, self->scanned + length, result);
  }
  return self->data->eof ? ATTEMPT_ASYNCIO : ATTEMPT_WAIT;
}

/* 1 or 0; 0 also for what cannot be told. */
static bool
is_true(PyObject *value)
{
  int is = value == NULL ? -1 : PyObject_IsTrue(value);

  if (is < 0)
    PyErr_Clear();
  Py_XDECREF(value);
  return is == 1;
}

static bool
is_closing(aio_state *state, PyObject *transport)
{
  return is_true(PyObject_CallMethodNoArgs(transport, state->str_is_closing));
}

/* True when a reader has no exception for drain() to raise. */
static bool
reader_is_well(aio_state *state, PyObject *reader)
{
  aio_data *data;
  bool well;

  if (reader == Py_None)
    return true;
  if (!Py_IS_TYPE(reader, state->ours[AIO_READER]))
    return false;
  data = aio_reader_data(state, reader);
  well = data != NULL && !aio_is_some(data->exception);
  Py_XDECREF(data);
  return well;
}

static enum attempt
try_drain(aio_call *self, PyObject **result)
{
  aio_state *state = self->state;
  PyObject *reader = PyObject_GetAttr(self->owner, state->str_reader);
  PyObject *transport = PyObject_GetAttr(self->owner, state->str_transport);
  PyObject *protocol = PyObject_GetAttr(self->owner, state->str_protocol);
  bool done = reader != NULL && transport != NULL && protocol != NULL &&
              reader_is_well(state, reader) && !is_closing(state, transport) &&
              Py_IS_TYPE(protocol, state->ours[AIO_PROTOCOL]) && aio_may_write(state, protocol);

  PyErr_Clear();
  Py_XDECREF(reader);
  Py_XDECREF(transport);
  Py_XDECREF(protocol);
  *result = done ? Py_NewRef(Py_None) : NULL;
  return done ? ATTEMPT_DONE : ATTEMPT_ASYNCIO;
}

static enum attempt
try_drain_helper(aio_call *self, PyObject **result)
{
  if (!aio_may_write(self->state, self->owner))
    return ATTEMPT_ASYNCIO;
  *result = Py_NewRef(Py_None);
  return ATTEMPT_DONE;
}

static enum attempt
attempt(aio_call *self, PyObject **result)
{
  static enum attempt (*const attempts[AIO_METHODS])(aio_call *, PyObject **) = {
      [AIO_READ] = try_read,
      [AIO_READEXACTLY] = try_readexactly,
      [AIO_READUNTIL] = try_readuntil,
      [AIO_READLINE] = try_readuntil,
      [AIO_ANEXT] = try_readuntil,
      [AIO_DRAIN] = try_drain,
      [AIO_DRAIN_HELPER] = try_drain_helper,
  };

  /* As in asyncio, what was set meanwhile does not keep one who has waited from what has come. */
  if (self->data != NULL && ((self->stage == CALL_FRESH && aio_is_some(self->data->exception)) ||
                             !aio_data_plain(self->data)))
    return ATTEMPT_ASYNCIO;
  return attempts[self->method](self, result);
}

/* --- one step -------------------------------------------------------------------------------------- */

/* Makes the future that the one who feeds the reader resolves. */
static PySendResult
begin_to_wait(aio_call *self, PyObject **result)
{
  aio_data *data = self->data;

  if (aio_is_some(data->waiter)) {
    PyErr_Format(PyExc_RuntimeError,
                 "%s() called while another coroutine is already waiting for incoming data",
                 self->method == AIO_READ          ? "read"
                 : self->method == AIO_READEXACTLY ? "readexactly"
                                                   : "readuntil");
    return PYGEN_ERROR;
  }
  /* Waiting for data while paused would be for ever. */
  if (aio_data_resume(data, true) < 0)
    return PYGEN_ERROR;
  self->future = PyObject_CallMethodNoArgs(data->loop == NULL ? Py_None : data->loop,
                                           self->state->str_create_future);
  if (self->future == NULL ||
      PyObject_SetAttr(self->future, self->state->str_future_blocking, Py_True) < 0)
    return PYGEN_ERROR;
  Py_XSETREF(data->waiter, Py_NewRef(self->future));
  self->stage = CALL_WAITING;
  if (!PyObject_GC_IsTracked((PyObject *)self))
    PyObject_GC_Track(self);
  *result = Py_NewRef(self->future);
  return PYGEN_NEXT;
}

/* The first step of asyncio's coroutine, which would look for an exception first.  It must not if the
 * call has waited, since asyncio's then looks no more. */
static PySendResult
send_inner(aio_call *self, bool waited, PyObject **result)
{
  aio_data *data = self->data;
  PyObject *hidden;
  PySendResult rc;

  if (!waited || data == NULL || data->exception == NULL)
    return PyIter_Send(self->inner, Py_None, result);
  hidden = data->exception;
  data->exception = NULL;
  rc = PyIter_Send(self->inner, Py_None, result);
  if (data->exception == NULL)
    data->exception = hidden;
  else
    Py_DECREF(hidden);
  return rc;
}

/* Goes on by asyncio's own method. */
static PySendResult
begin_inner(aio_call *self, PyObject **result)
{
  PyObject *args[2] = {self->owner, self->argument};
  size_t count = self->argument == NULL ? 1 : 2;
  bool waited = self->stage == CALL_WAITING;

  self->inner = PyObject_Vectorcall(self->state->methods[self->method], args, count, NULL);
  if (self->inner == NULL)
    return PYGEN_ERROR;
  self->stage = CALL_INNER;
  if (!PyObject_GC_IsTracked((PyObject *)self))
    PyObject_GC_Track(self);
  return send_inner(self, waited, result);
}

static PySendResult
go_on(aio_call *self, PyObject **result)
{
  switch (attempt(self, result)) {
  case ATTEMPT_DONE:
    return PYGEN_RETURN;
  case ATTEMPT_WAIT:
    return begin_to_wait(self, result);
  case ATTEMPT_ASYNCIO:
    return begin_inner(self, result);
  default:
    return PYGEN_ERROR;
  }
}

/* It waits no more. */
static void
stop_waiting(aio_call *self)
{
  if (self->data != NULL && self->data->waiter == self->future)
    Py_CLEAR(self->data->waiter);
  Py_CLEAR(self->future);
}

/* The future is done: what it raises is raised here. */
static int
woken(aio_call *self)
{
  PyObject *future = Py_NewRef(self->future);
  PyObject *outcome;

  stop_waiting(self);
  outcome = PyObject_CallMethodNoArgs(future, self->state->str_result);
  Py_DECREF(future);
  return aio_discard(outcome);
}

static PySendResult
step(aio_call *self, PyObject *sent, PyObject **result)
{
  switch (self->stage) {
  case CALL_FRESH:
    return go_on(self, result);
  case CALL_WAITING:
    return woken(self) < 0 ? PYGEN_ERROR : go_on(self, result);
  case CALL_INNER:
    return PyIter_Send(self->inner, sent, result);
  default:
    PyErr_SetString(PyExc_RuntimeError, "cannot reuse already awaited coroutine");
    return PYGEN_ERROR;
  }
}

/* Ends the call: nothing is waited for or held any more. */
static void
finish(aio_call *self)
{
  self->stage = CALL_DONE;
  stop_waiting(self);
  Py_CLEAR(self->inner);
  Py_CLEAR(self->argument);
  Py_CLEAR(self->data);
  Py_CLEAR(self->owner);
}

/* The same when an exception may be set: what is released here may run Python code. */
static void
finish_with(PySendResult rc, aio_call *self)
{
  PyObject *type, *value, *traceback;

  if (rc == PYGEN_NEXT)
    return;
  PyErr_Fetch(&type, &value, &traceback);
  finish(self);
  PyErr_Restore(type, value, traceback);
}

static int
check_idle(aio_call *self)
{
  if (!self->running)
    return 0;
  PyErr_SetString(PyExc_ValueError, "coroutine already executing");
  return -1;
}

static PySendResult
call_send(PyObject *object, PyObject *sent, PyObject **result)
{
  aio_call *self = (aio_call *)object;
  PySendResult rc;

  *result = NULL;
  if (check_idle(self) < 0)
    return PYGEN_ERROR;
  self->running = true;
  rc = step(self, sent, result);
  self->running = false;
  finish_with(rc, self);
  return rc;
}

/* --- the coroutine protocol ------------------------------------------------------------------------- */

static PyObject *
call_method_send(PyObject *self, PyObject *sent)
{
  PyObject *result;
  PySendResult rc = call_send(self, sent, &result);

  return awaitable_outcome(rc, result);
}

static PyObject *
call_next(PyObject *self)
{
  return call_method_send(self, Py_None);
}

/* Throws into asyncio's coroutine, which may catch the exception and go on. */
static PyObject *
throw_inner(aio_call *self, PyObject *args)
{
  PyObject *method = PyObject_GetAttrString(self->inner, "throw");
  PyObject *result = NULL;

  self->running = true;
  if (method != NULL)
    result = PyObject_Call(method, args, NULL);
  self->running = false;
  Py_XDECREF(method);
  finish_with(result == NULL ? PYGEN_ERROR : PYGEN_NEXT, self);
  return result;
}

static PyObject *
call_throw(aio_call *self, PyObject *args)
{
  PyObject *type, *value = NULL, *traceback = NULL;

  if (!PyArg_ParseTuple(args, "O|OO:throw", &type, &value, &traceback) || check_idle(self) < 0)
    return NULL;
  if (self->stage == CALL_INNER)
    return throw_inner(self, args);
  finish(self);
  awaitable_raise(type, value, traceback == Py_None ? NULL : traceback);
  return NULL;
}

static PyObject *
call_close(aio_call *self, PyObject *Py_UNUSED(ignored))
{
  if (check_idle(self) < 0)
    return NULL;
  if (self->inner != NULL && aio_discard(PyObject_CallMethod(self->inner, "close", NULL)) < 0)
    return NULL;
  finish(self);
  Py_RETURN_NONE;
}

static PyObject *
call_await(PyObject *self)
{
  return Py_NewRef(self);
}

static PyObject *
call_method_await(PyObject *self, PyObject *Py_UNUSED(ignored))
{
  return Py_NewRef(self);
}

/* --- the object -------------------------------------------------------------------------------------- */

PyObject *
aio_call_new(aio_state *state, enum aio_method method, PyObject *owner, aio_data *data,
             PyObject *argument, Py_ssize_t size)
{
  aio_call *self = state->free_calls;

  if (self == NULL) {
    self = PyObject_GC_New(aio_call, state->call_type);
    if (self == NULL)
      return NULL;
  } else {
    state->free_calls = (aio_call *)self->owner;
    state->free_count--;
    (void)PyObject_Init((PyObject *)self, state->call_type);
  }
  self->state = state;
  self->owner = Py_NewRef(owner);
  self->data = (aio_data *)Py_XNewRef((PyObject *)data);
  self->argument = Py_XNewRef(argument);
  self->future = NULL;
  self->inner = NULL;
  self->size = size;
  self->scanned = 0;
  self->method = (uint8_t)method;
  self->stage = CALL_FRESH;
  self->running = false;
  /* Tracked by the collector only once it waits: most are done before that. */
  return (PyObject *)self;
}

void
aio_calls_clear(aio_state *state)
{
  while (state->free_calls != NULL) {
    aio_call *self = state->free_calls;

    state->free_calls = (aio_call *)self->owner;
    PyObject_GC_Del(self);
  }
  state->free_count = 0;
}

/* As Python does for a coroutine that nobody awaits. */
static void
warn_unawaited(aio_call *self)
{
  PyObject *type, *value, *traceback;

  PyErr_Fetch(&type, &value, &traceback);
  if (PyErr_WarnFormat(PyExc_RuntimeWarning, 1, "coroutine '%s' was never awaited",
                       qualified[self->method]) < 0)
    PyErr_WriteUnraisable(self->owner);
  PyErr_Restore(type, value, traceback);
}

static void
call_dealloc(aio_call *self)
{
  PyTypeObject *type = Py_TYPE(self);
  aio_state *state = self->state;

  if (PyObject_GC_IsTracked((PyObject *)self))
    PyObject_GC_UnTrack(self);
  if (self->stage == CALL_FRESH)
    warn_unawaited(self);
  finish(self);
  if (state->free_count < FREE_CALLS) {
    self->owner = (PyObject *)state->free_calls;
    state->free_calls = self;
    state->free_count++;
  } else {
    PyObject_GC_Del(self);
  }
  Py_DECREF(type);
}

static int
call_traverse(aio_call *self, visitproc visit, void *arg)
{
  Py_VISIT(Py_TYPE(self));
  Py_VISIT(self->owner);
  Py_VISIT(self->data);
  Py_VISIT(self->argument);
  Py_VISIT(self->future);
  Py_VISIT(self->inner);
  return 0;
}

static int
call_clear(aio_call *self)
{
  finish(self);
  return 0;
}

static PyObject *
call_repr(aio_call *self)
{
  return PyUnicode_FromFormat("<coroutine object %s at %p>", qualified[self->method], self);
}

static PyObject *
get_name(aio_call *self, void *Py_UNUSED(closure))
{
  return PyUnicode_FromString(strchr(qualified[self->method], '.') + 1);
}

static PyObject *
get_qualified_name(aio_call *self, void *Py_UNUSED(closure))
{
  return PyUnicode_FromString(qualified[self->method]);
}

static PyObject *
get_awaited(aio_call *self, void *Py_UNUSED(closure))
{
  PyObject *awaited = self->inner != NULL ? self->inner : self->future;

  return Py_NewRef(awaited == NULL ? Py_None : awaited);
}

static PyMethodDef call_methods[] = {
    {"send", (PyCFunction)call_method_send, METH_O, PyDoc_STR("Resume the call.")},
    {"throw", (PyCFunction)call_throw, METH_VARARGS, PyDoc_STR("End the call by raising.")},
    {"close", (PyCFunction)call_close, METH_NOARGS, PyDoc_STR("End the call.")},
    {"__await__", (PyCFunction)call_method_await, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef call_members[] = {
    {"cr_running", T_BOOL, offsetof(aio_call, running), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef call_getset[] = {
    {"__name__", (getter)get_name, NULL, NULL, NULL},
    {"__qualname__", (getter)get_qualified_name, NULL, NULL, NULL},
    {"cr_await", (getter)get_awaited, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot call_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("A call of a stream's method, to be awaited.")},
    {Py_tp_dealloc, call_dealloc},
    {Py_tp_traverse, call_traverse},
    {Py_tp_clear, call_clear},
    {Py_tp_repr, call_repr},
    {Py_tp_iter, call_await},
    {Py_tp_iternext, call_next},
    {Py_am_await, call_await},
    {Py_am_send, call_send},
    {Py_tp_methods, call_methods},
    {Py_tp_members, call_members},
    {Py_tp_getset, call_getset},
    {0, NULL},
};

PyType_Spec aio_call_spec = {
    .name = "erlang._loop.StreamCall",
    .basicsize = sizeof(aio_call),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION |
             Py_TPFLAGS_IMMUTABLETYPE,
    .slots = call_slots,
};
