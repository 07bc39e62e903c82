/* The type erlang._loop.StreamTransport: a TCP or Unix stream connection, dispatched in C.
 *
 * Registered once, edge-triggered for both directions.  What the kernel reported stays in readable
 * and writable until a system call has shown otherwise; pausing and resuming are bits too. */
#include "transport.h"

#include <structmember.h>

/* --- events ------------------------------------------------------------------------------------ */

static bool
may_read(const stream *self)
{
  return self->readable && self->started && !self->at_eof && stream_is_reading(self) &&
         !self->conn_lost;
}

static bool
may_write(const stream *self)
{
  return self->writable && self->out.count > 0 && !self->corked && !self->conn_lost;
}

int
stream_schedule(stream *self)
{
  if (self->queued || self->loop == NULL || !(may_read(self) || may_write(self)))
    return 0;
  if (ready_push(&self->loop->ready, (PyObject *)self) < 0)
    return -1;
  self->queued = true;
  return 0;
}

void
stream_note(PyObject *object, uint32_t events)
{
  stream *self = (stream *)object;

  if (events & POLLER_READ)
    self->readable = true;
  if (events & POLLER_WRITE)
    self->writable = true;
  if (events & POLLER_ERROR)
    self->hung_up = true;
}

int
stream_event(PyObject *object, uint32_t events)
{
  stream_note(object, events);
  return stream_schedule((stream *)object);
}

uint32_t
stream_waits_for(PyObject *object)
{
  stream *self = (stream *)object;

  return (stream_is_reading(self) && !self->at_eof ? POLLER_READ : 0) |
         (self->out.count > 0 && !self->corked ? POLLER_WRITE : 0);
}

/* Runs step in context.  An exception that it leaves goes to the loop's handler. */
static int
run_in(stream *self, PyObject *context, int (*step)(stream *), const char *name)
{
  native_loop *loop = (native_loop *)Py_NewRef(self->loop);
  PyObject *message;
  int rc;

  Py_INCREF(context);
  rc = PyContext_Enter(context);
  if (rc == 0) {
    rc = step(self);
    /* The exception, if any, stays set across the exit. */
    if (PyContext_Exit(context) < 0)
      rc = -1;
  }
  if (rc < 0) {
    message = PyUnicode_FromFormat("Exception in callback StreamTransport.%s()", name);
    rc = message == NULL ? -1 : loop_report_exception(loop, message, NULL);
    Py_XDECREF(message);
  }
  Py_DECREF(context);
  Py_DECREF(loop);
  return rc;
}

/* The same through a handle, so that debug mode sees and times it as any callback. */
static int
debug_run_in(stream *self, PyObject *context, const char *name)
{
  native_loop *loop = (native_loop *)Py_NewRef(self->loop);
  PyObject *method = PyObject_GetAttrString((PyObject *)self, name);
  handle *h = method == NULL ? NULL : handle_new(loop, method, NULL, 0, context);
  int rc = h == NULL ? -1 : debug_run(loop, (PyObject *)h);

  if (h != NULL)
    handle_leave_queue(h);
  Py_XDECREF(method);
  Py_DECREF(loop);
  return rc;
}

static int
run_step(stream *self, PyObject *context, int (*step)(stream *), const char *name)
{
  return self->loop->debug ? debug_run_in(self, context, name) : run_in(self, context, step, name);
}

int
stream_run(PyObject *object)
{
  stream *self = (stream *)object;

  self->queued = false;
  if (self->loop != NULL && may_read(self) &&
      run_step(self, self->read_context, stream_read, "_read_ready") < 0)
    return -1;
  if (self->loop != NULL && may_write(self) &&
      run_step(self, self->write_context, stream_write_ready, "_write_ready") < 0)
    return -1;
  return stream_schedule(self);
}

/* --- methods ----------------------------------------------------------------------------------- */

static PyObject *
none_if(int rc)
{
  if (rc < 0)
    return NULL;
  Py_RETURN_NONE;
}

static PyObject *
stream_read_ready(stream *self, PyObject *Py_UNUSED(ignored))
{
  return none_if(self->loop != NULL && may_read(self) ? stream_read(self) : 0);
}

static PyObject *
stream_write_ready_method(stream *self, PyObject *Py_UNUSED(ignored))
{
  return none_if(self->loop != NULL ? stream_write_ready(self) : 0);
}

/* After connection_made: from now on what arrives is read. */
static PyObject *
stream_start(stream *self, PyObject *Py_UNUSED(ignored))
{
  self->started = true;
  if (self->closing)
    Py_RETURN_NONE;
  return none_if(transport_register(self) < 0 ? -1 : stream_schedule(self));
}

static PyObject *
stream_pause_reading(stream *self, PyObject *Py_UNUSED(ignored))
{
  if (!stream_is_reading(self))
    Py_RETURN_NONE;
  self->paused = true;
  return none_if(transport_debug(self, "%r pauses reading"));
}

