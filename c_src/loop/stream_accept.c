/* Connections that a listener accepted: transports made of a descriptor alone.  What asyncio makes of
 * each connection at once (a socket object, its wrapper, two addresses) is made when asked for. */
#include "listener.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <unistd.h>

#define NAMES(state) (&(state)->transports)

/* --- the origin -------------------------------------------------------------------------------- */

static int
int_attribute(PyObject *object, PyObject *name, int *value)
{
  PyObject *number = PyObject_GetAttr(object, name);
  long found = number == NULL ? -1 : PyLong_AsLong(number);

  Py_XDECREF(number);
  *value = (int)found;
  return found == -1 && PyErr_Occurred() ? -1 : 0;
}

static bool
is_wildcard(const struct sockaddr_storage *address)
{
  if (address->ss_family == AF_INET)
    return ((const struct sockaddr_in *)(const void *)address)->sin_addr.s_addr == INADDR_ANY;
  if (address->ss_family != AF_INET6)
    return false;
  return IN6_IS_ADDR_UNSPECIFIED(&((const struct sockaddr_in6 *)(const void *)address)->sin6_addr);
}

struct origin *
origin_new(loop_state *state, PyObject *sock, int fd)
{
  struct origin *origin = PyMem_Calloc(1, sizeof(*origin));

  if (origin == NULL) {
    PyErr_NoMemory();
    return NULL;
  }
  if (int_attribute(sock, state->str_family, &origin->family) < 0 ||
      int_attribute(sock, state->str_proto, &origin->proto) < 0)
    goto error;
  origin->refs = 1;
  origin->size = sizeof(origin->address);
  if (getsockname(fd, (struct sockaddr *)&origin->address, &origin->size) < 0) {
    PyErr_SetFromErrno(PyExc_OSError);
    goto error;
  }
  origin->wildcard = is_wildcard(&origin->address);
  return origin;

error:
  PyMem_Free(origin);
  return NULL;
}

void
origin_decref(struct origin *origin)
{
  if (origin != NULL && --origin->refs == 0)
    PyMem_Free(origin);
}

PyObject *
origin_socket(const struct origin *origin, loop_state *state, int fd)
{
  PyObject *sock = PyObject_CallFunction((PyObject *)state->socket_type, "iiii", origin->family,
                                         SOCK_STREAM, origin->proto, fd);
  PyObject *result =
      sock == NULL ? NULL : PyObject_CallMethodOneArg(sock, state->str_setblocking, Py_False);

  if (sock != NULL && result == NULL) {
    PyObject *type, *value, *traceback;

    /* The descriptor stays the caller's. */
    PyErr_Fetch(&type, &value, &traceback);
    result = PyObject_CallMethod(sock, "detach", NULL);
    if (result == NULL)
      PyErr_WriteUnraisable(sock);
    Py_CLEAR(sock);
    PyErr_Restore(type, value, traceback);
  }
  Py_XDECREF(result);
  return sock;
}

/* --- what is made when asked for --------------------------------------------------------------- */

