/* The loop's bound methods, kept.  asyncio's futures and tasks ask the loop for call_soon at every
 * step, and a bound method made and freed for it costs more than what call_soon does.
 *
 * A method is kept while the type is as it was (its version says so) and while nobody could have put
 * another into the instance: through setattr(), which clears, or through __dict__, which ends all
 * keeping for this loop. */
#include "loop_internal.h"

#define METHODS_PROBES 4

static inline size_t
methods_slot(PyObject *name, size_t probe)
{
  return (((uintptr_t)name >> 4) + probe) % METHODS_KEPT;
}

void
methods_clear(native_loop *self)
{
  for (size_t i = 0; i < METHODS_KEPT; i++) {
    Py_CLEAR(self->methods.kept[i].name);
    Py_CLEAR(self->methods.kept[i].method);
  }
}

int
methods_traverse(native_loop *self, visitproc visit, void *arg)
{
  for (size_t i = 0; i < METHODS_KEPT; i++) {
    Py_VISIT(self->methods.kept[i].name);
    Py_VISIT(self->methods.kept[i].method);
  }
  return 0;
}

/* The kept method of that name, borrowed, or NULL. */
static inline PyObject *
methods_find(native_loop *self, PyObject *name)
{
  if (self->methods.version != Py_TYPE(self)->tp_version_tag)
    return NULL;
  for (size_t probe = 0; probe < METHODS_PROBES; probe++) {
    struct kept_method *kept = &self->methods.kept[methods_slot(name, probe)];

    if (kept->name == name)
      return kept->method;
    if (kept->name == NULL)
      return NULL;
  }
  return NULL;
}

/* True when object is a C method of the type, bound to self. */
static bool
is_own_method(native_loop *self, PyObject *name, PyObject *object)
{
  PyObject *descriptor;

  if (!PyCFunction_CheckExact(object) || PyCFunction_GET_SELF(object) != (PyObject *)self)
    return false;
  descriptor = _PyType_Lookup(Py_TYPE(self), name);
  return descriptor != NULL && Py_IS_TYPE(descriptor, &PyMethodDescr_Type);
}

static void
methods_keep(native_loop *self, PyObject *name, PyObject *method)
{
  unsigned int version = Py_TYPE(self)->tp_version_tag;

  if (self->closed || self->methods.dict_known || version == 0 || !PyUnicode_CHECK_INTERNED(name) ||
      !is_own_method(self, name, method))
    return;
  if (self->methods.version != version)
    methods_clear(self);
  self->methods.version = version;
  for (size_t probe = 0; probe < METHODS_PROBES; probe++) {
    struct kept_method *kept = &self->methods.kept[methods_slot(name, probe)];

    if (kept->name != NULL)
      continue;
    kept->name = Py_NewRef(name);
    kept->method = Py_NewRef(method);
    return;
  }
}

PyObject *
loop_getattro(PyObject *object, PyObject *name)
{
  native_loop *self = (native_loop *)object;
  PyObject *value = methods_find(self, name);

  if (value != NULL)
    return Py_NewRef(value);
  if (name == self->state->str_dict) {
    self->methods.dict_known = true;
    methods_clear(self);
  }
  value = PyObject_GenericGetAttr(object, name);
  if (value != NULL)
    methods_keep(self, name, value);
  return value;
}

int
loop_setattro(PyObject *object, PyObject *name, PyObject *value)
{
  native_loop *self = (native_loop *)object;
  int rc;

  Py_INCREF(name);
  if (PyUnicode_CheckExact(name))
    PyUnicode_InternInPlace(&name);
  if (name == self->state->str_time)
    self->foreign_time = true;
  else if (name == self->state->str_call_at)
    self->foreign_call_at = true;
  else if (name == self->state->str_run_once || name == self->state->str_dict)
    self->methods.dict_known = true;
  if (methods_find(self, name) != NULL || self->methods.dict_known)
    methods_clear(self);
  rc = PyObject_GenericSetAttr(object, name, value);
  Py_DECREF(name);
  return rc;
}
