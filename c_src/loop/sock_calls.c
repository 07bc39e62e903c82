/* The system calls under the socket operations; see sock_calls.h.  On a plain socket the hot ones
 * (recv, recv_into, send) are made here with MSG_DONTWAIT and the GIL held, since they cannot
 * block; whatever has an address in it goes through the socket object's own methods. */
#include "sock_calls.h"

#include <sys/socket.h>

/* A receive of at most this much goes through a buffer of the thread, so that the bytes object is
 * made to measure; allocating a large one and shrinking it costs far more than the copy.  Only the
 * pages that data reached take up memory. */
#define RECV_SCRATCH_SIZE (256 * 1024)

static _Thread_local char recv_scratch[RECV_SCRATCH_SIZE];

void
sock_call_init(struct sock_call *call, loop_state *state, enum sock_kind kind, PyObject *sock,
               PyObject *first, PyObject *second)
{
  call->state = state;
  call->kind = kind;
  call->plain = false;
  call->viewed = false;
  call->sock = Py_NewRef(sock);
  call->first = Py_XNewRef(first);
  call->second = Py_XNewRef(second);
  call->position = 0;
}

void
sock_call_clear(struct sock_call *call)
{
  if (call->viewed) {
    call->viewed = false;
    PyBuffer_Release(&call->view);
  }
  Py_CLEAR(call->sock);
  Py_CLEAR(call->first);
  Py_CLEAR(call->second);
}

int
sock_call_traverse(struct sock_call *call, visitproc visit, void *arg)
{
  Py_VISIT(call->sock);
  Py_VISIT(call->first);
  Py_VISIT(call->second);
  if (call->viewed)
    Py_VISIT(call->view.obj);
  return 0;
}

int
sock_call_fileno(struct sock_call *call)
{
  PyObject *number = PyObject_CallMethodNoArgs(call->sock, call->state->str_fileno);
  int fd = number == NULL ? -1 : (int)PyLong_AsLong(number);

  Py_XDECREF(number);
  return fd;
}

/* --- checks and addresses -------------------------------------------------------------------- */

static int
check_nonblocking(struct sock_call *call)
{
  PyObject *timeout = PyObject_CallMethodNoArgs(call->sock, call->state->str_gettimeout);
  double seconds;

  if (timeout == NULL)
    return -1;
  seconds = timeout == Py_None ? -1.0 : PyFloat_AsDouble(timeout);
  Py_DECREF(timeout);
  if (PyErr_Occurred())
    return -1;
  if (seconds == 0.0)
    return 0;
  PyErr_SetString(PyExc_ValueError, "the socket must be non-blocking");
  return -1;
}

int
sock_call_check(struct sock_call *call, bool debug)
{
  PyObject *result;

  call->plain = Py_IS_TYPE(call->sock, call->state->socket_type);
  if (!call->plain) {
    result = PyObject_CallOneArg(call->state->check_ssl, call->sock);
    if (result == NULL)
      return -1;
    Py_DECREF(result);
  }
  return debug ? check_nonblocking(call) : 0;
}

/* An integer attribute of the socket; -1 with an exception on error. */
static int
socket_number(struct sock_call *call, PyObject *name)
{
  PyObject *number = PyObject_GetAttr(call->sock, name);
  int value = number == NULL ? -1 : (int)PyLong_AsLong(number);

  Py_XDECREF(number);
  return value;
}

int
sock_call_needs_address(struct sock_call *call)
{
  int family;

  if (call->kind != SOCK_CONNECT)
    return 0;
  family = socket_number(call, call->state->str_family);
  if (family == -1 && PyErr_Occurred())
    return -1;
  return family == AF_INET || family == AF_INET6;
}

PyObject *
sock_call_resolver(struct sock_call *call, PyObject *loop)
{
  PyObject *method, *args, *keywords, *coroutine = NULL, *iterator = NULL;
  int family = socket_number(call, call->state->str_family);
  int type = socket_number(call, call->state->str_type);
  int proto = socket_number(call, call->state->str_proto);

  if (PyErr_Occurred())
    return NULL;
  method = PyObject_GetAttr(loop, call->state->str_ensure_resolved);
  args = Py_BuildValue("(O)", call->first);
  keywords =
      Py_BuildValue("{sisisisO}", "family", family, "type", type, "proto", proto, "loop", loop);
  if (method != NULL && args != NULL && keywords != NULL)
    coroutine = PyObject_Call(method, args, keywords);
  if (coroutine != NULL)
    iterator = PyObject_CallMethodNoArgs(coroutine, call->state->str_await);
  Py_XDECREF(coroutine);
  Py_XDECREF(keywords);
  Py_XDECREF(args);
  Py_XDECREF(method);
  return iterator;
}

