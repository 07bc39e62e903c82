/* The type that erlang.reactor.Reactor derives from: adopts descriptors and looks after all of its
 * connections. */
#include "reactor.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <structmember.h>
#include <sys/socket.h>

#define READ_SIZE (1024 * 1024)
#define WRITE_LIMIT (64 * 1024)

/* --- refusals ---------------------------------------------------------------------------------- */

/* Sets NotAdopted(text) with that reason; -1. */
static int
refuse(reactor *self, const char *reason, const char *text)
{
  PyObject *exception = PyObject_CallFunction(self->state->reactor.not_adopted, "s", text);
  PyObject *word = PyUnicode_FromString(reason);

  if (exception != NULL && word != NULL && PyObject_SetAttrString(exception, "reason", word) == 0)
    PyErr_SetObject(self->state->reactor.not_adopted, exception);
  Py_XDECREF(exception);
  Py_XDECREF(word);
  return -1;
}

static int
os_error(void)
{
  PyErr_SetFromErrno(PyExc_OSError);
  return -1;
}

static int
check_state(reactor *self)
{
  if (self->loop == NULL) {
    PyErr_SetString(PyExc_RuntimeError, "Reactor.__init__() was not called");
    return -1;
  }
  if (loop_check_closed(self->loop) < 0)
    return -1;
  if (self->loop->running && self->loop->thread_id != PyThread_get_thread_ident()) {
    PyErr_SetString(PyExc_RuntimeError, "a reactor was used on another thread than its loop's");
    return -1;
  }
  return 0;
}

static int
check_limits(reactor *self)
{
  if (self->draining)
    return refuse(self, "stopping", "the reactor is stopping");
  if (self->connections >= self->max_connections)
    return refuse(self, "max_connections", "the reactor has as many connections as it may have");
  return 0;
}

/* A fresh one has been opened for this: what another loop still knows of that number is gone. */
static int
check_unused(reactor *self, int fd, bool fresh)
{
  PyObject *key = PyLong_FromLong(fd);
  int used = key == NULL ? -1 : PySet_Contains(self->state->reactor.adopted, key);

  Py_XDECREF(key);
  if (used < 0)
    return -1;
  if (used || (fresh ? readers_serves(self->loop, fd) : readers_any_serves(self->state, fd)))
    return refuse(self, "in_use", "the descriptor is served already");
  return 0;
}

/* A connected stream socket. */
static int
check_socket(reactor *self, int fd)
{
  struct sockaddr_storage address;
  socklen_t size = sizeof(int);
  int type, listens;

  if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) < 0)
    return os_error();
  if (type != SOCK_STREAM)
    return refuse(self, "not_a_stream", "the descriptor is no stream socket");
  if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size) < 0)
    return os_error();
  if (listens)
    return refuse(self, "listening", "the socket listens");
  size = sizeof(address);
  return getpeername(fd, (struct sockaddr *)&address, &size) < 0 ? os_error() : 0;
}

/* --- adopting ---------------------------------------------------------------------------------- */

/* A new protocol that has no connection. */
static PyObject *
make_protocol(reactor *self)
{
  PyObject *protocol = PyObject_CallNoArgs(self->factory);

  if (protocol == NULL)
    return NULL;
  if (!PyObject_TypeCheck(protocol, self->state->reactor.protocol_type)) {
    PyErr_Format(PyExc_TypeError, "the factory made %R, which is no erlang.reactor.Protocol",
                 protocol);
    Py_CLEAR(protocol);
  } else if (((reactor_protocol *)protocol)->connection != NULL) {
    PyErr_SetString(PyExc_ValueError, "the factory made a protocol that has a connection");
    Py_CLEAR(protocol);
  }
  return protocol;
}

/* Makes fd non-blocking; 1 when it was not. */
static int
set_nonblocking(int fd)
{
  int flags = fcntl(fd, F_GETFL);

  if (flags < 0)
    return os_error();
  if (flags & O_NONBLOCK)
    return 0;
  return fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0 ? os_error() : 1;
}

