/* How asyncio's stream objects become ours.
 *
 * asyncio's functions (open_connection, start_server and their like) make a reader and its protocol
 * by themselves.  A transport that is given such a protocol changes the class of both before it
 * calls them; the writer that the protocol makes for a server's callback is changed on its way there.
 * Only objects that are exactly of asyncio's classes change, and only while these are as they were. */
#include "aio.h"

/* Attributes of a reader, in the order in which they move. */
static const char *const reader_attributes[] = {
    "_loop", "_limit", "_buffer", "_eof", "_waiter", "_exception", "_transport", "_paused",
};

#define READER_ATTRIBUTES (sizeof(reader_attributes) / sizeof(*reader_attributes))

/* asyncio's methods that ours stand for. */
static const struct {
  enum aio_class class;
  const char *name;
} methods[AIO_REPLACED] = {
    [AIO_READ] = {AIO_READER, "read"},
    [AIO_READEXACTLY] = {AIO_READER, "readexactly"},
    [AIO_READUNTIL] = {AIO_READER, "readuntil"},
    [AIO_READLINE] = {AIO_READER, "readline"},
    [AIO_ANEXT] = {AIO_READER, "__anext__"},
    [AIO_DRAIN] = {AIO_WRITER, "drain"},
    [AIO_DRAIN_HELPER] = {AIO_PROTOCOL, "_drain_helper"},
    [AIO_FEED_DATA] = {AIO_READER, "feed_data"},
    [AIO_WAIT_FOR_DATA] = {AIO_READER, "_wait_for_data"},
    [AIO_WAKEUP_WAITER] = {AIO_READER, "_wakeup_waiter"},
    [AIO_MAYBE_RESUME] = {AIO_READER, "_maybe_resume_transport"},
    [AIO_EXCEPTION] = {AIO_READER, "exception"},
    [AIO_AT_EOF] = {AIO_READER, "at_eof"},
    [AIO_DATA_RECEIVED] = {AIO_PROTOCOL, "data_received"},
};

/* True while nobody has replaced one of them. */
static bool
is_unchanged(const aio_state *state)
{
  for (int i = 0; i < AIO_REPLACED; i++) {
    if (_PyType_Lookup(state->asyncio[methods[i].class], state->method_names[i]) !=
        state->methods[i])
      return false;
  }
  return true;
}

static int
become(aio_state *state, PyObject *object, enum aio_class class)
{
  return PyObject_SetAttr(object, state->str_class, (PyObject *)state->ours[class]);
}

/* Takes the attributes out of the reader's dict; -1 when one is not there. */
static int
take_attributes(PyObject *reader, PyObject **values)
{
  for (size_t i = 0; i < READER_ATTRIBUTES; i++) {
    values[i] = PyObject_GetAttrString(reader, reader_attributes[i]);
    if (values[i] == NULL)
      return -1;
  }
  for (size_t i = 0; i < READER_ATTRIBUTES; i++) {
    if (PyObject_DelAttrString(reader, reader_attributes[i]) < 0)
      return -1;
  }
  return 0;
}

/* An empty bytearray that nobody else has is not worth keeping. */
static int
forget_buffer(aio_state *state, PyObject *reader)
{
  aio_data *data = aio_reader_data(state, reader);

  if (data == NULL)
    return -1;
  if (data->buffer != NULL && aio_data_plain(data) && Py_REFCNT(data->buffer) == 1 &&
      PyByteArray_GET_SIZE(data->buffer) == 0) {
    Py_CLEAR(data->buffer);
    data->shown = false;
  }
  Py_DECREF(data);
  return 0;
}

static int
adopt_reader(aio_state *state, PyObject *reader)
{
  PyObject *values[READER_ATTRIBUTES] = {NULL};
  int rc = take_attributes(reader, values);

  if (rc == 0)
    rc = become(state, reader, AIO_READER);
  for (size_t i = 0; i < READER_ATTRIBUTES; i++) {
    if (rc == 0)
      rc = PyObject_SetAttrString(reader, reader_attributes[i], values[i]);
    Py_XDECREF(values[i]);
  }
  return rc < 0 ? -1 : forget_buffer(state, reader);
}

/* --- the writer -------------------------------------------------------------------------------------- */

/* Stands for a server's client_connected_cb, which is self: (reader, writer). */
static PyObject *
client_connected(PyObject *callback, PyObject *const *args, Py_ssize_t nargs)
{
  aio_state *state = nargs == 2 ? aio_state_of(args[0]) : NULL;

  if (state == NULL)
    PyErr_Clear();
  else if (Py_IS_TYPE(args[1], state->asyncio[AIO_WRITER]) &&
           become(state, args[1], AIO_WRITER) < 0)
    return NULL;
  return PyObject_Vectorcall(callback, args, (size_t)nargs, NULL);
}

static PyMethodDef client_connected_def = {
    "client_connected_cb", (PyCFunction)(void (*)(void))client_connected, METH_FASTCALL, NULL};

static int
adopt_callback(aio_state *state, PyObject *protocol)
{
  PyObject *callback = PyObject_GetAttr(protocol, state->str_client_connected_cb);
  PyObject *function;
  int rc = 0;

  if (callback == NULL)
    return -1;
  if (callback != Py_None) {
    function = PyCFunction_New(&client_connected_def, callback);
    rc = function == NULL ? -1
                          : PyObject_SetAttr(protocol, state->str_client_connected_cb, function);
    Py_XDECREF(function);
  }
  Py_DECREF(callback);
  return rc;
}

