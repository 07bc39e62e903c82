/* The type erlang._loop.WritePipeTransport: the writing end of a pipe.  The semantics are those of
 * asyncio's unix_events._UnixWritePipeTransport.
 *
 * Each write is a system call of its own, unless some wait already: a pipe may have other writers,
 * among whom a small write is not torn, or keep what one call writes as a packet. */
#include "pipe.h"

#include <sys/stat.h>
#include <unistd.h>

/* --- what the loop calls ----------------------------------------------------------------------- */

/* The writing end becomes readable, in one way or another, when the other end is closed. */
static int
peer_closed(stream *self)
{
  PyObject *exception = Py_None;
  int rc;

  self->readable = false;
  if (transport_log(self, "info", "%r was closed by peer") < 0)
    return -1;
  if (self->out.count == 0)
    return transport_force_close(self, Py_None);
  exception = PyObject_CallNoArgs(PyExc_BrokenPipeError);
  rc = exception == NULL ? -1 : transport_force_close(self, exception);
  Py_XDECREF(exception);
  return rc;
}

static int
pipe_write_ready(stream *self)
{
  if (self->conn_lost || self->out.count == 0)
    return 0;
  if (transport_send_buffer(self) < 0) {
    ((pipe_transport *)self)->lost_writes++;
    return transport_write_failed(self);
  }
  transport_hold(self);
  if (transport_maybe_resume(self) < 0)
    return -1;
  /* The protocol may have written more. */
  if (self->out.count > 0 || self->conn_lost || !self->closing)
    return 0;
  return transport_connection_lost(self, Py_None);
}

static ssize_t
send_parts(int fd, struct iovec *iov, size_t count)
{
  return count == 1 ? write(fd, iov->iov_base, iov->iov_len) : writev(fd, iov, (int)count);
}

static const transport_kind write_pipe_kind = {
    .name = "WritePipeTransport",
    .error = "Fatal error on pipe transport",
    .write_error = "Fatal write error on pipe transport",
    .watches = POLLER_READ | POLLER_WRITE,
    .shares = true,
    .reads_while_closing = true,
    .read = peer_closed,
    .write_ready = pipe_write_ready,
    .send = send_parts,
};

/* A character device tells nothing of its other end, and is watched only while it is full. */
static const transport_kind device_kind = {
    .name = "WritePipeTransport",
    .error = "Fatal error on pipe transport",
    .write_error = "Fatal write error on pipe transport",
    .watches = POLLER_WRITE,
    .shares = true,
    .takes_parts = true,
    .read = peer_closed,
    .write_ready = pipe_write_ready,
    .send = send_parts,
};

/* --- methods ----------------------------------------------------------------------------------- */

static int
write_view(pipe_transport *self, PyObject *data, const Py_buffer *view)
{
  stream *base = &self->base;
  int rc;

  if (view->len == 0)
    return 0;
  if (base->conn_lost || base->closing)
    return transport_drop_write(base, &self->lost_writes,
                                "pipe closed by peer or os.write(pipe, data) raised exception.");
  if (base->out.count > 0)
    return transport_keep_rest(base, data, view, 0) < 0 ? -1 : transport_maybe_pause(base);
  rc = transport_send_view(base, data, view);
  self->lost_writes += base->conn_lost != 0;
  return rc;
}

static PyObject *
pipe_write(pipe_transport *self, PyObject *data)
{
  Py_buffer view;
  int rc;

  if (!PyBytes_Check(data) && !PyByteArray_Check(data) && !PyMemoryView_Check(data)) {
    /* As asyncio's assertion. */
    PyErr_Format(PyExc_AssertionError, "%R", data);
    return NULL;
  }
  if (transport_check_initialized(&self->base) < 0)
    return NULL;
  if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0) {
    rc = transport_refuse(&self->base, data);
  } else {
    rc = write_view(self, data, &view);
    PyBuffer_Release(&view);
  }
  if (rc < 0)
    return NULL;
  Py_RETURN_NONE;
}

static PyObject *
pipe_can_write_eof(pipe_transport *Py_UNUSED(self), PyObject *Py_UNUSED(ignored))
{
  Py_RETURN_TRUE;
}

/* A device is not watched before it has to be: not every one can be. */
static PyObject *
pipe_start(pipe_transport *self, PyObject *Py_UNUSED(ignored))
{
  self->base.started = true;
  if (self->base.kind == &write_pipe_kind && transport_start(&self->base) < 0)
    return NULL;
  Py_RETURN_NONE;
}

/* --- the type ---------------------------------------------------------------------------------- */

static const transport_kind *
choose(mode_t mode)
{
  if (S_ISCHR(mode))
    return &device_kind;
  return S_ISFIFO(mode) || S_ISSOCK(mode) ? &write_pipe_kind : NULL;
}

static int
write_pipe_init(pipe_transport *self, PyObject *args, PyObject *kwargs)
{
  if (pipe_init(self, args, kwargs, choose,
                "Pipe transport is only for pipes, sockets and character devices") < 0)
    return -1;
  self->base.paused = self->base.kind == &device_kind;
  return 0;
}

static PyObject *
write_pipe_repr(pipe_transport *self)
{
  char rest[40];

  PyOS_snprintf(rest, sizeof(rest), " bufsize=%zu", self->base.out.bytes);
  return pipe_repr(self, self->base.out.count > 0, rest);
}

static PyMethodDef write_pipe_methods[] = {
    PIPE_METHODS,
    TRANSPORT_WRITING_METHODS,
    TRANSPORT_BUFFER_METHODS,
    METHOD("write", pipe_write, METH_O, "Send data, a bytes-like object; never blocks."),
    METHOD("write_eof", method_close, METH_NOARGS, "Close once all is sent."),
    METHOD("can_write_eof", pipe_can_write_eof, METH_NOARGS, "True."),
    METHOD("_start", pipe_start, METH_NOARGS, ""),
    {NULL, NULL, 0, NULL},
};

static PyMemberDef write_pipe_members[] = {
    PIPE_MEMBERS,
    {"_conn_lost", T_INT, offsetof(pipe_transport, lost_writes), READONLY, NULL},
    {"_protocol_paused", T_BOOL, offsetof(stream, protocol_paused), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef write_pipe_getset[] = {
    PIPE_GETSET,
    {"_high_water", transport_get_limit, transport_set_limit, NULL,
     (void *)offsetof(stream, high_water)},
    {"_low_water", transport_get_limit, transport_set_limit, NULL,
     (void *)offsetof(stream, low_water)},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot write_pipe_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("The writing end of a pipe, FIFO, socket or terminal.")},
    {Py_tp_init, write_pipe_init},
    {Py_tp_dealloc, transport_dealloc},
    {Py_tp_finalize, transport_finalize},
    {Py_tp_traverse, transport_traverse},
    {Py_tp_clear, transport_clear},
    {Py_tp_repr, write_pipe_repr},
    {Py_tp_methods, write_pipe_methods},
    {Py_tp_members, write_pipe_members},
    {Py_tp_getset, write_pipe_getset},
    {0, NULL},
};

static PyType_Spec write_pipe_spec = {
    .name = "erlang._loop.WritePipeTransport",
    .basicsize = sizeof(pipe_transport),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = write_pipe_slots,
};

int
write_pipe_type_init(PyObject *module, transport_state *state)
{
  static const char *const bases[] = {"_FlowControlMixin", "WriteTransport", NULL};

  return transport_type_new(module, &write_pipe_spec, bases, &state->write_pipe_type);
}
