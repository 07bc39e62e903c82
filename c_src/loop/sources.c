/* The source table: what an event's id stands for.  An id is a slot and a generation, so that one
 * that was dropped never means another source. */
#include "loop_internal.h"

#define SOURCE_SLOT_BITS 24
#define SOURCE_SLOT_MASK ((UINT64_C(1) << SOURCE_SLOT_BITS) - 1)
#define SOURCE_ID_LIMIT (UINT64_C(1) << 60) /* what fits in an item of the ready ring */

static struct source *
sources_find(struct source_table *table, uint64_t id)
{
  uint64_t slot = id & SOURCE_SLOT_MASK;
  struct source *source;

  if (slot >= table->len)
    return NULL;
  source = &table->slots[slot];
  return source->fn != NULL && source->id == id ? source : NULL;
}

/* A free slot's index, or UINT32_MAX with an exception set. */
static uint32_t
sources_take_slot(struct source_table *table)
{
  uint32_t slot;

  if (table->first_free != 0) {
    slot = table->first_free - 1;
    table->first_free = table->slots[slot].next_free;
    assert(table->slots[slot].fn == NULL && table->first_free <= table->len);
    return slot;
  }
  if (table->len == table->capacity) {
    uint32_t capacity = table->capacity ? table->capacity * 2 : 16;
    struct source *slots = NULL;

    if (capacity <= SOURCE_SLOT_MASK)
      slots = PyMem_Realloc(table->slots, capacity * sizeof(*slots));
    if (slots == NULL) {
      PyErr_NoMemory();
      return UINT32_MAX;
    }
    table->slots = slots;
    table->capacity = capacity;
  }
  slot = table->len++;
  table->slots[slot] = (struct source){.id = slot};
  return slot;
}

uint64_t
sources_add(native_loop *loop, loop_source_fn fn, PyObject *owner)
{
  struct source_table *table = &loop->sources;
  struct source *source;
  uint32_t slot;

  if (loop_check_closed(loop) < 0)
    return 0;
  if (pending_reserve(loop->core) < 0) {
    PyErr_NoMemory();
    return 0;
  }
  slot = sources_take_slot(table);
  if (slot == UINT32_MAX) {
    pending_unreserve(loop->core);
    return 0;
  }
  source = &table->slots[slot];
  source->id += SOURCE_SLOT_MASK + 1;
  source->fn = fn;
  source->owner = Py_NewRef(owner);
  table->live++;
  assert(table->live <= table->len && table->len <= table->capacity);
  return source->id;
}

int
sources_remove(native_loop *loop, uint64_t id)
{
  struct source_table *table = &loop->sources;
  struct source *source = sources_find(table, id);
  PyObject *owner;

  if (source == NULL)
    return 0;
  assert(table->live > 0);
  owner = source->owner;
  source->fn = NULL;
  source->owner = NULL;
  table->live--;
  pending_unreserve(loop->core);
  /* A slot whose generations are used up stays unused for ever. */
  if (id + SOURCE_SLOT_MASK + 1 < SOURCE_ID_LIMIT) {
    source->next_free = table->first_free;
    table->first_free = (uint32_t)(id & SOURCE_SLOT_MASK) + 1;
  }
  Py_DECREF(owner);
  return 1;
}

int
sources_run(native_loop *loop, uint64_t id, int kind)
{
  struct source *source = sources_find(&loop->sources, id);
  PyObject *owner;
  int rc;

  if (source == NULL)
    return 0;
  /* The table may move and the source may go while it runs. */
  owner = Py_NewRef(source->owner);
  rc = source->fn(owner, kind);
  if (rc < 0) {
    PyObject *message = PyUnicode_FromString("Exception in event source");

    rc = loop_report_exception(loop, message, NULL);
    Py_XDECREF(message);
  }
  Py_DECREF(owner);
  return rc;
}

void
sources_clear(native_loop *loop)
{
  struct source_table table = loop->sources;

  loop->sources = (struct source_table){0};
  for (uint32_t i = 0; i < table.len; i++) {
    if (table.slots[i].fn != NULL)
      Py_DECREF(table.slots[i].owner);
  }
  PyMem_Free(table.slots);
}

int
sources_traverse(struct source_table *table, visitproc visit, void *arg)
{
  for (uint32_t i = 0; i < table->len; i++)
    Py_VISIT(table->slots[i].owner);
  return 0;
}
