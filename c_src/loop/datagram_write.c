/* Sending datagrams: at once, or in order once the kernel takes them again. */
#include "datagram.h"

#include <errno.h>

#define NAMES(self) (&(self)->base.loop->state->transports)
#define RETRY_SECONDS 0.001

/* From 3.13 on asyncio counts a header for each datagram that waits, and sends empty ones. */
#if PY_VERSION_HEX >= 0x030D0000
#define HEADER_SIZE 8
#define ASKS_FOR_DATA false /* whether there is any */
#else
#define HEADER_SIZE 0
#define ASKS_FOR_DATA true
#endif

int
datagram_error(datagram *self, const char *message)
{
  PyObject *type, *value, *traceback, *protocol, *result;

  if (!PyErr_ExceptionMatches(PyExc_OSError) || self->base.protocol == NULL)
    return transport_fatal(&self->base, message);
  PyErr_Fetch(&type, &value, &traceback);
  PyErr_NormalizeException(&type, &value, &traceback);
  if (traceback != NULL)
    PyException_SetTraceback(value, traceback);
  protocol = Py_NewRef(self->base.protocol);
  result = PyObject_CallMethodOneArg(protocol, NAMES(self)->str_error_received, value);
  Py_DECREF(protocol);
  Py_XDECREF(type);
  Py_XDECREF(value);
  Py_XDECREF(traceback);
  Py_XDECREF(result);
  return result == NULL ? -1 : 0;
}

/* --- one attempt ------------------------------------------------------------------------------- */

/* What a send that the kernel judged has come to: 1 sent, 0 not now, -1 with an exception. */
static int
judge(ssize_t n)
{
  if (n >= 0)
    return 1;
  if (errno == EAGAIN || errno == EWOULDBLOCK)
    return 0;
  PyErr_SetFromErrno(PyExc_OSError);
  return -1;
}

static int
send_native(datagram *self, const Py_buffer *view, const struct address_pair *pair)
{
  const struct sockaddr *to = pair == NULL ? NULL : &pair->raw.any;
  socklen_t size = pair == NULL ? 0 : pair->size;
  ssize_t n;

  do {
    n = sendto(self->base.fd, view->buf, (size_t)view->len, MSG_NOSIGNAL | MSG_DONTWAIT, to, size);
  } while (n < 0 && errno == EINTR);
  return judge(n);
}

/* By the socket's own method, which knows every address and every error. */
static int
send_foreign(datagram *self, PyObject *data, PyObject *address)
{
  PyObject *sock = Py_NewRef(self->base.sock);
  PyObject *result = PyObject_CallMethod(sock, "sendto", "OO", data, address);

  Py_DECREF(sock);
  if (result != NULL) {
    Py_DECREF(result);
    return 1;
  }
  if (!PyErr_ExceptionMatches(PyExc_BlockingIOError) &&
      !PyErr_ExceptionMatches(PyExc_InterruptedError))
    return -1;
  PyErr_Clear();
  return 0;
}

/* 1 when data was sent, 0 when the kernel takes nothing now, -1 with an exception. */
static int
attempt(datagram *self, PyObject *data, const Py_buffer *view, PyObject *address)
{
  const struct address_pair *pair;

  if (self->connected)
    return send_native(self, view, NULL);
  pair = address_raw(&self->addresses, self->family, address);
  if (pair == NULL)
    return send_foreign(self, data, address);
  if (PySys_Audit("socket.sendto", "OO", self->base.sock, address) < 0)
    return -1;
  /* A hook may have used the transport meanwhile. */
  if (self->base.sock == NULL)
    return 0;
  pair = address_raw(&self->addresses, self->family, address);
  return pair == NULL ? send_foreign(self, data, address) : send_native(self, view, pair);
}

/* --- what waits -------------------------------------------------------------------------------- */

