#include "message_store.h"

#include <assert.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "message_pool.h"

#define CHUNK_SLOTS 126
#define SEGMENT_FIRST 4096
#define SEGMENT_MAX 65536
#define SPARE_SEGMENTS 8
#define LARGE_FROM ((size_t)4 << 20) /* bytes queued from which on segments are the pool's blocks */

/* More than the messages of any segment. */
#define STORE_HOLDS ((size_t)1 << 40)

#define CACHE_LINE 64

struct message_segment {
  /* STORE_HOLDS while a store writes to it, less one for each message that was released; from then on
   * one for each that was not.  So a writer does not touch what the releasing threads write. */
  atomic_size_t holds;
  char apart[CACHE_LINE - sizeof(atomic_size_t)];
  size_t capacity;
  size_t used;    /* guarded by the queue's lock, and so: */
  size_t written; /* messages */
  _Alignas(max_align_t) uint8_t data[];
};

/* Of a segment that is a block of the pool. */
#define LARGE_CAPACITY (MESSAGE_POOL_BLOCK - sizeof(message_segment))

struct message_chunk {
  message_chunk *next;
  size_t first; /* slots first .. end-1 are in use */
  size_t end;
  message slots[CHUNK_SLOTS];
};

static atomic_size_t live_blocks;

/* Segments of SEGMENT_MAX that nobody uses, kept for the next need. */
static _Atomic(message_segment *) spare_segments[SPARE_SEGMENTS];

/* Any thread. */
static message_segment *
spare_segment(void)
{
  for (int i = 0; i < SPARE_SEGMENTS; i++) {
    if (atomic_load_explicit(&spare_segments[i], memory_order_relaxed) != NULL) {
      message_segment *s = atomic_exchange(&spare_segments[i], NULL);
      if (s != NULL) {
        return s;
      }
    }
  }
  return NULL;
}

static void
segment_reset(message_segment *s)
{
  atomic_store_explicit(&s->holds, STORE_HOLDS, memory_order_relaxed);
  s->used = 0;
  s->written = 0;
}

static void
segment_begin(message_segment *s, size_t capacity)
{
  s->capacity = capacity;
  segment_reset(s);
  atomic_fetch_add_explicit(&live_blocks, 1, memory_order_relaxed);
}

static message_segment *
segment_new(size_t capacity)
{
  message_segment *s = capacity == SEGMENT_MAX ? spare_segment() : NULL;
  if (s == NULL) {
    s = malloc(sizeof(*s) + capacity);
  }
  if (s == NULL) {
    return NULL;
  }
  segment_begin(s, capacity);
  return s;
}

/* A block of the pool; NULL when none is ready. */
static message_segment *
segment_large(void)
{
  message_segment *s = message_pool_take();
  if (s != NULL) {
    segment_begin(s, LARGE_CAPACITY);
  }
  return s;
}

/* Any thread. */
static void
segment_free(message_segment *s)
{
  atomic_fetch_sub_explicit(&live_blocks, 1, memory_order_relaxed);
  if (s->capacity == LARGE_CAPACITY) {
    message_pool_give(s);
    return;
  }
  for (int i = 0; s->capacity == SEGMENT_MAX && i < SPARE_SEGMENTS; i++) {
    message_segment *none = NULL;
    if (atomic_load_explicit(&spare_segments[i], memory_order_relaxed) == NULL &&
        atomic_compare_exchange_strong(&spare_segments[i], &none, s)) {
      return;
    }
  }
  free(s);
}

/* Any thread.  Takes away so many holds. */
static void
segment_drop(message_segment *s, size_t count)
{
  size_t holds = atomic_fetch_sub_explicit(&s->holds, count, memory_order_acq_rel);
  assert(holds >= count);
  if (holds == count) {
    segment_free(s);
  }
}

void
message_segment_retire(message_segment *segment)
{
  segment_drop(segment, STORE_HOLDS - segment->written);
}

message_segment *
message_place_shrink(message_place *place)
{
  message_segment *s = place->large ? place->segment : NULL;
  if (s != NULL) {
    place->segment = NULL;
    place->large = 0;
  }
  return s;
}

