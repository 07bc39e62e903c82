/* The type erlang._loop.ReadPipeTransport: the reading end of a pipe.  The semantics are those of
 * asyncio's unix_events._UnixReadPipeTransport. */
#include "pipe.h"

#include <sys/stat.h>
#include <unistd.h>

#define NAMES(self) (&(self)->loop->state->transports)

/* --- reading ----------------------------------------------------------------------------------- */

/* The protocol is told, and told of the end of the connection, in coming iterations. */
static int
read_end(stream *self, PyObject *protocol)
{
  if (transport_log(self, "info", "%r was closed by peer") < 0 ||
      transport_call_soon(self->loop, PyObject_GetAttr(protocol, NAMES(self)->str_eof_received),
                          NULL) < 0)
    return -1;
  return transport_close(self);
}

/* One bounded read.  What data_received() raises does not end the transport, as in asyncio. */
static int
pipe_read(stream *self)
{
  struct piece piece;
  PyObject *protocol, *result;
  int rc;

  /* The most room there is. */
  if (((pipe_transport *)self)->packets)
    self->read_hint = 0;
  rc = transport_receive(self, &piece);
  if (rc < 0)
    return transport_fatal(self, self->kind->read_error);
  if (rc == 0)
    return 0;
  protocol = Py_NewRef(self->protocol);
  if (PyBytes_GET_SIZE(piece.bytes) == 0) {
    Py_DECREF(piece.bytes);
    rc = read_end(self, protocol);
  } else {
    result = transport_give(self, protocol, &piece);
    rc = result == NULL ? -1 : 0;
    Py_XDECREF(result);
  }
  Py_DECREF(protocol);
  return rc;
}

static const transport_kind read_pipe_kind = {
    .name = "ReadPipeTransport",
    .error = "Fatal error on pipe transport",
    .read_error = "Fatal read error on pipe transport",
    .watches = POLLER_READ,
    .shares = true,
    .tells_os_errors = true,
    .read = pipe_read,
    .receive = read,
};

/* --- the type ---------------------------------------------------------------------------------- */

static const transport_kind *
choose(mode_t mode)
{
  return S_ISFIFO(mode) || S_ISSOCK(mode) || S_ISCHR(mode) ? &read_pipe_kind : NULL;
}

/* The type of the socket, or -1 for what is none. */
static int
socket_type(int fd)
{
  int type;
  socklen_t size = sizeof(type);

  return getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) < 0 ? -1 : type;
}

static int
read_pipe_init(pipe_transport *self, PyObject *args, PyObject *kwargs)
{
  int type;

  if (pipe_init(self, args, kwargs, choose, "Pipe transport is for pipes/sockets only.") < 0)
    return -1;
  type = socket_type(self->base.fd);
  self->packets = type >= 0 && type != SOCK_STREAM;
  /* A pipe in packet mode and a terminal give one piece at a time, however much there is. */
  self->base.hung_up = type != SOCK_STREAM;
  return 0;
}

static PyObject *
read_pipe_repr(pipe_transport *self)
{
  return pipe_repr(self, self->base.registered && transport_is_reading(&self->base), "");
}

static PyMethodDef read_pipe_methods[] = {
    PIPE_METHODS,
    TRANSPORT_READING_METHODS,
    {NULL, NULL, 0, NULL},
};

static PyMemberDef read_pipe_members[] = {
    PIPE_MEMBERS,
    {"_paused", T_BOOL, offsetof(stream, paused), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef read_pipe_getset[] = {
    PIPE_GETSET,
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot read_pipe_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("The reading end of a pipe, FIFO, socket or terminal.")},
    {Py_tp_init, read_pipe_init},
    {Py_tp_dealloc, transport_dealloc},
    {Py_tp_finalize, transport_finalize},
    {Py_tp_traverse, transport_traverse},
    {Py_tp_clear, transport_clear},
    {Py_tp_repr, read_pipe_repr},
    {Py_tp_methods, read_pipe_methods},
    {Py_tp_members, read_pipe_members},
    {Py_tp_getset, read_pipe_getset},
    {0, NULL},
};

static PyType_Spec read_pipe_spec = {
    .name = "erlang._loop.ReadPipeTransport",
    .basicsize = sizeof(pipe_transport),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = read_pipe_slots,
};

int
read_pipe_type_init(PyObject *module, transport_state *state)
{
  static const char *const bases[] = {"ReadTransport", NULL};

  return transport_type_new(module, &read_pipe_spec, bases, &state->read_pipe_type);
}
