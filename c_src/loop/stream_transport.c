/* The type erlang._loop.StreamTransport: a TCP or Unix stream connection, dispatched in C.
 *
 * Registered once, edge-triggered for both directions.  What the kernel reported stays in readable
 * and writable until a system call has shown otherwise; pausing and resuming are bits too. */
#include "listener.h"
#include "transport_type.h"

/* --- methods ----------------------------------------------------------------------------------- */

static PyObject *
none_if(int rc)
{
  if (rc < 0)
    return NULL;
  Py_RETURN_NONE;
}

static PyObject *
stream_can_write_eof(stream *Py_UNUSED(self), PyObject *Py_UNUSED(ignored))
{
  Py_RETURN_TRUE;
}

static PyObject *
stream_get_write_buffer_size(stream *self, PyObject *Py_UNUSED(ignored))
{
  if (self->corked && stream_flush(self) < 0)
    return NULL;
  return PyLong_FromSize_t(self->out.bytes);
}

static PyObject *
stream_maybe_pause(stream *self, PyObject *Py_UNUSED(ignored))
{
  if (self->corked && stream_flush(self) < 0)
    return NULL;
  return none_if(transport_maybe_pause(self));
}

static PyObject *
stream_get_extra_info(stream *self, PyObject *args, PyObject *kwargs)
{
  static char *keywords[] = {"name", "default", NULL};
  PyObject *name, *otherwise = Py_None, *extra, *found = NULL;

  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|O:get_extra_info", keywords, &name, &otherwise))
    return NULL;
  extra = transport_extra(self, name);
  if (extra == NULL)
    return NULL;
  if (extra != Py_None)
    found = PyDict_GetItemWithError(extra, name);
  if (found == NULL && PyErr_Occurred())
    return NULL;
  return Py_NewRef(found ? found : otherwise);
}

static PyMethodDef stream_methods[] = {
    TRANSPORT_METHODS,
    METHOD("get_extra_info", stream_get_extra_info, METH_VARARGS | METH_KEYWORDS,
           "What is known under a name: 'socket', 'sockname', 'peername'; else default."),
    METHOD("write", stream_write, METH_O, "Send data, a bytes-like object; never blocks."),
    METHOD("writelines", stream_writelines, METH_O, "Send an iterable of bytes-like objects."),
    METHOD("write_eof", stream_write_eof, METH_NOARGS, "End the writing side once all is sent."),
    METHOD("can_write_eof", stream_can_write_eof, METH_NOARGS, "True."),
    METHOD("get_write_buffer_size", stream_get_write_buffer_size, METH_NOARGS,
           "How many bytes the kernel has not taken yet."),
    METHOD("_maybe_pause_protocol", stream_maybe_pause, METH_NOARGS, ""),
    METHOD("_make_empty_waiter", stream_make_empty_waiter, METH_NOARGS, ""),
    METHOD("_reset_empty_waiter", stream_reset_empty_waiter, METH_NOARGS, ""),
    {NULL, NULL, 0, NULL},
};

static ssize_t
stream_receive(int fd, void *room, size_t size)
{
  return recv(fd, room, size, 0);
}

static ssize_t
stream_send(int fd, struct iovec *iov, size_t count)
{
  struct msghdr message = {.msg_iov = iov, .msg_iovlen = count};

  if (count == 1)
    return send(fd, iov->iov_base, iov->iov_len, MSG_NOSIGNAL);
  return sendmsg(fd, &message, MSG_NOSIGNAL);
}

const transport_kind stream_kind = {
    .name = "StreamTransport",
    .error = "Fatal error on transport",
    .read_error = "Fatal read error on socket transport",
    .write_error = "Fatal write error on socket transport",
    .watches = POLLER_READ | POLLER_WRITE,
    .read = stream_read,
    .write_ready = stream_write_ready,
    .receive = stream_receive,
    .send = stream_send,
};

static int
stream_init(stream *self, PyObject *args, PyObject *kwargs)
{
  static char *keywords[] = {"loop", "sock", "protocol", "waiter", "extra", "server", NULL};
  struct transport_parts parts = {.extra = Py_None, .server = Py_None};
  PyObject *waiter = Py_None, *result;

  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOO|OOO:StreamTransport", keywords, &parts.loop,
                                   &parts.sock, &parts.protocol, &waiter, &parts.extra,
                                   &parts.server) ||
      transport_open(self, &stream_kind, parts) < 0)
    return -1;
  result = PyObject_CallOneArg(self->loop->state->transports.set_nodelay, parts.sock);
  Py_XDECREF(result);
  return result == NULL ? -1 : transport_schedule_start(self, waiter);
}

static PyMemberDef stream_members[] = {
    TRANSPORT_MEMBERS,
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot stream_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("A TCP or Unix stream connection.")},
    {Py_tp_init, stream_init},
    {Py_tp_dealloc, transport_dealloc},
    {Py_tp_finalize, transport_finalize},
    {Py_tp_traverse, transport_traverse},
    {Py_tp_clear, transport_clear},
    {Py_tp_repr, transport_repr},
    {Py_tp_methods, stream_methods},
    {Py_tp_members, stream_members},
    {Py_tp_getset, transport_getset},
    {0, NULL},
};

static PyType_Spec stream_spec = {
    .name = "erlang._loop.StreamTransport",
    .basicsize = sizeof(stream),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = stream_slots,
};

int
stream_type_init(PyObject *module, transport_state *state)
{
  static const char *const bases[] = {"_FlowControlMixin", NULL};
  PyObject *constants, *enumeration = NULL, *mode = NULL, *type;
  int rc = -1;

  if (transport_type_new(module, &stream_spec, bases, &state->stream_type) < 0)
    return -1;
  if (state->stream_type == NULL)
    return 0;
  type = (PyObject *)state->stream_type;
  constants = PyImport_ImportModule("asyncio.constants");
  if (constants != NULL)
    enumeration = PyObject_GetAttrString(constants, "_SendfileMode");
  if (enumeration != NULL)
    mode = PyObject_GetAttrString(enumeration, "TRY_NATIVE");
  if (mode != NULL && PyObject_SetAttrString(type, "_sendfile_compatible", mode) == 0 &&
      PyObject_SetAttrString(type, "_start_tls_compatible", Py_True) == 0)
    rc = 0;
  Py_XDECREF(mode);
  Py_XDECREF(enumeration);
  Py_XDECREF(constants);
  return rc;
}
