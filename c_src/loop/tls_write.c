/* From the application to records: what one callback writes is sent by one call of the transport. */
#include "tls.h"

#include <limits.h>

#define RECORD_MAX 16384       /* bytes of content */
#define RECORD_OVERHEAD 128    /* more than any cipher adds to a record */
#define ROOM_MIN 1024          /* for a second small record */
#define JOIN_MAX (64 * 1024)   /* lists up to here are copied together, to be fewer records */
#define UNLOCK_MIN (64 * 1024) /* from here on encrypting lets other threads run */

/* --- records ----------------------------------------------------------------------------------- */

/* Makes room for the records of size bytes in a bytes object that the transport can have as it is. */
static int
reserve(tls *self, Py_ssize_t size)
{
  Py_ssize_t capacity = size + (size / RECORD_MAX + 1) * RECORD_OVERHEAD + ROOM_MIN;

  if (self->records != NULL || self->io.spilled.size > 0)
    return 0;
  self->records = PyBytes_FromStringAndSize(NULL, capacity);
  if (self->records == NULL)
    return -1;
  self->io.direct = PyBytes_AS_STRING(self->records);
  self->io.direct_size = 0;
  self->io.direct_capacity = (size_t)capacity;
  return 0;
}

void
tls_drop_records(tls *self)
{
  self->io.direct = NULL;
  self->io.direct_size = self->io.direct_capacity = 0;
  Py_CLEAR(self->records);
}

/* All records that there are, as bytes. */
static PyObject *
take_records(tls *self)
{
  struct tls_io *io = &self->io;
  PyObject *records = self->records;
  size_t first = io->direct_size, size = tls_io_unsent(io);

  self->records = NULL;
  io->direct = NULL;
  io->direct_size = io->direct_capacity = 0;
  if (records == NULL)
    records = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)size);
  else
    (void)_PyBytes_Resize(&records, (Py_ssize_t)size);
  if (records != NULL && io->spilled.size > 0)
    tls_bytes_take(&io->spilled, PyBytes_AS_STRING(records) + first, io->spilled.size);
  return records;
}

static int
control_writing(tls *self)
{
  Py_ssize_t size = (Py_ssize_t)tls_io_unsent(&self->io) + self->backlog_size;

  if (self->app_writing_paused ? size > self->outgoing_low_water : size < self->outgoing_high_water)
    return 0;
  return tls_discard(PyObject_CallMethod((PyObject *)self, "_control_app_writing", NULL));
}

int
tls_process_outgoing(tls *self)
{
  PyObject *records, *transport;
  int rc;

  if (!self->ssl_writing_paused && tls_io_unsent(&self->io) > 0) {
    records = take_records(self);
    if (records == NULL)
      return -1;
    transport = Py_NewRef(self->transport);
    rc = tls_is_some(transport)
             ? tls_discard(PyObject_CallMethodOneArg(transport, self->names->str_write, records))
             : 0;
    Py_DECREF(transport);
    Py_DECREF(records);
    if (rc < 0)
      return -1;
  }
  return control_writing(self);
}

/* --- encrypting -------------------------------------------------------------------------------- */

/* SSL_write told of something unusual: the object of _ssl has the right exception.  0 when OpenSSL
 * waits. */
static Py_ssize_t
write_by_ssl(tls *self, const char *data, Py_ssize_t size)
{
  PyObject *count = PyObject_CallMethod(self->socket, "write", "y#", data, size);
  PyObject *type, *value, *traceback, *again;
  Py_ssize_t n;
  int matches;

  if (count != NULL) {
    n = PyLong_AsSsize_t(count);
    Py_DECREF(count);
    return n;
  }
  PyErr_Fetch(&type, &value, &traceback);
  again = PyObject_GetAttrString((PyObject *)self, "_again_errors");
  matches = again == NULL ? -1 : PyErr_GivenExceptionMatches(type, again);
  Py_XDECREF(again);
  if (matches == 0) {
    PyErr_Restore(type, value, traceback);
    return -1;
  }
  Py_XDECREF(type);
  Py_XDECREF(value);
  Py_XDECREF(traceback);
  return matches < 0 ? -1 : 0;
}

/* As many bytes as OpenSSL takes without an error, which is then in *error. */
static Py_ssize_t
write_records(tls *self, const char *data, Py_ssize_t size, int *error)
{
  const struct tls_library *library = self->library;
  Py_ssize_t done = 0;

  *error = 0;
  while (done < size) {
    Py_ssize_t left = size - done;
    int n = library->write(self->ssl, data + done, left < INT_MAX ? (int)left : INT_MAX);

    if (n <= 0) {
      *error = library->get_error(self->ssl, n);
      break;
    }
    done += n;
  }
  return done;
}

