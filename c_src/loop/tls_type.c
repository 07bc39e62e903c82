/* The types erlang._loop.TlsProtocol and TlsWriter, and how they get hold of OpenSSL's objects. */
#include "tls.h"

#include <structmember.h>

/* --- the objects of _ssl ----------------------------------------------------------------------- */

/* How _ssl's objects begin, in every version that erlang.tls knows. */
struct ssl_socket {
  PyObject_HEAD
  PyObject *socket; /* NULL for one over memory BIOs */
  tls_ssl *ssl;
  PyObject *context;
};

struct ssl_context {
  PyObject_HEAD
  tls_ctx *ctx;
};

struct ssl_memory_bio {
  PyObject_HEAD
  tls_bio *bio;
};

/* True when object's type is name of module, with room for a structure of that size. */
static bool
is_of(PyObject *object, PyObject *module, const char *name, size_t size)
{
  PyObject *type = PyObject_GetAttrString(module, name);
  bool is = type != NULL && PyType_Check(type) &&
            PyObject_TypeCheck(object, (PyTypeObject *)type) &&
            ((PyTypeObject *)type)->tp_basicsize >= (Py_ssize_t)size;

  PyErr_Clear();
  Py_XDECREF(type);
  return is;
}

/* OpenSSL's object behind _ssl's one, checked against everything that can be told from outside; NULL
 * without an exception when anything is not as it is known. */
static tls_ssl *
ssl_of(const struct tls_library *library, PyObject *socket, PyObject *incoming, PyObject *outgoing)
{
  PyObject *module = PyImport_ImportModule("_ssl");
  PyObject *context = PyObject_GetAttrString(socket, "context");
  struct ssl_socket *known = (struct ssl_socket *)socket;
  tls_ssl *ssl = NULL;

  if (module != NULL && context != NULL &&
      is_of(socket, module, "_SSLSocket", sizeof(struct ssl_socket)) &&
      is_of(context, module, "_SSLContext", sizeof(struct ssl_context)) &&
      is_of(incoming, module, "MemoryBIO", sizeof(struct ssl_memory_bio)) &&
      is_of(outgoing, module, "MemoryBIO", sizeof(struct ssl_memory_bio)) &&
      known->socket == NULL && known->context == context && known->ssl != NULL &&
      library->get_ctx(known->ssl) == ((struct ssl_context *)context)->ctx &&
      library->get_rbio(known->ssl) == ((struct ssl_memory_bio *)incoming)->bio &&
      library->get_wbio(known->ssl) == ((struct ssl_memory_bio *)outgoing)->bio)
    ssl = known->ssl;
  PyErr_Clear();
  Py_XDECREF(module);
  Py_XDECREF(context);
  return ssl;
}

tls_state *
tls_state_of(PyObject *object)
{
  PyObject *module = PyType_GetModuleByDef(Py_TYPE(object), &loop_module_def);

  return &((loop_state *)PyModule_GetState(module))->tls;
}

/* _attach(sslsocket, incoming, outgoing): True when data is moved natively from now on. */
static PyObject *
tls_attach(tls *self, PyObject *args)
{
  const struct tls_library *library = tls_library_found();
  PyObject *socket, *incoming, *outgoing;
  tls_ssl *ssl = NULL;

  if (!PyArg_ParseTuple(args, "OOO:_attach", &socket, &incoming, &outgoing))
    return NULL;
  if (library != NULL && self->library == NULL)
    ssl = ssl_of(library, socket, incoming, outgoing);
  if (ssl == NULL)
    Py_RETURN_FALSE;
  self->bio = tls_bio_new(&self->io);
  if (self->bio == NULL)
    return PyErr_NoMemory();
  /* It takes over the reference and drops those to the memory BIOs. */
  library->set_bio(ssl, self->bio, self->bio);
  self->socket = Py_NewRef(socket);
  self->ssl = ssl;
  self->library = library;
  self->names = tls_state_of((PyObject *)self);
  Py_RETURN_TRUE;
}

/* Lets go of OpenSSL's object, which others may keep. */
static void
detach(tls *self)
{
  if (self->library != NULL)
    self->library->bio_set_data(self->bio, NULL);
  self->library = NULL;
  self->bio = NULL;
  self->ssl = NULL;
  tls_drop_records(self);
  tls_io_clear(&self->io);
  Py_CLEAR(self->socket);
}

