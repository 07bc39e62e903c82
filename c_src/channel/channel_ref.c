/* erlang.channel.ChannelRef: a channel's handle as it came from Erlang.
 *
 * It keeps the handle, so that it can be sent back as the same channel, and with it the channel
 * open.
 */
#include "channel_python.h"

#include <structmember.h>

#include "../term/handles.h"

typedef struct ref_object {
  PyObject_HEAD
  PyObject *weakrefs;
  void *resource; /* one count */
} ref_object;

PyObject *
channel_ref_wrap(channel_state *state, void *resource)
{
  ref_object *self = PyObject_New(ref_object, state->ref_type);
  if (self == NULL) {
    handle_release(resource);
    return NULL;
  }
  self->weakrefs = NULL;
  self->resource = resource;
  return (PyObject *)self;
}

void *
channel_ref_resource(channel_state *state, PyObject *object)
{
  return Py_IS_TYPE(object, state->ref_type) ? ((ref_object *)object)->resource : NULL;
}

static channel *
channel_of(PyObject *self)
{
  return ((channel_handle *)((ref_object *)self)->resource)->channel;
}

static void
ref_dealloc(PyObject *object)
{
  ref_object *self = (ref_object *)object;
  PyTypeObject *type = Py_TYPE(object);
  if (self->weakrefs != NULL) {
    PyObject_ClearWeakRefs(object);
  }
  handle_release(self->resource);
  PyObject_Free(self);
  Py_DECREF(type);
}

static PyObject *
ref_repr(PyObject *self)
{
  return PyUnicode_FromFormat("<erlang.ChannelRef%s at %p>",
                              channel_of(self)->bytes ? " of bytes" : "", channel_of(self));
}

static Py_hash_t
ref_hash(PyObject *self)
{
  return _Py_HashPointer(channel_of(self));
}

static PyObject *
ref_compare(PyObject *self, PyObject *other, int op)
{
  if (!Py_IS_TYPE(other, Py_TYPE(self)) || (op != Py_EQ && op != Py_NE)) {
    Py_RETURN_NOTIMPLEMENTED;
  }
  return PyBool_FromLong((channel_of(self) == channel_of(other)) == (op == Py_EQ));
}

static PyMemberDef ref_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(ref_object, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot ref_slots[] = {
    {Py_tp_doc, "A channel's handle as it came from Erlang; Channel(ref), or ByteChannel(ref) of "
                "one of bytes,\n"
                "receives from it, and sent back to Erlang it is the same channel."},
    {Py_tp_dealloc, ref_dealloc},
    {Py_tp_repr, ref_repr},
    {Py_tp_hash, ref_hash},
    {Py_tp_richcompare, ref_compare},
    {Py_tp_members, ref_members},
    {0, NULL},
};

PyType_Spec channel_ref_spec = {
    .name = "erlang.channel.ChannelRef",
    .basicsize = sizeof(ref_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = ref_slots,
};
