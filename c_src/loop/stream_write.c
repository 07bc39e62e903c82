/* Writing: what the kernel does not take at once is kept and sent when it is writable again. */
#include "transport.h"

#include <errno.h>
#include <sys/socket.h>

/* From 3.12 on asyncio takes anything that is false for no lines. */
#define LINES_MAY_BE_FALSE (PY_VERSION_HEX >= 0x030C0000)
#define COPY_MAX 16384 /* bytes; more of what is not a bytes object is sent sooner than copied */

static int
shut_down_writing(stream *self)
{
  if (shutdown(self->fd, SHUT_WR) == 0)
    return 0;
  PyErr_SetFromErrno(PyExc_OSError);
  return -1;
}

/* What waited for the buffer to become empty. */
static int
buffer_emptied(stream *self)
{
  PyObject *result;

  if (self->empty_waiter != NULL) {
    result = PyObject_CallMethod(self->empty_waiter, "set_result", "O", Py_None);
    Py_XDECREF(result);
    if (result == NULL)
      return -1;
  }
  if (self->closing)
    return transport_connection_lost(self, Py_None);
  return self->eof ? shut_down_writing(self) : 0;
}

int
stream_write_ready(stream *self)
{
  self->corked = false;
  if (self->conn_lost || self->out.count == 0)
    return 0;
  if (transport_send_buffer(self) < 0)
    return transport_write_failed(self);
  transport_hold(self);
  if (transport_maybe_resume(self) < 0)
    return -1;
  return self->out.count > 0 || self->conn_lost ? 0 : buffer_emptied(self);
}

int
stream_flush(stream *self)
{
  self->corked = false;
  if (self->conn_lost || self->loop == NULL || self->out.count == 0)
    return 0;
  if (transport_send_buffer(self) < 0)
    return transport_write_failed(self);
  if (self->out.count == 0) {
    transport_hold(self);
    /* What a protocol that resumed wrote to a transport that closes was the last. */
    return self->closing ? transport_schedule_lost(self, Py_None) : 0;
  }
  return transport_await_writable(self) < 0 ? -1 : transport_maybe_pause(self);
}

void
stream_flush_before_drop(stream *self)
{
  PyObject *type, *value, *traceback;

  if (!self->corked)
    return;
  self->corked = false;
  PyErr_Fetch(&type, &value, &traceback);
  if (transport_send_buffer(self) < 0)
    PyErr_Clear();
  PyErr_Restore(type, value, traceback);
}

/* --- methods ----------------------------------------------------------------------------------- */

/* 1 when the transport takes data, 0 when it drops it silently, -1 when it may not be written. */
static int
check_writable(stream *self, const char *method)
{
  if (self->eof) {
    PyErr_Format(PyExc_RuntimeError, "Cannot call %s() after write_eof()", method);
    return -1;
  }
  if (self->empty_waiter != NULL) {
    PyErr_Format(PyExc_RuntimeError, "unable to %s; sendfile is in progress", method);
    return -1;
  }
  return 1;
}

static int
drop_write(stream *self)
{
  return transport_drop_write(self, &self->conn_lost, "socket.send() raised exception.");
}

/* After something was added to the buffer: sends it, now or soon, unless the kernel is full. */
static int
written(stream *self, bool full)
{
  if (full)
    return transport_maybe_pause(self);
  if (!stream_may_cork(self, self->out.bytes))
    return stream_flush(self);
  return self->corked ? 0 : stream_cork(self);
}

static int
write_view(stream *self, PyObject *data, const Py_buffer *view)
{
  bool large = view->len > COPY_MAX && transport_unchanging(data) == NULL;
  bool full;

  if (large && self->corked && stream_flush(self) < 0)
    return -1;
  if (self->conn_lost)
    return 0;
  if (self->out.count == 0 && (large || !stream_may_cork(self, (size_t)view->len)))
    return transport_send_view(self, data, view);
  full = self->out.count > 0 && !self->corked;
  return transport_keep_rest(self, data, view, 0) < 0 ? -1 : written(self, full);
}

/* Of a buffer that the data has given. */
static int
write_some(stream *self, PyObject *data, const Py_buffer *view)
{
  if (view->len == 0)
    return 0;
  return self->conn_lost ? drop_write(self) : write_view(self, data, view);
}

PyObject *
stream_write(stream *self, PyObject *data)
{
  Py_buffer view;
  int rc;

  if (!PyBytes_Check(data) && !PyByteArray_Check(data) && !PyMemoryView_Check(data)) {
    PyErr_Format(PyExc_TypeError, "data argument must be a bytes-like object, not '%s'",
                 _PyType_Name(Py_TYPE(data)));
    return NULL;
  }
  if (transport_check_initialized(self) < 0 || check_writable(self, "write") < 0)
    return NULL;
  if (PyBytes_CheckExact(data)) {
    view = (Py_buffer){.buf = PyBytes_AS_STRING(data), .len = PyBytes_GET_SIZE(data)};
    rc = write_some(self, data, &view);
  } else if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0) {
    rc = transport_refuse(self, data);
  } else {
    rc = write_some(self, data, &view);
    PyBuffer_Release(&view);
  }
  if (rc < 0)
    return NULL;
  Py_RETURN_NONE;
}

