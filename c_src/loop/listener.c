/* The type erlang._loop.Listener: accepts the connections of one listening socket.
 *
 * Its descriptor is registered once, edge-triggered.  It stays ready until accept4() says that nobody
 * waits, and accepts a bounded number in one turn, so that others run in between.  Each connection
 * gets a copy of the context in which serving began, and there its protocol. */
#define _GNU_SOURCE
#include "listener.h"

#include <errno.h>
#include <unistd.h>

#define BATCH_MAX 64

typedef struct listener {
  PyObject_HEAD
  native_loop *loop; /* strong, as are the next ones; NULL once closed */
  PyObject *sock;
  PyObject *factory; /* of protocols */
  PyObject *server;
  PyObject *set_up;  /* set_up(conn, address): what is done with a connection that is not plain */
  PyObject *context; /* what was current when serving began */
  PyObject *retry;   /* the timer of a back-off, or NULL */
  struct origin *origin;
  int fd;
  int batch; /* how many it accepts in one turn */
  bool plain;
  bool readable;
  bool queued; /* in the ready ring */
} listener;

#define NAMES(self) (&(self)->loop->state->transports)

/* --- readiness --------------------------------------------------------------------------------- */

void
listener_note(PyObject *object, uint32_t events)
{
  (void)events;
  ((listener *)object)->readable = true;
}

static int
schedule(listener *self)
{
  if (self->queued || self->loop == NULL || self->retry != NULL || !self->readable)
    return 0;
  if (ready_push(&self->loop->ready, (PyObject *)self) < 0)
    return -1;
  self->queued = true;
  return 0;
}

int
listener_event(PyObject *object, uint32_t events)
{
  listener_note(object, events);
  return schedule((listener *)object);
}

uint32_t
listener_waits_for(PyObject *object)
{
  listener *self = (listener *)object;

  return self->loop != NULL && self->retry == NULL ? POLLER_READ : 0;
}

/* --- a connection ------------------------------------------------------------------------------ */

/* Makes the connection that asyncio would make, by its own code: for TLS and in debug mode. */
static int
accept_by_asyncio(listener *self, const struct accepted *from)
{
  native_loop *loop = self->loop;
  PyObject *conn = origin_socket(self->origin, loop->state, from->fd);
  PyObject *address, *result = NULL;

  if (conn == NULL) {
    (void)close(from->fd);
    return -1;
  }
  address = address_new(from->peer, from->peer_size);
  if (address != NULL)
    result = PyObject_CallFunctionObjArgs(self->set_up, conn, address, NULL);
  Py_XDECREF(address);
  Py_DECREF(conn);
  Py_XDECREF(result);
  return result == NULL ? -1 : 0;
}

/* A transport that is not to be: its protocol and its server never hear of it. */
static void
discard_transport(stream *transport)
{
  PyObject *type, *value, *traceback;

  PyErr_Fetch(&type, &value, &traceback);
  if (transport_drop(transport) < 0)
    PyErr_WriteUnraisable((PyObject *)transport);
  PyErr_Restore(type, value, traceback);
}

/* Asks for a protocol and makes its transport, in the connection's context. */
static int
make_connection(listener *self, const struct accepted *from)
{
  PyObject *server = Py_NewRef(self->server);
  native_loop *loop = (native_loop *)Py_NewRef(self->loop);
  PyObject *protocol = PyObject_CallNoArgs(self->factory);
  stream *transport = NULL;
  int rc = -1;

  /* The factory may have closed the server: nobody is to serve the connection then. */
  if (protocol != NULL && self->loop == NULL)
    rc = 0;
  else if (protocol != NULL)
    transport = stream_accept(loop, self->origin, protocol, from);
  if (transport == NULL) {
    (void)close(from->fd);
  } else if (transport_attach(transport, server) < 0) {
    discard_transport(transport);
  } else {
    rc = 0;
  }
  Py_XDECREF(transport);
  Py_XDECREF(protocol);
  Py_DECREF(loop);
  Py_DECREF(server);
  return rc;
}

/* The exception that is set, if it is one that asyncio does not tell anybody of when a connection
 * cannot be made, is forgotten. */
static int
forget_exception(void)
{
  if (transport_must_raise())
    return -1;
  PyErr_Clear();
  return 0;
}

