/* ByteChannel's methods that read it as a stream, and those that receive without a copy. */
#include "byte_read.h"

#include "thread_wait.h"

static const char *const method_names[][2] = {
    [READ_INTO] = {"receive_into", "async_receive_into"},
    [READ_VIEW] = {"receive_view", "async_receive_view"},
    [READ_EXACTLY] = {"readexactly", "async_readexactly"},
    [READ_UNTIL] = {"readuntil", "async_readuntil"},
    [READ_LINE] = {"readline", "async_readline"},
};

/* --- arguments: 0, or -1 with an exception --- */

static int
set_wanted(byte_read *r, PyObject *number)
{
  Py_ssize_t wanted = PyNumber_AsSsize_t(number, PyExc_OverflowError);
  if (wanted == -1 && PyErr_Occurred()) {
    return -1;
  }
  if (wanted < 0) {
    PyErr_SetString(PyExc_ValueError, "readexactly size can not be less than zero");
    return -1;
  }
  r->wanted = (size_t)wanted;
  return 0;
}

static int
set_separator(byte_read *r, PyObject *given)
{
  Py_buffer view;
  if (given == NULL) {
    r->separator = PyBytes_FromStringAndSize("\n", 1);
    return r->separator == NULL ? -1 : 0;
  }
  if (PyObject_GetBuffer(given, &view, PyBUF_SIMPLE) < 0) {
    return -1;
  }
  if (view.len == 0) {
    PyErr_SetString(PyExc_ValueError, "Separator should be at least one-byte string");
  } else {
    r->separator = PyBytes_FromStringAndSize(view.buf, view.len);
  }
  PyBuffer_Release(&view);
  return r->separator == NULL ? -1 : 0;
}

static int
set_argument(byte_read *r, PyObject *given)
{
  switch (r->kind) {
  case READ_INTO:
    return PyObject_GetBuffer(given, &r->target, PyBUF_WRITABLE);
  case READ_EXACTLY:
    return set_wanted(r, given);
  case READ_UNTIL:
  case READ_LINE:
    return set_separator(r, given);
  default:
    return 0;
  }
}

/* Reads the arguments of a method: what the read needs, and a timeout. */
static int
prepare(byte_read *r, const char *name, PyObject *const *args, Py_ssize_t count, PyObject *names,
        int64_t *timeout)
{
  int needs = r->kind == READ_INTO || r->kind == READ_EXACTLY;
  int takes = needs || (r->kind == READ_UNTIL && count > 0);
  return byte_parse_timeout(name, args, count, names, takes, timeout) < 0
             ? -1
             : set_argument(r, takes ? args[0] : NULL);
}

/* --- on a thread --- */

static PyObject *
run(byte_read *r, int64_t timeout)
{
  PyObject *out = NULL;
  message m;
  if (byte_read_at_once(r, &out) || byte_read_begin(r) < 0) {
    return out;
  }
  int64_t deadline = timeout < 0 ? -1 : thread_wait_clock() + timeout;
  enum byte_read_state state = READ_MORE;
  while (state == READ_MORE) {
    int64_t left = deadline < 0 ? -1 : deadline - thread_wait_clock();
    int result = channel_receive_message(r->channel, deadline < 0 || left > 0 ? left : 0, &m);
    if (result != QUEUE_OK) {
      return result == QUEUE_CLOSED ? byte_read_end(r) : NULL;
    }
    state = byte_read_feed(r, &m, &out);
  }
  return out;
}

static PyObject *
read_on_thread(PyObject *self, enum byte_read_kind kind, PyObject *const *args, Py_ssize_t count,
               PyObject *names)
{
  byte_read r;
  int64_t timeout;
  byte_read_init(&r, (channel_object *)self, kind);
  PyObject *out = NULL;
  if (prepare(&r, method_names[kind][0], args, count, names, &timeout) == 0) {
    out = run(&r, timeout);
  }
  byte_read_clear(&r);
  return out;
}

/* --- in a coroutine --- */

static PyObject *
read_in_coroutine(PyObject *self, enum byte_read_kind kind, PyObject *const *args, Py_ssize_t count,
                  PyObject *names)
{
  int64_t timeout;
  byte_read *r = PyMem_Malloc(sizeof(*r));
  if (r == NULL) {
    return PyErr_NoMemory();
  }
  byte_read_init(r, (channel_object *)self, kind);
  if (prepare(r, method_names[kind][1], args, count, names, &timeout) < 0) {
    byte_read_clear(r);
    PyMem_Free(r);
    return NULL;
  }
  return channel_await_new_read((channel_object *)self, r, timeout);
}

/* --- methods --- */

#define DEFINE(name, kind)                                                                         \
  PyObject *byte_##name(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names)  \
  {                                                                                                \
    return read_on_thread(self, kind, args, count, names);                                         \
  }                                                                                                \
                                                                                                   \
  PyObject *byte_async_##name(PyObject *self, PyObject *const *args, Py_ssize_t count,             \
                              PyObject *names)                                                     \
  {                                                                                                \
    return read_in_coroutine(self, kind, args, count, names);                                      \
  }

DEFINE(receive_into, READ_INTO)
DEFINE(receive_view, READ_VIEW)
DEFINE(readexactly, READ_EXACTLY)
DEFINE(readuntil, READ_UNTIL)
DEFINE(readline, READ_LINE)