static void
set_nodelay(stream *self)
{
  int one = 1;

  if (!self->nodelay_due)
    return;
  self->nodelay_due = false;
  /* It fails only for a connection that is broken, and the next receive tells of that. */
  (void)setsockopt(self->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
}

PyObject *
transport_socket(stream *self)
{
  if (self->sock == NULL && self->open && self->origin != NULL) {
    self->sock = origin_socket(self->origin, PyType_GetModuleState(Py_TYPE(self)), self->fd);
    if (self->sock == NULL)
      return NULL;
    set_nodelay(self);
  }
  return self->sock == NULL ? Py_None : self->sock;
}

/* What the socket of a connection that has ended looks like: a closed one of its kind. */
static PyObject *
ended_socket(stream *self, loop_state *state)
{
  PyObject *sock = PyObject_CallFunction((PyObject *)state->socket_type, "iii",
                                         self->origin->family, SOCK_STREAM, self->origin->proto);
  PyObject *result = sock == NULL ? NULL : PyObject_CallMethodNoArgs(sock, state->str_close);

  if (result == NULL)
    Py_CLEAR(sock);
  Py_XDECREF(result);
  return sock;
}

static PyObject *
make_wrapped(stream *self)
{
  loop_state *state = PyType_GetModuleState(Py_TYPE(self));
  PyObject *sock = self->open ? Py_XNewRef(transport_socket(self)) : ended_socket(self, state);
  PyObject *wrapped;

  if (sock == NULL)
    return NULL;
  wrapped = PyObject_CallOneArg(NAMES(state)->transport_socket, sock);
  Py_DECREF(sock);
  return wrapped;
}

static PyObject *
make_peername(stream *self)
{
  return address_new(&self->peer.raw.any, self->peer.size);
}

static PyObject *
make_sockname(stream *self)
{
  struct sockaddr_storage address;
  socklen_t size = sizeof(address);

  if (self->own.size > 0)
    return address_new(&self->own.raw.any, self->own.size);
  if (self->open && getsockname(self->fd, (struct sockaddr *)&address, &size) == 0)
    return address_new((struct sockaddr *)&address, size);
  return address_new((struct sockaddr *)&self->origin->address, self->origin->size);
}

void
transport_note_sockname(stream *self)
{
  socklen_t size = sizeof(self->own.raw);

  if (self->origin == NULL || !self->origin->wildcard)
    return;
  if (getsockname(self->fd, &self->own.raw.any, &size) == 0 && size <= sizeof(self->own.raw))
    self->own.size = (uint8_t)size;
}

/* Makes extra[name] (NULL: all there are) of an accepted connection, unless it is there. */
static int
fill(stream *self, PyObject *name)
{
  loop_state *state = PyType_GetModuleState(Py_TYPE(self));
  const struct {
    PyObject *name;
    PyObject *(*make)(stream *);
  } known[] = {
      {NAMES(state)->str_peername, make_peername},
      {NAMES(state)->str_socket, make_wrapped},
      {NAMES(state)->str_sockname, make_sockname},
  };

  for (size_t i = 0; i < Py_ARRAY_LENGTH(known); i++) {
    int same = name == NULL ? 1 : PyObject_RichCompareBool(name, known[i].name, Py_EQ);
    PyObject *value;
    int rc;

    if (same < 0)
      return -1;
    if (!same || PyDict_Contains(self->extra, known[i].name))
      continue;
    value = known[i].make(self);
    rc = value == NULL ? -1 : PyDict_SetItem(self->extra, known[i].name, value);
    Py_XDECREF(value);
    if (rc < 0)
      return -1;
  }
  return 0;
}

PyObject *
transport_extra(stream *self, PyObject *name)
{
  if (self->extra == NULL && self->origin != NULL)
    self->extra = PyDict_New();
  if (self->extra == NULL)
    return PyErr_Occurred() ? NULL : Py_None;
  return self->origin != NULL && fill(self, name) < 0 ? NULL : self->extra;
}

/* --- the beginning ----------------------------------------------------------------------------- */

/* A name too long for its room is a Unix socket's, and rare: it is kept as an object. */
static int
keep_peer(stream *self, const struct accepted *from)
{
  loop_state *state = self->loop->state;
  PyObject *name;
  int rc;

  if (from->peer_size <= sizeof(self->peer.raw)) {
    memcpy(self->peer.raw.bytes, from->peer, from->peer_size);
    self->peer.size = (uint8_t)from->peer_size;
    return 0;
  }
  self->extra = PyDict_New();
  name = self->extra == NULL ? NULL : address_new(from->peer, from->peer_size);
  rc = name == NULL ? -1 : PyDict_SetItem(self->extra, NAMES(state)->str_peername, name);
  Py_XDECREF(name);
  return rc;
}

stream *
stream_accept(native_loop *loop, struct origin *origin, PyObject *protocol,
              const struct accepted *from)
{
  PyTypeObject *type = loop->state->transports.stream_type;
  stream *self = (stream *)type->tp_alloc(type, 0);

  if (self == NULL)
    return NULL;
  if (transport_begin(self, &stream_kind, loop, from->fd, protocol) < 0 ||
      keep_peer(self, from) < 0 || ready_push(&loop->ready, (PyObject *)self) < 0) {
    /* The caller closes the descriptor. */
    readers_disclaim(loop, from->fd, (PyObject *)self);
    self->open = false;
    Py_DECREF(self);
    return NULL;
  }
  self->origin = origin;
  origin->refs++;
  self->nodelay_due = origin->proto == IPPROTO_TCP && origin->family != AF_UNIX;
  self->write_context = Py_NewRef(from->context);
  self->starting = true;
  return self;
}

/* Tells the protocol; what it raises goes to the loop's handler, as of any callback. */
static int
tell_made(stream *self, native_loop *loop, PyObject *method, PyObject *context)
{
  PyObject *args[] = {(PyObject *)self};
  PyObject *result = NULL;

  if (PyContext_Enter(context) == 0) {
    result = PyObject_CallOneArg(method, (PyObject *)self);
    if (PyContext_Exit(context) < 0)
      Py_CLEAR(result);
  }
  Py_XDECREF(result);
  return result != NULL ? 0 : handle_report(loop, method, args, 1, context);
}

int
stream_begin(stream *self)
{
  PyObject *context = self->write_context, *method = NULL;
  native_loop *loop = self->loop;
  int rc;

  self->starting = false;
  self->write_context = NULL;
  if (loop != NULL)
    method = PyObject_GetAttr(self->protocol, NAMES(loop->state)->str_connection_made);
  if (method == NULL) {
    /* It is no protocol: asyncio drops the connection without a word. */
    PyErr_Clear();
    Py_XDECREF(context);
    self->closing = true;
    return transport_drop(self);
  }
  Py_INCREF(loop);
  rc = tell_made(self, loop, method, context);
  Py_DECREF(method);
  Py_DECREF(context);
  if (!self->closing && self->loop != NULL) {
    PyObject *type, *value, *traceback;

    PyErr_Fetch(&type, &value, &traceback);
    set_nodelay(self);
    if (transport_start(self) < 0) {
      if (type != NULL)
        PyErr_WriteUnraisable((PyObject *)self);
      rc = -1;
    }
    if (type != NULL)
      PyErr_Restore(type, value, traceback);
  }
  Py_DECREF(loop);
  return rc;
}
