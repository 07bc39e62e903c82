/* The classes that stand for asyncio's: subclasses without storage of their own, so that an object of
 * asyncio's can change into one. */
#include "aio.h"

#define ARGUMENTS PyTypeObject *class, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames
#define METHOD(name, function, flags, doc)                                                         \
  {                                                                                                \
    name, (PyCFunction)(void (*)(void))function, flags, PyDoc_STR(doc)                             \
  }
#define CALL_FLAGS (METH_METHOD | METH_FASTCALL | METH_KEYWORDS)

aio_state *
aio_state_of(PyObject *object)
{
  PyObject *module = PyType_GetModuleByDef(Py_TYPE(object), &loop_module_def);

  return module == NULL ? NULL : &((loop_state *)PyModule_GetState(module))->aio;
}

static inline aio_state *
state_of_class(PyTypeObject *class)
{
  return &((loop_state *)PyType_GetModuleState(class))->aio;
}

/* --- the reader's attributes ------------------------------------------------------------------------- */

/* A reader gets its data when it is first asked for: at adoption, or by __init__ of a new object. */
static aio_data *
make_data(aio_state *state, PyObject *reader)
{
  aio_data *data;

  if (!PyErr_ExceptionMatches(PyExc_AttributeError))
    return NULL;
  PyErr_Clear();
  data = aio_data_new(state);
  if (data != NULL && PyObject_SetAttr(reader, state->str_data, (PyObject *)data) < 0)
    Py_CLEAR(data);
  return data;
}

aio_data *
aio_reader_data(aio_state *state, PyObject *reader)
{
  PyObject *data = PyObject_GetAttr(reader, state->str_data);

  if (data == NULL)
    return make_data(state, reader);
  if (Py_IS_TYPE(data, state->data_type))
    return (aio_data *)data;
  Py_DECREF(data);
  PyErr_SetString(PyExc_TypeError, "somebody has replaced what a stream reader holds");
  return NULL;
}

static aio_data *
data_of(PyObject *reader)
{
  return aio_reader_data(aio_state_of(reader), reader);
}

static PyObject *
get_object(PyObject *self, void *offset)
{
  aio_data *data = data_of(self);
  PyObject *value;

  if (data == NULL)
    return NULL;
  value = *(PyObject **)((char *)data + (size_t)offset);
  value = Py_NewRef(value == NULL ? Py_None : value);
  Py_DECREF(data);
  return value;
}

static int
set_object(PyObject *self, PyObject *value, void *offset)
{
  aio_data *data = data_of(self);
  PyObject **place;

  if (data == NULL)
    return -1;
  place = (PyObject **)((char *)data + (size_t)offset);
  Py_XSETREF(*place, Py_XNewRef(value));
  Py_DECREF(data);
  return 0;
}

static PyObject *
get_flag(PyObject *self, void *offset)
{
  aio_data *data = data_of(self);
  PyObject *value = data == NULL ? NULL : PyBool_FromLong(*((bool *)data + (size_t)offset));

  Py_XDECREF(data);
  return value;
}

static int
set_flag(PyObject *self, PyObject *value, void *offset)
{
  aio_data *data = data_of(self);
  int is = data == NULL ? -1 : value == NULL ? 0 : PyObject_IsTrue(value);

  if (is >= 0)
    *((bool *)data + (size_t)offset) = is;
  Py_XDECREF(data);
  return is < 0 ? -1 : 0;
}

/* Any number will do, as for asyncio. */
static int
set_limit(PyObject *self, PyObject *value, void *Py_UNUSED(closure))
{
  double limit = value == NULL ? 0.0 : PyFloat_AsDouble(value);
  aio_data *data;

  if (PyErr_Occurred()) {
    if (!PyErr_ExceptionMatches(PyExc_OverflowError))
      return -1;
    PyErr_Clear();
    limit = Py_HUGE_VAL;
  }
  data = data_of(self);
  if (data == NULL)
    return -1;
  data->limit_value = limit;
  Py_XSETREF(data->limit, Py_XNewRef(value));
  Py_DECREF(data);
  return 0;
}

