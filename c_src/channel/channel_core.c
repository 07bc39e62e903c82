#include "channel_core.h"

#include <stddef.h>
#include <stdint.h>

#include "../term/handles.h"

/* More queued messages and waits to be told than this, or more bytes, are released on a thread of their own:
 * whoever drops the last count may be a scheduler or hold the GIL, and must not work for milliseconds.  Large
 * memory is given back to the operating system page by page, and a message may hold thousands of handles. */
#define RELEASE_AT_ONCE_MAX 1000
#define RELEASE_AT_ONCE_BYTES 262144

static atomic_size_t live;

static int
settle(channel_chore *chore)
{
  channel_settle *self = (channel_settle *)chore;
  int more = queue_settle_more(self->queue);
  if (!more) {
    channel_decref(self->channel);
  }
  return more;
}

/* Its caller holds a count of the channel; the chore has one of its own. */
static void
settle_later(channel *c, channel_settle *self)
{
  channel_incref(c);
  channel_chore_post(&self->chore);
}

static void
settle_to_python(queue *q)
{
  channel *c = (channel *)((char *)q - offsetof(channel, to_python));
  settle_later(c, &c->settle_to_python);
}

static void
settle_to_erlang(queue *q)
{
  channel *c = (channel *)((char *)q - offsetof(channel, to_erlang));
  settle_later(c, &c->settle_to_erlang);
}

channel *
channel_create(const queue_limits *limits, int bytes)
{
  /* Its parts are on cache lines of their own. */
  void *memory = channel_memory_alloc(sizeof(channel) + _Alignof(channel));
  if (memory == NULL) {
    return NULL;
  }
  uintptr_t aligned = ((uintptr_t)memory + _Alignof(channel) - 1) & ~(_Alignof(channel) - 1);
  channel *c = (channel *)aligned;
  c->memory = memory;
  atomic_init(&c->refs, 1);
  c->bytes = bytes;
  c->binaries_as_str = 0;
  queue_init(&c->to_python, limits);
  queue_init(&c->to_erlang, limits);
  c->to_python.settle_later = settle_to_python;
  c->to_erlang.settle_later = settle_to_erlang;
  c->settle_to_python = (channel_settle){{.step = settle}, c, &c->to_python};
  c->settle_to_erlang = (channel_settle){{.step = settle}, c, &c->to_erlang};
  atomic_init(&c->given, 0);
  atomic_init(&c->handles, 0);
  atomic_init(&c->handle, NULL);
  c->held = NULL;
  atomic_fetch_add_explicit(&live, 1, memory_order_relaxed);
  return c;
}

void
channel_incref(channel *c)
{
  atomic_fetch_add_explicit(&c->refs, 1, memory_order_relaxed);
}

static void
destroy(channel *c)
{
  queue_destroy(&c->to_python);
  queue_destroy(&c->to_erlang);
  channel_memory_free(c->memory);
  atomic_fetch_sub_explicit(&live, 1, memory_order_relaxed);
}

static void *
destroy_on_thread(void *c)
{
  destroy(c);
  return NULL;
}

void
channel_decref(channel *c)
{
  if (atomic_fetch_sub_explicit(&c->refs, 1, memory_order_acq_rel) != 1) {
    return;
  }
  pthread_t thread;
  queue_info to_python, to_erlang;
  queue_get_info(&c->to_python, &to_python);
  queue_get_info(&c->to_erlang, &to_erlang);
  /* The new thread inherits a mask that blocks what ours block. */
  size_t waits = queue_count_kinds(to_python.waiters) + queue_count_kinds(to_erlang.waiters);
  int much = to_python.messages + to_erlang.messages + waits > RELEASE_AT_ONCE_MAX ||
             to_python.size + to_erlang.size > RELEASE_AT_ONCE_BYTES;
  if (much && pthread_create(&thread, NULL, destroy_on_thread, c) == 0) {
    pthread_detach(thread);
  } else {
    destroy(c);
  }
}

void
channel_close(channel *c)
{
  queue_close(&c->to_python);
  queue_close(&c->to_erlang);
}

void
channel_handle_given(void *handle)
{
  channel *c = ((channel_handle *)handle)->channel;
  atomic_store(&c->given, 1);
  channel_drop_held(c);
}

void
channel_drop_held(channel *c)
{
  void *held = c->held;
  c->held = NULL;
  if (held != NULL) {
    handle_release(held);
  }
}

size_t
channel_live(void)
{
  return atomic_load_explicit(&live, memory_order_relaxed);
}
