/* sock_recv and its like: awaitables that try their system call first and wait for readiness only
 * when it would block.  They wait for readiness and not for the result, and do the call once they
 * are resumed, so that a cancelled one has taken nothing from the socket. */
#include "loop_internal.h"

#include <structmember.h>

#include "awaitable.h"
#include "sock_calls.h"

enum op_state {
  OP_FRESH,
  OP_RESOLVING, /* inner resolves the address of a connect */
  OP_WAITING,
  OP_DONE,
};

typedef struct sock_op {
  PyObject_HEAD
  struct sock_call call;
  native_loop *loop;
  const char *name;
  PyObject *future; /* resolved when the descriptor is ready; NULL unless waiting */
  PyObject *inner;  /* iterator of the loop's _ensure_resolved() while resolving */
  int fd;           /* registered in the table of descriptors; -1 if not */
  uint8_t state;
  bool running; /* a step is on the stack */
} sock_op;

/* --- waiting --------------------------------------------------------------------------------- */

static uint32_t
op_direction(sock_op *self)
{
  return sock_call_writes(self->call.kind) ? POLLER_WRITE : POLLER_READ;
}

/* Undoes the registration, unless another has taken its place. */
static void
op_unregister(sock_op *self)
{
  int fd = self->fd;

  self->fd = -1;
  if (fd >= 0 && readers_get(self->loop, fd, op_direction(self)) == (PyObject *)self)
    readers_unset(self->loop, fd, op_direction(self));
}

/* Ends the operation: nothing is waited for or held any more. */
static void
op_finish(sock_op *self)
{
  self->state = OP_DONE;
  op_unregister(self);
  sock_call_clear(&self->call);
  Py_CLEAR(self->future);
  Py_CLEAR(self->inner);
}

void
sock_op_ready(PyObject *object)
{
  sock_op *self = (sock_op *)Py_NewRef(object);
  PyObject *future = Py_XNewRef(self->future);
  PyObject *done = NULL, *result = NULL;

  op_unregister(self);
  if (future != NULL)
    done = PyObject_CallMethodNoArgs(future, self->loop->state->str_done);
  if (done == Py_False)
    result = PyObject_CallMethodOneArg(future, self->loop->state->str_set_result, Py_None);
  if (PyErr_Occurred())
    PyErr_WriteUnraisable(object);
  Py_XDECREF(done);
  Py_XDECREF(result);
  Py_XDECREF(future);
  Py_DECREF(self);
}

/* Registers for readiness and returns the future to wait for. */
static PySendResult
op_wait(sock_op *self, PyObject **result)
{
  int fd = sock_call_fileno(&self->call);

  if (fd == -1 && PyErr_Occurred())
    return PYGEN_ERROR;
  if (readers_check_no_transport(self->loop, fd, NULL) < 0 || loop_check_closed(self->loop) < 0)
    return PYGEN_ERROR;
  if (fd < 0) {
    PyErr_Format(PyExc_ValueError, "Invalid file descriptor: %d", fd);
    return PYGEN_ERROR;
  }
  Py_XSETREF(self->future, loop_create_future(self->loop, NULL));
  if (self->future == NULL ||
      PyObject_SetAttr(self->future, self->loop->state->str_future_blocking, Py_True) < 0 ||
      readers_set(self->loop, fd, op_direction(self), (PyObject *)self) < 0)
    return PYGEN_ERROR;
  self->fd = fd;
  self->state = OP_WAITING;
  *result = Py_NewRef(self->future);
  return PYGEN_NEXT;
}

/* --- one step -------------------------------------------------------------------------------- */

static PySendResult
op_try(sock_op *self, PyObject **result)
{
  int rc = sock_call_try(&self->call, self->state == OP_WAITING, result);

  if (rc < 0)
    return PYGEN_ERROR;
  return rc > 0 ? PYGEN_RETURN : op_wait(self, result);
}

