/* Reading: one bounded receive for each readiness, and the protocol is given what came. */
#include "tls.h"
#include "transport.h"

#include <errno.h>
#include <sys/socket.h>

#define NAMES(self) (&(self)->loop->state->transports)

static int
read_eof(stream *self, PyObject *protocol)
{
  PyObject *result;
  int keep_open;

  if (transport_debug(self, "%r received EOF") < 0)
    return -1;
  result = PyObject_CallMethodNoArgs(protocol, NAMES(self)->str_eof_received);
  keep_open = result == NULL ? -1 : PyObject_IsTrue(result);
  Py_XDECREF(result);
  if (keep_open < 0)
    return transport_fatal(self, "Fatal error: protocol.eof_received() call failed.");
  if (!keep_open)
    return transport_close(self);
  self->at_eof = true;
  transport_hold(self);
  return 0;
}

static int
feed_tls(stream *self, PyObject *protocol)
{
  char *scratch;
  size_t size;
  int rc = transport_receive_scratch(self, &scratch, &size);

  if (rc < 0)
    return transport_fatal(self, self->kind->read_error);
  if (rc == 0)
    return 0;
  if (size == 0)
    return read_eof(self, protocol);
  if (tls_feed((tls *)protocol, scratch, size) < 0)
    return transport_fatal(self, "Fatal error: protocol.buffer_updated() call failed.");
  return 0;
}

static int
read_data(stream *self, PyObject *protocol)
{
  struct piece piece;
  PyObject *result;
  int rc;

  if (self->feeds_tls)
    return feed_tls(self, protocol);
  rc = transport_receive(self, &piece);
  if (rc < 0)
    return transport_fatal(self, self->kind->read_error);
  if (rc == 0)
    return 0;
  if (PyBytes_GET_SIZE(piece.bytes) == 0) {
    Py_DECREF(piece.bytes);
    return read_eof(self, protocol);
  }
  result = transport_give(self, protocol, &piece);
  if (result == NULL)
    return transport_fatal(self, "Fatal error: protocol.data_received() call failed.");
  Py_DECREF(result);
  return 0;
}

/* The buffer that the protocol gives, a new reference; NULL with an exception. */
static PyObject *
protocol_buffer(stream *self, PyObject *protocol)
{
  PyObject *buffer =
      PyObject_CallMethodOneArg(protocol, NAMES(self)->str_get_buffer, NAMES(self)->minus_one);
  Py_ssize_t size = buffer == NULL ? -1 : PyObject_Size(buffer);

  if (size == 0)
    PyErr_SetString(PyExc_RuntimeError, "get_buffer() returned an empty buffer");
  if (size <= 0)
    Py_CLEAR(buffer);
  return buffer;
}

static int
read_into_buffer(stream *self, PyObject *protocol)
{
  PyObject *buffer = protocol_buffer(self, protocol);
  PyObject *count, *result;
  Py_buffer view;
  ssize_t n;
  int rc;

  if (buffer == NULL)
    return transport_fatal(self, "Fatal error: protocol.get_buffer() call failed.");
  rc = PyObject_GetBuffer(buffer, &view, PyBUF_WRITABLE);
  Py_DECREF(buffer);
  if (rc < 0)
    return transport_fatal(self, self->kind->read_error);
  n = recv(self->fd, view.buf, (size_t)view.len, 0);
  rc = transport_note_read(self, n, (size_t)view.len);
  PyBuffer_Release(&view);
  if (rc < 0)
    return transport_fatal(self, self->kind->read_error);
  if (rc == 0)
    return 0;
  if (n == 0)
    return read_eof(self, protocol);
  count = PyLong_FromSsize_t(n);
  if (count == NULL)
    return -1;
  result = PyObject_CallMethodOneArg(protocol, NAMES(self)->str_buffer_updated, count);
  Py_DECREF(count);
  if (result == NULL)
    return transport_fatal(self, "Fatal error: protocol.buffer_updated() call failed.");
  Py_DECREF(result);
  return 0;
}

/* What the protocol has written meanwhile leaves now, whatever exception it has left. */
static int
end_callback(stream *self, int rc)
{
  PyObject *type, *value, *traceback;

  self->in_callback = false;
  if (!self->corked)
    return rc;
  if (rc == 0)
    return stream_flush(self);
  PyErr_Fetch(&type, &value, &traceback);
  if (stream_flush(self) < 0)
    PyErr_WriteUnraisable((PyObject *)self);
  PyErr_Restore(type, value, traceback);
  return rc;
}

int
stream_read(stream *self)
{
  PyObject *protocol = Py_NewRef(self->protocol);
  int rc;

  self->in_callback = true;
  rc = self->buffered_protocol ? read_into_buffer(self, protocol) : read_data(self, protocol);
  Py_DECREF(protocol);
  return end_callback(self, rc);
}