/* As asyncio does for TCP; other sockets refuse it. */
static void
set_nodelay(int fd)
{
  int one = 1;

  (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
}

/* To close a socket that lingers would keep the loop waiting, and all of Python. */
static void
set_no_linger(int fd)
{
  struct linger linger;
  socklen_t size = sizeof(linger);

  if (getsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, &size) < 0 || !linger.l_onoff ||
      linger.l_linger == 0)
    return;
  linger.l_onoff = 0;
  (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
}

/* The reserved connection of fd.  On an error the descriptor is as it was. */
static connection *
reserve(reactor *self, int fd, bool fresh, PyObject *info)
{
  PyObject *protocol;
  connection *made = NULL;
  int changed;

  if (check_limits(self) < 0 || check_unused(self, fd, fresh) < 0 || check_socket(self, fd) < 0)
    return NULL;
  protocol = make_protocol(self);
  if (protocol == NULL)
    return NULL;
  /* The factory may have done anything, and adopted the descriptor too. */
  if (check_limits(self) == 0 && check_unused(self, fd, fresh) == 0)
    made = connection_new(self, fd, protocol, info);
  Py_DECREF(protocol);
  if (made == NULL)
    return NULL;
  if ((changed = set_nonblocking(fd)) < 0) {
    connection_give_back(made);
    return NULL;
  }
  made->was_blocking = changed;
  return made;
}

/* It is the reactor's from now on: -1 with an exception when it cannot begin, and it ends. */
static int
begin(reactor *self, connection *made, PyObject *early)
{
  self->accepted++;
  set_nodelay(made->fd);
  set_no_linger(made->fd);
  return connection_begin(made, early != NULL && PyBytes_GET_SIZE(early) > 0 ? early : NULL);
}

static PyObject *
reactor_adopt(reactor *self, PyObject *args, PyObject *kwargs)
{
  static char *keywords[] = {"fd", "info", "data", NULL};
  PyObject *object, *info = Py_None, *early = NULL, *protocol, *result;
  connection *made;
  int fd;

  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|OS:adopt", keywords, &object, &info, &early) ||
      check_state(self) < 0)
    return NULL;
  /* It would be served in plain text. */
  result = PyObject_CallOneArg(self->state->check_ssl, object);
  if (result == NULL)
    return NULL;
  Py_DECREF(result);
  fd = readers_fileno(self->state, object);
  made = fd < 0 ? NULL : reserve(self, fd, false, info);
  if (made == NULL)
    return NULL;
  protocol = Py_NewRef(made->protocol);
  if (begin(self, made, early) < 0) {
    self->accepted--;
    connection_give_back(made);
    Py_DECREF(protocol);
    return NULL;
  }
  if (!PyObject_TypeCheck(object, self->state->socket_type))
    return protocol;
  /* A socket object no longer owns what it named. */
  result = PyObject_CallMethod(object, "detach", NULL);
  if (result == NULL)
    PyErr_WriteUnraisable(object);
  Py_XDECREF(result);
  return protocol;
}

/* --- adopting in two steps, for those who agree with somebody else in between ------------------- */

static PyObject *
reactor_reserve(reactor *self, PyObject *args)
{
  PyObject *info;
  connection *made;
  int fd, fresh;

  if (!PyArg_ParseTuple(args, "ipO:_reserve", &fd, &fresh, &info) || check_state(self) < 0)
    return NULL;
  made = reserve(self, fd, fresh, info);
  return made == NULL ? NULL : Py_NewRef(made->protocol);
}

/* The reserved connection of the protocol; NULL when it has ended, with an exception or without. */
static connection *
reserved_of(reactor *self, PyObject *protocol)
{
  connection *made;

  if (check_state(self) < 0)
    return NULL;
  if (!PyObject_TypeCheck(protocol, self->state->reactor.protocol_type)) {
    PyErr_SetString(PyExc_TypeError, "an erlang.reactor.Protocol was expected");
    return NULL;
  }
  made = ((reactor_protocol *)protocol)->connection;
  return made != NULL && made->reactor == self && made->reserved && !made->lost ? made : NULL;
}

static PyObject *
reactor_begin(reactor *self, PyObject *args)
{
  PyObject *protocol, *early;
  connection *made;

  if (!PyArg_ParseTuple(args, "OS:_begin", &protocol, &early))
    return NULL;
  made = reserved_of(self, protocol);
  if (made == NULL ? PyErr_Occurred() != NULL : begin(self, made, early) < 0)
    return NULL;
  Py_RETURN_NONE;
}

static PyObject *
reactor_give_back(reactor *self, PyObject *protocol)
{
  connection *made = reserved_of(self, protocol);

  if (made == NULL && PyErr_Occurred())
    return NULL;
  if (made == NULL)
    Py_RETURN_FALSE;
  connection_give_back(made);
  Py_RETURN_TRUE;
}

/* --- all connections --------------------------------------------------------------------------- */

static PyObject *
reactor_abort(reactor *self, PyObject *args)
{
  PyObject *error = Py_None;

  if (!PyArg_ParseTuple(args, "|O:abort", &error) || check_state(self) < 0)
    return NULL;
  self->draining = true;
  for (connection *served = self->first; served != NULL; served = served->next) {
    if (connection_abort(served, error == Py_None ? NULL : Py_NewRef(error)) < 0)
      return NULL;
  }
  Py_RETURN_NONE;
}

