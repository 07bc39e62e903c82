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

const transport_kind stream_kind = {
    .name = "StreamTransport",
    .watches = POLLER_READ | POLLER_WRITE,
    .read = stream_read,
    .write_ready = stream_write_ready,
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

/* --- module state ------------------------------------------------------------------------------ */

static int
import_into(PyObject **place, const char *module_name, const char *name)
{
  PyObject *module = PyImport_ImportModule(module_name);

  *place = module == NULL ? NULL : PyObject_GetAttrString(module, name);
  Py_XDECREF(module);
  return *place == NULL ? -1 : 0;
}

/* Our layout leaves room for the slots of the base, which must have neither dict nor weak list. */
static int
check_base(PyTypeObject *base)
{
  if (base->tp_basicsize <= (Py_ssize_t)offsetof(stream, dict) && base->tp_itemsize == 0 &&
      base->tp_dictoffset == 0 && base->tp_weaklistoffset == 0)
    return 0;
  PyErr_SetString(PyExc_ImportError, "asyncio's transports have a layout that is not known");
  return -1;
}

static int
make_type(PyObject *module, transport_state *state)
{
  PyObject *base, *mode = NULL, *enumeration = NULL;
  int rc = -1;

  if (import_into(&base, "asyncio.transports", "_FlowControlMixin") < 0)
    return -1;
  if (check_base((PyTypeObject *)base) == 0)
    state->stream_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &stream_spec, base);
  Py_DECREF(base);
  if (state->stream_type == NULL ||
      import_into(&enumeration, "asyncio.constants", "_SendfileMode") < 0)
    return -1;
  mode = PyObject_GetAttrString(enumeration, "TRY_NATIVE");
  Py_DECREF(enumeration);
  if (mode != NULL &&
      PyObject_SetAttrString((PyObject *)state->stream_type, "_sendfile_compatible", mode) == 0 &&
      PyObject_SetAttrString((PyObject *)state->stream_type, "_start_tls_compatible", Py_True) == 0)
    rc = PyModule_AddType(module, state->stream_type);
  Py_XDECREF(mode);
  return rc;
}

int
transport_state_init(PyObject *module, transport_state *state)
{
  if (import_into(&state->transport_socket, "asyncio.trsock", "TransportSocket") < 0 ||
      import_into(&state->buffered_protocol, "asyncio.protocols", "BufferedProtocol") < 0 ||
      import_into(&state->set_result, "asyncio.futures", "_set_result_unless_cancelled") < 0 ||
      import_into(&state->set_nodelay, "asyncio.base_events", "_set_nodelay") < 0)
    return -1;
  state->str_data_received = PyUnicode_InternFromString("data_received");
  state->str_get_buffer = PyUnicode_InternFromString("get_buffer");
  state->str_buffer_updated = PyUnicode_InternFromString("buffer_updated");
  state->str_eof_received = PyUnicode_InternFromString("eof_received");
  state->str_accept_failed = PyUnicode_InternFromString("_accept_failed");
  state->str_clients = PyUnicode_InternFromString("_clients");
  state->str_connection_lost = PyUnicode_InternFromString("connection_lost");
  state->str_connection_made = PyUnicode_InternFromString("connection_made");
  state->str_peername = PyUnicode_InternFromString("peername");
  state->str_socket = PyUnicode_InternFromString("socket");
  state->str_sockname = PyUnicode_InternFromString("sockname");
  state->minus_one = PyLong_FromLong(-1);
  if (!state->str_data_received || !state->str_get_buffer || !state->str_buffer_updated ||
      !state->str_eof_received || !state->minus_one || !state->str_accept_failed ||
      !state->str_clients || !state->str_connection_lost || !state->str_connection_made ||
      !state->str_peername || !state->str_socket || !state->str_sockname)
    return -1;
  if (make_type(module, state) < 0 || clients_type_init(module, state) < 0 ||
      listener_type_init(module, state) < 0)
    return -1;
  return datagram_type_init(module, state);
}