PyObject *
tls_load(PyObject *Py_UNUSED(module), PyObject *args)
{
  const char *path, *reason;
  unsigned long version;

  if (!PyArg_ParseTuple(args, "sk:_load_tls", &path, &version))
    return NULL;
  if (tls_library_find(path, version, &reason) == NULL)
    return PyUnicode_FromString(reason);
  Py_RETURN_NONE;
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
tls_do_read_method(tls *self, PyObject *Py_UNUSED(ignored))
{
  return none_if(tls_do_read(self));
}

static PyObject *
tls_do_write_method(tls *self, PyObject *Py_UNUSED(ignored))
{
  return none_if(tls_do_write(self));
}

/* _flush(): what a callback has written so far is sent before the callback ends. */
static PyObject *
tls_flush(tls *self, PyObject *Py_UNUSED(ignored))
{
  return none_if(self->corks > 0 ? tls_process_outgoing(self) : 0);
}

static PyObject *
tls_process_outgoing_method(tls *self, PyObject *Py_UNUSED(ignored))
{
  return none_if(tls_process_outgoing(self));
}

/* Through the buffer that SSLProtocol.get_buffer() gave to a transport that is not ours. */
static PyObject *
tls_buffer_updated(tls *self, PyObject *argument)
{
  Py_ssize_t n = PyLong_AsSsize_t(argument);
  PyObject *buffer;
  Py_buffer view;
  int rc;

  if (n == -1 && PyErr_Occurred())
    return NULL;
  buffer = PyObject_GetAttrString((PyObject *)self, "_ssl_buffer");
  rc = buffer == NULL ? -1 : PyObject_GetBuffer(buffer, &view, PyBUF_SIMPLE);
  if (rc == 0) {
    rc = tls_feed(self, view.buf, (size_t)(n < 0 ? 0 : n < view.len ? n : view.len));
    PyBuffer_Release(&view);
  }
  Py_XDECREF(buffer);
  return none_if(rc);
}

static PyObject *
tls_get_write_buffer_size(tls *self, PyObject *Py_UNUSED(ignored))
{
  return PyLong_FromSsize_t((Py_ssize_t)tls_io_unsent(&self->io) + self->backlog_size);
}

static PyObject *
tls_get_read_buffer_size(tls *self, PyObject *Py_UNUSED(ignored))
{
  return PyLong_FromSize_t(tls_io_unread(&self->io));
}

/* _forget(): the connection is lost. */
static PyObject *
tls_forget(tls *self, PyObject *Py_UNUSED(ignored))
{
  tls_drop_records(self);
  tls_io_clear(&self->io);
  Py_CLEAR(self->app_get_buffer);
  Py_CLEAR(self->app_buffer_updated);
  Py_RETURN_NONE;
}

#define METHOD(name, function, flags, doc)                                                         \
  {                                                                                                \
    name, (PyCFunction)(void (*)(void))function, flags, PyDoc_STR(doc)                             \
  }

static PyMethodDef tls_methods[] = {
    METHOD("buffer_updated", tls_buffer_updated, METH_O, "The transport has received."),
    METHOD("_attach", tls_attach, METH_VARARGS, ""),
    METHOD("_flush", tls_flush, METH_NOARGS, ""),
    METHOD("_forget", tls_forget, METH_NOARGS, ""),
    METHOD("_do_read", tls_do_read_method, METH_NOARGS, ""),
    METHOD("_do_write", tls_do_write_method, METH_NOARGS, ""),
    METHOD("_process_outgoing", tls_process_outgoing_method, METH_NOARGS, ""),
    METHOD("_get_write_buffer_size", tls_get_write_buffer_size, METH_NOARGS, ""),
    METHOD("_get_read_buffer_size", tls_get_read_buffer_size, METH_NOARGS, ""),
    {NULL, NULL, 0, NULL},
};

/* --- attributes under asyncio's names ---------------------------------------------------------- */

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

static PyObject *
get_state(tls *self, void *Py_UNUSED(closure))
{
  return Py_NewRef(self->state ? self->state : Py_None);
}

/* The stage is told by the name of the enumeration's member. */
static int
set_state(tls *self, PyObject *value, void *Py_UNUSED(closure))
{
  static const char *const names[] = {
      [TLS_UNWRAPPED] = "UNWRAPPED", [TLS_HANDSHAKE] = "DO_HANDSHAKE", [TLS_WRAPPED] = "WRAPPED",
      [TLS_FLUSHING] = "FLUSHING",   [TLS_SHUTDOWN] = "SHUTDOWN",
  };
  PyObject *name = value == NULL ? NULL : PyObject_GetAttrString(value, "name");

  for (size_t i = 0; name != NULL && i < Py_ARRAY_LENGTH(names); i++) {
    if (PyUnicode_Check(name) && PyUnicode_CompareWithASCIIString(name, names[i]) == 0) {
      self->stage = (enum tls_stage)i;
      Py_XSETREF(self->state, Py_NewRef(value));
      Py_DECREF(name);
      return 0;
    }
  }
  Py_XDECREF(name);
  if (!PyErr_Occurred())
    PyErr_SetString(PyExc_ValueError, "not a state of asyncio's SSLProtocol");
  return -1;
}

#define LIMIT(name, field)                                                                         \
  {                                                                                                \
    name, get_limit, set_limit, NULL, (void *)offsetof(tls, field)                                 \
  }

static PyGetSetDef tls_getset[] = {
    {"_state", (getter)get_state, (setter)set_state, NULL, NULL},
    LIMIT("_incoming_high_water", incoming_high_water),
    LIMIT("_incoming_low_water", incoming_low_water),
    LIMIT("_outgoing_high_water", outgoing_high_water),
    LIMIT("_outgoing_low_water", outgoing_low_water),
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef tls_members[] = {
    {"_transport", T_OBJECT, offsetof(tls, transport), 0, NULL},
    {"_app_protocol", T_OBJECT, offsetof(tls, app_protocol), 0, NULL},
    {"_app_protocol_get_buffer", T_OBJECT, offsetof(tls, app_get_buffer), 0, NULL},
    {"_app_protocol_buffer_updated", T_OBJECT, offsetof(tls, app_buffer_updated), 0, NULL},
    {"_app_protocol_is_buffer", T_BOOL, offsetof(tls, app_is_buffer), 0, NULL},
    {"_write_backlog", T_OBJECT, offsetof(tls, backlog), 0, NULL},
    {"_write_buffer_size", T_PYSSIZET, offsetof(tls, backlog_size), 0, NULL},
    {"_app_reading_paused", T_BOOL, offsetof(tls, app_reading_paused), 0, NULL},
    {"_app_writing_paused", T_BOOL, offsetof(tls, app_writing_paused), 0, NULL},
    {"_ssl_reading_paused", T_BOOL, offsetof(tls, ssl_reading_paused), 0, NULL},
    {"_ssl_writing_paused", T_BOOL, offsetof(tls, ssl_writing_paused), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

/* --- the types --------------------------------------------------------------------------------- */

static int
tls_traverse(tls *self, visitproc visit, void *arg)
{
  Py_VISIT(Py_TYPE(self));
  Py_VISIT(self->socket);
  Py_VISIT(self->state);
  Py_VISIT(self->transport);
  Py_VISIT(self->app_protocol);
  Py_VISIT(self->app_get_buffer);
  Py_VISIT(self->app_buffer_updated);
  Py_VISIT(self->backlog);
  return 0;
}

static int
tls_clear(tls *self)
{
  detach(self);
  Py_CLEAR(self->state);
  Py_CLEAR(self->transport);
  Py_CLEAR(self->app_protocol);
  Py_CLEAR(self->app_get_buffer);
  Py_CLEAR(self->app_buffer_updated);
  Py_CLEAR(self->backlog);
  return 0;
}

static void
tls_dealloc(tls *self)
{
  PyTypeObject *type = Py_TYPE(self);

  PyObject_GC_UnTrack(self);
  (void)tls_clear(self);
  type->tp_free(self);
  Py_DECREF(type);
}

static PyType_Slot tls_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("What moves the data of erlang.tls.TlsProtocol.")},
    {Py_tp_dealloc, tls_dealloc},
    {Py_tp_traverse, tls_traverse},
    {Py_tp_clear, tls_clear},
    {Py_tp_methods, tls_methods},
    {Py_tp_members, tls_members},
    {Py_tp_getset, tls_getset},
    {0, NULL},
};

static PyType_Spec tls_spec = {
    .name = "erlang._loop.TlsProtocol",
    .basicsize = sizeof(tls),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = tls_slots,
};

/* Without fields, so that it can stand beside asyncio's transport class. */
static PyMethodDef writer_methods[] = {
    METHOD("write", tls_writer_write, METH_O, "Send data, a bytes-like object; never blocks."),
    METHOD("writelines", tls_writer_writelines, METH_O, "Send an iterable of bytes-like objects."),
    {NULL, NULL, 0, NULL},
};

static PyType_Slot writer_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("What writes for erlang.tls.SSLTransport.")},
    {Py_tp_methods, writer_methods},
    {0, NULL},
};

static PyType_Spec writer_spec = {
    .name = "erlang._loop.TlsWriter",
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .slots = writer_slots,
};

int
tls_state_init(PyObject *module, tls_state *state)
{
  state->str_ssl_protocol = PyUnicode_InternFromString("_ssl_protocol");
  state->str_data_received = PyUnicode_InternFromString("data_received");
  state->str_write = PyUnicode_InternFromString("write");
  state->protocol_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &tls_spec, NULL);
  state->writer_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &writer_spec, NULL);
  if (state->str_ssl_protocol == NULL || state->str_data_received == NULL ||
      state->str_write == NULL || state->protocol_type == NULL || state->writer_type == NULL ||
      PyModule_AddType(module, state->protocol_type) < 0)
    return -1;
  return PyModule_AddType(module, state->writer_type);
}
