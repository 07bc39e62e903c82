/* What transports over a socket have in common: how they begin and end, and flow control.  The
 * semantics are those of asyncio's selector_events._SelectorTransport. */
#include "aio.h"
#include "listener.h"
#include "tls.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#define DEFAULT_HIGH_WATER (64 * 1024)

#define NAMES(self) (&(self)->loop->state->transports)

bool
transport_must_raise(void)
{
  return PyErr_ExceptionMatches(PyExc_SystemExit) ||
         PyErr_ExceptionMatches(PyExc_KeyboardInterrupt);
}

/* Takes the exception that is set, as an object. */
static PyObject *
take_exception(void)
{
  PyObject *type, *value, *traceback;

  PyErr_Fetch(&type, &value, &traceback);
  PyErr_NormalizeException(&type, &value, &traceback);
  if (traceback != NULL && value != NULL)
    PyException_SetTraceback(value, traceback);
  Py_XDECREF(type);
  Py_XDECREF(traceback);
  return value;
}

static int
discard(PyObject *result)
{
  Py_XDECREF(result);
  return result == NULL ? -1 : 0;
}

int
transport_log(stream *self, const char *level, const char *format)
{
  if (self->loop == NULL || !self->loop->debug)
    return 0;
  return discard(PyObject_CallMethod(self->loop->state->logger, level, "sO", format, self));
}

int
transport_debug(stream *self, const char *format)
{
  return transport_log(self, "debug", format);
}

/* --- the beginning ----------------------------------------------------------------------------- */

/* extra[name] = sock.name(), or None where the socket has none. */
static int
add_address(PyObject *extra, PyObject *sock, const char *method, const char *name)
{
  PyObject *address = PyObject_CallMethod(sock, method, NULL);
  int rc;

  if (address == NULL && PyErr_ExceptionMatches(PyExc_OSError)) {
    PyErr_Clear();
    address = Py_NewRef(Py_None);
  }
  if (address == NULL)
    return -1;
  rc = PyDict_SetItemString(extra, name, address);
  Py_DECREF(address);
  return rc;
}

static int
fill_extra(stream *self, PyObject *extra)
{
  PyObject *wrapped;
  int rc;

  self->extra = extra == Py_None ? PyDict_New() : Py_NewRef(extra);
  if (self->extra == NULL)
    return -1;
  if (!PyDict_Check(self->extra)) {
    PyErr_SetString(PyExc_TypeError, "extra must be a dict or None");
    return -1;
  }
  wrapped = PyObject_CallOneArg(NAMES(self)->transport_socket, self->sock);
  rc = wrapped == NULL ? -1 : PyDict_SetItemString(self->extra, "socket", wrapped);
  Py_XDECREF(wrapped);
  if (rc < 0 || add_address(self->extra, self->sock, "getsockname", "sockname") < 0)
    return -1;
  if (PyDict_GetItemString(self->extra, "peername") != NULL)
    return 0;
  return add_address(self->extra, self->sock, "getpeername", "peername");
}

int
transport_call_soon(native_loop *loop, PyObject *callback, PyObject *argument)
{
  PyObject *result = NULL;

  if (callback != NULL)
    result = PyObject_CallMethod((PyObject *)loop, "call_soon", argument ? "OO" : "O", callback,
                                 argument);
  Py_XDECREF(callback);
  return discard(result);
}

int
transport_schedule_start(stream *self, PyObject *waiter)
{
  native_loop *loop = self->loop;
  PyObject *result;

  if (transport_call_soon(loop, PyObject_GetAttrString(self->protocol, "connection_made"),
                          (PyObject *)self) < 0 ||
      transport_call_soon(loop, PyObject_GetAttrString((PyObject *)self, "_start"), NULL) < 0)
    return -1;
  if (waiter == Py_None)
    return 0;
  result = PyObject_CallMethod((PyObject *)loop, "call_soon", "OOO", NAMES(self)->set_result,
                               waiter, Py_None);
  return discard(result);
}

int
transport_check_initialized(stream *self)
{
  if (self->kind != NULL)
    return 0;
  PyErr_SetString(PyExc_RuntimeError, "the transport was not initialized");
  return -1;
}