static PyObject *
stream_resume_reading(stream *self, PyObject *Py_UNUSED(ignored))
{
  if (self->closing || !self->paused)
    Py_RETURN_NONE;
  self->paused = false;
  /* As with a reader that is added anew: its context is that of the caller, and an end of stream
   * is reported again. */
  Py_XSETREF(self->read_context, PyContext_CopyCurrent());
  if (self->read_context == NULL)
    return NULL;
  self->readable |= self->at_eof;
  self->at_eof = false;
  if (stream_schedule(self) < 0)
    return NULL;
  return none_if(transport_debug(self, "%r resumes reading"));
}

static PyObject *
stream_close(stream *self, PyObject *Py_UNUSED(ignored))
{
  return none_if(transport_close(self));
}

static PyObject *
stream_abort(stream *self, PyObject *Py_UNUSED(ignored))
{
  return none_if(transport_force_close(self, Py_None));
}

static PyObject *
stream_force_close(stream *self, PyObject *exception)
{
  return none_if(transport_force_close(self, exception));
}

static PyObject *
stream_fatal_error(stream *self, PyObject *args, PyObject *kwargs)
{
  static char *keywords[] = {"exc", "message", NULL};
  PyObject *exception, *message = NULL, *text;
  int rc;

  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|O:_fatal_error", keywords, &exception,
                                   &message))
    return NULL;
  text = message ? Py_NewRef(message) : PyUnicode_FromString("Fatal error on transport");
  rc = text == NULL ? -1 : transport_fatal_error(self, exception, text);
  Py_XDECREF(text);
  return none_if(rc);
}

static PyObject *
stream_connection_lost(stream *self, PyObject *exception)
{
  return none_if(transport_connection_lost(self, exception));
}

static PyObject *
stream_set_protocol(stream *self, PyObject *protocol)
{
  return none_if(transport_set_protocol(self, protocol));
}

static PyObject *
stream_get_protocol(stream *self, PyObject *Py_UNUSED(ignored))
{
  return Py_NewRef(self->protocol ? self->protocol : Py_None);
}

static PyObject *
stream_is_closing(stream *self, PyObject *Py_UNUSED(ignored))
{
  return PyBool_FromLong(self->closing);
}

