/* The types Handle and TimerHandle: what Python sees of what call_soon and its like return. */
#include "handle_internal.h"

#include <structmember.h>

/* --- methods --------------------------------------------------------------------------------- */

static PyObject *
handle_method_cancel(handle *self, PyObject *Py_UNUSED(ignored))
{
  /* The heap may hold the last reference to a timer. */
  Py_INCREF(self);
  handle_cancel(self);
  Py_DECREF(self);
  Py_RETURN_NONE;
}

static PyObject *
handle_method_cancelled(handle *self, PyObject *Py_UNUSED(ignored))
{
  return PyBool_FromLong(self->flags & HANDLE_CANCELLED);
}

static PyObject *
handle_method_run(handle *self, PyObject *Py_UNUSED(ignored))
{
  if (handle_run(self) < 0)
    return NULL;
  Py_RETURN_NONE;
}

static PyObject *
handle_method_get_context(handle *self, PyObject *Py_UNUSED(ignored))
{
  return Py_NewRef(self->context != NULL ? self->context : Py_None);
}

static PyObject *
timer_method_when(timer_handle *self, PyObject *Py_UNUSED(ignored))
{
  return PyFloat_FromDouble(self->when);
}

/* Appends one more word of the repr. */
static int
repr_add(PyObject *words, PyObject *word)
{
  int rc = word == NULL ? -1 : PyList_Append(words, word);

  Py_XDECREF(word);
  return rc;
}

static int
repr_add_callback(handle *self, PyObject *words)
{
  PyObject *args;
  int rc;

  if (self->callback == NULL)
    return 0;
  args = handle_args_tuple(self);
  if (args == NULL)
    return -1;
  rc = repr_add(words, debug_format_callback(self->loop, self->callback, args));
  Py_DECREF(args);
  return rc;
}

static int
repr_add_created(handle *self, PyObject *words)
{
  PyObject *frame, *file, *line;
  Py_ssize_t depth;
  int rc = -1;

  if (self->source_traceback == NULL)
    return 0;
  depth = PySequence_Size(self->source_traceback);
  if (depth <= 0)
    return depth < 0 ? -1 : 0;
  frame = PySequence_GetItem(self->source_traceback, depth - 1);
  if (frame == NULL)
    return -1;
  file = PySequence_GetItem(frame, 0);
  line = file == NULL ? NULL : PySequence_GetItem(frame, 1);
  if (line != NULL)
    rc = repr_add(words, PyUnicode_FromFormat("created at %S:%S", file, line));
  Py_XDECREF(file);
  Py_XDECREF(line);
  Py_DECREF(frame);
  return rc;
}

static int
repr_add_when(handle *self, PyObject *words)
{
  PyObject *when;
  int rc;

  if (!is_timer(self))
    return 0;
  when = PyFloat_FromDouble(((timer_handle *)self)->when);
  if (when == NULL)
    return -1;
  rc = repr_add(words, PyUnicode_FromFormat("when=%S", when));
  Py_DECREF(when);
  return rc;
}

/* The words of the repr, as asyncio.Handle._repr_info gives them. */
static PyObject *
handle_method_repr_info(handle *self, PyObject *Py_UNUSED(ignored))
{
  const char *name = strrchr(Py_TYPE(self)->tp_name, '.') + 1;
  PyObject *words = PyList_New(0);

  if (words == NULL)
    return NULL;
  if (repr_add(words, PyUnicode_FromString(name)) < 0 ||
      ((self->flags & HANDLE_CANCELLED) &&
       repr_add(words, PyUnicode_FromString("cancelled")) < 0) ||
      repr_add_when(self, words) < 0 || repr_add_callback(self, words) < 0 ||
      repr_add_created(self, words) < 0)
    Py_CLEAR(words);
  return words;
}

static PyObject *
handle_repr(handle *self)
{
  PyObject *words, *space, *joined = NULL, *result = NULL;

  if (self->repr != NULL)
    return Py_NewRef(self->repr);
  if (self->loop == NULL)
    return PyUnicode_FromString("<Handle>");
  words = handle_method_repr_info(self, NULL);
  space = PyUnicode_FromString(" ");
  if (words != NULL && space != NULL)
    joined = PyUnicode_Join(space, words);
  if (joined != NULL)
    result = PyUnicode_FromFormat("<%U>", joined);
  Py_XDECREF(joined);
  Py_XDECREF(space);
  Py_XDECREF(words);
  return result;
}

static Py_hash_t
timer_hash(timer_handle *self)
{
  PyObject *when = PyFloat_FromDouble(self->when);
  Py_hash_t hash = when == NULL ? -1 : PyObject_Hash(when);

  Py_XDECREF(when);
  return hash;
}

/* 1 when callback, arguments and cancellation agree, 0 when not, -1 on error. */
static int
timer_same_call(handle *a, handle *b)
{
  PyObject *left, *right;
  int equal = a->callback == b->callback;

  if ((a->flags ^ b->flags) & HANDLE_CANCELLED)
    return 0;
  if (!equal && a->callback != NULL && b->callback != NULL)
    equal = PyObject_RichCompareBool(a->callback, b->callback, Py_EQ);
  if (equal <= 0)
    return equal;
  left = handle_args_tuple(a);
  right = handle_args_tuple(b);
  equal = left == NULL || right == NULL ? -1 : PyObject_RichCompareBool(left, right, Py_EQ);
  Py_XDECREF(left);
  Py_XDECREF(right);
  return equal;
}

