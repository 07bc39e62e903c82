#include "message_store.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define CHUNK_SLOTS 126
#define SEGMENT_FIRST 4096
#define SEGMENT_MAX 65536

struct message_segment {
  atomic_size_t holds; /* one for each unreleased message, one for the store that writes to it */
  size_t capacity;
  size_t used; /* guarded by the queue's lock */
  uint8_t data[];
};

struct message_chunk {
  message_chunk *next;
  size_t first; /* slots first .. end-1 are in use */
  size_t end;
  message slots[CHUNK_SLOTS];
};

static atomic_size_t live_blocks;

static message_segment *
segment_new(size_t capacity)
{
  message_segment *s = malloc(sizeof(*s) + capacity);
  if (s == NULL) {
    return NULL;
  }
  atomic_init(&s->holds, 1);
  s->capacity = capacity;
  s->used = 0;
  atomic_fetch_add_explicit(&live_blocks, 1, memory_order_relaxed);
  return s;
}

/* Any thread. */
static void
segment_drop(message_segment *s)
{
  if (atomic_fetch_sub_explicit(&s->holds, 1, memory_order_acq_rel) == 1) {
    atomic_fetch_sub_explicit(&live_blocks, 1, memory_order_relaxed);
    free(s);
  }
}

/* The segment with room for size bytes.  Segments start small, so that a channel that carries
 * little stays small, and grow to SEGMENT_MAX; a larger payload gets one of its own size. */
static message_segment *
segment_for(message_store *store, size_t size)
{
  message_segment *s = store->segment;
  size_t capacity = SEGMENT_FIRST;
  if (s != NULL) {
    /* Only the store holds it: every message in it is gone, write from the start again. */
    if (atomic_load_explicit(&s->holds, memory_order_acquire) == 1) {
      s->used = 0;
    }
    if (s->capacity - s->used >= size) {
      return s;
    }
    capacity = s->capacity * 4 > SEGMENT_MAX ? SEGMENT_MAX : s->capacity * 4;
  }
  s = segment_new(capacity > size ? capacity : size);
  if (s != NULL) {
    if (store->segment != NULL) {
      segment_drop(store->segment);
    }
    store->segment = s;
  }
  return s;
}

int
message_copy_in(message_store *store, const uint8_t *data, size_t size, message *out)
{
  out->data = NULL;
  out->size = size;
  out->segment = NULL;
  out->attachment = NULL;
  if (size == 0) {
    return 0;
  }
  message_segment *s = segment_for(store, size);
  if (s == NULL) {
    return -1;
  }
  memcpy(s->data + s->used, data, size);
  out->data = s->data + s->used;
  out->segment = s;
  s->used += size;
  atomic_fetch_add_explicit(&s->holds, 1, memory_order_relaxed);
  return 0;
}

void
message_release(message *m)
{
  if (m->segment != NULL) {
    segment_drop(m->segment);
    m->segment = NULL;
  }
  if (m->attachment != NULL) {
    atomic_fetch_sub_explicit(&live_blocks, 1, memory_order_relaxed);
    m->attachment->release(m->attachment);
    m->attachment = NULL;
  }
  m->data = NULL;
}

void
message_store_init(message_store *store)
{
  memset(store, 0, sizeof(*store));
}

void
message_store_clear(message_store *store)
{
  message m;
  while (message_pop(store, &m)) {
    message_release(&m);
  }
  free(store->head);
  free(store->spare);
  if (store->segment != NULL) {
    segment_drop(store->segment);
  }
  message_store_init(store);
}

static message_chunk *
chunk_new(message_store *store)
{
  message_chunk *c = store->spare;
  store->spare = NULL;
  if (c == NULL) {
    c = malloc(sizeof(*c));
  }
  if (c != NULL) {
    c->next = NULL;
    c->first = c->end = 0;
  }
  return c;
}

void
message_attach(message *m, message_attachment *attachment)
{
  m->attachment = attachment;
  atomic_fetch_add_explicit(&live_blocks, 1, memory_order_relaxed);
}

void
message_detach(message *m)
{
  m->attachment = NULL;
  atomic_fetch_sub_explicit(&live_blocks, 1, memory_order_relaxed);
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
  self->base = (message_attachment){payload_copy_release, &self->part, 1};
  return &self->base;
}

int
message_push(message_store *store, const message *m)
{
  message_chunk *c = store->tail;
  if (c == NULL || c->end == CHUNK_SLOTS) {
    c = chunk_new(store);
    if (c == NULL) {
      return -1;
    }
    if (store->tail == NULL) {
      store->head = c;
    } else {
      store->tail->next = c;
    }
    store->tail = c;
  }
  c->slots[c->end++] = *m;
  return 0;
}

/* A free slot before the first message, which becomes the first. */
static message *
slot_before_head(message_store *store)
{
  message_chunk *c = store->head;
  if (c != NULL && c->first == c->end) {
    c->first = c->end = CHUNK_SLOTS;
  }
  if (c == NULL || c->first == 0) {
    c = chunk_new(store);
    if (c == NULL) {
      abort();
    }
    c->first = c->end = CHUNK_SLOTS;
    c->next = store->head;
    store->head = c;
    if (store->tail == NULL) {
      store->tail = c;
    }
  }
  return &c->slots[--c->first];
}

void
message_push_back(message_store *store, const message *m)
{
  message *slot = slot_before_head(store);
  message_chunk *c = store->head;
  size_t i = c->first + 1;
  /* Messages that were given back earlier may be older than this one: they stay in front. */
  for (;;) {
    if (i == c->end) {
      c = c->next;
      if (c == NULL) {
        break;
      }
      i = c->first;
    }
    if (c->slots[i].sequence > m->sequence) {
      break;
    }
    *slot = c->slots[i];
    slot = &c->slots[i++];
  }
  *slot = *m;
}

int
message_pop(message_store *store, message *out)
{
  message_chunk *c = store->head;
  if (c == NULL || c->first == c->end) {
    return 0;
  }
  *out = c->slots[c->first++];
  if (c->first < c->end) {
    return 1;
  }
  c->first = c->end = 0;
  if (c->next != NULL) {
    store->head = c->next;
    free(store->spare);
    store->spare = c;
  }
  return 1;
}

size_t
message_live_blocks(void)
{
  return atomic_load_explicit(&live_blocks, memory_order_relaxed);
}
