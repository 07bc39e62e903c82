/* From records to the application: one receive may carry many records, and their content reaches the
 * application in one call. */
#include "tls.h"

#include <limits.h>

#define RECORD_MAX 16384 /* bytes of content */

/* How a series of reads ended. */
enum outcome {
  OUT_OF_RECORDS,
  OUT_OF_ROOM,
  END_OF_STREAM, /* the peer's close_notify */
  FAILED,        /* an exception is set */
};

struct reading {
  enum outcome outcome;
  size_t size; /* bytes read */
};

/* --- errors ------------------------------------------------------------------------------------ */

/* True when the exception that is set only means that OpenSSL waits: asyncio's SSLAgainErrors. */
static int
means_again(tls *self)
{
  PyObject *type, *value, *traceback, *again;
  int matches;

  PyErr_Fetch(&type, &value, &traceback);
  again = PyObject_GetAttrString((PyObject *)self, "_again_errors");
  matches = again == NULL ? -1 : PyErr_GivenExceptionMatches(type, again);
  Py_XDECREF(again);
  if (matches < 0) {
    Py_XDECREF(type);
    Py_XDECREF(value);
    Py_XDECREF(traceback);
    return -1;
  }
  PyErr_Restore(type, value, traceback);
  return matches;
}

/* SSL_read told of something unusual.  The object of _ssl is asked to read too: it has the right
 * exception, or else data. */
static enum outcome
read_by_ssl(tls *self, char *to, size_t room, size_t *size)
{
  PyObject *data = PyObject_CallMethod(self->socket, "read", "n", (Py_ssize_t)room);
  enum outcome outcome = OUT_OF_RECORDS;
  int again;

  *size = 0;
  if (data == NULL) {
    again = means_again(self);
    if (again > 0)
      PyErr_Clear();
    return again > 0 ? OUT_OF_RECORDS : FAILED;
  }
  if (!PyBytes_Check(data) || (size_t)PyBytes_GET_SIZE(data) > room) {
    PyErr_SetString(PyExc_SystemError, "_ssl._SSLSocket.read() returned something strange");
    outcome = FAILED;
  } else if (PyBytes_GET_SIZE(data) == 0) {
    outcome = END_OF_STREAM;
  } else {
    *size = (size_t)PyBytes_GET_SIZE(data);
    memcpy(to, PyBytes_AS_STRING(data), *size);
  }
  Py_DECREF(data);
  return outcome;
}

/* Reads records until there is no more or room is full. */
static struct reading
read_records(tls *self, char *to, size_t room)
{
  const struct tls_library *library = self->library;
  struct reading reading = {OUT_OF_ROOM, 0};
  size_t more;
  int n, error;

  while (reading.size < room) {
    size_t left = room - reading.size;

    n = library->read(self->ssl, to + reading.size, left < INT_MAX ? (int)left : INT_MAX);
    if (n > 0) {
      reading.size += (size_t)n;
      /* To be told so by another call costs more. */
      if (tls_io_unread(&self->io) == 0 && !library->has_pending(self->ssl)) {
        reading.outcome = OUT_OF_RECORDS;
        return reading;
      }
      continue;
    }
    error = library->get_error(self->ssl, n);
    if (error == TLS_ERROR_WANT_READ || error == TLS_ERROR_WANT_WRITE) {
      reading.outcome = OUT_OF_RECORDS;
      return reading;
    }
    if (error == TLS_ERROR_ZERO_RETURN &&
        library->get_shutdown(self->ssl) == TLS_RECEIVED_SHUTDOWN) {
      reading.outcome = END_OF_STREAM;
      return reading;
    }
    reading.outcome = read_by_ssl(self, to + reading.size, left, &more);
    reading.size += more;
    if (more == 0)
      return reading;
    reading.outcome = OUT_OF_ROOM;
  }
  return reading;
}

/* --- to the application ------------------------------------------------------------------------ */

/* What a failed read leaves is put aside, so that what came before it is delivered first. */
struct aside {
  PyObject *type, *value, *traceback;
};