/* Lets the inner coroutine resolve the address, then tries to connect. */
static PySendResult
op_resolve(sock_op *self, PyObject *sent, PyObject **result)
{
  PyObject *resolved;
  PySendResult rc = PyIter_Send(self->inner, sent, &resolved);

  if (rc != PYGEN_RETURN) {
    *result = resolved;
    return rc;
  }
  Py_CLEAR(self->inner);
  self->state = OP_FRESH;
  if (sock_call_take_address(&self->call, resolved) < 0)
    return PYGEN_ERROR;
  return op_try(self, result);
}

/* Checks the socket as asyncio does, and begins. */
static PySendResult
op_begin(sock_op *self, PyObject **result)
{
  int resolve;

  if (sock_call_check(&self->call, self->loop->debug) < 0)
    return PYGEN_ERROR;
  resolve = sock_call_needs_address(&self->call);
  if (resolve <= 0)
    return resolve < 0 ? PYGEN_ERROR : op_try(self, result);
  self->inner = sock_call_resolver(&self->call, (PyObject *)self->loop);
  if (self->inner == NULL)
    return PYGEN_ERROR;
  self->state = OP_RESOLVING;
  return op_resolve(self, Py_None, result);
}

/* A socket's own methods are Python code and might come back here. */
static int
op_check_idle(sock_op *self)
{
  if (!self->running)
    return 0;
  PyErr_Format(PyExc_ValueError, "%s() is already executing", self->name);
  return -1;
}

static PySendResult
op_step(sock_op *self, PyObject *sent, PyObject **result)
{
  PySendResult rc;

  switch (self->state) {
  case OP_FRESH:
    rc = op_begin(self, result);
    break;
  case OP_RESOLVING:
    rc = op_resolve(self, sent, result);
    break;
  case OP_WAITING:
    op_unregister(self);
    rc = op_try(self, result);
    break;
  default:
    PyErr_Format(PyExc_RuntimeError, "cannot reuse already awaited %s()", self->name);
    rc = PYGEN_ERROR;
  }
  return rc;
}

static PySendResult
op_send(PyObject *object, PyObject *sent, PyObject **result)
{
  sock_op *self = (sock_op *)object;
  PySendResult rc;

  *result = NULL;
  if (op_check_idle(self) < 0)
    return PYGEN_ERROR;
  self->running = true;
  rc = op_step(self, sent, result);
  self->running = false;
  if (rc != PYGEN_NEXT) {
    PyObject *type, *value, *traceback;

    /* What is released here may run Python code. */
    PyErr_Fetch(&type, &value, &traceback);
    op_finish(self);
    PyErr_Restore(type, value, traceback);
  }
  return rc;
}

/* --- the coroutine protocol ------------------------------------------------------------------ */

static PyObject *
op_method_send(PyObject *self, PyObject *sent)
{
  PyObject *result;
  PySendResult rc = op_send(self, sent, &result);

  return awaitable_outcome(rc, result);
}

static PyObject *
op_next(PyObject *self)
{
  return op_method_send(self, Py_None);
}

/* Throws into the inner coroutine; it may catch the exception and go on. */
static PyObject *
throw_inner(sock_op *self, PyObject *args)
{
  PyObject *method = PyObject_GetAttr(self->inner, self->loop->state->str_throw);
  PyObject *result = NULL;

  self->running = true;
  if (method != NULL)
    result = PyObject_Call(method, args, NULL);
  self->running = false;
  Py_XDECREF(method);
  if (result == NULL) {
    PyObject *type, *value, *traceback;

    PyErr_Fetch(&type, &value, &traceback);
    op_finish(self);
    PyErr_Restore(type, value, traceback);
  }
  return result;
}

static PyObject *
op_throw(sock_op *self, PyObject *args)
{
  PyObject *type, *value = NULL, *traceback = NULL;

  if (!PyArg_ParseTuple(args, "O|OO:throw", &type, &value, &traceback) || op_check_idle(self) < 0)
    return NULL;
  if (self->state == OP_RESOLVING)
    return throw_inner(self, args);
  op_finish(self);
  awaitable_raise(type, value, traceback == Py_None ? NULL : traceback);
  return NULL;
}

