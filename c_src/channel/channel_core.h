/* A channel, apart from both its faces: counted, and alive as long as either side holds it.
 *
 * Plain C.  Erlang terms refer to a handle resource, which holds one count;  Python's Channel
 * objects hold counts of their own, so that what is queued can still be drained when Erlang has
 * dropped the handle.  A channel made by Python gets its handle when it is first sent to Erlang.
 * Any thread, GIL or not, for everything here.
 */
#ifndef BEAMLOOP_CHANNEL_CORE_H
#define BEAMLOOP_CHANNEL_CORE_H

#include <stdatomic.h>

#include "channel_chores.h"
#include "queue.h"
#include "../term/handles.h"

typedef struct channel channel;

/* Wakes those who wait at one queue, as far as no call may do it. */
typedef struct channel_settle {
  channel_chore chore;
  channel *channel; /* constant; counted while the chore is posted */
  queue *queue;     /* constant */
} channel_settle;

struct channel {
  void *memory; /* constant: the channel is in it */
  atomic_size_t refs;
  queue to_python; /* Erlang sends, Python receives */
  queue to_erlang; /* Python sends, Erlang receives */
  channel_settle settle_to_python;
  channel_settle settle_to_erlang;
  int bytes;           /* constant: a byte channel, whose messages are no encoded terms */
  int binaries_as_str; /* constant: how Python gets binaries */
  atomic_int given;    /* Erlang has had a handle */
  atomic_size_t handles;
  _Atomic(void *) handle; /* the newest; it may be gone by now */
  /* Of the first one, constant once that is there: with it Erlang loses the channel, and sends nothing that
   * names another. */
  handle_number number;
  void *held; /* the handle of a channel that is not given yet, or NULL; the GIL's */
};

/* The content of a handle resource; the Erlang face adds its own fields behind. */
typedef struct channel_handle {
  channel *channel; /* constant */
} channel_handle;

/* The emulator's memory (channel_nif.c).  The C library would some time give back what thousands of channels
 * occupied, in the middle of one call, which may be a scheduler's. */
void *channel_memory_alloc(size_t size);
void channel_memory_free(void *memory);

/* limits of each direction.  With one count; NULL when memory is short. */
channel *channel_create(const queue_limits *limits, int bytes);

void channel_incref(channel *c);

/* Without locks.  The last count releases what is queued, much of it on another thread. */
void channel_decref(channel *c);

/* Closes both directions; idempotent. */
void channel_close(channel *c);

/* GIL held, without locks.  The channel's handle resource, kept; a new one where there is none any more.
 * NULL when memory is short.  A channel that is not given yet holds its handle, so that it stays the
 * same (channel_nif.c). */
void *channel_keep_handle(channel *c);

/* GIL held.  The handle goes to Erlang, or has gone there: when it is dropped the channel closes. */
void channel_handle_given(void *handle);

/* GIL held.  Drops the handle that the channel itself holds: nobody in Python will give it. */
void channel_drop_held(channel *c);

/* Channels alive in the whole process. */
size_t channel_live(void);

#endif
