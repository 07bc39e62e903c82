/* Which native transport is over a descriptor, so that nobody else uses it: asyncio's
 * _ensure_fd_no_transport() and loop._transports. */
#include "loop_internal.h"

int
readers_claim(native_loop *loop, int fd, PyObject *transport)
{
  if (readers_reserve(&loop->fds, fd) < 0)
    return -1;
  loop->fds.watches[fd].claimant = transport;
  return 0;
}

void
readers_disclaim(native_loop *loop, int fd, PyObject *transport)
{
  if (fd < loop->fds.capacity && loop->fds.watches[fd].claimant == transport)
    loop->fds.watches[fd].claimant = NULL;
}

/* The transport over fd, a new reference: one of ours, or of asyncio's own types, which enter
 * themselves in loop._transports.  NULL without an exception when there is none. */
static PyObject *
transport_over(native_loop *loop, int fd)
{
  PyObject *key, *transport;

  if (fd < loop->fds.capacity && loop->fds.watches[fd].claimant != NULL)
    return Py_NewRef(loop->fds.watches[fd].claimant);
  if (loop->transports_data == NULL || PyDict_GET_SIZE(loop->transports_data) == 0)
    return NULL;
  key = PyLong_FromLong(fd);
  if (key == NULL)
    return NULL;
  transport = PyObject_GetItem(loop->transports, key);
  Py_DECREF(key);
  if (transport == NULL && PyErr_ExceptionMatches(PyExc_KeyError))
    PyErr_Clear();
  return transport;
}

int
readers_check_no_transport(native_loop *loop, int fd, PyObject *shown)
{
  PyObject *transport = transport_over(loop, fd);
  PyObject *result;
  int closing;

  if (transport == NULL)
    return PyErr_Occurred() ? -1 : 0;
  result = PyObject_CallMethod(transport, "is_closing", NULL);
  closing = result == NULL ? -1 : PyObject_IsTrue(result);
  Py_XDECREF(result);
  if (closing == 0 && shown != NULL)
    PyErr_Format(PyExc_RuntimeError, "File descriptor %R is used by transport %R", shown,
                 transport);
  else if (closing == 0)
    PyErr_Format(PyExc_RuntimeError, "File descriptor %d is used by transport %R", fd, transport);
  Py_DECREF(transport);
  return closing > 0 ? 0 : -1;
}

/* loop._claimant(fd): the native transport over fd, or None. */
PyObject *
loop_claimant(native_loop *self, PyObject *object)
{
  int fd = readers_fileno(self->state, object);
  PyObject *claimant = NULL;

  if (fd < 0)
    return NULL;
  if (fd < self->fds.capacity)
    claimant = self->fds.watches[fd].claimant;
  return Py_NewRef(claimant ? claimant : Py_None);
}

/* loop._claim(fd, transport): False when the transport is none of ours; for None the claim is
 * forgotten. */
PyObject *
loop_claim(native_loop *self, PyObject *const *args, Py_ssize_t nargs)
{
  int fd = nargs == 2 ? readers_fileno(self->state, args[0]) : -1;

  if (nargs != 2)
    PyErr_SetString(PyExc_TypeError, "_claim() takes 2 arguments");
  if (fd < 0)
    return NULL;
  if (args[1] == Py_None) {
    if (fd < self->fds.capacity)
      self->fds.watches[fd].claimant = NULL;
    Py_RETURN_TRUE;
  }
  if (!transport_check(args[1]) || !transport_is_open(args[1], fd))
    Py_RETURN_FALSE;
  if (readers_claim(self, fd, args[1]) < 0)
    return NULL;
  Py_RETURN_TRUE;
}

/* What asyncio asks before it makes a transport, too. */
PyObject *
loop_ensure_fd_no_transport(native_loop *self, PyObject *object)
{
  int fd = readers_fileno(self->state, object);

  if (fd < 0 || readers_check_no_transport(self, fd, object) < 0)
    return NULL;
  Py_RETURN_NONE;
}
