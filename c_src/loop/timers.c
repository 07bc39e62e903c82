/* The timer heap: four children a node, side by side in one cache line, and each handle knows its
 * place, so that a cancel removes it at once.
 *
 * A handle has a slot number for as long as it is in the heap; the table of places says where the
 * entry of a slot is.  So a sift moves entries and writes that dense table, but touches no handle. */
#include "loop_internal.h"

#define TIMERS_MIN 64
#define TIMERS_KEEP 4096 /* a table larger than this shrinks when it is nearly empty */
#define TIMERS_ARITY 4
#define TIMERS_MAX (UINT32_C(1) << 30)
#define CACHE_LINE 64
#define NO_SLOT UINT32_MAX

/* Which of two random deadlines comes first cannot be predicted: the compiler makes arithmetic of the
 * one comparison.  That they are equal is predicted well.  The sequence may wrap. */
static inline bool
entry_less(const struct timer_entry *a, const struct timer_entry *b)
{
  if (__builtin_expect(a->when == b->when, 0))
    return (int32_t)(a->seq - b->seq) < 0;
  return a->when < b->when;
}

#ifndef NDEBUG
#define CHECKED_WHOLE 64  /* a heap up to this size is looked at whole each time, */
#define CHECKED_EVERY 256 /* a larger one now and then */

/* For assert alone: children come after their parent, and entries, places and handles refer to each
 * other. */
static bool
timers_are_sound(const struct timer_heap *heap)
{
  if (heap->len > heap->capacity)
    return false;
  if (heap->len > CHECKED_WHOLE && heap->next_seq % CHECKED_EVERY != 0)
    return true;
  for (uint32_t i = 0; i < heap->len; i++) {
    const struct timer_entry *entry = &heap->entries[i];

    if (entry->slot >= heap->capacity || heap->places[entry->slot] != i ||
        heap->handles[entry->slot]->slot != entry->slot)
      return false;
    if (i > 0 && entry_less(entry, &heap->entries[(i - 1) / TIMERS_ARITY]))
      return false;
  }
  return true;
}
#endif

static inline void
entry_put(struct timer_heap *heap, uint32_t index, struct timer_entry entry)
{
  heap->entries[index] = entry;
  heap->places[entry.slot] = index;
}

static void
sift_up(struct timer_heap *heap, uint32_t index, struct timer_entry entry)
{
  while (index > 0) {
    uint32_t parent = (index - 1) / TIMERS_ARITY;

    if (!entry_less(&entry, &heap->entries[parent]))
      break;
    entry_put(heap, index, heap->entries[parent]);
    index = parent;
  }
  entry_put(heap, index, entry);
}

/* The first to fire of a node's children, which begin at first. */
static inline uint32_t
least_child(const struct timer_heap *heap, uint32_t first)
{
  const struct timer_entry *entries = heap->entries;
  uint32_t least = first;

  if (heap->len - first >= TIMERS_ARITY) {
    uint32_t left = first + entry_less(&entries[first + 1], &entries[first]);
    uint32_t right = first + 2 + entry_less(&entries[first + 3], &entries[first + 2]);

    return entry_less(&entries[right], &entries[left]) ? right : left;
  }
  for (uint32_t child = first + 1; child < heap->len; child++)
    least = entry_less(&entries[child], &entries[least]) ? child : least;
  return least;
}

static void
sift_down(struct timer_heap *heap, uint32_t index, struct timer_entry entry)
{
  for (;;) {
    uint32_t first = index * TIMERS_ARITY + 1;
    uint32_t least;

    if (first >= heap->len)
      break;
    least = least_child(heap, first);
    if (!entry_less(&heap->entries[least], &entry))
      break;
    entry_put(heap, index, heap->entries[least]);
    index = least;
  }
  entry_put(heap, index, entry);
}

/* Lays the three tables out in a new block, with the second entry, a first child, at a cache line's
 * start.  Slots are numbered anew, so that a smaller block has room for all. */