int
aio_adopt(aio_state *state, PyObject *protocol)
{
  PyObject *reader;
  int rc = 0;

  if (!Py_IS_TYPE(protocol, state->asyncio[AIO_PROTOCOL]) || state->ours[AIO_READER] == NULL ||
      !is_unchanged(state))
    return 0;
  reader = PyObject_GetAttr(protocol, state->str_stream_reader);
  if (reader == NULL)
    return -1;
  if (Py_IS_TYPE(reader, state->asyncio[AIO_READER])) {
    rc = adopt_reader(state, reader);
    if (rc == 0)
      rc = adopt_callback(state, protocol);
    if (rc == 0)
      rc = become(state, protocol, AIO_PROTOCOL);
  }
  Py_DECREF(reader);
  return rc;
}

PyObject *
aio_adopt_method(PyObject *module, PyObject *protocol)
{
  if (aio_adopt(&((loop_state *)PyModule_GetState(module))->aio, protocol) < 0)
    return NULL;
  Py_RETURN_NONE;
}

/* --- module state -------------------------------------------------------------------------------------- */

static int
find_asyncio(aio_state *state)
{
  static const char *const classes[AIO_CLASSES] = {"StreamReader", "StreamReaderProtocol",
                                                   "StreamWriter"};
  PyObject *module = PyImport_ImportModule("asyncio.streams");
  int rc = module == NULL ? -1 : 0;

  for (int i = 0; rc == 0 && i < AIO_CLASSES; i++) {
    state->asyncio[i] = (PyTypeObject *)PyObject_GetAttrString(module, classes[i]);
    rc = state->asyncio[i] == NULL ? -1 : 0;
  }
  for (int i = 0; rc == 0 && i < AIO_REPLACED; i++) {
    state->method_names[i] = PyUnicode_InternFromString(methods[i].name);
    state->methods[i] = state->method_names[i] == NULL
                            ? NULL
                            : PyObject_GetAttr((PyObject *)state->asyncio[methods[i].class],
                                               state->method_names[i]);
    rc = state->methods[i] == NULL ? -1 : 0;
  }
  Py_XDECREF(module);
  return rc;
}

/* False when an object of the one class cannot become one of the other. */
static bool
is_same_layout(const PyTypeObject *one, const PyTypeObject *other)
{
  return one->tp_basicsize == other->tp_basicsize && one->tp_dictoffset == other->tp_dictoffset &&
         one->tp_weaklistoffset == other->tp_weaklistoffset &&
         one->tp_dealloc == other->tp_dealloc && one->tp_free == other->tp_free;
}

static int
make_classes(PyObject *module, aio_state *state)
{
  for (int i = 0; i < AIO_CLASSES; i++) {
    PyTypeObject *class;

    if (!is_same_layout(state->asyncio[AIO_READER], state->asyncio[i]))
      return 0;
    class = (PyTypeObject *)PyType_FromModuleAndSpec(module, &aio_specs[i],
                                                     (PyObject *)state->asyncio[i]);
    if (class == NULL)
      return -1;
    state->ours[i] = class;
  }
  for (int i = 0; i < AIO_CLASSES; i++) {
    if (is_same_layout(state->asyncio[i], state->ours[i]))
      continue;
    for (int j = 0; j < AIO_CLASSES; j++)
      Py_CLEAR(state->ours[j]);
  }
  return 0;
}

int
aio_state_init(PyObject *module, aio_state *state)
{
#define MAKE_NAME(field, text)                                                                     \
  if ((field = PyUnicode_InternFromString(text)) == NULL)                                          \
  return -1
  AIO_NAMES(MAKE_NAME, state);
#undef MAKE_NAME
  state->data_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &aio_data_spec, NULL);
  state->call_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &aio_call_spec, NULL);
  if (state->data_type == NULL || state->call_type == NULL || find_asyncio(state) < 0)
    return -1;
  return make_classes(module, state);
}

#define AIO_OBJECTS(apply, state)                                                                  \
  apply((state)->data_type);                                                                       \
  apply((state)->call_type);                                                                       \
  for (int i = 0; i < AIO_CLASSES; i++) {                                                          \
    apply((state)->asyncio[i]);                                                                    \
    apply((state)->ours[i]);                                                                       \
  }                                                                                                \
  for (int i = 0; i < AIO_REPLACED; i++) {                                                         \
    apply((state)->method_names[i]);                                                               \
    apply((state)->methods[i]);                                                                    \
  }

int
aio_state_traverse(aio_state *state, visitproc visit, void *arg)
{
  AIO_OBJECTS(Py_VISIT, state)
#define VISIT_NAME(field, text) Py_VISIT(field)
  AIO_NAMES(VISIT_NAME, state);
#undef VISIT_NAME
  return 0;
}

void
aio_state_clear(aio_state *state)
{
  aio_calls_clear(state);
  AIO_OBJECTS(Py_CLEAR, state)
#define CLEAR_NAME(field, text) Py_CLEAR(field)
  AIO_NAMES(CLEAR_NAME, state);
#undef CLEAR_NAME
}