static PyObject *
op_close(sock_op *self, PyObject *Py_UNUSED(ignored))
{
  PyObject *result = NULL;

  if (op_check_idle(self) < 0)
    return NULL;
  if (self->inner != NULL) {
    result = PyObject_CallMethodNoArgs(self->inner, self->loop->state->str_close);
    if (result == NULL)
      return NULL;
    Py_DECREF(result);
  }
  op_finish(self);
  Py_RETURN_NONE;
}

static PyObject *
op_await(PyObject *self)
{
  return Py_NewRef(self);
}

static PyObject *
op_method_await(PyObject *self, PyObject *Py_UNUSED(ignored))
{
  return Py_NewRef(self);
}

static PyObject *
op_repr(sock_op *self)
{
  return PyUnicode_FromFormat("<%s() at %p>", self->name, self);
}

static PyObject *
op_get_name(sock_op *self, void *Py_UNUSED(closure))
{
  return PyUnicode_FromString(self->name);
}

static PyObject *
op_get_running(sock_op *self, void *Py_UNUSED(closure))
{
  return PyBool_FromLong(self->running);
}

static int
op_traverse(sock_op *self, visitproc visit, void *arg)
{
  Py_VISIT(Py_TYPE(self));
  Py_VISIT(self->loop);
  Py_VISIT(self->future);
  Py_VISIT(self->inner);
  return sock_call_traverse(&self->call, visit, arg);
}

static int
op_clear(sock_op *self)
{
  sock_call_clear(&self->call);
  Py_CLEAR(self->future);
  Py_CLEAR(self->inner);
  return 0;
}

static void
op_dealloc(sock_op *self)
{
  PyTypeObject *type = Py_TYPE(self);

  PyObject_GC_UnTrack(self);
  op_clear(self);
  Py_CLEAR(self->loop);
  PyObject_GC_Del(self);
  Py_DECREF(type);
}