static PyObject *
get_buffer(PyObject *self, void *Py_UNUSED(closure))
{
  aio_data *data = data_of(self);
  PyObject *buffer = data == NULL ? NULL : aio_data_show(data);

  Py_XDECREF(data);
  return buffer;
}

static int
set_buffer(PyObject *self, PyObject *value, void *Py_UNUSED(closure))
{
  aio_data *data = data_of(self);

  if (data == NULL)
    return -1;
  Py_CLEAR(data->piece);
  data->shown = value != NULL;
  Py_XSETREF(data->buffer, Py_XNewRef(value));
  Py_DECREF(data);
  return 0;
}

#define OBJECT(name, field)                                                                        \
  {                                                                                                \
    name, get_object, set_object, NULL, (void *)offsetof(aio_data, field)                          \
  }
#define FLAG(name, field)                                                                          \
  {                                                                                                \
    name, get_flag, set_flag, NULL, (void *)offsetof(aio_data, field)                              \
  }

static PyGetSetDef reader_getset[] = {
    {"_buffer", get_buffer, set_buffer, NULL, NULL},
    {"_limit", get_object, set_limit, NULL, (void *)offsetof(aio_data, limit)},
    OBJECT("_loop", loop),
    OBJECT("_transport", transport),
    OBJECT("_waiter", waiter),
    OBJECT("_exception", exception),
    FLAG("_eof", eof),
    FLAG("_paused", paused),
    {NULL, NULL, NULL, NULL, NULL},
};

/* --- the reader's methods ----------------------------------------------------------------------------- */

/* asyncio's own method, which also knows what is wrong with the arguments. */
static PyObject *
call_asyncio(aio_state *state, enum aio_method method, PyObject *self, PyObject *const *args,
             Py_ssize_t nargs, PyObject *kwnames)
{
  Py_ssize_t count = nargs + (kwnames == NULL ? 0 : PyTuple_GET_SIZE(kwnames));
  PyObject **all = PyMem_Malloc((size_t)(count + 1) * sizeof(*all));
  PyObject *result;

  if (all == NULL)
    return PyErr_NoMemory();
  all[0] = self;
  for (Py_ssize_t i = 0; i < count; i++)
    all[i + 1] = args[i];
  result = PyObject_Vectorcall(state->methods[method], all, (size_t)nargs + 1, kwnames);
  PyMem_Free(all);
  return result;
}

static PyObject *
new_call(aio_state *state, enum aio_method method, PyObject *self, PyObject *argument,
         Py_ssize_t size)
{
  aio_data *data = aio_reader_data(state, self);
  PyObject *call;

  if (data == NULL)
    return NULL;
  call = aio_call_new(state, method, self, data, argument, size);
  Py_DECREF(data);
  return call;
}

/* The value of a plain positive number; 0 for anything else. */
static Py_ssize_t
plain_size(PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
  Py_ssize_t size;

  if (nargs != 1 || kwnames != NULL || !PyLong_CheckExact(args[0]))
    return 0;
  size = PyLong_AsSsize_t(args[0]);
  if (size == -1 && PyErr_Occurred())
    PyErr_Clear();
  return size < 0 ? 0 : size;
}

static PyObject *
reader_read(PyObject *self, ARGUMENTS)
{
  aio_state *state = state_of_class(class);
  Py_ssize_t size = plain_size(args, nargs, kwnames);

  if (size == 0)
    return call_asyncio(state, AIO_READ, self, args, nargs, kwnames);
  return new_call(state, AIO_READ, self, args[0], size);
}

