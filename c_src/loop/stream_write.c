/* Writing: what the kernel does not take at once is kept and sent when it is writable again. */
#include "transport.h"

#include <errno.h>
#include <sys/socket.h>
#include <sys/uio.h>

#define WRITE_BATCH 256 /* chunks that one sendmsg gathers */
#define COPY_MAX 16384  /* bytes; more of what is not a bytes object is sent sooner than copied */
#define WARN_LOST_WRITES 5 /* asyncio.constants.LOG_THRESHOLD_FOR_CONNLOST_WRITES */

/* --- sending ----------------------------------------------------------------------------------- */

/* As send(); an error that only means "not now" is 0. */
static Py_ssize_t
send_iov(stream *self, struct iovec *iov, size_t count)
{
  struct msghdr message = {.msg_iov = iov, .msg_iovlen = count};
  ssize_t n;

  do {
    if (count == 1)
      n = send(self->fd, iov->iov_base, iov->iov_len, MSG_NOSIGNAL);
    else
      n = sendmsg(self->fd, &message, MSG_NOSIGNAL);
  } while (n < 0 && errno == EINTR);
  if (n >= 0)
    return n;
  if (errno == EAGAIN || errno == EWOULDBLOCK)
    return 0;
  PyErr_SetFromErrno(PyExc_OSError);
  return -1;
}

/* Sends until the buffer is empty or the kernel takes no more; -1 with an OSError set. */
static int
send_buffer(stream *self)
{
  struct write_buffer *out = &self->out;

  while (out->count > 0) {
    struct iovec iov[WRITE_BATCH];
    size_t count = out->count < WRITE_BATCH ? out->count : WRITE_BATCH;
    size_t offset = out->offset, total = 0;
    Py_ssize_t n;

    for (size_t i = 0; i < count; i++) {
      PyObject *chunk = out->chunks[out->first + i];

      iov[i].iov_base = PyBytes_AS_STRING(chunk) + offset;
      iov[i].iov_len = (size_t)PyBytes_GET_SIZE(chunk) - offset;
      total += iov[i].iov_len;
      offset = 0;
    }
    n = send_iov(self, iov, count);
    if (n < 0)
      return -1;
    buffer_consume(out, (size_t)n);
    if ((size_t)n < total) {
      self->writable = false;
      return 0;
    }
  }
  return 0;
}

/* After a failed send of what was buffered: the error goes to the protocol, and to sendfile. */
static int
write_failed(stream *self)
{
  PyObject *type, *value, *traceback;
  PyObject *waiter = Py_XNewRef(self->empty_waiter);
  PyObject *result;
  int rc;

  PyErr_Fetch(&type, &value, &traceback);
  PyErr_NormalizeException(&type, &value, &traceback);
  Py_INCREF(value);
  PyErr_Restore(type, Py_NewRef(value), traceback);
  Py_DECREF(value);
  buffer_drop(&self->out);
  rc = transport_fatal(self, "Fatal write error on socket transport");
  if (rc == 0 && waiter != NULL) {
    result = PyObject_CallMethod(waiter, "set_exception", "O", value);
    Py_XDECREF(result);
    rc = result == NULL ? -1 : 0;
  }
  Py_DECREF(value);
  Py_XDECREF(waiter);
  return rc;
}

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
  if (send_buffer(self) < 0)
    return write_failed(self);
  transport_unwatch_at_eof(self);
  if (transport_maybe_resume(self) < 0)
    return -1;
  return self->out.count > 0 || self->conn_lost ? 0 : buffer_emptied(self);
}

/* The buffer is not empty any more: wait for the kernel. */
static int
await_writable(stream *self)
{
  Py_XSETREF(self->write_context, PyContext_CopyCurrent());
  return self->write_context == NULL ? -1 : transport_register(self);
}