void
message_place_clear(message_place *place)
{
  if (place->segment != NULL) {
    message_segment_retire(place->segment);
  }
  if (place->group != NULL) {
    place->group->leave(place->group);
  }
  place->segment = NULL;
  place->group = NULL;
  place->large = 0;
}

/* The place gets a segment for size bytes.  Segments start small, so that a channel that carries little
 * stays small, and grow to SEGMENT_MAX, or while very much is queued to a block of the pool, if one is
 * ready; a larger payload gets one of its own size.  NULL when memory is short. */
static message_segment *
renew_segment(message_place *place, size_t size)
{
  message_segment *old = place->segment, *s = NULL;
  size_t capacity = SEGMENT_FIRST;
  if (old != NULL) {
    capacity = old->capacity * 4 > SEGMENT_MAX ? SEGMENT_MAX : old->capacity * 4;
  }
  if (capacity == SEGMENT_MAX && size <= SEGMENT_MAX && place->queued != NULL &&
      place->queued(place) >= LARGE_FROM) {
    s = segment_large();
  }
  int large = s != NULL;
  if (s == NULL) {
    s = segment_new(capacity > size ? capacity : size);
  }
  if (s == NULL) {
    return NULL;
  }
  if (old != NULL) {
    message_segment_retire(old);
  }
  place->segment = s;
  place->large = large;
  if (large) {
    place->grown(place);
  }
  return s;
}

/* The segment with room for size bytes; NULL when memory is short. */
static message_segment *
segment_for(message_place *place, size_t size)
{
  message_segment *s = place->segment;
  if (s != NULL && s->capacity - s->used >= size) {
    return s;
  }
  /* Every message in it is gone: write from the start again. */
  if (s != NULL && s->capacity >= size && s->capacity != LARGE_CAPACITY &&
      atomic_load_explicit(&s->holds, memory_order_acquire) == STORE_HOLDS - s->written) {
    segment_reset(s);
    return s;
  }
  return renew_segment(place, size);
}

int
message_copy_in(message_place *place, const uint8_t *data, size_t size, message *out)
{
  out->data = NULL;
  out->size = size;
  out->segment = NULL;
  out->attachment = NULL;
  if (size == 0) {
    return 0;
  }
  message_segment *s = segment_for(place, size);
  if (s == NULL) {
    return -1;
  }
  memcpy(s->data + s->used, data, size);
  out->data = s->data + s->used;
  out->segment = s;
  s->used += size;
  s->written++;
  assert(s->used <= s->capacity);
  return 0;
}

void
message_trim(message *m, size_t count)
{
  assert(count < m->size);
  m->size -= count;
  if (m->data != NULL) {
    m->data += count;
    return;
  }
  message_attachment *a = m->attachment;
  while (count >= a->parts[0].size) {
    count -= a->parts[0].size;
    a->parts++;
    a->part_count--;
  }
  a->parts[0].data += count;
  a->parts[0].size -= count;
}

void
message_release(message *m)
{
  if (m->attachment != NULL) {
    atomic_fetch_sub_explicit(&live_blocks, 1, memory_order_relaxed);
    m->attachment->release(m->attachment);
    m->attachment = NULL;
  }
  /* The attachment may have lain in it. */
  if (m->segment != NULL) {
    segment_drop(m->segment, 1);
    m->segment = NULL;
  }
  m->data = NULL;
}

static message_chunk *
chunk_new(message_list *list)
{
  message_chunk *c = list->spare;
  list->spare = NULL;
  if (c == NULL) {
    c = malloc(sizeof(*c));
  }
  if (c != NULL) {
    c->next = NULL;
    c->first = c->end = 0;
  }
  return c;
}

/* Where what was at old, part of what moved from one place to another, is now. */
static const void *
moved(const void *old, const message_attachment *from, const message_attachment *to)
{
  size_t offset = (size_t)((const char *)old - (const char *)from);
  return offset < from->movable ? (const char *)to + offset : old;
}

/* Copies it into the segment, and lets it refer to itself there. */
static message_attachment *
move_attachment(const message_attachment *from, uint8_t *place)
{
  message_attachment *to = (message_attachment *)place;
  memcpy(place, from, from->movable);
  message_part *parts = (message_part *)moved(from->parts, from, to);
  for (size_t i = 0; i < to->part_count; i++) {
    parts[i].data = moved(parts[i].data, from, to);
  }
  to->parts = parts;
  return to;
}