static PyObject *
reader_readexactly(PyObject *self, ARGUMENTS)
{
  aio_state *state = state_of_class(class);
  Py_ssize_t size = plain_size(args, nargs, kwnames);

  if (size == 0)
    return call_asyncio(state, AIO_READEXACTLY, self, args, nargs, kwnames);
  return new_call(state, AIO_READEXACTLY, self, args[0], size);
}

static PyObject *
reader_readuntil(PyObject *self, ARGUMENTS)
{
  aio_state *state = state_of_class(class);

  if (kwnames == NULL &&
      (nargs == 0 || (nargs == 1 && PyBytes_CheckExact(args[0]) && PyBytes_GET_SIZE(args[0]) > 0)))
    return new_call(state, AIO_READUNTIL, self, nargs == 0 ? NULL : args[0], 0);
  return call_asyncio(state, AIO_READUNTIL, self, args, nargs, kwnames);
}

static PyObject *
reader_readline(PyObject *self, ARGUMENTS)
{
  aio_state *state = state_of_class(class);

  if (nargs == 0 && kwnames == NULL)
    return new_call(state, AIO_READLINE, self, NULL, 0);
  return call_asyncio(state, AIO_READLINE, self, args, nargs, kwnames);
}

static PyObject *
reader_anext(PyObject *self)
{
  return new_call(aio_state_of(self), AIO_ANEXT, self, NULL, 0);
}

static PyObject *
reader_at_eof(PyObject *self, PyObject *Py_UNUSED(ignored))
{
  aio_data *data = data_of(self);
  int empty;

  if (data == NULL)
    return NULL;
  empty = aio_data_plain(data) ? aio_data_size(data) == 0 : PyObject_Not(data->buffer);
  if (empty >= 0)
    empty = data->eof && empty;
  Py_DECREF(data);
  return empty < 0 ? NULL : PyBool_FromLong(empty);
}

static PyObject *
reader_exception(PyObject *self, PyObject *Py_UNUSED(ignored))
{
  return get_object(self, (void *)offsetof(aio_data, exception));
}

static PyMethodDef reader_methods[] = {
    METHOD("read", reader_read, CALL_FLAGS, "read($self, n=-1)\n--\n\nUp to n bytes."),
    METHOD("readexactly", reader_readexactly, CALL_FLAGS,
           "readexactly($self, n)\n--\n\nExactly n bytes."),
    METHOD("readuntil", reader_readuntil, CALL_FLAGS,
           "readuntil($self, separator=b'\\n')\n--\n\nAll up to a separator, included."),
    METHOD("readline", reader_readline, CALL_FLAGS, "readline($self)\n--\n\nA line."),
    METHOD("at_eof", reader_at_eof, METH_NOARGS, "True at the end, when all was read."),
    METHOD("exception", reader_exception, METH_NOARGS, "What reading raises, or None."),
    {NULL, NULL, 0, NULL},
};

static PyType_Slot reader_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("asyncio.StreamReader over a transport of ours.")},
    {Py_tp_methods, reader_methods},
    {Py_tp_getset, reader_getset},
    {Py_am_anext, reader_anext},
    {0, NULL},
};

/* --- the protocol ---------------------------------------------------------------------------------------- */

/* The reader of a protocol, a new reference, None when there is none any more. */
static PyObject *
reader_of(aio_state *state, PyObject *protocol)
{
  PyObject *ref = PyObject_GetAttr(protocol, state->str_reader_ref);
  PyObject *reader;

  if (ref == NULL || !PyWeakref_Check(ref))
    return ref;
#if PY_VERSION_HEX >= 0x030D0000
  if (PyWeakref_GetRef(ref, &reader) == 0)
    reader = Py_NewRef(Py_None);
#else
  reader = Py_NewRef(PyWeakref_GetObject(ref));
#endif
  Py_DECREF(ref);
  return reader;
}

