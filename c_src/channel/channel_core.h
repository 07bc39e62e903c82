/* A channel, apart from both its faces: counted, and alive as long as either side holds it.
 *
 * Plain C.  Erlang terms refer to a handle resource, which holds one count;  Python's Channel
 * objects hold counts of their own, so that what is queued can still be drained when Erlang has
 * dropped the handle.  Any thread, GIL or not, for everything here.
 */
#ifndef BEAMLOOP_CHANNEL_CORE_H
#define BEAMLOOP_CHANNEL_CORE_H

#include <stdatomic.h>

#include "queue.h"

typedef struct channel {
  atomic_size_t refs;
  queue to_python;     /* Erlang sends, Python receives */
  int binaries_as_str; /* constant: how Python gets binaries */
} channel;

/* The content of a handle resource; the Erlang face adds its own fields behind. */
typedef struct channel_handle {
  channel *channel; /* constant */
} channel_handle;

/* limits of the direction to Python.  With one count; NULL when memory is short. */
channel *channel_create(const queue_limits *limits);

void channel_incref(channel *c);

/* Without locks.  The last count releases what is queued, much of it on another thread. */
void channel_decref(channel *c);

/* Closes both directions; idempotent. */
void channel_close(channel *c);

/* Channels alive in the whole process. */
size_t channel_live(void);

#endif