static PyObject *
reactor_drain(reactor *self, PyObject *Py_UNUSED(ignored))
{
  if (check_state(self) < 0)
    return NULL;
  self->draining = true;
  for (connection *served = self->first; served != NULL; served = served->next) {
    /* What has come and was not reported yet is served too. */
    served->readable |= !served->at_eof;
    if (connection_schedule(served) < 0)
      return NULL;
  }
  Py_RETURN_NONE;
}

static PyObject *
reactor_does_nothing(PyObject *Py_UNUSED(self), PyObject *Py_UNUSED(ignored))
{
  Py_RETURN_NONE;
}

static PyObject *
reactor_info(reactor *self, PyObject *Py_UNUSED(ignored))
{
  PyObject *limit = self->max_connections == PY_SSIZE_T_MAX
                        ? Py_NewRef(Py_None)
                        : PyLong_FromSsize_t(self->max_connections);

  return Py_BuildValue("{snsKsKsKsKsKsNsnsnsO}", "connections", self->connections, "accepted",
                       (unsigned long long)self->accepted, "closed",
                       (unsigned long long)self->closed, "errors", (unsigned long long)self->errors,
                       "received", (unsigned long long)self->received, "sent",
                       (unsigned long long)self->sent, "max_connections", limit, "read_size",
                       (Py_ssize_t)self->read_size, "write_limit", (Py_ssize_t)self->write_limit,
                       "stopping", self->draining ? Py_True : Py_False);
}

/* --- the object -------------------------------------------------------------------------------- */

static int
check_limit(Py_ssize_t limit, const char *name)
{
  if (limit > 0)
    return 0;
  PyErr_Format(PyExc_ValueError, "%s must be positive", name);
  return -1;
}

static int
reactor_init(reactor *self, PyObject *args, PyObject *kwargs)
{
  static char *keywords[] = {"loop",      "factory",     "max_connections",
                             "read_size", "write_limit", NULL};
  PyObject *module = PyType_GetModuleByDef(Py_TYPE(self), &loop_module_def);
  PyObject *loop, *factory, *most = Py_None;
  Py_ssize_t max_connections = PY_SSIZE_T_MAX, read_size = READ_SIZE, write_limit = WRITE_LIMIT;

  if (module == NULL ||
      !PyArg_ParseTupleAndKeywords(args, kwargs, "OO|$Onn:Reactor", keywords, &loop, &factory,
                                   &most, &read_size, &write_limit))
    return -1;
  if (self->module == NULL)
    self->module = Py_NewRef(module);
  self->state = PyModule_GetState(module);
  if (self->loop != NULL || !PyObject_TypeCheck(loop, self->state->loop_type)) {
    PyErr_SetString(PyExc_TypeError, "a native event loop was expected, once");
    return -1;
  }
  if (!PyCallable_Check(factory)) {
    PyErr_Format(PyExc_TypeError, "the factory %R cannot be called", factory);
    return -1;
  }
  if (most != Py_None) {
    max_connections = PyNumber_AsSsize_t(most, PyExc_OverflowError);
    if (max_connections == -1 && PyErr_Occurred())
      return -1;
  }
  if (check_limit(max_connections, "max_connections") < 0 ||
      check_limit(read_size, "read_size") < 0 || check_limit(write_limit, "write_limit") < 0)
    return -1;
  self->loop = (native_loop *)Py_NewRef(loop);
  self->factory = Py_NewRef(factory);
  self->max_connections = max_connections;
  self->read_size = self->next_capacity = (size_t)read_size;
  self->write_limit = (size_t)write_limit;
  return 0;
}

static int
reactor_traverse(reactor *self, visitproc visit, void *arg)
{
  Py_VISIT(Py_TYPE(self));
  Py_VISIT(self->module);
  Py_VISIT(self->loop);
  Py_VISIT(self->factory);
  return 0;
}

static int
reactor_clear(reactor *self)
{
  reactor_buffer_clear(self);
  Py_CLEAR(self->factory);
  Py_CLEAR(self->loop);
  return 0;
}

static void
reactor_dealloc(reactor *self)
{
  PyTypeObject *type = Py_TYPE(self);

  PyObject_GC_UnTrack(self);
  (void)reactor_clear(self);
  Py_XDECREF(self->module);
  type->tp_free(self);
  Py_DECREF(type);
}

static PyObject *
reactor_get_loop(reactor *self, PyObject *Py_UNUSED(ignored))
{
  return Py_NewRef(self->loop != NULL ? (PyObject *)self->loop : Py_None);
}

#define METHOD(name, function, flags, doc)                                                         \
  {                                                                                                \
    name, (PyCFunction)(void (*)(void))function, flags, PyDoc_STR(doc)                             \
  }

