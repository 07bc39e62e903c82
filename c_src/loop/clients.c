/* Connections and their servers; the type erlang._loop.Clients, the open connections of one. */
#include "listener.h"

#define NAMES(self) (&(self)->loop->state->transports)

int
clients_add(clients *self, stream *client)
{
  if (self->closed || client->clients != NULL) {
    PyErr_SetString(PyExc_RuntimeError, self->closed
                                            ? "the server is closed"
                                            : "the connection is another server's already");
    return -1;
  }
  client->clients = (clients *)Py_NewRef(self);
  client->previous_client = NULL;
  client->next_client = self->first;
  if (self->first != NULL)
    self->first->previous_client = client;
  self->first = client;
  self->count++;
  return 0;
}

/* Takes client out of its set, to which the caller then has the reference; NULL if it is in none. */
static clients *
unlink_client(stream *client)
{
  clients *self = client->clients;

  if (self == NULL)
    return NULL;
  if (client->previous_client != NULL)
    client->previous_client->next_client = client->next_client;
  else
    self->first = client->next_client;
  if (client->next_client != NULL)
    client->next_client->previous_client = client->previous_client;
  client->clients = NULL;
  client->next_client = client->previous_client = NULL;
  self->count--;
  return self;
}

void
clients_forget(stream *client)
{
  Py_XDECREF(unlink_client(client));
}

int
clients_remove(stream *client)
{
  clients *self = unlink_client(client);
  PyObject *emptied, *result;

  if (self == NULL)
    return 0;
  if (self->count > 0 || self->emptied == NULL) {
    Py_DECREF(self);
    return 0;
  }
  emptied = self->emptied;
  self->emptied = NULL;
  result = PyObject_CallNoArgs(emptied);
  Py_DECREF(emptied);
  Py_DECREF(self);
  Py_XDECREF(result);
  return result == NULL ? -1 : 0;
}

/* --- a connection and its server ---------------------------------------------------------------- */

/* Tells a server that is not one of ours. */
static int
tell_server(stream *self, const char *method)
{
  PyObject *result;

#if PY_VERSION_HEX >= 0x030D0000
  result = PyObject_CallMethod(self->server, method, "O", self);
#else
  result = PyObject_CallMethod(self->server, method, NULL);
#endif
  Py_XDECREF(result);
  return result == NULL ? -1 : 0;
}

int
transport_attach(stream *self, PyObject *server)
{
  transport_state *names = NAMES(self);
  PyObject *set;
  int rc;

  if (server == Py_None)
    return 0;
  self->server = Py_NewRef(server);
  set = PyObject_GetAttr(server, names->str_clients);
  if (set == NULL) {
    if (!PyErr_ExceptionMatches(PyExc_AttributeError))
      return -1;
    PyErr_Clear();
  }
  if (set != NULL && Py_IS_TYPE(set, names->clients_type))
    rc = clients_add((clients *)set, self);
  else
    rc = tell_server(self, "_attach");
  Py_XDECREF(set);
  return rc;
}

/* One that refused it, ours or not, does not count it. */
static int
leave_server(stream *self)
{
  PyObject *set = PyObject_GetAttr(self->server, NAMES(self)->str_clients);
  int ours = set != NULL && Py_IS_TYPE(set, NAMES(self)->clients_type);

  Py_XDECREF(set);
  PyErr_Clear();
  return ours ? 0 : tell_server(self, "_detach");
}

int
transport_detach(stream *self)
{
  PyObject *type, *value, *traceback;
  int rc;

  if (self->server == NULL)
    return 0;
  PyErr_Fetch(&type, &value, &traceback);
  rc = self->clients != NULL ? clients_remove(self) : leave_server(self);
  Py_CLEAR(self->server);
  if (type == NULL)
    return rc;
  if (rc < 0)
    PyErr_WriteUnraisable((PyObject *)self);
  PyErr_Restore(type, value, traceback);
  return 0;
}

/* --- the type ---------------------------------------------------------------------------------- */

static stream *
as_stream(clients *self, PyObject *object)
{
  loop_state *state = PyType_GetModuleState(Py_TYPE(self));

  if (Py_IS_TYPE(object, state->transports.stream_type))
    return (stream *)object;
  PyErr_SetString(PyExc_TypeError, "a StreamTransport was expected");
  return NULL;
}

static PyObject *
clients_method_add(clients *self, PyObject *object)
{
  stream *client = as_stream(self, object);

  if (client == NULL || (client->clients != self && clients_add(self, client) < 0))
    return NULL;
  Py_RETURN_NONE;
}

static PyObject *
clients_method_discard(clients *self, PyObject *object)
{
  stream *client = as_stream(self, object);

  if (client == NULL || (client->clients == self && clients_remove(client) < 0))
    return NULL;
  Py_RETURN_NONE;
}

static PyObject *
clients_method_copy(clients *self, PyObject *Py_UNUSED(ignored))
{
  PyObject *list = PyList_New(self->count);
  Py_ssize_t i = 0;

  /* Making the list may have run the garbage collector, and that may have ended some. */
  if (list != NULL && PyList_GET_SIZE(list) != self->count) {
    Py_DECREF(list);
    return clients_method_copy(self, NULL);
  }
  for (stream *client = self->first; list != NULL && client != NULL; client = client->next_client)
    PyList_SET_ITEM(list, i++, Py_NewRef(client));
  return list;
}

static PyObject *
clients_method_close(clients *self, PyObject *emptied)
{
  self->closed = true;
  Py_XSETREF(self->emptied, emptied == Py_None ? NULL : Py_NewRef(emptied));
  Py_RETURN_NONE;
}

static Py_ssize_t
clients_length(clients *self)
{
  return self->count;
}

static int
clients_traverse(clients *self, visitproc visit, void *arg)
{
  Py_VISIT(Py_TYPE(self));
  Py_VISIT(self->emptied);
  return 0;
}

static int
clients_clear(clients *self)
{
  Py_CLEAR(self->emptied);
  return 0;
}

/* Each connection in the list has a reference to the set, so that the list is empty here. */
static void
clients_dealloc(clients *self)
{
  PyTypeObject *type = Py_TYPE(self);

  PyObject_GC_UnTrack(self);
  (void)clients_clear(self);
  type->tp_free(self);
  Py_DECREF(type);
}

static PyMethodDef clients_methods[] = {
    {"add", (PyCFunction)clients_method_add, METH_O, PyDoc_STR("Add a StreamTransport.")},
    {"discard", (PyCFunction)clients_method_discard, METH_O, PyDoc_STR("Remove one if it is in.")},
    {"copy", (PyCFunction)clients_method_copy, METH_NOARGS, PyDoc_STR("A list of them.")},
    {"close", (PyCFunction)clients_method_close, METH_O,
     PyDoc_STR("Add no more; call emptied() (or None) once, when the last one goes.")},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot clients_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("The open connections of a server; holds no reference to them.")},
    {Py_tp_new, PyType_GenericNew},
    {Py_tp_dealloc, clients_dealloc},
    {Py_tp_traverse, clients_traverse},
    {Py_tp_clear, clients_clear},
    {Py_tp_methods, clients_methods},
    {Py_sq_length, clients_length},
    {0, NULL},
};

static PyType_Spec clients_spec = {
    .name = "erlang._loop.Clients",
    .basicsize = sizeof(clients),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = clients_slots,
};

int
clients_type_init(PyObject *module, transport_state *state)
{
  state->clients_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &clients_spec, NULL);
  return state->clients_type == NULL ? -1 : PyModule_AddType(module, state->clients_type);
}