/* Delivers by deliver(self, argument), then raises what was put aside unless that failed too. */
static int
deliver_before_error(tls *self, int (*deliver)(tls *, PyObject *), PyObject *argument)
{
  struct aside aside;
  int rc;

  PyErr_Fetch(&aside.type, &aside.value, &aside.traceback);
  rc = deliver(self, argument);
  if (aside.type == NULL)
    return rc;
  if (rc == 0) {
    PyErr_Restore(aside.type, aside.value, aside.traceback);
    return -1;
  }
  Py_XDECREF(aside.type);
  Py_XDECREF(aside.value);
  Py_XDECREF(aside.traceback);
  return -1;
}

/* The window is memory of the loop's, which a callback may have used for something else. */
static int
hold_window(tls *self)
{
  if (tls_io_hold(&self->io))
    return 0;
  PyErr_NoMemory();
  return -1;
}

static int
deliver_data(tls *self, PyObject *data)
{
  PyObject *protocol;
  int rc;

  if (hold_window(self) < 0)
    return -1;
  protocol = Py_NewRef(self->app_protocol);
  if (tls_is_fed(self->names, protocol))
    rc = tls_feed((tls *)protocol, PyBytes_AS_STRING(data), (size_t)PyBytes_GET_SIZE(data));
  else
    rc = tls_discard(PyObject_CallMethodOneArg(protocol, self->names->str_data_received, data));
  Py_DECREF(protocol);
  return rc;
}

static int
deliver_count(tls *self, PyObject *count)
{
  PyObject *updated;
  int rc;

  if (hold_window(self) < 0)
    return -1;
  updated = Py_XNewRef(self->app_buffer_updated);
  rc = updated == NULL ? 0 : tls_discard(PyObject_CallOneArg(updated, count));
  Py_XDECREF(updated);
  return rc;
}

/* Reads all that there is into one bytes object, which is NULL when there was nothing.  No content is
 * longer than its record, but a part of a record may have come before. */
static enum outcome
read_all(tls *self, PyObject **data)
{
  size_t capacity = tls_io_unread(&self->io), size = 0;
  struct reading reading;

  capacity = capacity > 0 ? capacity : RECORD_MAX;
  *data = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)capacity);
  if (*data == NULL)
    return FAILED;
  for (;;) {
    reading = read_records(self, PyBytes_AS_STRING(*data) + size, capacity - size);
    size += reading.size;
    if (reading.outcome != OUT_OF_ROOM)
      break;
    capacity += RECORD_MAX + tls_io_unread(&self->io);
    if (_PyBytes_Resize(data, (Py_ssize_t)capacity) < 0)
      return FAILED;
  }
  if (size == 0)
    Py_CLEAR(*data);
  else if (size < capacity) {
    struct aside aside;

    PyErr_Fetch(&aside.type, &aside.value, &aside.traceback);
    if (_PyBytes_Resize(data, (Py_ssize_t)size) < 0)
      reading.outcome = FAILED;
    else
      PyErr_Restore(aside.type, aside.value, aside.traceback);
  }
  return reading.outcome;
}

static enum outcome
read_copied(tls *self)
{
  PyObject *data;
  enum outcome outcome = read_all(self, &data);

  if (data == NULL)
    return outcome;
  if (deliver_before_error(self, deliver_data, data) < 0)
    outcome = FAILED;
  Py_DECREF(data);
  return outcome;
}

/* Fills the buffer that the application gives, once. */
static enum outcome
read_buffered(tls *self)
{
  PyObject *get_buffer = Py_XNewRef(self->app_get_buffer);
  PyObject *buffer, *count;
  struct reading reading;
  Py_buffer view;
  int rc;

  if (get_buffer == NULL)
    return OUT_OF_RECORDS;
  buffer = PyObject_CallFunction(get_buffer, "n", (Py_ssize_t)self->io.held.size);
  Py_DECREF(get_buffer);
  if (buffer == NULL)
    return FAILED;
  rc = PyObject_GetBuffer(buffer, &view, PyBUF_WRITABLE);
  Py_DECREF(buffer);
  if (rc < 0)
    return FAILED;
  if (view.len == 0) {
    PyBuffer_Release(&view);
    PyErr_SetString(PyExc_RuntimeError, "get_buffer() returned an empty buffer");
    return FAILED;
  }
  reading = read_records(self, view.buf, (size_t)view.len);
  PyBuffer_Release(&view);
  if (reading.size == 0)
    return reading.outcome;
  count = PyLong_FromSize_t(reading.size);
  if (count == NULL || deliver_before_error(self, deliver_count, count) < 0)
    reading.outcome = FAILED;
  Py_XDECREF(count);
  return reading.outcome;
}