Py_ssize_t
tls_encrypt(tls *self, const char *data, Py_ssize_t size)
{
  Py_ssize_t done = 0, n;
  int error;

  if (reserve(self, size) < 0)
    return -1;
  while (done < size) {
    tls_forget_errors(self->library);
    if (size - done < UNLOCK_MIN) {
      done += write_records(self, data + done, size - done, &error);
    } else {
      Py_BEGIN_ALLOW_THREADS
      done += write_records(self, data + done, size - done, &error);
      Py_END_ALLOW_THREADS
    }
    if (done == size || error == TLS_ERROR_WANT_READ || error == TLS_ERROR_WANT_WRITE)
      break;
    n = write_by_ssl(self, data + done, size - done);
    if (n <= 0)
      return n < 0 ? -1 : done;
    done += n;
  }
  return done;
}

/* --- the backlog ------------------------------------------------------------------------------- */

/* Encrypts the first item of the backlog: 1 when all of it was. */
static int
write_first(tls *self, PyObject *item)
{
  Py_ssize_t length = PyObject_Size(item);
  PyObject *rest;
  Py_ssize_t done, left;
  Py_buffer view;
  int rc = -1;

  if (length < 0 || PyObject_GetBuffer(item, &view, PyBUF_SIMPLE) < 0)
    return -1;
  done = tls_encrypt(self, view.buf, view.len);
  left = view.len - done;
  if (done >= 0 && left == 0) {
    self->backlog_size -= length;
    rc = tls_discard(PyObject_CallMethod(self->backlog, "popleft", NULL)) < 0 ? -1 : 1;
  } else if (done >= 0) {
    rest = PyBytes_FromStringAndSize((char *)view.buf + done, left);
    rc = rest == NULL ? -1 : PySequence_SetItem(self->backlog, 0, rest);
    Py_XDECREF(rest);
    self->backlog_size += left - length;
  }
  PyBuffer_Release(&view);
  return rc;
}

int
tls_do_write(tls *self)
{
  Py_ssize_t waiting;
  PyObject *item;
  int rc = 1;

  if (self->library == NULL)
    return 0;
  while (rc > 0 && (waiting = PyObject_Size(self->backlog)) != 0) {
    item = waiting < 0 ? NULL : PySequence_GetItem(self->backlog, 0);
    rc = item == NULL ? -1 : write_first(self, item);
    Py_XDECREF(item);
  }
  return rc < 0 ? -1 : tls_process_outgoing(self);
}

/* --- the application's writes ------------------------------------------------------------------ */

int
tls_fatal(tls *self)
{
  PyObject *type, *value, *traceback;
  int rc;

  if (!PyErr_ExceptionMatches(PyExc_Exception))
    return -1;
  PyErr_Fetch(&type, &value, &traceback);
  PyErr_NormalizeException(&type, &value, &traceback);
  if (traceback != NULL && value != NULL)
    PyException_SetTraceback(value, traceback);
  rc = tls_discard(PyObject_CallMethod((PyObject *)self, "_fatal_error", "Os", value,
                                       "Fatal error on SSL protocol"));
  Py_XDECREF(type);
  Py_XDECREF(value);
  Py_XDECREF(traceback);
  return rc;
}

/* Encrypts view and keeps in the backlog what OpenSSL does not take. */
static int
write_view(tls *self, const Py_buffer *view)
{
  Py_ssize_t done = tls_encrypt(self, view->buf, view->len);
  Py_ssize_t left = view->len - done;
  PyObject *rest;
  int rc;

  if (done < 0)
    return -1;
  if (left == 0)
    return 0;
  rest = PyBytes_FromStringAndSize((char *)view->buf + done, left);
  rc = rest == NULL ? -1 : tls_discard(PyObject_CallMethod(self->backlog, "append", "O", rest));
  Py_XDECREF(rest);
  if (rc == 0)
    self->backlog_size += left;
  return rc;
}

/* True when data can be encrypted at once. */
static bool
is_open(const tls *self)
{
  return self->library != NULL && self->stage == TLS_WRAPPED && self->backlog_size == 0;
}

static bool
is_plain(PyObject *data)
{
  return PyBytes_Check(data) || PyByteArray_Check(data);
}

/* After encrypting with result rc. */
static PyObject *
written(tls *self, int rc)
{
  if (rc == 0 && (self->corks == 0 || self->backlog_size > 0))
    rc = tls_process_outgoing(self);
  else if (rc == 0)
    rc = control_writing(self);
  if (rc < 0 && tls_fatal(self) < 0)
    return NULL;
  Py_RETURN_NONE;
}

