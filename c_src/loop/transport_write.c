/* Sending, for the transports of byte streams: what the kernel does not take at once is kept. */
#include "transport.h"

#include <errno.h>

#define WRITE_BATCH 256 /* chunks that one call gathers */

/* As send(); an error that only means "not now" is 0. */
static Py_ssize_t
send_iov(stream *self, struct iovec *iov, size_t count)
{
  ssize_t n;

  do {
    n = self->kind->send(self->fd, iov, count);
  } while (n < 0 && errno == EINTR);
  if (n >= 0)
    return n;
  if (errno == EAGAIN || errno == EWOULDBLOCK)
    return 0;
  PyErr_SetFromErrno(PyExc_OSError);
  return -1;
}

/* Sends the first chunks, at most max, by one call; *total is how much they hold. */
static Py_ssize_t
send_chunks(stream *self, struct iovec *iov, size_t max, size_t *total)
{
  const struct write_buffer *out = &self->out;
  size_t count = out->count < max ? out->count : max;

  *total = 0;
  for (size_t i = 0; i < count; i++) {
    const struct write_chunk *chunk = &out->chunks[out->first + i];

    iov[i] = (struct iovec){.iov_base = (char *)chunk->start, .iov_len = chunk->size};
    *total += chunk->size;
  }
  return send_iov(self, iov, count);
}

/* The same for many, whose vector takes much of the stack. */
static __attribute__((noinline)) Py_ssize_t
send_many(stream *self, size_t *total)
{
  struct iovec iov[WRITE_BATCH];

  return send_chunks(self, iov, WRITE_BATCH, total);
}

int
transport_send_buffer(stream *self)
{
  struct write_buffer *out = &self->out;

  while (out->count > 0) {
    struct iovec one;
    size_t total;
    Py_ssize_t n = out->count == 1 ? send_chunks(self, &one, 1, &total) : send_many(self, &total);

    if (n < 0)
      return -1;
    buffer_consume(out, (size_t)n);
    if (n == 0 || ((size_t)n < total && !self->kind->takes_parts)) {
      self->writable = false;
      return 0;
    }
  }
  return 0;
}

int
transport_write_failed(stream *self)
{
  PyObject *type, *value, *traceback;
  PyObject *waiter = Py_XNewRef(self->empty_waiter);
  PyObject *result;
  int rc;

  PyErr_Fetch(&type, &value, &traceback);
  PyErr_NormalizeException(&type, &value, &traceback);
  Py_INCREF(value);
  PyErr_Restore(type, Py_NewRef(value), traceback);
  Py_DECREF(value);
  buffer_drop(&self->out);
  rc = transport_fatal(self, self->kind->write_error);
  if (rc == 0 && waiter != NULL) {
    result = PyObject_CallMethod(waiter, "set_exception", "O", value);
    Py_XDECREF(result);
    rc = result == NULL ? -1 : 0;
  }
  Py_DECREF(value);
  Py_XDECREF(waiter);
  return rc;
}

void
transport_take_context(stream *self, PyObject **slot)
{
  PyObject *context = PyContext_CopyCurrent();

  if (context == NULL) {
    PyErr_Clear();
    if (*slot == NULL)
      *slot = Py_NewRef(self->read_context);
    return;
  }
  Py_XSETREF(*slot, context);
}

int
transport_await_writable(stream *self)
{
  transport_take_context(self, &self->write_context);
  if (transport_register(self) < 0)
    return -1;
  transport_hold(self);
  return 0;
}

int
transport_drop_write(stream *self, int *lost, const char *warning)
{
  loop_state *state = PyType_GetModuleState(Py_TYPE(self));
  PyObject *result;

  if ((*lost)++ < WARN_LOST_WRITES)
    return 0;
  result = PyObject_CallMethod(state->logger, "warning", "s", warning);
  Py_XDECREF(result);
  return result == NULL ? -1 : 0;
}

int
transport_refuse(stream *self, PyObject *data)
{
  PyObject *type, *value, *traceback;
  int truth;

  /* Whether there is data at all is asked first; of a released memoryview not even that is known. */
  PyErr_Fetch(&type, &value, &traceback);
  truth = PyObject_IsTrue(data);
  if (truth <= 0) {
    Py_XDECREF(type);
    Py_XDECREF(value);
    Py_XDECREF(traceback);
    return truth;
  }
  PyErr_Restore(type, value, traceback);
  return transport_fatal(self, self->kind->write_error);
}

PyObject *
transport_unchanging(PyObject *data)
{
  PyObject *base;

  if (PyBytes_CheckExact(data))
    return data;
  if (!PyMemoryView_Check(data))
    return NULL;
  base = PyMemoryView_GET_BASE(data);
  return base != NULL && PyBytes_CheckExact(base) ? base : NULL;
}

int
transport_keep_rest(stream *self, PyObject *data, const Py_buffer *view, size_t sent)
{
  const char *start = (const char *)view->buf + sent;
  size_t left = (size_t)view->len - sent;
  PyObject *owner = transport_unchanging(data);
  int rc;

  if (owner != NULL)
    return buffer_append(&self->out, owner, start, left);
  owner = PyBytes_FromStringAndSize(start, (Py_ssize_t)left);
  if (owner == NULL)
    return -1;
  rc = buffer_append(&self->out, owner, PyBytes_AS_STRING(owner), left);
  Py_DECREF(owner);
  return rc;
}

int
transport_send_view(stream *self, PyObject *data, const Py_buffer *view)
{
  struct iovec iov = {.iov_base = view->buf, .iov_len = (size_t)view->len};
  Py_ssize_t sent = send_iov(self, &iov, 1);

  if (sent < 0)
    return transport_fatal(self, self->kind->write_error);
  if (sent == view->len)
    return 0;
  self->writable = sent > 0 && self->kind->takes_parts;
  /* What comes after a part that is missing is not what was written: that ends the connection. */
  if (transport_keep_rest(self, data, view, (size_t)sent) < 0)
    return sent > 0 ? transport_fatal(self, self->kind->write_error) : -1;
  if (transport_await_writable(self) < 0 || transport_schedule(self) < 0)
    return transport_fatal(self, self->kind->write_error);
  return transport_maybe_pause(self);
}