static PyObject *
protocol_data_received(PyObject *self, PyTypeObject *class, PyObject *const *args, Py_ssize_t nargs,
                       PyObject *kwnames)
{
  aio_state *state = state_of_class(class);
  PyObject *reader, *result = NULL;
  aio_data *data;

  if (nargs != 1 || kwnames != NULL) {
    PyErr_SetString(PyExc_TypeError, "data_received() takes one argument");
    return NULL;
  }
  reader = reader_of(state, self);
  if (reader == NULL || reader == Py_None)
    return reader;
  if (!Py_IS_TYPE(reader, state->ours[AIO_READER]) || !PyBytes_CheckExact(args[0])) {
    result = PyObject_CallMethodOneArg(reader, state->str_feed_data, args[0]);
    Py_DECREF(reader);
    return result;
  }
  data = aio_reader_data(state, reader);
  if (data != NULL && (data->eof || !aio_data_plain(data)))
    result = PyObject_CallMethodOneArg(reader, state->str_feed_data, args[0]);
  else if (data != NULL && aio_data_feed(data, args[0]) == 0)
    result = Py_NewRef(Py_None);
  Py_XDECREF(data);
  Py_DECREF(reader);
  return result;
}

/* True for an attribute that is plainly False. */
static bool
is_false(PyObject *object, PyObject *name)
{
  PyObject *value = PyObject_GetAttr(object, name);

  PyErr_Clear();
  Py_XDECREF(value);
  return value == Py_False;
}

bool
aio_may_write(aio_state *state, PyObject *protocol)
{
  return is_false(protocol, state->str_connection_lost) && is_false(protocol, state->str_paused);
}

static PyObject *
protocol_drain_helper(PyObject *self, PyTypeObject *class, PyObject *const *args, Py_ssize_t nargs,
                      PyObject *kwnames)
{
  aio_state *state = state_of_class(class);

  if (nargs != 0 || kwnames != NULL)
    return call_asyncio(state, AIO_DRAIN_HELPER, self, args, nargs, kwnames);
  return aio_call_new(state, AIO_DRAIN_HELPER, self, NULL, NULL, 0);
}

static PyMethodDef protocol_methods[] = {
    METHOD("data_received", protocol_data_received, CALL_FLAGS,
           "data_received($self, data)\n--\n\nGive the reader data."),
    METHOD("_drain_helper", protocol_drain_helper, CALL_FLAGS, ""),
    {NULL, NULL, 0, NULL},
};

static PyType_Slot protocol_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("asyncio.StreamReaderProtocol of a transport of ours.")},
    {Py_tp_methods, protocol_methods},
    {0, NULL},
};

/* --- the writer -------------------------------------------------------------------------------------------- */

static PyObject *
writer_drain(PyObject *self, ARGUMENTS)
{
  aio_state *state = state_of_class(class);

  if (nargs != 0 || kwnames != NULL)
    return call_asyncio(state, AIO_DRAIN, self, args, nargs, kwnames);
  return aio_call_new(state, AIO_DRAIN, self, NULL, NULL, 0);
}

static PyMethodDef writer_methods[] = {
    METHOD("drain", writer_drain, CALL_FLAGS,
           "drain($self)\n--\n\nWait until it is a good time to write more."),
    {NULL, NULL, 0, NULL},
};

static PyType_Slot writer_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("asyncio.StreamWriter over a transport of ours.")},
    {Py_tp_methods, writer_methods},
    {0, NULL},
};

#define CLASS_FLAGS (Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE)

PyType_Spec aio_specs[AIO_CLASSES] = {
    [AIO_READER] = {.name = "erlang._loop.StreamReader",
                    .flags = CLASS_FLAGS,
                    .slots = reader_slots},
    [AIO_PROTOCOL] = {.name = "erlang._loop.StreamReaderProtocol",
                      .flags = CLASS_FLAGS,
                      .slots = protocol_slots},
    [AIO_WRITER] = {.name = "erlang._loop.StreamWriter",
                    .flags = CLASS_FLAGS,
                    .slots = writer_slots},
};