/* The protocol of a transport of ours; another object when it has none any more. */
static PyObject *
protocol_of(PyObject *transport)
{
  return PyObject_GetAttr(transport, tls_state_of(transport)->str_ssl_protocol);
}

static bool
is_tls(PyObject *protocol, PyObject *transport)
{
  return PyObject_TypeCheck(protocol, tls_state_of(transport)->protocol_type);
}

/* As asyncio's own code has it: before the handshake, after the end, and for what is not bytes. */
static PyObject *
write_by_asyncio(PyObject *protocol, PyObject *list)
{
  PyObject *result = PyObject_CallMethod(protocol, "_write_appdata", "O", list);

  if (result == NULL)
    return NULL;
  Py_DECREF(result);
  Py_RETURN_NONE;
}

static PyObject *
write_one(tls *self, PyObject *data)
{
  Py_buffer view;
  int rc = PyObject_GetBuffer(data, &view, PyBUF_SIMPLE);

  if (rc == 0) {
    rc = write_view(self, &view);
    PyBuffer_Release(&view);
  }
  return written(self, rc);
}

PyObject *
tls_writer_write(PyObject *transport, PyObject *data)
{
  PyObject *protocol, *list, *result = NULL;
  Py_ssize_t size;

  if (!is_plain(data) && !PyMemoryView_Check(data)) {
    PyErr_Format(PyExc_TypeError, "data: expecting a bytes-like instance, got %s",
                 _PyType_Name(Py_TYPE(data)));
    return NULL;
  }
  size = PyObject_Size(data);
  if (size < 0)
    return NULL;
  if (size == 0)
    Py_RETURN_NONE;
  protocol = protocol_of(transport);
  if (protocol == NULL)
    return NULL;
  if (is_tls(protocol, transport) && is_open((tls *)protocol)) {
    result = write_one((tls *)protocol, data);
  } else {
    list = PyTuple_Pack(1, data);
    if (list != NULL)
      result = write_by_asyncio(protocol, list);
    Py_XDECREF(list);
  }
  Py_DECREF(protocol);
  return result;
}

/* The bytes of a list of bytes and bytearrays; -1 when it holds something else. */
static Py_ssize_t
plain_size(PyObject *list)
{
  Py_ssize_t total = 0;

  for (Py_ssize_t i = 0; i < PyList_GET_SIZE(list); i++) {
    PyObject *item = PyList_GET_ITEM(list, i);

    if (!is_plain(item) || total > PY_SSIZE_T_MAX - Py_SIZE(item))
      return -1;
    total += Py_SIZE(item);
  }
  return total;
}

static PyObject *
write_joined(tls *self, PyObject *list)
{
  PyObject *empty = PyBytes_FromStringAndSize(NULL, 0);
  PyObject *joined = empty == NULL ? NULL : PyObject_CallMethod(empty, "join", "O", list);
  PyObject *result = joined == NULL ? NULL : write_one(self, joined);

  Py_XDECREF(empty);
  Py_XDECREF(joined);
  return result;
}

/* Each item's records, sent together. */
static PyObject *
write_each(tls *self, PyObject *list)
{
  PyObject *result;

  self->corks++;
  for (Py_ssize_t i = 0; i < PyList_GET_SIZE(list) && self->stage == TLS_WRAPPED; i++) {
    PyObject *item = Py_NewRef(PyList_GET_ITEM(list, i));

    /* OpenSSL may have stopped taking data meanwhile. */
    if (self->backlog_size == 0) {
      result = write_one(self, item);
    } else {
      result = PyObject_CallMethod((PyObject *)self, "_write_appdata", "((O))", item);
    }
    Py_DECREF(item);
    if (result == NULL) {
      self->corks--;
      return NULL;
    }
    Py_DECREF(result);
  }
  self->corks--;
  return written(self, 0);
}

PyObject *
tls_writer_writelines(PyObject *transport, PyObject *iterable)
{
  PyObject *protocol = protocol_of(transport);
  PyObject *list, *result = NULL;
  Py_ssize_t size;

  if (protocol == NULL)
    return NULL;
  list = PySequence_List(iterable);
  if (list != NULL) {
    size = plain_size(list);
    if (size < 0 || !is_tls(protocol, transport) || !is_open((tls *)protocol))
      result = write_by_asyncio(protocol, list);
    else if (size <= JOIN_MAX)
      result = size == 0 ? Py_NewRef(Py_None) : write_joined((tls *)protocol, list);
    else
      result = write_each((tls *)protocol, list);
  }
  Py_XDECREF(list);
  Py_DECREF(protocol);
  return result;
}