static PyObject *
timer_richcompare(PyObject *a, PyObject *b, int op)
{
  timer_handle *left = (timer_handle *)a;
  timer_handle *right = (timer_handle *)b;
  int equal = 0;
  bool result = false;

  if (!Py_IS_TYPE(b, Py_TYPE(a)))
    Py_RETURN_NOTIMPLEMENTED;
  if (left->when == right->when && op != Py_LT && op != Py_GT) {
    equal = timer_same_call(&left->base, &right->base);
    if (equal < 0)
      return NULL;
  }
  switch (op) {
  case Py_LT:
    result = left->when < right->when;
    break;
  case Py_GT:
    result = left->when > right->when;
    break;
  case Py_LE:
    result = left->when < right->when || equal;
    break;
  case Py_GE:
    result = left->when > right->when || equal;
    break;
  case Py_EQ:
    result = equal;
    break;
  default:
    result = !equal;
  }
  return PyBool_FromLong(result);
}

/* --- attributes ------------------------------------------------------------------------------ */

static PyObject *
or_none(PyObject *object)
{
  return Py_NewRef(object != NULL ? object : Py_None);
}

static PyObject *
handle_get_callback(handle *self, void *Py_UNUSED(closure))
{
  return or_none(self->flags & HANDLE_CANCELLED ? NULL : self->callback);
}

static PyObject *
handle_get_args(handle *self, void *Py_UNUSED(closure))
{
  if ((self->flags & HANDLE_CANCELLED) || self->callback == NULL)
    Py_RETURN_NONE;
  return handle_args_tuple(self);
}

static PyObject *
handle_get_cancelled(handle *self, void *Py_UNUSED(closure))
{
  return PyBool_FromLong(self->flags & HANDLE_CANCELLED);
}

static PyObject *
timer_get_scheduled(timer_handle *self, void *Py_UNUSED(closure))
{
  return PyBool_FromLong(self->slot >= 0);
}

static PyMethodDef handle_methods[] = {
    {"cancel", (PyCFunction)handle_method_cancel, METH_NOARGS,
     PyDoc_STR("Cancel the call; one that has begun goes on.")},
    {"cancelled", (PyCFunction)handle_method_cancelled, METH_NOARGS,
     PyDoc_STR("True when the call was cancelled.")},
    {"get_context", (PyCFunction)handle_method_get_context, METH_NOARGS,
     PyDoc_STR("The contextvars.Context that the callback runs in.")},
    {"_run", (PyCFunction)handle_method_run, METH_NOARGS,
     PyDoc_STR("Call the callback now; its exception goes to the loop's exception handler.")},
    {"_repr_info", (PyCFunction)handle_method_repr_info, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyMethodDef timer_methods[] = {
    {"when", (PyCFunction)timer_method_when, METH_NOARGS,
     PyDoc_STR("The time of the call, in seconds of loop.time().")},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef handle_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(handle, weakrefs), READONLY, NULL},
    {"_context", T_OBJECT, offsetof(handle, context), READONLY, NULL},
    {"_loop", T_OBJECT, offsetof(handle, loop), READONLY, NULL},
    {"_source_traceback", T_OBJECT, offsetof(handle, source_traceback), 0, NULL},
    {"_repr", T_OBJECT, offsetof(handle, repr), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyMemberDef timer_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(handle, weakrefs), READONLY, NULL},
    {"_when", T_DOUBLE, offsetof(timer_handle, when), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef handle_getset[] = {
    {"_callback", (getter)handle_get_callback, NULL, NULL, NULL},
    {"_args", (getter)handle_get_args, NULL, NULL, NULL},
    {"_cancelled", (getter)handle_get_cancelled, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyGetSetDef timer_getset[] = {
    {"_scheduled", (getter)timer_get_scheduled, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot handle_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("A call that the event loop will make; cancel() drops it.")},
    {Py_tp_dealloc, handle_dealloc},
    {Py_tp_traverse, handle_traverse},
    {Py_tp_clear, handle_clear},
    {Py_tp_repr, handle_repr},
    {Py_tp_methods, handle_methods},
    {Py_tp_members, handle_members},
    {Py_tp_getset, handle_getset},
    {0, NULL},
};

PyType_Spec handle_spec = {
    .name = "erlang._loop.Handle",
    .basicsize = sizeof(handle),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE |
             Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = handle_slots,
};

static PyType_Slot timer_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("A call that the event loop will make at a given time.")},
    {Py_tp_dealloc, handle_dealloc},
    {Py_tp_traverse, handle_traverse},
    {Py_tp_clear, handle_clear},
    {Py_tp_repr, handle_repr},
    {Py_tp_hash, timer_hash},
    {Py_tp_richcompare, timer_richcompare},
    {Py_tp_methods, timer_methods},
    {Py_tp_members, timer_members},
    {Py_tp_getset, timer_getset},
    {0, NULL},
};

PyType_Spec timer_handle_spec = {
    .name = "erlang._loop.TimerHandle",
    .basicsize = sizeof(timer_handle),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION |
             Py_TPFLAGS_IMMUTABLETYPE,
    .slots = timer_slots,
};
