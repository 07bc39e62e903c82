/* What a memoryview of a received message looks at: it keeps the Erlang binary. */
#include "byte_read.h"

typedef struct view_object {
  PyObject_HEAD
  message message;
} view_object;

/* A message that was copied into the channel's memory, or is in pieces, as bytes. */
static PyObject *
view_of_copy(message *m)
{
  PyObject *bytes = byte_channel_decode(m);
  message_release(m);
  if (bytes == NULL) {
    return NULL;
  }
  PyObject *view = PyMemoryView_FromObject(bytes);
  Py_DECREF(bytes);
  return view;
}

PyObject *
byte_view_of(channel_state *state, message *m)
{
  if (m->attachment == NULL || m->attachment->part_count != 1) {
    return view_of_copy(m);
  }
  view_object *self = PyObject_New(view_object, state->view_type);
  if (self == NULL) {
    message_release(m);
    return NULL;
  }
  self->message = *m;
  PyObject *view = PyMemoryView_FromObject((PyObject *)self);
  Py_DECREF(self);
  return view;
}

static int
view_get_buffer(PyObject *object, Py_buffer *view, int flags)
{
  view_object *self = (view_object *)object;
  const message_part *part = &self->message.attachment->parts[0];
  return PyBuffer_FillInfo(view, object, (void *)part->data, (Py_ssize_t)part->size, 1, flags);
}

/* Releasing a message needs neither scheduler nor environment. */
static void
view_dealloc(PyObject *object)
{
  view_object *self = (view_object *)object;
  PyTypeObject *type = Py_TYPE(object);
  message_release(&self->message);
  PyObject_Free(self);
  Py_DECREF(type);
}

static PyType_Slot view_slots[] = {
    {Py_tp_doc, "A received message, kept for the memoryviews of it."},
    {Py_tp_dealloc, view_dealloc},
    {Py_bf_getbuffer, view_get_buffer},
    {0, NULL},
};

PyType_Spec byte_view_spec = {
    .name = "erlang.byte_channel._Received",
    .basicsize = sizeof(view_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = view_slots,
};