static bool
may_read(const tls *self)
{
  return (self->stage == TLS_WRAPPED || self->stage == TLS_FLUSHING) && !self->app_reading_paused &&
         tls_is_some(self->app_protocol);
}

static int
read_end(tls *self)
{
  if (tls_discard(PyObject_CallMethod((PyObject *)self, "_call_eof_received", NULL)) < 0)
    return -1;
  return tls_discard(PyObject_CallMethod((PyObject *)self, "_start_shutdown", NULL));
}

/* What the application writes meanwhile is gathered. */
static int
read_application(tls *self)
{
  enum outcome outcome = OUT_OF_ROOM;

  tls_forget_errors(self->library);
  self->corks++;
  while (outcome == OUT_OF_ROOM && may_read(self))
    outcome = self->app_is_buffer && !tls_is_fed(self->names, self->app_protocol)
                  ? read_buffered(self)
                  : read_copied(self);
  self->corks--;
  if (outcome == END_OF_STREAM)
    return read_end(self);
  return outcome == FAILED ? -1 : 0;
}

/* --- after reading ----------------------------------------------------------------------------- */

/* Stops and starts the transport when more was received than the application took. */
static int
control_reading(tls *self)
{
  Py_ssize_t size = (Py_ssize_t)tls_io_unread(&self->io);
  const char *method;
  PyObject *transport;
  int rc;

  if (size >= self->incoming_high_water && !self->ssl_reading_paused)
    method = "pause_reading";
  else if (size <= self->incoming_low_water && self->ssl_reading_paused)
    method = "resume_reading";
  else
    return 0;
  if (!tls_is_some(self->transport))
    return 0;
  self->ssl_reading_paused = !self->ssl_reading_paused;
  transport = Py_NewRef(self->transport);
  rc = tls_discard(PyObject_CallMethod(transport, method, NULL));
  Py_DECREF(transport);
  return rc;
}

/* What was written goes out although the application failed. */
static int
send_before_error(tls *self)
{
  struct aside aside;

  PyErr_Fetch(&aside.type, &aside.value, &aside.traceback);
  if (tls_process_outgoing(self) < 0)
    PyErr_WriteUnraisable((PyObject *)self);
  PyErr_Restore(aside.type, aside.value, aside.traceback);
  return -1;
}

static int
read_and_answer(tls *self)
{
  Py_ssize_t waiting;

  if (!self->app_reading_paused) {
    if (read_application(self) < 0)
      return send_before_error(self);
    waiting = PyObject_Size(self->backlog);
    if (waiting < 0 || (waiting > 0 ? tls_do_write(self) : tls_process_outgoing(self)) < 0)
      return -1;
  }
  return control_reading(self);
}

int
tls_do_read(tls *self)
{
  if (self->library == NULL || (self->stage != TLS_WRAPPED && self->stage != TLS_FLUSHING))
    return 0;
  return read_and_answer(self) < 0 ? tls_fatal(self) : 0;
}

int
tls_feed(tls *self, const char *data, size_t size)
{
  static const char *const methods[] = {
      [TLS_HANDSHAKE] = "_do_handshake",
      [TLS_FLUSHING] = "_do_flush",
      [TLS_SHUTDOWN] = "_do_shutdown",
  };
  int rc = 0;

  self->io.window = data;
  self->io.window_size = size;
  if (self->stage == TLS_WRAPPED)
    rc = tls_do_read(self);
  else if (self->stage != TLS_UNWRAPPED)
    rc = tls_discard(PyObject_CallMethod((PyObject *)self, methods[self->stage], NULL));
  if (self->stage == TLS_UNWRAPPED) {
    self->io.window_size = 0;
    return rc;
  }
  return hold_window(self) < 0 ? -1 : rc;
}
