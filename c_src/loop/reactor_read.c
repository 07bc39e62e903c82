/* Receiving: into one buffer of the reactor, of which the protocol is given a read-only view.
 *
 * The view costs no copy and, while nobody keeps it, no allocation: buffer and view are used again.  A
 * view that is kept (or a slice of it, or an exception with a frame that holds it) keeps its buffer,
 * which then never changes; the reactor makes itself a new one, of a size that fits what came. */
#include "reactor.h"

#include <errno.h>
#include <sys/socket.h>

#define SMALLEST_BUFFER 4096

/* --- the buffer -------------------------------------------------------------------------------- */

static int
buffer_export(receive_buffer *self, Py_buffer *view, int flags)
{
  return PyBuffer_FillInfo(view, (PyObject *)self, self->data, (Py_ssize_t)self->used, 1, flags);
}

static void
buffer_dealloc(receive_buffer *self)
{
  PyTypeObject *type = Py_TYPE(self);

  PyMem_Free(self->data);
  type->tp_free(self);
  Py_DECREF(type);
}

static PyType_Slot buffer_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("What a reactor received.")},
    {Py_tp_dealloc, buffer_dealloc},
    {Py_bf_getbuffer, buffer_export},
    {0, NULL},
};

PyType_Spec receive_buffer_spec = {
    .name = "erlang._loop.ReceiveBuffer",
    .basicsize = sizeof(receive_buffer),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = buffer_slots,
};

static receive_buffer *
buffer_new(reactor *owner, size_t capacity)
{
  PyTypeObject *type = owner->state->reactor.buffer_type;
  receive_buffer *buffer = (receive_buffer *)type->tp_alloc(type, 0);

  if (buffer == NULL)
    return NULL;
  buffer->data = PyMem_Malloc(capacity);
  if (buffer->data == NULL) {
    Py_DECREF(buffer);
    PyErr_NoMemory();
    return NULL;
  }
  buffer->capacity = capacity;
  return buffer;
}

void
reactor_buffer_clear(reactor *self)
{
  Py_CLEAR(self->view);
  Py_CLEAR(self->buffer);
}

/* --- the view ---------------------------------------------------------------------------------- */

/* True when nobody but us can see the view or its buffer, and it does not remember anything of what it
 * showed. */
static bool
view_is_unshared(const reactor *self)
{
  PyMemoryViewObject *seen = (PyMemoryViewObject *)self->view;

  /* The view's own reference to the buffer is the other one. */
  return Py_REFCNT(seen) == 1 && Py_REFCNT(self->buffer) == 2 && seen->exports == 0 &&
         seen->mbuf->exports == 1 && seen->hash == -1 && seen->weakreflist == NULL &&
         !(seen->flags & _Py_MEMORYVIEW_RELEASED);
}

/* A borrowed memoryview of the first n bytes of the buffer. */
static PyObject *
show(reactor *self, size_t n)
{
  Py_buffer *view;

  if (self->view == NULL) {
    self->buffer->used = n;
    self->view = PyMemoryView_FromObject((PyObject *)self->buffer);
    return self->view;
  }
  view = PyMemoryView_GET_BUFFER(self->view);
  view->len = (Py_ssize_t)n;
  view->shape[0] = (Py_ssize_t)n;
  return self->view;
}

bool
reactor_is_own_view(const reactor *self, PyObject *object)
{
  PyMemoryViewObject *view = (PyMemoryViewObject *)object;

  if (self->view == NULL || !PyMemoryView_Check(object) ||
      view->mbuf != ((PyMemoryViewObject *)self->view)->mbuf ||
      (view->flags & _Py_MEMORYVIEW_RELEASED))
    return false;
  return object == self->view || PyBuffer_IsContiguous(&view->view, 'C');
}

/* What the next buffer should hold, for pieces of that size. */
static size_t
fitting(const reactor *self, size_t n)
{
  size_t capacity = SMALLEST_BUFFER;

  while (capacity < 2 * n && capacity < self->read_size)
    capacity *= 2;
  return capacity < self->read_size ? capacity : self->read_size;
}

void
reactor_view_done(reactor *self)
{
  size_t shown;

  if (self->view == NULL)
    return;
  shown = (size_t)PyMemoryView_GET_BUFFER(self->view)->len;
  if (!view_is_unshared(self)) {
    self->next_capacity = fitting(self, shown);
    reactor_buffer_clear(self);
  } else if (shown == self->buffer->capacity && shown < self->read_size) {
    self->next_capacity = fitting(self, shown);
    reactor_buffer_clear(self);
  }
}

/* --- receiving --------------------------------------------------------------------------------- */

/* After recv(): what its result says about there being more.  -1 with an OSError set, 0 when there
 * was nothing to read. */
static int
note_read(connection *self, ssize_t n, size_t room)
{
  if (n < 0) {
    if (errno == EINTR)
      return 0;
    self->readable = false;
    if (errno == EAGAIN || errno == EWOULDBLOCK)
      return 0;
    PyErr_SetFromErrno(PyExc_OSError);
    return -1;
  }
  self->reactor->received += (uint64_t)n;
  /* A short read proves that there is no more only if no end or error is behind it. */
  if ((size_t)n < room && n > 0 && !self->hung_up)
    self->readable = false;
  return 1;
}

PyObject *
reactor_receive(connection *self, int *outcome)
{
  reactor *owner = self->reactor;
  ssize_t n;

  *outcome = -1;
  if (owner->buffer == NULL)
    owner->buffer = buffer_new(owner, owner->next_capacity);
  if (owner->buffer == NULL)
    return NULL;
  n = recv(self->fd, owner->buffer->data, owner->buffer->capacity, 0);
  *outcome = note_read(self, n, owner->buffer->capacity);
  if (*outcome <= 0 || n == 0)
    return NULL;
  *outcome = -1;
  return show(owner, (size_t)n);
}

/* At most size bytes as a new bytes object: none at the end of the stream, None when nothing has
 * come. */
PyObject *
connection_read(connection *self, Py_ssize_t size)
{
  PyObject *bytes = PyBytes_FromStringAndSize(NULL, size);
  ssize_t n;
  int rc;

  if (bytes == NULL || size == 0)
    return bytes;
  n = recv(self->fd, PyBytes_AS_STRING(bytes), (size_t)size, 0);
  rc = note_read(self, n, (size_t)size);
  if (rc <= 0) {
    Py_DECREF(bytes);
    if (rc < 0)
      return NULL;
    Py_RETURN_NONE;
  }
  if (n == 0)
    /* The turn will find the end again and end the connection. */
    self->readable = true;
  if (n < size)
    _PyBytes_Resize(&bytes, n);
  return bytes;
}