static int
timers_resize(struct timer_heap *heap, uint32_t capacity)
{
  size_t each = sizeof(*heap->entries) + sizeof(*heap->handles) + sizeof(*heap->places);
  char *block = PyMem_Malloc(2 * CACHE_LINE + (size_t)capacity * each);
  struct timer_heap old = *heap;
  uintptr_t start;

  if (block == NULL) {
    PyErr_NoMemory();
    return -1;
  }
  start = ((uintptr_t)block + CACHE_LINE - 1) & ~(uintptr_t)(CACHE_LINE - 1);
  heap->block = block;
  heap->capacity = capacity;
  heap->entries = (struct timer_entry *)(start + CACHE_LINE - sizeof(*heap->entries));
  heap->handles = (timer_handle **)(heap->entries + capacity);
  heap->places = (uint32_t *)(heap->handles + capacity);
  heap->free_slot = NO_SLOT;
  for (uint32_t i = 0; i < heap->len; i++) {
    struct timer_entry entry = old.entries[i];

    heap->handles[i] = old.handles[entry.slot];
    heap->handles[i]->slot = i;
    entry.slot = i;
    entry_put(heap, i, entry);
  }
  PyMem_Free(old.block);
  return 0;
}

static uint32_t
slot_take(struct timer_heap *heap, timer_handle *timer)
{
  uint32_t slot = heap->free_slot;

  /* When no slot was given back, those in use are the first ones. */
  if (slot == NO_SLOT)
    slot = heap->len;
  else
    heap->free_slot = heap->places[slot];
  heap->handles[slot] = timer;
  timer->slot = slot;
  return slot;
}

static timer_handle *
slot_give_back(struct timer_heap *heap, uint32_t slot)
{
  timer_handle *timer = heap->handles[slot];

  timer->slot = -1;
  heap->places[slot] = heap->free_slot;
  heap->free_slot = slot;
  return timer;
}

/* The heap takes a reference to the timer. */
int
timers_insert(struct timer_heap *heap, timer_handle *timer, int64_t when)
{
  struct timer_entry entry = {.when = when, .seq = (uint32_t)heap->next_seq++};

  assert(timer->slot < 0);
  if (heap->len == heap->capacity) {
    if (heap->len == TIMERS_MAX) {
      PyErr_SetString(PyExc_OverflowError, "too many timers");
      return -1;
    }
    if (timers_resize(heap, heap->capacity ? heap->capacity * 2 : TIMERS_MIN) < 0)
      return -1;
  }
  Py_INCREF(timer);
  entry.slot = slot_take(heap, timer);
  sift_up(heap, heap->len++, entry);
  assert(timers_are_sound(heap));
  return 0;
}

/* Takes the entry at index out; its handle's reference is the caller's. */
static timer_handle *
remove_at(struct timer_heap *heap, uint32_t index)
{
  timer_handle *removed;
  struct timer_entry last;

  assert(index < heap->len);
  removed = slot_give_back(heap, heap->entries[index].slot);
  last = heap->entries[--heap->len];

  if (index < heap->len) {
    if (index > 0 && entry_less(&last, &heap->entries[(index - 1) / TIMERS_ARITY]))
      sift_up(heap, index, last);
    else
      sift_down(heap, index, last);
  }
  if (heap->capacity > TIMERS_KEEP && heap->len < heap->capacity / 8 &&
      timers_resize(heap, heap->capacity / 4) < 0)
    PyErr_Clear(); /* The larger block serves as well. */
  assert(timers_are_sound(heap));
  return removed;
}

void
timers_remove(struct timer_heap *heap, timer_handle *timer)
{
  timer_handle *removed = remove_at(heap, heap->places[timer->slot]);

  assert(removed == timer);
  handle_leave_queue(&removed->base);
}

timer_handle *
timers_pop(struct timer_heap *heap)
{
  return remove_at(heap, 0);
}

void
timers_clear(struct timer_heap *heap)
{
  struct timer_heap old = *heap;

  /* Detached first: releasing a timer may run Python code that uses the loop. */
  *heap = (struct timer_heap){.next_seq = old.next_seq};
  for (uint32_t i = 0; i < old.len; i++)
    old.handles[old.entries[i].slot]->slot = -1;
  for (uint32_t i = 0; i < old.len; i++)
    handle_leave_queue(&old.handles[old.entries[i].slot]->base);
  PyMem_Free(old.block);
}

int
timers_traverse(struct timer_heap *heap, visitproc visit, void *arg)
{
  for (uint32_t i = 0; i < heap->len; i++) {
    int rc = handle_traverse_owned(&heap->handles[heap->entries[i].slot]->base, visit, arg);

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

  for (uint32_t i = 0; list != NULL && i < heap->len; i++)
    PyList_SET_ITEM(list, i, Py_NewRef((PyObject *)heap->handles[heap->entries[i].slot]));
  return list;
}
