/* The methods, attributes and object slots that the types of transports share. */
#include "transport_type.h"

/* --- methods ----------------------------------------------------------------------------------- */

static PyObject *
none_if(int rc)
{
  if (rc < 0)
    return NULL;
  Py_RETURN_NONE;
}

PyObject *
method_read_ready(stream *self, PyObject *Py_UNUSED(ignored))
{
  return none_if(self->loop != NULL && transport_may_read(self) ? self->kind->read(self) : 0);
}

PyObject *
method_write_ready(stream *self, PyObject *Py_UNUSED(ignored))
{
  return none_if(self->loop != NULL ? self->kind->write_ready(self) : 0);
}

/* After connection_made: from now on what arrives is read. */
PyObject *
method_start(stream *self, PyObject *Py_UNUSED(ignored))
{
  return none_if(transport_start(self));
}

PyObject *
method_pause_reading(stream *self, PyObject *Py_UNUSED(ignored))
{
  if (!transport_is_reading(self))
    Py_RETURN_NONE;
  self->paused = true;
  transport_hold(self);
  return none_if(transport_debug(self, "%r pauses reading"));
}

PyObject *
method_resume_reading(stream *self, PyObject *Py_UNUSED(ignored))
{
  if (self->closing || !self->paused)
    Py_RETURN_NONE;
  self->paused = false;
  /* As with a reader that is added anew: its context is that of the caller, and an end of stream
   * is reported again. */
  transport_take_context(self, &self->read_context);
  self->readable |= self->at_eof;
  self->at_eof = false;
  transport_hold(self);
  if (transport_schedule(self) < 0)
    return NULL;
  return none_if(transport_debug(self, "%r resumes reading"));
}

PyObject *
method_close(stream *self, PyObject *Py_UNUSED(ignored))
{
  return none_if(transport_close(self));
}

PyObject *
method_abort(stream *self, PyObject *Py_UNUSED(ignored))
{
  return none_if(transport_force_close(self, Py_None));
}

PyObject *
method_force_close(stream *self, PyObject *exception)
{
  return none_if(transport_force_close(self, exception));
}

PyObject *
method_fatal_error(stream *self, PyObject *args, PyObject *kwargs)
{
  static char *keywords[] = {"exc", "message", NULL};
  PyObject *exception, *message = NULL, *text;
  int rc;

  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|O:_fatal_error", keywords, &exception,
                                   &message))
    return NULL;
  if (transport_check_initialized(self) < 0)
    return NULL;
  text = message ? Py_NewRef(message) : PyUnicode_FromString(self->kind->error);
  rc = text == NULL ? -1 : transport_fatal_error(self, exception, text);
  Py_XDECREF(text);
  return none_if(rc);
}

PyObject *
method_connection_lost(stream *self, PyObject *exception)
{
  return none_if(transport_connection_lost(self, exception));
}

PyObject *
method_set_protocol(stream *self, PyObject *protocol)
{
  return none_if(transport_set_protocol(self, protocol));
}

PyObject *
method_get_protocol(stream *self, PyObject *Py_UNUSED(ignored))
{
  return Py_NewRef(self->protocol ? self->protocol : Py_None);
}

PyObject *
method_is_closing(stream *self, PyObject *Py_UNUSED(ignored))
{
  return PyBool_FromLong(self->closing);
}

PyObject *
method_is_reading(stream *self, PyObject *Py_UNUSED(ignored))
{
  return PyBool_FromLong(transport_is_reading(self));
}

PyObject *
method_maybe_resume(stream *self, PyObject *Py_UNUSED(ignored))
{
  return none_if(transport_maybe_resume(self));
}

PyObject *
method_buffer_size(stream *self, PyObject *Py_UNUSED(ignored))
{
  return PyLong_FromSize_t(self->out.bytes);
}

PyObject *
method_maybe_pause(stream *self, PyObject *Py_UNUSED(ignored))
{
  return none_if(transport_maybe_pause(self));
}