static PyMethodDef reactor_methods[] = {
    METHOD("adopt", reactor_adopt, METH_VARARGS | METH_KEYWORDS,
           "adopt($self, fd, info=None, data=b'')\n--\n\n"
           "Serve fd, a connected stream socket, with a new protocol, which is returned.\n\n"
           "The descriptor is the reactor's from now on.  On an exception it stays the caller's: "
           "NotAdopted,\nOSError for what the system says of it, or what the factory raised."),
    METHOD("_reserve", reactor_reserve, METH_VARARGS,
           "_reserve(fd, fresh, info): as adopt(), but nothing is done with the descriptor before "
           "_begin(); a fresh\none is nobody else's."),
    METHOD(
        "_begin", reactor_begin, METH_VARARGS,
        "_begin(protocol, data): what was reserved is served; data comes first.  Nothing when it "
        "has ended."),
    METHOD("_give_back", reactor_give_back, METH_O,
           "_give_back(protocol): the descriptor that was reserved is the caller's; False when it "
           "has ended."),
    METHOD("abort", reactor_abort, METH_VARARGS,
           "abort($self, exc=None)\n--\n\n"
           "Adopt no more and close all connections at once; connection_lost() is given exc."),
    METHOD("drain", reactor_drain, METH_NOARGS,
           "Adopt no more; serve what has come, and close each connection once nothing of it is "
           "under way."),
    METHOD("info", reactor_info, METH_NOARGS, "Counters and limits, as a dict."),
    METHOD("get_loop", reactor_get_loop, METH_NOARGS, "The loop."),
    METHOD("_emptied", reactor_does_nothing, METH_NOARGS,
           "Called when the last connection ends after drain() or abort()."),
    {NULL, NULL, 0, NULL},
};

static PyType_Slot reactor_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("Serves descriptors with protocols.")},
    {Py_tp_init, reactor_init},
    {Py_tp_new, PyType_GenericNew},
    {Py_tp_dealloc, reactor_dealloc},
    {Py_tp_traverse, reactor_traverse},
    {Py_tp_clear, reactor_clear},
    {Py_tp_methods, reactor_methods},
    {0, NULL},
};

PyType_Spec reactor_spec = {
    .name = "erlang._loop.Reactor",
    .basicsize = sizeof(reactor),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE,
    .slots = reactor_slots,
};

/* --- module state ------------------------------------------------------------------------------ */

static int
make_names(reactor_state *state)
{
  const struct {
    PyObject **place;
    const char *name;
  } names[] = {
      {&state->str_connection_made, "connection_made"},
      {&state->str_data_received, "data_received"},
      {&state->str_eof_received, "eof_received"},
      {&state->str_write_ready, "write_ready"},
      {&state->str_connection_lost, "connection_lost"},
      {&state->str_emptied, "_emptied"},
      {&state->str_run, "_run"},
      {&state->str_continue, "continue"},
      {&state->str_read_pending, "read_pending"},
      {&state->str_write_pending, "write_pending"},
      {&state->str_async_pending, "async_pending"},
      {&state->str_close, "close"},
  };

  for (size_t i = 0; i < Py_ARRAY_LENGTH(names); i++) {
    *names[i].place = PyUnicode_InternFromString(names[i].name);
    if (*names[i].place == NULL)
      return -1;
  }
  return 0;
}

static PyTypeObject *
make_type(PyObject *module, PyType_Spec *spec)
{
  return (PyTypeObject *)PyType_FromModuleAndSpec(module, spec, NULL);
}

int
reactor_state_init(PyObject *module, reactor_state *state)
{
  if (make_names(state) < 0)
    return -1;
  state->adopted = PySet_New(NULL);
  state->not_adopted = PyErr_NewExceptionWithDoc(
      "erlang.reactor.NotAdopted",
      "A reactor does not take the descriptor.  `reason` says why in a word: stopping, "
      "max_connections, in_use,\nnot_a_stream or listening.",
      PyExc_Exception, NULL);
  state->connection_type = make_type(module, &connection_spec);
  state->buffer_type = make_type(module, &receive_buffer_spec);
  state->reactor_type = make_type(module, &reactor_spec);
  state->protocol_type = make_type(module, &reactor_protocol_spec);
  if (state->adopted == NULL || state->not_adopted == NULL || state->connection_type == NULL ||
      state->buffer_type == NULL || state->reactor_type == NULL || state->protocol_type == NULL ||
      PyModule_AddObjectRef(module, "_adopted", state->adopted) < 0 ||
      PyModule_AddObjectRef(module, "NotAdopted", state->not_adopted) < 0 ||
      PyModule_AddObjectRef(module, "ReactorProtocol", (PyObject *)state->protocol_type) < 0)
    return -1;
  return PyModule_AddType(module, state->reactor_type);
}