int
sock_call_take_address(struct sock_call *call, PyObject *resolved)
{
  PyObject *info = PySequence_GetItem(resolved, 0);
  PyObject *address = info == NULL ? NULL : PySequence_GetItem(info, 4);

  Py_XDECREF(info);
  Py_DECREF(resolved);
  if (address == NULL)
    return -1;
  Py_SETREF(call->first, address);
  return 0;
}

/* --- attempts -------------------------------------------------------------------------------- */

static bool
would_block(int error)
{
  return error == EAGAIN || error == EWOULDBLOCK || error == EINTR;
}

/* 0 when the exception that is set says that the call would block (it is cleared), else -1. */
static int
blocked_or_failed(void)
{
  if (!PyErr_ExceptionMatches(PyExc_BlockingIOError) &&
      !PyErr_ExceptionMatches(PyExc_InterruptedError))
    return -1;
  PyErr_Clear();
  return 0;
}

/* 1 with *result of a method call on the socket, 0 or -1 as blocked_or_failed. */
static int
attempt(PyObject *value, PyObject **result)
{
  if (value == NULL)
    return blocked_or_failed();
  *result = value;
  return 1;
}

/* The outcome of a system call that returned -1. */
static int
attempt_failed(void)
{
  if (would_block(errno))
    return 0;
  PyErr_SetFromErrno(PyExc_OSError);
  return -1;
}

static int
recv_large(int fd, Py_ssize_t size, PyObject **result)
{
  PyObject *bytes = PyBytes_FromStringAndSize(NULL, size);
  ssize_t got;

  if (bytes == NULL)
    return -1;
  got = recv(fd, PyBytes_AS_STRING(bytes), (size_t)size, MSG_DONTWAIT);
  if (got < 0) {
    int rc = attempt_failed();

    Py_DECREF(bytes);
    return rc;
  }
  *result = bytes;
  return got == size || _PyBytes_Resize(result, got) == 0 ? 1 : -1;
}

static int
recv_small(int fd, Py_ssize_t size, PyObject **result)
{
  ssize_t got = recv(fd, recv_scratch, (size_t)size, MSG_DONTWAIT);

  if (got < 0)
    return attempt_failed();
  *result = PyBytes_FromStringAndSize(recv_scratch, got);
  return *result == NULL ? -1 : 1;
}

static int
try_recv(struct sock_call *call, PyObject **result)
{
  Py_ssize_t size;
  int fd;

  if (!call->plain)
    return attempt(PyObject_CallMethodOneArg(call->sock, call->state->str_recv, call->first),
                   result);
  size = PyNumber_AsSsize_t(call->first, PyExc_OverflowError);
  if (size == -1 && PyErr_Occurred())
    return -1;
  if (size < 0) {
    PyErr_SetString(PyExc_ValueError, "negative buffersize in recv");
    return -1;
  }
  fd = sock_call_fileno(call);
  if (fd < 0 && PyErr_Occurred())
    return -1;
  return size <= RECV_SCRATCH_SIZE ? recv_small(fd, size, result) : recv_large(fd, size, result);
}

static int
try_recv_into(struct sock_call *call, PyObject **result)
{
  Py_buffer view;
  ssize_t got;
  int fd, rc;

  if (!call->plain)
    return attempt(PyObject_CallMethodOneArg(call->sock, call->state->str_recv_into, call->first),
                   result);
  fd = sock_call_fileno(call);
  if (fd < 0 && PyErr_Occurred())
    return -1;
  if (PyObject_GetBuffer(call->first, &view, PyBUF_WRITABLE) < 0) {
    /* As the socket's own method says it. */
    if (PyErr_ExceptionMatches(PyExc_BufferError))
      PyErr_Format(PyExc_TypeError,
                   "recv_into() argument 1 must be read-write bytes-like object, not %.200s",
                   Py_TYPE(call->first)->tp_name);
    return -1;
  }
  got = recv(fd, view.buf, (size_t)view.len, MSG_DONTWAIT);
  rc = got < 0 ? attempt_failed() : 1;
  PyBuffer_Release(&view);
  if (rc <= 0)
    return rc;
  *result = PyLong_FromSsize_t(got);
  return *result == NULL ? -1 : 1;
}

/* Sends what is left through the socket's own method.  How much went, 0 if blocked, -1 on error. */
static Py_ssize_t
send_by_method(struct sock_call *call)
{
  PyObject *rest, *sent = NULL;
  Py_ssize_t count;

  rest = PyMemoryView_FromMemory((char *)call->view.buf + call->position,
                                 call->view.len - call->position, PyBUF_READ);
  if (rest == NULL)
    return -1;
  sent = PyObject_CallMethodOneArg(call->sock, call->state->str_send, rest);
  Py_DECREF(rest);
  if (sent == NULL)
    return blocked_or_failed();
  count = PyNumber_AsSsize_t(sent, PyExc_OverflowError);
  Py_DECREF(sent);
  return count;
}