/* --- attributes that asyncio's code uses ------------------------------------------------------- */

PyObject *
transport_get_limit(PyObject *self, void *offset)
{
  return PyLong_FromSsize_t(*(Py_ssize_t *)((char *)self + (size_t)offset));
}

/* Any number, as asyncio takes it; beyond what memory can hold there is no limit. */
int
transport_set_limit(PyObject *self, PyObject *value, void *offset)
{
  double limit = value == NULL ? 0.0 : PyFloat_AsDouble(value);

  if (PyErr_Occurred()) {
    if (!PyErr_ExceptionMatches(PyExc_OverflowError))
      return -1;
    PyErr_Clear();
    limit = (double)PY_SSIZE_T_MAX;
  }
  *(Py_ssize_t *)((char *)self + (size_t)offset) =
      limit < 4611686018427387904.0 ? (Py_ssize_t)limit : PY_SSIZE_T_MAX;
  return 0;
}

static PyObject *
get_sock(stream *self, void *Py_UNUSED(closure))
{
  return Py_XNewRef(transport_socket(self));
}

static PyObject *
get_extra(stream *self, void *Py_UNUSED(closure))
{
  return Py_XNewRef(transport_extra(self, NULL));
}

PyGetSetDef transport_getset[] = {
    {"__dict__", PyObject_GenericGetDict, PyObject_GenericSetDict, NULL, NULL},
    {"_sock", (getter)get_sock, NULL, NULL, NULL},
    {"_extra", (getter)get_extra, NULL, NULL, NULL},
    {"_high_water", transport_get_limit, transport_set_limit, NULL,
     (void *)offsetof(stream, high_water)},
    {"_low_water", transport_get_limit, transport_set_limit, NULL,
     (void *)offsetof(stream, low_water)},
    {NULL, NULL, NULL, NULL, NULL},
};

/* --- the object -------------------------------------------------------------------------------- */

int
transport_traverse(stream *self, visitproc visit, void *arg)
{
  Py_VISIT(Py_TYPE(self));
  for (int i = 0; i < TRANSPORT_INHERITED_SLOTS; i++)
    Py_VISIT(self->inherited[i]);
  Py_VISIT(self->dict);
  Py_VISIT(self->loop);
  Py_VISIT(self->protocol);
  Py_VISIT(self->sock);
  Py_VISIT(self->server);
  Py_VISIT(self->extra);
  Py_VISIT(self->empty_waiter);
  Py_VISIT(self->read_context);
  Py_VISIT(self->write_context);
  Py_VISIT(self->lost_exception);
  Py_VISIT(self->clients);
  return 0;
}

int
transport_clear(stream *self)
{
  for (int i = 0; i < TRANSPORT_INHERITED_SLOTS; i++)
    Py_CLEAR(self->inherited[i]);
  buffer_drop(&self->out);
  clients_forget(self);
  Py_CLEAR(self->dict);
  Py_CLEAR(self->protocol);
  Py_CLEAR(self->sock);
  Py_CLEAR(self->server);
  Py_CLEAR(self->extra);
  Py_CLEAR(self->empty_waiter);
  Py_CLEAR(self->read_context);
  Py_CLEAR(self->write_context);
  Py_CLEAR(self->lost_exception);
  Py_CLEAR(self->loop);
  return 0;
}

void
transport_dealloc(PyObject *self)
{
  PyTypeObject *type = Py_TYPE(self);

  if (PyObject_CallFinalizerFromDealloc(self) < 0)
    return;
  PyObject_GC_UnTrack(self);
  if (((stream *)self)->weakrefs != NULL)
    PyObject_ClearWeakRefs(self);
  Py_TYPE(self)->tp_clear(self);
  origin_decref(((stream *)self)->origin);
  type->tp_free(self);
  Py_DECREF(type);
}