int
message_attach(message_place *place, message *m, message_attachment *attachment)
{
  if (attachment->movable > 0) {
    message_segment *s = segment_for(place, attachment->movable + sizeof(max_align_t));
    if (s == NULL) {
      return -1;
    }
    size_t used = (s->used + sizeof(void *) - 1) & ~(sizeof(void *) - 1);
    attachment = move_attachment(attachment, s->data + used);
    if (attachment->join != NULL && attachment->join(attachment, &place->group) < 0) {
      return -1;
    }
    s->used = used + attachment->movable;
    assert(s->used <= s->capacity);
    s->written++;
    m->segment = s;
  }
  m->attachment = attachment;
  atomic_fetch_add_explicit(&live_blocks, 1, memory_order_relaxed);
  return 0;
}

void
message_detach(message *m)
{
  message_attachment *attachment = m->attachment;
  m->attachment = NULL;
  atomic_fetch_sub_explicit(&live_blocks, 1, memory_order_relaxed);
  if (attachment->join != NULL) {
    attachment->release(attachment);
  }
}

/* A payload that waits outside of a store. */
typedef struct payload_copy {
  message_attachment base;
  message_part part;
  message_attachment *along;
  uint8_t data[];
} payload_copy;

/* Any thread. */
static void
payload_copy_release(message_attachment *base)
{
  payload_copy *self = (payload_copy *)base;
  if (self->along != NULL) {
    self->along->release(self->along);
  }
  free(self);
}

message_attachment *
message_attachment_copy(const uint8_t *data, size_t size, message_attachment *along)
{
  payload_copy *self = malloc(sizeof(*self) + size);
  if (self == NULL) {
    return NULL;
  }
  memcpy(self->data, data, size);
  self->part = (message_part){self->data, size};
  self->along = along;
  self->base =
      (message_attachment){.release = payload_copy_release, .parts = &self->part, .part_count = 1};
  return &self->base;
}

int
message_push(message_list *list, const message *m)
{
  message_chunk *c = list->tail;
  if (c == NULL || c->end == CHUNK_SLOTS) {
    c = chunk_new(list);
    if (c == NULL) {
      return -1;
    }
    if (list->tail == NULL) {
      list->head = c;
    } else {
      list->tail->next = c;
    }
    list->tail = c;
  }
  assert(c->first <= c->end && c->next == NULL);
  c->slots[c->end++] = *m;
  return 0;
}

void
message_push_back(message_list *list, const message *m)
{
  message_heap_put(&list->returned, m);
}

int
message_list_is_empty(const message_list *list)
{
  return list->returned.first == NULL &&
         (list->head == NULL || list->head->first == list->head->end);
}

int
message_pop(message_list *list, message *out)
{
  message_chunk *c = list->head;
  /* What was given back was taken before what has not been taken yet. */
  if (message_heap_take(&list->returned, out)) {
    return 1;
  }
  if (c == NULL || c->first == c->end) {
    return 0;
  }
  assert(c->first < c->end && c->end <= CHUNK_SLOTS);
  *out = c->slots[c->first++];
  if (c->first < c->end) {
    return 1;
  }
  c->first = c->end = 0;
  if (c->next != NULL) {
    list->head = c->next;
    free(list->spare);
    list->spare = c;
  }
  return 1;
}

void
message_move_all(message_list *from, message_list *to)
{
  message_chunk *spare = to->spare;
  assert(message_list_is_empty(to) && from->returned.first == NULL);
  if (spare == NULL) {
    spare = to->head; /* an empty list may still have one chunk */
  } else {
    free(to->head);
  }
  to->head = from->head;
  to->tail = from->tail;
  to->spare = NULL;
  from->head = from->tail = NULL;
  if (from->spare == NULL) {
    from->spare = spare;
  } else {
    free(spare);
  }
}

void
message_list_clear(message_list *list)
{
  message m;
  while (message_pop(list, &m)) {
    message_release(&m);
  }
  free(list->head);
  free(list->spare);
  *list = (message_list){.head = NULL};
}

size_t
message_live_blocks(void)
{
  return atomic_load_explicit(&live_blocks, memory_order_relaxed);
}