int
transport_begin(stream *self, const transport_kind *kind, native_loop *loop, int fd,
                PyObject *protocol)
{
  self->kind = kind;
  self->loop = (native_loop *)Py_NewRef(loop);
  self->fd = fd;
  self->open = true;
  self->high_water = DEFAULT_HIGH_WATER;
  self->low_water = DEFAULT_HIGH_WATER / 4;
  self->read_context = PyContext_CopyCurrent();
  if (self->read_context == NULL || transport_set_protocol(self, protocol) < 0)
    return -1;
  return kind->shares ? 0 : readers_claim(loop, fd, (PyObject *)self);
}

int
transport_open(stream *self, const transport_kind *kind, struct transport_parts parts)
{
  loop_state *state = PyType_GetModuleState(Py_TYPE(self));
  int fd;

  if (self->loop != NULL || self->extra != NULL ||
      !PyObject_TypeCheck(parts.loop, state->loop_type)) {
    PyErr_SetString(PyExc_TypeError, "a native event loop was expected, once");
    return -1;
  }
  fd = readers_fileno(state, parts.sock);
  if (fd < 0)
    return -1;
  self->sock = Py_NewRef(parts.sock);
  if (transport_begin(self, kind, (native_loop *)parts.loop, fd, parts.protocol) < 0 ||
      fill_extra(self, parts.extra) < 0)
    return -1;
  return transport_attach(self, parts.server);
}

int
transport_set_protocol(stream *self, PyObject *protocol)
{
  int buffered = 0;

  /* A transport that has ended only remembers it. */
  if (self->loop != NULL)
    buffered = PyObject_IsInstance(protocol, NAMES(self)->buffered_protocol);
  if (buffered < 0 || (self->loop != NULL && aio_adopt(&self->loop->state->aio, protocol) < 0))
    return -1;
  self->feeds_tls = self->loop != NULL && tls_is_fed(&self->loop->state->tls, protocol);
  self->buffered_protocol = buffered && !self->feeds_tls;
  Py_XSETREF(self->protocol, Py_NewRef(protocol));
  return 0;
}

/* What to watch: a duplicate where somebody else watches the descriptor already. */
static int
choose_watched(stream *self)
{
  self->watched_fd = self->fd;
  if (!self->kind->shares || !readers_is_watched(self->loop, self->fd))
    return 0;
  self->watched_fd = fcntl(self->fd, F_DUPFD_CLOEXEC, 0);
  if (self->watched_fd >= 0)
    return 0;
  PyErr_SetFromErrno(PyExc_OSError);
  return -1;
}

static void
close_watched(stream *self)
{
  if (self->watched_fd != self->fd)
    (void)close(self->watched_fd);
}

int
transport_watch(stream *self, uint32_t directions)
{
  if (!self->registered && choose_watched(self) < 0)
    return -1;
  if (readers_set_transport(self->loop, self->watched_fd, (PyObject *)self, directions) < 0) {
    if (!self->registered)
      close_watched(self);
    return -1;
  }
  self->registered = self->held = true;
  return 0;
}

int
transport_register(stream *self)
{
  if (self->registered || self->loop == NULL)
    return 0;
  return transport_watch(self, self->kind->watches);
}

void
transport_unregister(stream *self)
{
  if (!self->registered)
    return;
  if (self->loop != NULL)
    readers_unset_transport(self->loop, self->watched_fd, (PyObject *)self);
  close_watched(self);
  self->registered = self->held = false;
}

void
transport_hold(stream *self)
{
  bool wanted = (transport_is_reading(self) && !self->at_eof) || self->out.count > 0;

  if (!self->registered || self->held == wanted || self->loop == NULL)
    return;
  self->held = wanted;
  readers_hold_transport(self->loop, self->watched_fd, (PyObject *)self, wanted);
}

int
transport_start(stream *self)
{
  self->started = true;
  if (self->closing)
    return 0;
  if (transport_register(self) < 0)
    return -1;
  transport_hold(self);
  return transport_schedule(self);
}

/* --- the end ----------------------------------------------------------------------------------- */

