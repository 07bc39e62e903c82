/* What the two ends of a pipe have in common: a descriptor in a file object, and how they show. */
#include "pipe.h"

#include <fcntl.h>
#include <sys/stat.h>

/* The descriptor of pipe, or -1 with an exception. */
static int
descriptor_of(PyObject *pipe)
{
  PyObject *number = PyObject_CallMethod(pipe, "fileno", NULL);
  long fd = number == NULL ? -1 : PyLong_AsLong(number);

  Py_XDECREF(number);
  if (!PyErr_Occurred() && (fd < 0 || fd > INT_MAX))
    PyErr_Format(PyExc_ValueError, "Invalid file descriptor: %ld", fd);
  return PyErr_Occurred() ? -1 : (int)fd;
}

static int
set_nonblocking(int fd)
{
  int flags = fcntl(fd, F_GETFL);

  if (flags >= 0 && ((flags & O_NONBLOCK) || fcntl(fd, F_SETFL, flags | O_NONBLOCK) == 0))
    return 0;
  PyErr_SetFromErrno(PyExc_OSError);
  return -1;
}

/* What serves fd, which is then set up for that; NULL with an exception. */
static const transport_kind *
prepare(int fd, pipe_chooser choose, const char *refusal)
{
  const transport_kind *kind;
  struct stat status;

  if (fstat(fd, &status) < 0) {
    PyErr_SetFromErrno(PyExc_OSError);
    return NULL;
  }
  kind = choose(status.st_mode);
  if (kind == NULL)
    PyErr_SetString(PyExc_ValueError, refusal);
  return kind == NULL || set_nonblocking(fd) < 0 ? NULL : kind;
}

static int
open_pipe(stream *self, struct transport_parts parts, pipe_chooser choose, const char *refusal)
{
  loop_state *state = PyType_GetModuleState(Py_TYPE(self));
  const transport_kind *kind;
  int fd;

  if (self->loop != NULL || self->extra != NULL ||
      !PyObject_TypeCheck(parts.loop, state->loop_type) ||
      (parts.extra != Py_None && !PyDict_Check(parts.extra))) {
    PyErr_SetString(PyExc_TypeError,
                    "a native event loop was expected, once, and a dict as extra or None");
    return -1;
  }
  self->extra = parts.extra == Py_None ? PyDict_New() : Py_NewRef(parts.extra);
  if (self->extra == NULL || PyDict_SetItemString(self->extra, "pipe", parts.sock) < 0)
    return -1;
  fd = descriptor_of(parts.sock);
  kind = fd < 0 ? NULL : prepare(fd, choose, refusal);
  if (kind == NULL)
    return -1;
  self->sock = Py_NewRef(parts.sock);
  return transport_begin(self, kind, (native_loop *)parts.loop, fd, parts.protocol);
}

int
pipe_init(pipe_transport *self, PyObject *args, PyObject *kwargs, pipe_chooser choose,
          const char *refusal)
{
  static char *keywords[] = {"loop", "pipe", "protocol", "waiter", "extra", NULL};
  struct transport_parts parts = {.extra = Py_None, .server = Py_None};
  PyObject *waiter = Py_None;

  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOO|OO", keywords, &parts.loop, &parts.sock,
                                   &parts.protocol, &waiter, &parts.extra) ||
      open_pipe(&self->base, parts, choose, refusal) < 0)
    return -1;
  return transport_schedule_start(&self->base, waiter);
}

PyObject *
pipe_get_pipe(stream *self, void *Py_UNUSED(ignored))
{
  return Py_NewRef(self->sock ? self->sock : Py_None);
}

int
pipe_set_pipe(stream *self, PyObject *value, void *Py_UNUSED(ignored))
{
  if (value != Py_None) {
    PyErr_SetString(PyExc_AttributeError, "_pipe can be set to None alone");
    return -1;
  }
  transport_unregister(self);
  self->open = false;
  Py_CLEAR(self->sock);
  return 0;
}

PyObject *
pipe_repr(pipe_transport *self, bool polling, const char *rest)
{
  stream *base = &self->base;
  const char *name = strrchr(Py_TYPE(self)->tp_name, '.') + 1;
  const char *life = !base->open ? " closed" : base->closing ? " closing" : "";

  if (!base->open)
    return PyUnicode_FromFormat("<%s closed fd=%d closed>", name, base->fd);
  if (base->loop == NULL || base->loop->closed)
    return PyUnicode_FromFormat("<%s%s fd=%d open>", name, life, base->fd);
  return PyUnicode_FromFormat("<%s%s fd=%d %s%s>", name, life, base->fd,
                              polling ? "polling" : "idle", rest);
}
