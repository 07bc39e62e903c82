/* The types of the transports, over asyncio's classes, and what they need from it. */
#include "listener.h"
#include "transport_type.h"

static int
import_into(PyObject **place, const char *module_name, const char *name)
{
  PyObject *module = PyImport_ImportModule(module_name);

  *place = module == NULL ? NULL : PyObject_GetAttrString(module, name);
  Py_XDECREF(module);
  return *place == NULL ? -1 : 0;
}

/* --- making a type ----------------------------------------------------------------------------- */

/* Our layout leaves room for the slots of the base, which must have neither dict nor weak list. */
static bool
is_layout_known(PyObject *base)
{
  PyTypeObject *type = (PyTypeObject *)base;

  return Py_IS_TYPE(base, &PyType_Type) &&
         type->tp_basicsize <= (Py_ssize_t)offsetof(stream, kind) && type->tp_itemsize == 0 &&
         type->tp_dictoffset == 0 && type->tp_weaklistoffset == 0;
}

/* A new tuple of classes of asyncio.transports. */
static PyObject *
find_bases(const char *const *names)
{
  PyObject *list = PyList_New(0), *tuple = NULL;

  for (; list != NULL && *names != NULL; names++) {
    PyObject *base;

    if (import_into(&base, "asyncio.transports", *names) < 0 || PyList_Append(list, base) < 0)
      Py_CLEAR(list);
    Py_XDECREF(base);
  }
  if (list != NULL)
    tuple = PyList_AsTuple(list);
  Py_XDECREF(list);
  return tuple;
}

int
transport_type_new(PyObject *module, PyType_Spec *spec, const char *const *base_names,
                   PyTypeObject **place)
{
  PyObject *bases = find_bases(base_names);
  bool known = true;

  if (bases == NULL)
    return -1;
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(bases); i++)
    known = known && is_layout_known(PyTuple_GET_ITEM(bases, i));
  if (known)
    *place = (PyTypeObject *)PyType_FromModuleAndSpec(module, spec, bases);
  Py_DECREF(bases);
  if (*place != NULL)
    return PyModule_AddType(module, *place);
  /* Two bases may disagree. */
  if (known && !PyErr_ExceptionMatches(PyExc_TypeError))
    return -1;
  PyErr_Clear();
  return PyModule_AddObjectRef(module, strrchr(spec->name, '.') + 1, Py_None);
}

/* --- module state ------------------------------------------------------------------------------ */

static int
make_names(transport_state *state)
{
  const struct {
    PyObject **place;
    const char *name;
  } names[] = {
      {&state->str_accept_failed, "_accept_failed"},
      {&state->str_buffer_updated, "buffer_updated"},
      {&state->str_clients, "_clients"},
      {&state->str_connection_lost, "connection_lost"},
      {&state->str_connection_made, "connection_made"},
      {&state->str_data_received, "data_received"},
      {&state->str_datagram_received, "datagram_received"},
      {&state->str_eof_received, "eof_received"},
      {&state->str_error_received, "error_received"},
      {&state->str_get_buffer, "get_buffer"},
      {&state->str_peername, "peername"},
      {&state->str_socket, "socket"},
      {&state->str_sockname, "sockname"},
  };

  for (size_t i = 0; i < Py_ARRAY_LENGTH(names); i++) {
    *names[i].place = PyUnicode_InternFromString(names[i].name);
    if (*names[i].place == NULL)
      return -1;
  }
  return 0;
}

int
transport_state_init(PyObject *module, transport_state *state)
{
  if (import_into(&state->transport_socket, "asyncio.trsock", "TransportSocket") < 0 ||
      import_into(&state->buffered_protocol, "asyncio.protocols", "BufferedProtocol") < 0 ||
      import_into(&state->set_result, "asyncio.futures", "_set_result_unless_cancelled") < 0 ||
      import_into(&state->set_nodelay, "asyncio.base_events", "_set_nodelay") < 0)
    return -1;
  state->minus_one = PyLong_FromLong(-1);
  if (state->minus_one == NULL || make_names(state) < 0 || stream_type_init(module, state) < 0 ||
      datagram_type_init(module, state) < 0 || read_pipe_type_init(module, state) < 0 ||
      write_pipe_type_init(module, state) < 0 || clients_type_init(module, state) < 0)
    return -1;
  return listener_type_init(module, state);
}