/* The kernel does not tell when a Unix socket that is not our peer has room again. */
static int
retry_soon(datagram *self)
{
  PyObject *method, *result = NULL;

  if (self->retry_due || self->family != AF_UNIX || self->connected)
    return 0;
  method = PyObject_GetAttrString((PyObject *)self, "_retry");
  if (method != NULL)
    result =
        PyObject_CallMethod((PyObject *)self->base.loop, "call_later", "dO", RETRY_SECONDS, method);
  Py_XDECREF(method);
  if (result == NULL)
    return -1;
  Py_DECREF(result);
  self->retry_due = true;
  return 0;
}

/* Watching for room only while it is needed, as on loopback every send would be reported. */
static int
watch_writing(datagram *self, bool wanted)
{
  if (self->base.loop == NULL)
    return 0;
  if (self->watches_write != wanted &&
      transport_watch(&self->base, POLLER_READ | (wanted ? POLLER_WRITE : 0)) < 0)
    return -1;
  self->watches_write = wanted;
  transport_hold(&self->base);
  return 0;
}

/* The kernel is full: come back when it is not. */
static int
blocked(datagram *self)
{
  self->base.writable = false;
  return watch_writing(self, true) < 0 ? -1 : retry_soon(self);
}

static int
keep(datagram *self, const Py_buffer *view, PyObject *address)
{
  PyObject *pair = Py_BuildValue("y#O", view->buf ? view->buf : "", view->len, address);
  int rc;

  if (pair == NULL)
    return -1;
  rc = buffer_append(&self->base.out, pair, NULL, (size_t)view->len + HEADER_SIZE);
  Py_DECREF(pair);
  return rc;
}

/* Sends the first datagram that waits; as attempt(). */
static int
send_first(datagram *self)
{
  struct write_buffer *out = &self->base.out;
  PyObject *chunk = Py_NewRef(out->chunks[out->first].owner);
  PyObject *data = PyTuple_GET_ITEM(chunk, 0);
  Py_buffer view;
  int rc = PyObject_GetBuffer(data, &view, PyBUF_SIMPLE);

  if (rc == 0) {
    rc = attempt(self, data, &view, PyTuple_GET_ITEM(chunk, 1));
    PyBuffer_Release(&view);
  }
  if (rc != 0 && out->count > 0 && out->chunks[out->first].owner == chunk)
    buffer_pop(out);
  Py_DECREF(chunk);
  return rc;
}

int
datagram_write_ready(stream *base)
{
  datagram *self = (datagram *)base;
  int rc = 1;

  while (rc > 0 && base->out.count > 0 && !base->conn_lost)
    rc = send_first(self);
  if (rc < 0) {
    /* What is left goes on next time round. */
    base->drain_ends = base->out.count == 0;
    return datagram_error(self, self->base.kind->write_error);
  }
  if (rc == 0 && blocked(self) < 0)
    return -1;
  base->drain_ends = false;
  /* The protocol may send more. */
  if (base->conn_lost || transport_maybe_resume(base) < 0)
    return base->conn_lost ? 0 : -1;
  if (base->out.count > 0 || base->conn_lost || base->loop == NULL)
    return 0;
  if (base->closing)
    return transport_connection_lost(base, Py_None);
  return watch_writing(self, false);
}

/* The timer of retry_soon(). */
PyObject *
datagram_retry(datagram *self, PyObject *Py_UNUSED(ignored))
{
  self->retry_due = false;
  if (self->base.out.count > 0)
    self->base.writable = true;
  if (transport_schedule(&self->base) < 0)
    return NULL;
  Py_RETURN_NONE;
}

/* --- sendto ------------------------------------------------------------------------------------ */

/* The address to use for the one given, borrowed; NULL with an exception when it is another. */
static PyObject *
choose_address(datagram *self, PyObject *address)
{
  int same;

  if (self->address == Py_None)
    return address;
  same = address == Py_None ? 1 : PyObject_RichCompareBool(address, self->address, Py_EQ);
  if (same == 0)
    PyErr_Format(PyExc_ValueError, "Invalid address: must be None or %S", self->address);
  return same > 0 ? self->address : NULL;
}