static int
accept_plain(listener *self, struct accepted *from)
{
  PyObject *context = PyContext_Copy(self->context);
  int rc = context == NULL ? -1 : PyContext_Enter(context);

  if (rc < 0) {
    (void)close(from->fd);
  } else {
    from->context = context;
    rc = make_connection(self, from);
    if (PyContext_Exit(context) < 0)
      rc = -1;
  }
  Py_XDECREF(context);
  return rc < 0 ? forget_exception() : 0;
}

static int
serve(listener *self, struct accepted *from)
{
  PyObject *context;
  int rc;

  if (self->plain && !self->loop->debug)
    return accept_plain(self, from);
  context = Py_NewRef(self->context);
  rc = PyContext_Enter(context);
  if (rc < 0) {
    (void)close(from->fd);
  } else {
    rc = accept_by_asyncio(self, from);
    if (PyContext_Exit(context) < 0)
      rc = -1;
  }
  Py_DECREF(context);
  return rc;
}

/* --- errors ------------------------------------------------------------------------------------ */

/* Out of descriptors or memory: asyncio's report, and a timer that tries again. */
static int
back_off(listener *self)
{
  PyObject *type, *value, *traceback, *retry;

  PyErr_Fetch(&type, &value, &traceback);
  PyErr_NormalizeException(&type, &value, &traceback);
  retry = PyObject_GetAttrString((PyObject *)self, "_retry");
  if (retry != NULL)
    Py_XSETREF(self->retry,
               PyObject_CallMethodObjArgs((PyObject *)self->loop, NAMES(self)->str_accept_failed,
                                          self->sock, value, retry, NULL));
  Py_XDECREF(retry);
  Py_XDECREF(type);
  Py_XDECREF(value);
  Py_XDECREF(traceback);
  return retry == NULL || self->retry == NULL ? -1 : 0;
}

/* What errno after accept4() means.  1: go on; 0: the turn is over; -1 with an exception set. */
static int
judge(listener *self, int error)
{
  switch (error) {
  case EINTR:
  case ECONNABORTED:
    return 1;
  case EAGAIN:
#if EAGAIN != EWOULDBLOCK
  case EWOULDBLOCK:
#endif
    self->readable = false;
    return 0;
  case EMFILE:
  case ENFILE:
  case ENOBUFS:
  case ENOMEM:
    PyErr_SetFromErrno(PyExc_OSError);
    return back_off(self);
  case EBADF:
  case EINVAL:
  case ENOTSOCK:
    /* It listens no more, and accepting would fail for ever. */
    self->readable = false;
    break;
  default:
    break;
  }
  PyErr_SetFromErrno(PyExc_OSError);
  return -1;
}

/* --- running ----------------------------------------------------------------------------------- */

/* Accepts until nobody waits or the turn is over. */
static int
accept_batch(listener *self)
{
  for (int i = 0; i < self->batch && self->loop != NULL; i++) {
    struct sockaddr_storage peer;
    struct accepted from = {.peer = (struct sockaddr *)&peer, .peer_size = sizeof(peer)};
    int rc;

    from.fd =
        accept4(self->fd, (struct sockaddr *)&peer, &from.peer_size, SOCK_NONBLOCK | SOCK_CLOEXEC);
    rc = from.fd < 0 ? judge(self, errno) : serve(self, &from);
    if (rc < 0)
      return -1;
    if (from.fd < 0 && rc == 0)
      return 0;
  }
  return 0;
}

/* The exception that is set goes to the loop's handler, as of any callback. */
static int
report(native_loop *loop)
{
  PyObject *message = PyUnicode_FromString("Exception in callback Listener._accept()");
  int rc = message == NULL ? -1 : loop_report_exception(loop, message, NULL);

  Py_XDECREF(message);
  return rc;
}

int
listener_run(PyObject *object)
{
  listener *self = (listener *)object;
  PyObject *type, *value, *traceback;
  native_loop *loop;
  int rc;

  self->queued = false;
  if (self->loop == NULL || self->retry != NULL || !self->readable)
    return 0;
  loop = (native_loop *)Py_NewRef(self->loop);
  rc = accept_batch(self);
  if (rc < 0)
    rc = report(loop);
  /* Whatever exception ends the loop, those who wait are accepted when it runs again. */
  PyErr_Fetch(&type, &value, &traceback);
  if (schedule(self) < 0) {
    if (type != NULL)
      PyErr_WriteUnraisable(object);
    rc = -1;
  }
  if (type != NULL)
    PyErr_Restore(type, value, traceback);
  Py_DECREF(loop);
  return rc;
}

/* --- the type ---------------------------------------------------------------------------------- */