/* As loop.call_soon(), without a handle: the transport itself is what runs. */
static int
push_connection_lost(stream *self, PyObject *exception)
{
  PyObject *context;

  if (loop_check_closed(self->loop) < 0)
    return -1;
  context = PyContext_CopyCurrent();
  if (context == NULL || ready_push(&self->loop->ready, (PyObject *)self) < 0) {
    Py_XDECREF(context);
    return -1;
  }
  Py_XSETREF(self->write_context, context);
  Py_XSETREF(self->lost_exception, Py_NewRef(exception));
  self->lost_due = true;
  return 0;
}

int
transport_schedule_lost(stream *self, PyObject *exception)
{
  self->conn_lost++;
  if (self->loop == NULL)
    return 0;
  if (!self->loop->debug && !self->starting && !self->lost_due)
    return push_connection_lost(self, exception);
  return transport_call_soon(
      self->loop, PyObject_GetAttrString((PyObject *)self, "_call_connection_lost"), exception);
}

int
transport_close(stream *self)
{
  if (self->corked && stream_flush(self) < 0)
    return -1;
  if (self->closing)
    return 0;
  self->closing = true;
  return self->out.count > 0 ? 0 : transport_schedule_lost(self, Py_None);
}

int
transport_force_close(stream *self, PyObject *exception)
{
  if (self->conn_lost)
    return 0;
  stream_flush_before_drop(self);
  buffer_drop(&self->out);
  self->closing = true;
  return transport_schedule_lost(self, exception);
}

static int
report(stream *self, PyObject *message, PyObject *exception)
{
  PyObject *context;
  int rc;

  context = Py_BuildValue("{sOsOsOsO}", "message", message, "exception", exception, "transport",
                          self, "protocol", self->protocol ? self->protocol : Py_None);
  if (context == NULL)
    return -1;
  rc = discard(PyObject_CallMethodOneArg((PyObject *)self->loop,
                                         self->loop->state->str_call_exception_handler, context));
  Py_DECREF(context);
  return rc;
}

/* logger.debug with the exception's traceback. */
static int
debug_exception(stream *self, PyObject *message, PyObject *exception)
{
  PyObject *debug = PyObject_GetAttrString(self->loop->state->logger, "debug");
  PyObject *args = Py_BuildValue("(sOO)", "%r: %s", self, message);
  PyObject *kwargs = Py_BuildValue("{sO}", "exc_info", exception);
  PyObject *result = NULL;

  if (debug != NULL && args != NULL && kwargs != NULL)
    result = PyObject_Call(debug, args, kwargs);
  Py_XDECREF(debug);
  Py_XDECREF(args);
  Py_XDECREF(kwargs);
  return discard(result);
}

/* True for the errors of the other end, which the protocol alone is told of; -1 with an exception. */
static int
is_expected(stream *self, PyObject *exception)
{
  int is_os_error = PyObject_IsInstance(exception, PyExc_OSError);
  PyObject *number;
  int overflow;
  bool is_eio;

  if (is_os_error <= 0 || !self->kind->tells_os_errors)
    return is_os_error;
  number = PyObject_GetAttrString(exception, "errno");
  if (number == NULL)
    return -1;
  is_eio = PyLong_Check(number) && PyLong_AsLongAndOverflow(number, &overflow) == EIO;
  Py_DECREF(number);
  return is_eio;
}

int
transport_fatal_error(stream *self, PyObject *exception, PyObject *message)
{
  int expected = is_expected(self, exception);
  int rc = 0;

  if (expected < 0)
    return -1;
  if (self->loop != NULL) {
    if (!expected)
      rc = report(self, message, exception);
    else if (self->loop->debug)
      rc = debug_exception(self, message, exception);
  }
  return rc < 0 ? -1 : transport_force_close(self, exception);
}

int
transport_fatal(stream *self, const char *message)
{
  PyObject *exception, *text;
  int rc = -1;

  if (transport_must_raise())
    return -1;
  exception = take_exception();
  text = PyUnicode_FromString(message);
  if (exception != NULL && text != NULL)
    rc = transport_fatal_error(self, exception, text);
  Py_XDECREF(exception);
  Py_XDECREF(text);
  return rc;
}