static int
drop_send(datagram *self)
{
  return transport_drop_write(&self->base, &self->base.conn_lost,
                              "socket.send() raised exception.");
}

static int
send_or_keep(datagram *self, PyObject *data, const Py_buffer *view, PyObject *address)
{
  int rc = 0;

  if (self->base.sock == NULL || (self->base.conn_lost && self->address != Py_None))
    return drop_send(self);
  if (self->base.out.count == 0) {
    rc = attempt(self, data, view, address);
    if (rc < 0)
      return datagram_error(self, self->base.kind->write_error);
    if (rc > 0)
      return 0;
    /* Whoever has aborted waits for nothing any more. */
    if (self->base.conn_lost)
      return drop_send(self);
    Py_XSETREF(self->base.write_context, PyContext_CopyCurrent());
    if (self->base.write_context == NULL)
      return -1;
  }
  if (keep(self, view, address) < 0 || (self->base.out.count == 1 && blocked(self) < 0))
    return -1;
  return transport_maybe_pause(&self->base);
}

/* sendto(data, addr=None): 0 when the arguments are filled in. */
static int
parse_sendto(PyObject *const *args, Py_ssize_t nargs, PyObject *names, PyObject **found)
{
  Py_ssize_t named = names == NULL ? 0 : PyTuple_GET_SIZE(names);

  if (nargs > 2) {
    PyErr_Format(PyExc_TypeError, "sendto() takes at most 2 arguments (%zd given)", nargs);
    return -1;
  }
  for (Py_ssize_t i = 0; i < nargs; i++)
    found[i] = args[i];
  for (Py_ssize_t i = 0; i < named; i++) {
    PyObject *name = PyTuple_GET_ITEM(names, i);
    int place = PyUnicode_CompareWithASCIIString(name, "data") == 0   ? 0
                : PyUnicode_CompareWithASCIIString(name, "addr") == 0 ? 1
                                                                      : -1;

    if (place < 0 || found[place] != NULL) {
      PyErr_Format(PyExc_TypeError, "sendto() got an unexpected or repeated argument '%U'", name);
      return -1;
    }
    found[place] = args[nargs + i];
  }
  if (found[0] == NULL)
    PyErr_SetString(PyExc_TypeError, "sendto() needs the argument 'data'");
  return found[0] == NULL ? -1 : 0;
}

/* True for data that may be sent, or else a TypeError is set. */
static bool
check_data(PyObject *data)
{
  if (PyBytes_Check(data) || PyByteArray_Check(data) || PyMemoryView_Check(data))
    return true;
  PyErr_Format(PyExc_TypeError, "data argument must be a bytes-like object, not '%s'",
               _PyType_Name(Py_TYPE(data)));
  return false;
}

PyObject *
datagram_sendto(datagram *self, PyObject *const *args, Py_ssize_t nargs, PyObject *names)
{
  PyObject *found[2] = {NULL, NULL};
  PyObject *address;
  Py_buffer view;
  int rc;

  if (parse_sendto(args, nargs, names, found) < 0 || !check_data(found[0]))
    return NULL;
  if (self->address == NULL) {
    PyErr_SetString(PyExc_RuntimeError, "the transport was not initialized");
    return NULL;
  }
  address = choose_address(self, found[1] == NULL ? Py_None : found[1]);
  if (address == NULL)
    return NULL;
  if (PyObject_GetBuffer(found[0], &view, PyBUF_SIMPLE) < 0) {
    if (ASKS_FOR_DATA ? transport_refuse(&self->base, found[0]) < 0
                      : transport_fatal(&self->base, self->base.kind->write_error) < 0)
      return NULL;
    Py_RETURN_NONE;
  }
  rc = send_or_keep(self, found[0], &view, address);
  PyBuffer_Release(&view);
  if (rc < 0)
    return NULL;
  Py_RETURN_NONE;
}
