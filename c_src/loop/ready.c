/* The ready ring: what the loop runs next, in order.  Python sees it as loop._ready, a view that
 * takes asyncio's own Handle objects too. */
#include "loop_internal.h"

#define READY_MIN 64
#define READY_KEEP 65536 /* an empty ring larger than this is given back */

#ifndef NDEBUG
/* For assert alone. */
static bool
ring_is_sound(const struct ready_ring *ring)
{
  return (ring->capacity & (ring->capacity - 1)) == 0 && ring->len <= ring->capacity &&
         (ring->head < ring->capacity || ring->capacity == 0);
}
#endif

int
ready_grow(struct ready_ring *ring)
{
  size_t capacity = ring->capacity ? ring->capacity * 2 : READY_MIN;
  uintptr_t *items = PyMem_Malloc(capacity * sizeof(*items));

  if (items == NULL) {
    PyErr_NoMemory();
    return -1;
  }
  for (size_t i = 0; i < ring->len; i++)
    items[i] = ring->items[(ring->head + i) & (ring->capacity - 1)];
  PyMem_Free(ring->items);
  ring->items = items;
  ring->head = 0;
  ring->capacity = capacity;
  return 0;
}

int
ready_reserve(struct ready_ring *ring, size_t count)
{
  while (ring->capacity - ring->len < count) {
    if (ready_grow(ring) < 0)
      return -1;
  }
  return 0;
}

static inline int
push_item(struct ready_ring *ring, uintptr_t item)
{
  assert(PyGILState_Check() && item != 0);
  if (ring->len == ring->capacity && ready_grow(ring) < 0)
    return -1;
  ring->items[(ring->head + ring->len) & (ring->capacity - 1)] = item;
  ring->len++;
  assert(ring_is_sound(ring));
  return 0;
}

int
ready_push(struct ready_ring *ring, PyObject *object)
{
  if (push_item(ring, (uintptr_t)object) < 0)
    return -1;
  Py_INCREF(object);
  return 0;
}

int
ready_push_owned(struct ready_ring *ring, PyObject *object)
{
  if (push_item(ring, (uintptr_t)object) == 0)
    return 0;
  Py_DECREF(object);
  return -1;
}

int
ready_push_source(struct ready_ring *ring, uint64_t id, int kind)
{
  return push_item(ring, (uintptr_t)(id << 4 | (uint64_t)(kind & 7) << 1 | 1));
}

uintptr_t
ready_pop(struct ready_ring *ring)
{
  uintptr_t item;

  assert(ring->len > 0);
  item = ring->items[ring->head];
  ring->head = (ring->head + 1) & (ring->capacity - 1);
  ring->len--;
  assert(ring_is_sound(ring));
  return item;
}

void
ready_clear(native_loop *loop)
{
  struct ready_ring *ring = &loop->ready;

  while (ring->len > 0) {
    uintptr_t item = ready_pop(ring);

    if (READY_IS_SOURCE(item))
      continue;
    if (handle_check(loop->state, (PyObject *)item))
      handle_leave_queue((handle *)item);
    else
      Py_DECREF((PyObject *)item);
  }
  ready_shrink(ring);
}

void
ready_shrink(struct ready_ring *ring)
{
  if (ring->len > 0 || ring->capacity <= READY_KEEP)
    return;
  PyMem_Free(ring->items);
  *ring = (struct ready_ring){0};
}

int
ready_traverse(native_loop *loop, visitproc visit, void *arg)
{
  struct ready_ring *ring = &loop->ready;

  for (size_t i = 0; i < ring->len; i++) {
    uintptr_t item = ring->items[(ring->head + i) & (ring->capacity - 1)];
    int rc;

    if (READY_IS_SOURCE(item))
      continue;
    if (handle_check(loop->state, (PyObject *)item))
      rc = handle_traverse_owned((handle *)item, visit, arg);
    else
      rc = visit((PyObject *)item, arg);
    if (rc != 0)
      return rc;
  }
  return 0;
}

/* --- the view -------------------------------------------------------------------------------- */

typedef struct ready_view {
  PyObject_HEAD
  native_loop *loop;
} ready_view;

PyObject *
ready_view_new(native_loop *loop)
{
  ready_view *self = PyObject_GC_New(ready_view, loop->state->ready_type);

  if (self == NULL)
    return NULL;
  self->loop = (native_loop *)Py_NewRef(loop);
  PyObject_GC_Track(self);
  return (PyObject *)self;
}