int
stream_flush(stream *self)
{
  self->corked = false;
  if (self->conn_lost || self->loop == NULL || self->out.count == 0)
    return 0;
  if (send_buffer(self) < 0)
    return write_failed(self);
  if (self->out.count == 0) {
    transport_unwatch_at_eof(self);
    return 0;
  }
  return await_writable(self) < 0 ? -1 : transport_maybe_pause(self);
}

void
stream_flush_before_drop(stream *self)
{
  PyObject *type, *value, *traceback;

  if (!self->corked)
    return;
  self->corked = false;
  PyErr_Fetch(&type, &value, &traceback);
  if (send_buffer(self) < 0)
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

/* Counts a write to a connection that is lost, and says so from the fifth on. */
static int
drop_write(stream *self)
{
  loop_state *state = PyType_GetModuleState(Py_TYPE(self));
  PyObject *result;

  if (self->conn_lost++ < WARN_LOST_WRITES)
    return 0;
  result = PyObject_CallMethod(state->logger, "warning", "s", "socket.send() raised exception.");
  Py_XDECREF(result);
  return result == NULL ? -1 : 0;
}

/* Keeps data from sent on; bytes as they are, anything that may change as a copy. */
static int
keep_rest(stream *self, PyObject *data, const Py_buffer *view, size_t sent)
{
  PyObject *copy;
  int rc;

  if (PyBytes_CheckExact(data) && (self->out.count == 0 || sent == 0))
    return buffer_append(&self->out, data, sent);
  copy = PyBytes_FromStringAndSize((char *)view->buf + sent, view->len - (Py_ssize_t)sent);
  if (copy == NULL)
    return -1;
  rc = buffer_append(&self->out, copy, 0);
  Py_DECREF(copy);
  return rc;
}

/* With an empty buffer: sends what the kernel takes of view and keeps the rest. */
static int
send_view(stream *self, PyObject *data, const Py_buffer *view)
{
  struct iovec iov = {.iov_base = view->buf, .iov_len = (size_t)view->len};
  Py_ssize_t sent = send_iov(self, &iov, 1);

  if (sent < 0)
    return transport_fatal(self, "Fatal write error on socket transport");
  if (sent == view->len)
    return 0;
  self->writable = false;
  if (keep_rest(self, data, view, (size_t)sent) < 0 || await_writable(self) < 0)
    return -1;
  return transport_maybe_pause(self);
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
  bool large = view->len > COPY_MAX && !PyBytes_CheckExact(data);
  bool full;

  if (large && self->corked && stream_flush(self) < 0)
    return -1;
  if (self->conn_lost)
    return 0;
  if (self->out.count == 0 && (large || !stream_may_cork(self, (size_t)view->len)))
    return send_view(self, data, view);
  full = self->out.count > 0 && !self->corked;
  return keep_rest(self, data, view, 0) < 0 ? -1 : written(self, full);
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
  if (check_writable(self, "write") < 0)
    return NULL;
  if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0) {
    if (transport_fatal(self, "Fatal write error on socket transport") < 0)
      return NULL;
    Py_RETURN_NONE;
  }
  if (view.len == 0)
    rc = 0;
  else
    rc = self->conn_lost ? drop_write(self) : write_view(self, data, &view);
  PyBuffer_Release(&view);
  if (rc < 0)
    return NULL;
  Py_RETURN_NONE;
}

/* A new list of bytes objects, one for each item. */
static PyObject *
as_bytes_list(PyObject *iterable)
{
  PyObject *list = PySequence_List(iterable);

  for (Py_ssize_t i = 0; list != NULL && i < PyList_GET_SIZE(list); i++) {
    PyObject *item = PyList_GET_ITEM(list, i);
    PyObject *view, *bytes;

    if (PyBytes_CheckExact(item))
      continue;
    view = PyMemoryView_FromObject(item);
    bytes = view == NULL ? NULL : PyBytes_FromObject(view);
    Py_XDECREF(view);
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

    if (PyBytes_GET_SIZE(item) > 0 && buffer_append(&self->out, item, 0) < 0)
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