static PyMethodDef op_methods[] = {
    {"send", (PyCFunction)op_method_send, METH_O, PyDoc_STR("Resume the operation.")},
    {"throw", (PyCFunction)op_throw, METH_VARARGS, PyDoc_STR("End the operation by raising.")},
    {"close", (PyCFunction)op_close, METH_NOARGS, PyDoc_STR("End the operation.")},
    {"__await__", (PyCFunction)op_method_await, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef op_members[] = {
    {"cr_await", T_OBJECT, offsetof(sock_op, future), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef op_getset[] = {
    {"__name__", (getter)op_get_name, NULL, NULL, NULL},
    {"__qualname__", (getter)op_get_name, NULL, NULL, NULL},
    {"cr_running", (getter)op_get_running, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot op_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("A socket operation to await; a coroutine in all but type.")},
    {Py_tp_dealloc, op_dealloc},
    {Py_tp_traverse, op_traverse},
    {Py_tp_clear, op_clear},
    {Py_tp_repr, op_repr},
    {Py_tp_iter, op_await},
    {Py_tp_iternext, op_next},
    {Py_am_await, op_await},
    {Py_am_send, op_send},
    {Py_tp_methods, op_methods},
    {Py_tp_members, op_members},
    {Py_tp_getset, op_getset},
    {0, NULL},
};

PyType_Spec sock_op_spec = {
    .name = "erlang._loop.SockOp",
    .basicsize = sizeof(sock_op),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION |
             Py_TPFLAGS_IMMUTABLETYPE,
    .slots = op_slots,
};

/* --- the loop's methods ---------------------------------------------------------------------- */

#define OP_MAX_ARGS 3

/* What a method is called with: its name and its parameters, the first `needed` of them required. */
struct op_signature {
  const char *name;
  enum sock_kind kind;
  int needed;
  const char *parameters[OP_MAX_ARGS];
};

static int
parameter_index(const struct op_signature *signature, PyObject *name)
{
  for (int i = 0; i < OP_MAX_ARGS && signature->parameters[i] != NULL; i++) {
    if (PyUnicode_CompareWithASCIIString(name, signature->parameters[i]) == 0)
      return i;
  }
  return -1;
}

/* Puts the arguments in their places. */
static int
parse_op(const struct op_signature *signature, PyObject *const *args, Py_ssize_t nargs,
         PyObject *kwnames, PyObject **values)
{
  Py_ssize_t nkw = kwnames == NULL ? 0 : PyTuple_GET_SIZE(kwnames);
  int known = 0;

  while (known < OP_MAX_ARGS && signature->parameters[known] != NULL)
    known++;
  for (Py_ssize_t i = 0; i < nargs && i < known; i++)
    values[i] = args[i];
  if (nargs > known) {
    PyErr_Format(PyExc_TypeError, "%s() takes at most %d arguments (%zd given)", signature->name,
                 known, nargs);
    return -1;
  }
  for (Py_ssize_t i = 0; i < nkw; i++) {
    int index = parameter_index(signature, PyTuple_GET_ITEM(kwnames, i));

    if (index < 0 || values[index] != NULL) {
      PyErr_Format(PyExc_TypeError, "%s() got an unexpected or repeated argument '%U'",
                   signature->name, PyTuple_GET_ITEM(kwnames, i));
      return -1;
    }
    values[index] = args[nargs + i];
  }
  for (int i = 0; i < signature->needed; i++) {
    if (values[i] == NULL) {
      PyErr_Format(PyExc_TypeError, "%s() missing required argument: '%s'", signature->name,
                   signature->parameters[i]);
      return -1;
    }
  }
  return 0;
}

static PyObject *
op_new(native_loop *loop, const struct op_signature *signature, PyObject *const *args,
       Py_ssize_t nargs, PyObject *kwnames)
{
  PyObject *values[OP_MAX_ARGS] = {NULL, NULL, NULL};
  sock_op *self;

  if (parse_op(signature, args, nargs, kwnames, values) < 0)
    return NULL;
  self = PyObject_GC_New(sock_op, loop->state->sock_op_type);
  if (self == NULL)
    return NULL;
  sock_call_init(&self->call, loop->state, signature->kind, values[0], values[1], values[2]);
  self->loop = (native_loop *)Py_NewRef(loop);
  self->name = signature->name;
  self->future = NULL;
  self->inner = NULL;
  self->fd = -1;
  self->state = OP_FRESH;
  self->running = false;
  PyObject_GC_Track(self);
  return (PyObject *)self;
}

#define SOCK_METHOD_OF(method, kind, needed, ...)                                                  \
  SOCK_METHOD(loop_##method)                                                                       \
  {                                                                                                \
    return op_new(self, &(const struct op_signature){#method, kind, needed, {__VA_ARGS__}}, args,  \
                  nargs, kwnames);                                                                 \
  }

SOCK_METHOD_OF(sock_recv, SOCK_RECV, 2, "sock", "n")
SOCK_METHOD_OF(sock_recv_into, SOCK_RECV_INTO, 2, "sock", "buf")
SOCK_METHOD_OF(sock_recvfrom, SOCK_RECVFROM, 2, "sock", "bufsize")
SOCK_METHOD_OF(sock_recvfrom_into, SOCK_RECVFROM_INTO, 2, "sock", "buf", "nbytes")
SOCK_METHOD_OF(sock_sendall, SOCK_SENDALL, 2, "sock", "data")
SOCK_METHOD_OF(sock_sendto, SOCK_SENDTO, 3, "sock", "data", "address")
SOCK_METHOD_OF(sock_connect, SOCK_CONNECT, 2, "sock", "address")
SOCK_METHOD_OF(sock_accept, SOCK_ACCEPT, 1, "sock")