/* Runs call with an exception that may be set put aside; one of its own comes on top. */
static void
close_socket(stream *self)
{
  PyObject *sock = self->sock;
  PyObject *type, *value, *traceback;

  if (!self->open)
    return;
  PyErr_Fetch(&type, &value, &traceback);
  transport_unregister(self);
  if (self->loop != NULL)
    readers_disclaim(self->loop, self->fd, (PyObject *)self);
  transport_note_sockname(self);
  self->open = false;
  self->sock = NULL;
  if (sock == NULL)
    (void)close(self->fd);
  else if (discard(PyObject_CallMethod(sock, "close", NULL)) < 0)
    PyErr_WriteUnraisable(sock);
  Py_XDECREF(sock);
  PyErr_Restore(type, value, traceback);
}

int
transport_drop(stream *self)
{
  int rc;

  close_socket(self);
  rc = transport_detach(self);
  Py_CLEAR(self->protocol);
  Py_CLEAR(self->read_context);
  Py_CLEAR(self->write_context);
  Py_CLEAR(self->loop);
  return rc;
}

int
transport_connection_lost(stream *self, PyObject *exception)
{
  PyObject *protocol = self->protocol;
  PyObject *error, *result = NULL;
  int rc;

  if (!self->open)
    return 0;
  stream_flush_before_drop(self);
  Py_XINCREF(protocol);
  if (protocol != NULL)
    result = PyObject_CallMethodOneArg(protocol, NAMES(self)->str_connection_lost, exception);
  rc = discard(result);
  Py_XDECREF(protocol);
  if (transport_drop(self) < 0)
    rc = -1;
  if (rc < 0 || self->empty_waiter == NULL)
    return rc;
  error = PyObject_CallFunction(PyExc_ConnectionError, "s", "Connection is closed by peer");
  if (error == NULL)
    return -1;
  rc = discard(PyObject_CallMethod(self->empty_waiter, "set_exception", "O", error));
  Py_DECREF(error);
  return rc;
}

void
transport_finalize(PyObject *object)
{
  stream *self = (stream *)object;
  PyObject *type, *value, *traceback;

  if (!self->open)
    return;
  PyErr_Fetch(&type, &value, &traceback);
  if (PyErr_ResourceWarning(object, 1, "unclosed transport %R", object) < 0)
    PyErr_WriteUnraisable(object);
  close_socket(self);
  /* A server of another kind hears of it from Python 3.13 on. */
  if ((self->clients != NULL || PY_VERSION_HEX >= 0x030D0000) && transport_detach(self) < 0)
    PyErr_WriteUnraisable(object);
  PyErr_Restore(type, value, traceback);
}

/* --- flow control ------------------------------------------------------------------------------ */

static int
tell_protocol(stream *self, const char *method, const char *message)
{
  PyObject *protocol = Py_XNewRef(self->protocol);
  PyObject *exception, *text;
  int rc = 0;

  if (protocol == NULL)
    return 0;
  if (discard(PyObject_CallMethod(protocol, method, NULL)) < 0) {
    rc = -1;
    if (!transport_must_raise() && self->loop != NULL) {
      exception = take_exception();
      text = PyUnicode_FromString(message);
      if (exception != NULL && text != NULL)
        rc = report(self, text, exception);
      Py_XDECREF(exception);
      Py_XDECREF(text);
    }
  }
  Py_DECREF(protocol);
  return rc;
}

int
transport_maybe_pause(stream *self)
{
  if (self->protocol_paused || (Py_ssize_t)self->out.bytes <= self->high_water)
    return 0;
  self->protocol_paused = true;
  return tell_protocol(self, "pause_writing", "protocol.pause_writing() failed");
}

int
transport_maybe_resume(stream *self)
{
  if (!self->protocol_paused || (Py_ssize_t)self->out.bytes > self->low_water)
    return 0;
  self->protocol_paused = false;
  return tell_protocol(self, "resume_writing", "protocol.resume_writing() failed");
}

PyObject *
transport_repr(stream *self)
{
  const char *name = self->kind == NULL ? "Transport" : self->kind->name;
  const char *life = !self->open ? " closed" : self->closing ? " closing" : "";

  if (self->loop == NULL || self->loop->closed)
    return PyUnicode_FromFormat("<%s%s fd=%d>", name, life, self->fd);
  return PyUnicode_FromFormat(
      "<%s%s fd=%d read=%s write=<%s, bufsize=%zu>>", name, life, self->fd,
      self->registered && !self->at_eof && transport_is_reading(self) ? "polling" : "idle",
      self->out.count > 0 ? "polling" : "idle", self->out.bytes);
}