static int
view_traverse(ready_view *self, visitproc visit, void *arg)
{
  Py_VISIT(Py_TYPE(self));
  Py_VISIT(self->loop);
  return 0;
}

static void
view_dealloc(ready_view *self)
{
  PyTypeObject *type = Py_TYPE(self);

  PyObject_GC_UnTrack(self);
  Py_DECREF(self->loop);
  PyObject_GC_Del(self);
  Py_DECREF(type);
}

static Py_ssize_t
view_length(ready_view *self)
{
  return (Py_ssize_t)self->loop->ready.len;
}

static PyObject *
view_append(ready_view *self, PyObject *object)
{
  if (ready_push(&self->loop->ready, object) < 0)
    return NULL;
  Py_RETURN_NONE;
}

static PyObject *
view_extend(ready_view *self, PyObject *iterable)
{
  PyObject *iterator = PyObject_GetIter(iterable);
  PyObject *object;

  if (iterator == NULL)
    return NULL;
  while ((object = PyIter_Next(iterator)) != NULL) {
    int rc = ready_push(&self->loop->ready, object);

    Py_DECREF(object);
    if (rc < 0)
      break;
  }
  Py_DECREF(iterator);
  if (PyErr_Occurred())
    return NULL;
  Py_RETURN_NONE;
}

/* Source events have no object; None stands for one. */
static PyObject *
view_popleft(ready_view *self, PyObject *Py_UNUSED(ignored))
{
  uintptr_t item;

  if (self->loop->ready.len == 0) {
    PyErr_SetString(PyExc_IndexError, "pop from an empty ready queue");
    return NULL;
  }
  item = ready_pop(&self->loop->ready);
  if (READY_IS_SOURCE(item))
    Py_RETURN_NONE;
  if (handle_check(self->loop->state, (PyObject *)item))
    handle_track((handle *)item);
  return (PyObject *)item;
}

static PyObject *
view_clear(ready_view *self, PyObject *Py_UNUSED(ignored))
{
  ready_clear(self->loop);
  Py_RETURN_NONE;
}

static PyObject *
view_snapshot(ready_view *self)
{
  struct ready_ring *ring = &self->loop->ready;
  PyObject *list = PyList_New((Py_ssize_t)ring->len);

  for (size_t i = 0; list != NULL && i < ring->len; i++) {
    uintptr_t item = ring->items[(ring->head + i) & (ring->capacity - 1)];

    PyList_SET_ITEM(list, (Py_ssize_t)i,
                    Py_NewRef(READY_IS_SOURCE(item) ? Py_None : (PyObject *)item));
  }
  return list;
}

static PyObject *
view_iter(ready_view *self)
{
  PyObject *list = view_snapshot(self);
  PyObject *iterator = list == NULL ? NULL : PyObject_GetIter(list);

  Py_XDECREF(list);
  return iterator;
}

static PyObject *
view_repr(ready_view *self)
{
  PyObject *list = view_snapshot(self);
  PyObject *repr = list == NULL ? NULL : PyUnicode_FromFormat("<ready %R>", list);

  Py_XDECREF(list);
  return repr;
}

static PyMethodDef view_methods[] = {
    {"append", (PyCFunction)view_append, METH_O,
     PyDoc_STR("Make a handle (anything with _run() and _cancelled) run next time round.")},
    {"extend", (PyCFunction)view_extend, METH_O, PyDoc_STR("Append each of an iterable.")},
    {"popleft", (PyCFunction)view_popleft, METH_NOARGS, PyDoc_STR("Take the oldest.")},
    {"clear", (PyCFunction)view_clear, METH_NOARGS, PyDoc_STR("Drop all.")},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot view_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("The handles that a loop runs next, oldest first.")},
    {Py_tp_dealloc, view_dealloc},
    {Py_tp_traverse, view_traverse},
    {Py_tp_iter, view_iter},
    {Py_tp_repr, view_repr},
    {Py_sq_length, view_length},
    {Py_tp_methods, view_methods},
    {0, NULL},
};

PyType_Spec ready_spec = {
    .name = "erlang._loop.Ready",
    .basicsize = sizeof(ready_view),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION |
             Py_TPFLAGS_IMMUTABLETYPE,
    .slots = view_slots,
};