static PyObject *
stream_get_is_reading(stream *self, PyObject *Py_UNUSED(ignored))
{
  return PyBool_FromLong(stream_is_reading(self));
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
stream_maybe_resume(stream *self, PyObject *Py_UNUSED(ignored))
{
  return none_if(transport_maybe_resume(self));
}

#define METHOD(name, function, flags, doc)                                                         \
  {                                                                                                \
    name, (PyCFunction)(void (*)(void))function, flags, PyDoc_STR(doc)                             \
  }

static PyMethodDef stream_methods[] = {
    METHOD("write", stream_write, METH_O, "Send data, a bytes-like object; never blocks."),
    METHOD("writelines", stream_writelines, METH_O, "Send an iterable of bytes-like objects."),
    METHOD("write_eof", stream_write_eof, METH_NOARGS, "End the writing side once all is sent."),
    METHOD("can_write_eof", stream_can_write_eof, METH_NOARGS, "True."),
    METHOD("pause_reading", stream_pause_reading, METH_NOARGS, "Receive nothing for now."),
    METHOD("resume_reading", stream_resume_reading, METH_NOARGS, "Receive again."),
    METHOD("is_reading", stream_get_is_reading, METH_NOARGS, "True unless paused or closing."),
    METHOD("is_closing", stream_is_closing, METH_NOARGS, "True once closing or closed."),
    METHOD("close", stream_close, METH_NOARGS, "Close once all is sent."),
    METHOD("abort", stream_abort, METH_NOARGS, "Close at once; what is not sent is lost."),
    METHOD("set_protocol", stream_set_protocol, METH_O, "Receive with another protocol."),
    METHOD("get_protocol", stream_get_protocol, METH_NOARGS, "The protocol."),
    METHOD("get_write_buffer_size", stream_get_write_buffer_size, METH_NOARGS,
           "How many bytes the kernel has not taken yet."),
    METHOD("_maybe_pause_protocol", stream_maybe_pause, METH_NOARGS, ""),
    METHOD("_maybe_resume_protocol", stream_maybe_resume, METH_NOARGS, ""),
    METHOD("_force_close", stream_force_close, METH_O, ""),
    METHOD("_fatal_error", stream_fatal_error, METH_VARARGS | METH_KEYWORDS, ""),
    METHOD("_call_connection_lost", stream_connection_lost, METH_O, ""),
    METHOD("_make_empty_waiter", stream_make_empty_waiter, METH_NOARGS, ""),
    METHOD("_reset_empty_waiter", stream_reset_empty_waiter, METH_NOARGS, ""),
    METHOD("_read_ready", stream_read_ready, METH_NOARGS, ""),
    METHOD("_write_ready", stream_write_ready_method, METH_NOARGS, ""),
    METHOD("_start", stream_start, METH_NOARGS, ""),
    {NULL, NULL, 0, NULL},
};

/* --- attributes that asyncio's code uses ------------------------------------------------------- */

static PyObject *
get_limit(PyObject *self, void *offset)
{
  return PyLong_FromSsize_t(*(Py_ssize_t *)((char *)self + (size_t)offset));
}

/* Any number, as asyncio takes it; beyond what memory can hold there is no limit. */
static int
set_limit(PyObject *self, PyObject *value, void *offset)
{
  double limit = value == NULL ? 0.0 : PyFloat_AsDouble(value);

  if (PyErr_Occurred()) {
    if (!PyErr_ExceptionMatches(PyExc_OverflowError))
      return -1;
    PyErr_Clear();
    limit = (double)PY_SSIZE_T_MAX;
  }
  *(Py_ssize_t *)((char *)self + (size_t)offset) =
      limit < 4611686018427387904.0 ? (Py_ssize_t)limit : PY_SSIZE_T_MAX;
  return 0;
}

static PyGetSetDef stream_getset[] = {
    {"__dict__", PyObject_GenericGetDict, PyObject_GenericSetDict, NULL, NULL},
    {"_high_water", get_limit, set_limit, NULL, (void *)offsetof(stream, high_water)},
    {"_low_water", get_limit, set_limit, NULL, (void *)offsetof(stream, low_water)},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef stream_members[] = {
    {"__dictoffset__", T_PYSSIZET, offsetof(stream, dict), READONLY, NULL},
    {"__weaklistoffset__", T_PYSSIZET, offsetof(stream, weakrefs), READONLY, NULL},
    {"_loop", T_OBJECT, offsetof(stream, loop), READONLY, NULL},
    {"_protocol", T_OBJECT, offsetof(stream, protocol), READONLY, NULL},
    {"_sock", T_OBJECT, offsetof(stream, sock), READONLY, NULL},
    {"_server", T_OBJECT, offsetof(stream, server), READONLY, NULL},
    {"_extra", T_OBJECT, offsetof(stream, extra), READONLY, NULL},
    {"_empty_waiter", T_OBJECT, offsetof(stream, empty_waiter), READONLY, NULL},
    {"_sock_fd", T_INT, offsetof(stream, fd), READONLY, NULL},
    {"_conn_lost", T_INT, offsetof(stream, conn_lost), READONLY, NULL},
    {"_closing", T_BOOL, offsetof(stream, closing), READONLY, NULL},
    {"_paused", T_BOOL, offsetof(stream, paused), READONLY, NULL},
    {"_eof", T_BOOL, offsetof(stream, eof), READONLY, NULL},
    {"_protocol_paused", T_BOOL, offsetof(stream, protocol_paused), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

/* --- the object -------------------------------------------------------------------------------- */

static int
stream_traverse(stream *self, visitproc visit, void *arg)
{
  Py_VISIT(Py_TYPE(self));
  for (int i = 0; i < TRANSPORT_INHERITED_SLOTS; i++)
    Py_VISIT(self->inherited[i]);
  Py_VISIT(self->dict);
  Py_VISIT(self->loop);
  Py_VISIT(self->protocol);
  Py_VISIT(self->sock);
  Py_VISIT(self->server);
  Py_VISIT(self->extra);
  Py_VISIT(self->empty_waiter);
  Py_VISIT(self->read_context);
  Py_VISIT(self->write_context);
  return 0;
}

static int
stream_clear(stream *self)
{
  for (int i = 0; i < TRANSPORT_INHERITED_SLOTS; i++)
    Py_CLEAR(self->inherited[i]);
  stream_drop_buffer(self);
  Py_CLEAR(self->dict);
  Py_CLEAR(self->protocol);
  Py_CLEAR(self->sock);
  Py_CLEAR(self->server);
  Py_CLEAR(self->extra);
  Py_CLEAR(self->empty_waiter);
  Py_CLEAR(self->read_context);
  Py_CLEAR(self->write_context);
  Py_CLEAR(self->loop);
  return 0;
}

static void
stream_dealloc(PyObject *self)
{
  PyTypeObject *type = Py_TYPE(self);

  if (PyObject_CallFinalizerFromDealloc(self) < 0)
    return;
  PyObject_GC_UnTrack(self);
  if (((stream *)self)->weakrefs != NULL)
    PyObject_ClearWeakRefs(self);
  stream_clear((stream *)self);
  type->tp_free(self);
  Py_DECREF(type);
}

static PyType_Slot stream_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("A TCP or Unix stream connection.")},
    {Py_tp_init, transport_init},
    {Py_tp_dealloc, stream_dealloc},
    {Py_tp_finalize, transport_finalize},
    {Py_tp_traverse, stream_traverse},
    {Py_tp_clear, stream_clear},
    {Py_tp_repr, transport_repr},
    {Py_tp_methods, stream_methods},
    {Py_tp_members, stream_members},
    {Py_tp_getset, stream_getset},
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
  state->minus_one = PyLong_FromLong(-1);
  if (!state->str_data_received || !state->str_get_buffer || !state->str_buffer_updated ||
      !state->str_eof_received || !state->minus_one)
    return -1;
  return make_type(module, state);
}
