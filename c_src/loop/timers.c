/* The timer heap: four children a node, so that a sift touches few cache lines, and each handle
 * knows its place, so that a cancel removes it at once. */
#include "loop_internal.h"

#define TIMERS_MIN 64
#define TIMERS_ARITY 4

/* Without branches: which of two random deadlines comes first cannot be predicted. */
static inline bool
entry_less(const struct timer_entry *a, const struct timer_entry *b)
{
  return (a->when < b->when) | ((a->when == b->when) & (a->seq < b->seq));
}

static inline void
entry_put(struct timer_heap *heap, Py_ssize_t index, struct timer_entry entry)
{
  heap->entries[index] = entry;
  entry.handle->heap_index = index;
}

static void
sift_up(struct timer_heap *heap, Py_ssize_t index, struct timer_entry entry)
{
  while (index > 0) {
    Py_ssize_t parent = (index - 1) / TIMERS_ARITY;

    if (!entry_less(&entry, &heap->entries[parent]))
      break;
    entry_put(heap, index, heap->entries[parent]);
    index = parent;
  }
  entry_put(heap, index, entry);
}

static void
sift_down(struct timer_heap *heap, Py_ssize_t index, struct timer_entry entry)
{
  for (;;) {
    Py_ssize_t first = index * TIMERS_ARITY + 1;
    Py_ssize_t end = first + TIMERS_ARITY < heap->len ? first + TIMERS_ARITY : heap->len;
    Py_ssize_t least = first;

    if (first >= heap->len)
      break;
    for (Py_ssize_t child = first + 1; child < end; child++)
      least = entry_less(&heap->entries[child], &heap->entries[least]) ? child : least;
    if (!entry_less(&heap->entries[least], &entry))
      break;
    entry_put(heap, index, heap->entries[least]);
    index = least;
  }
  entry_put(heap, index, entry);
}

static int
timers_resize(struct timer_heap *heap, Py_ssize_t capacity)
{
  struct timer_entry *entries = PyMem_Realloc(heap->entries, (size_t)capacity * sizeof(*entries));

  if (entries == NULL) {
    PyErr_NoMemory();
    return -1;
  }
  heap->entries = entries;
  heap->capacity = capacity;
  return 0;
}

/* The heap takes a reference to the timer. */
int
timers_insert(struct timer_heap *heap, timer_handle *timer, int64_t when)
{
  struct timer_entry entry = {.when = when, .seq = heap->next_seq, .handle = timer};

  if (heap->len == heap->capacity &&
      timers_resize(heap, heap->capacity ? heap->capacity * 2 : TIMERS_MIN) < 0)
    return -1;
  heap->next_seq++;
  Py_INCREF(timer);
  sift_up(heap, heap->len++, entry);
  return 0;
}

/* Takes the entry at index out; its reference is the caller's. */
static void
remove_at(struct timer_heap *heap, Py_ssize_t index)
{
  struct timer_entry last = heap->entries[--heap->len];
  timer_handle *removed = index == heap->len ? last.handle : heap->entries[index].handle;

  removed->heap_index = -1;
  if (index < heap->len) {
    if (index > 0 && entry_less(&last, &heap->entries[(index - 1) / TIMERS_ARITY]))
      sift_up(heap, index, last);
    else
      sift_down(heap, index, last);
  }
  if (heap->capacity > TIMERS_MIN && heap->len < heap->capacity / 8 &&
      timers_resize(heap, heap->capacity / 4) < 0)
    PyErr_Clear(); /* The larger array serves as well. */
}

void
timers_remove(struct timer_heap *heap, timer_handle *timer)
{
  remove_at(heap, timer->heap_index);
  handle_leave_queue(&timer->base);
}

timer_handle *
timers_pop(struct timer_heap *heap)
{
  timer_handle *timer = heap->entries[0].handle;

  remove_at(heap, 0);
  return timer;
}

void
timers_clear(struct timer_heap *heap)
{
  struct timer_entry *entries = heap->entries;
  Py_ssize_t len = heap->len;

  /* Detached first: releasing a timer may run Python code that uses the loop. */
  heap->entries = NULL;
  heap->len = heap->capacity = 0;
  for (Py_ssize_t i = 0; i < len; i++)
    entries[i].handle->heap_index = -1;
  for (Py_ssize_t i = 0; i < len; i++)
    handle_leave_queue(&entries[i].handle->base);
  PyMem_Free(entries);
}

int
timers_traverse(struct timer_heap *heap, visitproc visit, void *arg)
{
  for (Py_ssize_t i = 0; i < heap->len; i++) {
    int rc = handle_traverse_owned(&heap->entries[i].handle->base, visit, arg);

    if (rc != 0)
      return rc;
  }
  return 0;
}

/* A new list of the timers, the first to fire at index 0, the rest in heap order. */
PyObject *
timers_snapshot(struct timer_heap *heap)
{
  PyObject *list = PyList_New(heap->len);

  for (Py_ssize_t i = 0; list != NULL && i < heap->len; i++)
    PyList_SET_ITEM(list, i, Py_NewRef((PyObject *)heap->entries[i].handle));
  return list;
}