static Py_ssize_t
send_directly(struct sock_call *call)
{
  int fd = sock_call_fileno(call);
  ssize_t count;

  if (fd < 0 && PyErr_Occurred())
    return -1;
  count = send(fd, (char *)call->view.buf + call->position,
               (size_t)(call->view.len - call->position), MSG_DONTWAIT | MSG_NOSIGNAL);
  return count < 0 ? attempt_failed() : count;
}

static int
try_sendall(struct sock_call *call, PyObject **result)
{
  Py_ssize_t count;

  if (!call->viewed) {
    if (PyObject_GetBuffer(call->first, &call->view, PyBUF_SIMPLE) < 0)
      return -1;
    call->viewed = true;
  }
  count = call->plain ? send_directly(call) : send_by_method(call);
  if (count < 0)
    return -1;
  call->position += count;
  if (call->position < call->view.len)
    return 0;
  *result = Py_NewRef(Py_None);
  return 1;
}

static int
try_recvfrom_into(struct sock_call *call, PyObject **result)
{
  PyObject *number, *value;
  Py_ssize_t size = 0;

  if (call->second != NULL) {
    size = PyNumber_AsSsize_t(call->second, PyExc_OverflowError);
    if (size == -1 && PyErr_Occurred())
      return -1;
  }
  if (size == 0)
    size = PyObject_Size(call->first);
  if (size < 0 && PyErr_Occurred())
    return -1;
  number = PyLong_FromSsize_t(size);
  if (number == NULL)
    return -1;
  value = PyObject_CallMethodObjArgs(call->sock, call->state->str_recvfrom_into, call->first,
                                     number, NULL);
  Py_DECREF(number);
  return attempt(value, result);
}

static int
try_accept(struct sock_call *call, PyObject **result)
{
  PyObject *pair = PyObject_CallMethodNoArgs(call->sock, call->state->str_accept);
  PyObject *connection, *done = NULL;

  if (pair == NULL)
    return blocked_or_failed();
  connection = PySequence_GetItem(pair, 0);
  if (connection != NULL)
    done = PyObject_CallMethodOneArg(connection, call->state->str_setblocking, Py_False);
  Py_XDECREF(connection);
  if (done == NULL) {
    Py_DECREF(pair);
    return -1;
  }
  Py_DECREF(done);
  *result = pair;
  return 1;
}

/* The outcome of a connect that was under way when the descriptor became writable. */
static int
connect_outcome(struct sock_call *call, PyObject **result)
{
  int fd = sock_call_fileno(call);
  int error = 0;
  socklen_t size = sizeof(error);
  PyObject *message;

  if (fd < 0 && PyErr_Occurred())
    return -1;
  if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) < 0) {
    PyErr_SetFromErrno(PyExc_OSError);
    return -1;
  }
  if (error == 0) {
    *result = Py_NewRef(Py_None);
    return 1;
  }
  message = PyUnicode_FromFormat("Connect call failed %S", call->first);
  if (message != NULL) {
    PyObject *exception = PyObject_CallFunction(PyExc_OSError, "iO", error, message);

    if (exception != NULL)
      PyErr_SetObject((PyObject *)Py_TYPE(exception), exception);
    Py_XDECREF(exception);
    Py_DECREF(message);
  }
  return -1;
}

static int
try_connect(struct sock_call *call, bool again, PyObject **result)
{
  if (again)
    return connect_outcome(call, result);
  return attempt(PyObject_CallMethodOneArg(call->sock, call->state->str_connect, call->first),
                 result);
}

int
sock_call_try(struct sock_call *call, bool again, PyObject **result)
{
  switch (call->kind) {
  case SOCK_RECV:
    return try_recv(call, result);
  case SOCK_RECV_INTO:
    return try_recv_into(call, result);
  case SOCK_RECVFROM:
    return attempt(PyObject_CallMethodOneArg(call->sock, call->state->str_recvfrom, call->first),
                   result);
  case SOCK_RECVFROM_INTO:
    return try_recvfrom_into(call, result);
  case SOCK_ACCEPT:
    return try_accept(call, result);
  case SOCK_SENDALL:
    return try_sendall(call, result);
  case SOCK_SENDTO:
    return attempt(PyObject_CallMethodObjArgs(call->sock, call->state->str_sendto, call->first,
                                              call->second, NULL),
                   result);
  default:
    return try_connect(call, again, result);
  }
}