/* The items in a new list. */
static PyObject *
as_list(PyObject *iterable)
{
#if PY_VERSION_HEX >= 0x030C0000
  return PySequence_List(iterable);
#else
  PyObject *sequence = PySequence_Fast(iterable, "can only join an iterable");
  PyObject *list = sequence == NULL ? NULL : PySequence_List(sequence);

  Py_XDECREF(sequence);
  return list;
#endif
}

/* Instead of the exception that is set, the one that asyncio has: up to 3.11 it joins the lines. */
static void
refuse_line(PyObject *list)
{
#if PY_VERSION_HEX < 0x030C0000
  PyObject *empty;

  if (PyErr_ExceptionMatches(PyExc_MemoryError))
    return;
  PyErr_Clear();
  empty = PyBytes_FromStringAndSize(NULL, 0);
  if (empty != NULL)
    Py_XDECREF(PyObject_CallMethod(empty, "join", "O", list));
  Py_XDECREF(empty);
  if (!PyErr_Occurred())
    PyErr_SetString(PyExc_TypeError, "expected bytes-like objects");
#else
  (void)list;
#endif
}

/* A new list of bytes objects, one for each item. */
static PyObject *
as_bytes_list(PyObject *iterable)
{
  PyObject *list = as_list(iterable);

  for (Py_ssize_t i = 0; list != NULL && i < PyList_GET_SIZE(list); i++) {
    PyObject *item = PyList_GET_ITEM(list, i);
    PyObject *view, *bytes;

    if (PyBytes_CheckExact(item))
      continue;
    view = PyMemoryView_FromObject(item);
    bytes = view == NULL ? NULL : PyBytes_FromObject(view);
    Py_XDECREF(view);
    if (bytes == NULL)
      refuse_line(list);
    if (bytes == NULL || PyList_SetItem(list, i, bytes) < 0)
      Py_CLEAR(list);
  }
  return list;
}

/* Sends a list of bytes objects by one gathering call, as far as the kernel takes it. */
static int
write_list(stream *self, PyObject *list)
{
  bool full = self->out.count > 0 && !self->corked;

  for (Py_ssize_t i = 0; i < PyList_GET_SIZE(list); i++) {
    PyObject *item = PyList_GET_ITEM(list, i);

    if (PyBytes_GET_SIZE(item) > 0 && buffer_append(&self->out, item, PyBytes_AS_STRING(item),
                                                    (size_t)PyBytes_GET_SIZE(item)) < 0)
      return -1;
  }
  return self->out.count == 0 ? 0 : written(self, full);
}

PyObject *
stream_writelines(stream *self, PyObject *iterable)
{
  PyObject *list;
  int rc;

  if (check_writable(self, "writelines") < 0)
    return NULL;
  rc = LINES_MAY_BE_FALSE ? PyObject_IsTrue(iterable) : 1;
  if (rc < 0)
    return NULL;
  if (rc == 0)
    Py_RETURN_NONE;
  list = as_bytes_list(iterable);
  if (list == NULL)
    return NULL;
  if (PyList_GET_SIZE(list) == 0)
    rc = 0;
  else
    rc = self->conn_lost ? drop_write(self) : write_list(self, list);
  Py_DECREF(list);
  if (rc < 0)
    return NULL;
  Py_RETURN_NONE;
}

PyObject *
stream_write_eof(stream *self, PyObject *Py_UNUSED(ignored))
{
  if (self->corked && stream_flush(self) < 0)
    return NULL;
  if (!self->closing && !self->eof) {
    self->eof = true;
    if (self->out.count == 0 && shut_down_writing(self) < 0)
      return NULL;
  }
  Py_RETURN_NONE;
}

PyObject *
stream_make_empty_waiter(stream *self, PyObject *Py_UNUSED(ignored))
{
  PyObject *result;

  if (self->empty_waiter != NULL) {
    PyErr_SetString(PyExc_RuntimeError, "Empty waiter is already set");
    return NULL;
  }
  if (self->loop == NULL) {
    PyErr_SetString(PyExc_RuntimeError, "the transport is closed");
    return NULL;
  }
  if (self->corked && stream_flush(self) < 0)
    return NULL;
  self->empty_waiter = PyObject_CallMethod((PyObject *)self->loop, "create_future", NULL);
  if (self->empty_waiter == NULL)
    return NULL;
  if (self->out.count == 0) {
    result = PyObject_CallMethod(self->empty_waiter, "set_result", "O", Py_None);
    if (result == NULL)
      return NULL;
    Py_DECREF(result);
  }
  return Py_NewRef(self->empty_waiter);
}

PyObject *
stream_reset_empty_waiter(stream *self, PyObject *Py_UNUSED(ignored))
{
  Py_CLEAR(self->empty_waiter);
  Py_RETURN_NONE;
}