static PyObject *
listener_retry(listener *self, PyObject *Py_UNUSED(ignored))
{
  Py_CLEAR(self->retry);
  if (schedule(self) < 0)
    return NULL;
  Py_RETURN_NONE;
}

static PyObject *
listener_close(listener *self, PyObject *Py_UNUSED(ignored))
{
  native_loop *loop = self->loop;
  PyObject *retry = self->retry, *result = NULL;

  if (loop == NULL)
    Py_RETURN_NONE;
  self->loop = NULL;
  self->retry = NULL;
  readers_unset_transport(loop, self->fd, (PyObject *)self);
  Py_DECREF(loop);
  if (retry == NULL)
    Py_RETURN_NONE;
  result = PyObject_CallMethod(retry, "cancel", NULL);
  Py_DECREF(retry);
  return result;
}

static int
listener_init(listener *self, PyObject *args, PyObject *kwargs)
{
  static char *keywords[] = {"loop",  "sock", "protocol_factory", "server", "backlog", "set_up",
                             "plain", NULL};
  loop_state *state = PyType_GetModuleState(Py_TYPE(self));
  PyObject *loop, *sock, *factory, *server, *set_up;
  int backlog, plain;

  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOOOiOp:Listener", keywords, &loop, &sock,
                                   &factory, &server, &backlog, &set_up, &plain))
    return -1;
  if (self->sock != NULL || !PyObject_TypeCheck(loop, state->loop_type)) {
    PyErr_SetString(PyExc_TypeError, "a native event loop was expected, once");
    return -1;
  }
  self->fd = readers_fileno(state, sock);
  if (self->fd < 0 || loop_check_closed((native_loop *)loop) < 0)
    return -1;
  self->sock = Py_NewRef(sock);
  self->factory = Py_NewRef(factory);
  self->server = Py_NewRef(server);
  self->set_up = Py_NewRef(set_up);
  self->batch = backlog < 1 ? 1 : backlog < BATCH_MAX ? backlog : BATCH_MAX;
  self->plain = plain;
  self->context = PyContext_CopyCurrent();
  self->origin = origin_new(state, sock, self->fd);
  if (self->context == NULL || self->origin == NULL ||
      readers_set_transport((native_loop *)loop, self->fd, (PyObject *)self, POLLER_READ) < 0)
    return -1;
  self->loop = (native_loop *)Py_NewRef(loop);
  return 0;
}

static int
listener_traverse(listener *self, visitproc visit, void *arg)
{
  Py_VISIT(Py_TYPE(self));
  Py_VISIT(self->loop);
  Py_VISIT(self->sock);
  Py_VISIT(self->factory);
  Py_VISIT(self->server);
  Py_VISIT(self->set_up);
  Py_VISIT(self->context);
  Py_VISIT(self->retry);
  return 0;
}

static int
listener_clear(listener *self)
{
  Py_CLEAR(self->loop);
  Py_CLEAR(self->sock);
  Py_CLEAR(self->factory);
  Py_CLEAR(self->server);
  Py_CLEAR(self->set_up);
  Py_CLEAR(self->context);
  Py_CLEAR(self->retry);
  return 0;
}

static void
listener_dealloc(listener *self)
{
  PyTypeObject *type = Py_TYPE(self);

  PyObject_GC_UnTrack(self);
  (void)listener_clear(self);
  origin_decref(self->origin);
  type->tp_free(self);
  Py_DECREF(type);
}

static PyMethodDef listener_methods[] = {
    {"close", (PyCFunction)listener_close, METH_NOARGS,
     PyDoc_STR("Accept no more; the socket stays open.")},
    {"_retry", (PyCFunction)listener_retry, METH_NOARGS, PyDoc_STR("End a back-off.")},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot listener_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("Accepts the connections of a listening socket.")},
    {Py_tp_new, PyType_GenericNew},
    {Py_tp_init, listener_init},
    {Py_tp_dealloc, listener_dealloc},
    {Py_tp_traverse, listener_traverse},
    {Py_tp_clear, listener_clear},
    {Py_tp_methods, listener_methods},
    {0, NULL},
};

static PyType_Spec listener_spec = {
    .name = "erlang._loop.Listener",
    .basicsize = sizeof(listener),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = listener_slots,
};

int
listener_type_init(PyObject *module, transport_state *state)
{
  state->listener_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &listener_spec, NULL);
  return state->listener_type == NULL ? -1 : PyModule_AddType(module, state->listener_type);
}
