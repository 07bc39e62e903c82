/* What a stream reader holds. */
#include "aio.h"

aio_data *
aio_data_new(const aio_state *state)
{
  aio_data *self = (aio_data *)state->data_type->tp_alloc(state->data_type, 0);

  if (self != NULL)
    self->state = state;
  return self;
}

/* --- keeping and taking ------------------------------------------------------------------------- */

/* Adds to the bytearray.  One that is exported raises BufferError, as it does for asyncio. */
static int
append(aio_data *self, const char *from, Py_ssize_t size)
{
  Py_ssize_t had;

  if (self->buffer == NULL) {
    self->buffer = PyByteArray_FromStringAndSize(from, size);
    return self->buffer == NULL ? -1 : 0;
  }
  had = PyByteArray_GET_SIZE(self->buffer);
  if (PyByteArray_Resize(self->buffer, had + size) < 0)
    return -1;
  memcpy(PyByteArray_AS_STRING(self->buffer) + had, from, (size_t)size);
  return 0;
}

/* Moves the rest of the piece into the bytearray, which is empty. */
static int
merge(aio_data *self)
{
  if (self->piece == NULL)
    return 0;
  if (append(self, aio_data_start(self), aio_data_size(self)) < 0)
    return -1;
  Py_CLEAR(self->piece);
  return 0;
}

static int
keep(aio_data *self, PyObject *bytes)
{
  if (!self->shown && aio_data_size(self) == 0) {
    self->piece = Py_NewRef(bytes);
    self->offset = 0;
    return 0;
  }
  if (merge(self) < 0)
    return -1;
  return append(self, PyBytes_AS_STRING(bytes), PyBytes_GET_SIZE(bytes));
}

static PyObject *
take_from_piece(aio_data *self, Py_ssize_t size)
{
  PyObject *taken;

  if (self->offset == 0 && size == PyBytes_GET_SIZE(self->piece)) {
    taken = self->piece;
    self->piece = NULL;
    return taken;
  }
  taken = PyBytes_FromStringAndSize(aio_data_start(self), size);
  if (taken == NULL)
    return NULL;
  self->offset += size;
  if (self->offset == PyBytes_GET_SIZE(self->piece))
    Py_CLEAR(self->piece);
  return taken;
}

static int
drop_front(PyObject *buffer, Py_ssize_t size)
{
  if (size == PyByteArray_GET_SIZE(buffer))
    return PyByteArray_Resize(buffer, 0);
  return PySequence_DelSlice(buffer, 0, size);
}

PyObject *
aio_data_take(aio_data *self, Py_ssize_t size)
{
  PyObject *taken;

  if (self->piece != NULL)
    return take_from_piece(self, size);
  taken = PyBytes_FromStringAndSize(aio_data_start(self), size);
  if (taken != NULL && size > 0 && drop_front(self->buffer, size) < 0)
    Py_CLEAR(taken);
  return taken;
}

PyObject *
aio_data_show(aio_data *self)
{
  if (merge(self) < 0 || (self->buffer == NULL && append(self, NULL, 0) < 0))
    return NULL;
  self->shown = true;
  return Py_NewRef(self->buffer);
}

/* --- the other side ----------------------------------------------------------------------------- */

static int
wake(aio_data *self)
{
  PyObject *waiter = self->waiter;
  PyObject *cancelled;
  int rc;

  if (!aio_is_some(waiter))
    return 0;
  self->waiter = NULL;
  cancelled = PyObject_CallMethodNoArgs(waiter, self->state->str_cancelled);
  rc = cancelled == NULL ? -1 : PyObject_IsTrue(cancelled);
  Py_XDECREF(cancelled);
  if (rc == 0)
    rc = aio_discard(PyObject_CallMethodOneArg(waiter, self->state->str_set_result, Py_None));
  Py_DECREF(waiter);
  return rc < 0 ? -1 : 0;
}

static int
pause_transport(aio_data *self)
{
  PyObject *result = PyObject_CallMethodNoArgs(self->transport, self->state->str_pause_reading);

  if (result == NULL) {
    if (!PyErr_ExceptionMatches(PyExc_NotImplementedError))
      return -1;
    PyErr_Clear();
    Py_CLEAR(self->transport);
    return 0;
  }
  Py_DECREF(result);
  self->paused = true;
  return 0;
}

int
aio_data_feed(aio_data *self, PyObject *bytes)
{
  if (PyBytes_GET_SIZE(bytes) == 0)
    return 0;
  if (keep(self, bytes) < 0 || wake(self) < 0)
    return -1;
  if (!aio_is_some(self->transport) || self->paused ||
      (double)aio_data_size(self) <= 2 * self->limit_value)
    return 0;
  return pause_transport(self);
}

int
aio_data_resume(aio_data *self, bool always)
{
  if (!self->paused || (!always && (double)aio_data_size(self) > self->limit_value))
    return 0;
  self->paused = false;
  if (!aio_is_some(self->transport))
    return 0;
  return aio_discard(PyObject_CallMethodNoArgs(self->transport, self->state->str_resume_reading));
}

/* --- the object ---------------------------------------------------------------------------------- */

static int
data_traverse(aio_data *self, visitproc visit, void *arg)
{
  Py_VISIT(Py_TYPE(self));
  Py_VISIT(self->buffer);
  Py_VISIT(self->loop);
  Py_VISIT(self->transport);
  Py_VISIT(self->waiter);
  Py_VISIT(self->exception);
  Py_VISIT(self->limit);
  return 0;
}

static int
data_clear(aio_data *self)
{
  Py_CLEAR(self->piece);
  Py_CLEAR(self->buffer);
  Py_CLEAR(self->loop);
  Py_CLEAR(self->transport);
  Py_CLEAR(self->waiter);
  Py_CLEAR(self->exception);
  Py_CLEAR(self->limit);
  return 0;
}

static void
data_dealloc(aio_data *self)
{
  PyTypeObject *type = Py_TYPE(self);

  PyObject_GC_UnTrack(self);
  (void)data_clear(self);
  type->tp_free(self);
  Py_DECREF(type);
}

static PyType_Slot data_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("What a stream reader holds.")},
    {Py_tp_dealloc, data_dealloc},
    {Py_tp_traverse, data_traverse},
    {Py_tp_clear, data_clear},
    {0, NULL},
};

PyType_Spec aio_data_spec = {
    .name = "erlang._loop.ReaderData",
    .basicsize = sizeof(aio_data),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION |
             Py_TPFLAGS_IMMUTABLETYPE,
    .slots = data_slots,
};
