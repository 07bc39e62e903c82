/* What the queue's two files share: its lock, and how messages come in and waiters learn of it. */
#ifndef BEAMLOOP_QUEUE_INTERNAL_H
#define BEAMLOOP_QUEUE_INTERNAL_H

#include "../loop/lock_check.h"
#include "queue.h"

/* queue.c */

void queue_lock(queue *q);
void queue_unlock(queue *q);

#define QUEUE_WAKES_AT_ONCE 16 /* while the lock is held */

/* Whether one more may be woken before the lock is free again. */
static inline int
queue_may_wake(const queue_laters *laters)
{
  /* A grant may wake a receiver besides the sender; one place is for memory. */
  return laters->count + 3 <= QUEUE_LATER_MAX && laters->woken < QUEUE_WAKES_AT_ONCE;
}

/* Lock held; it is not afterwards.  Does what is left for later, and wakes more of those who are to be
 * woken, or has that done. */
void queue_finish(queue *q, queue_laters *laters);

/* Lock held.  Wakes senders and receivers as the queue's state allows, while queue_may_wake.  After
 * each claim while there is attention. */
void queue_settle(queue *q, queue_laters *laters);

/* Lock held.  QUEUE_OK when a message of that size may come in now; QUEUE_CLOSED, QUEUE_TOO_LARGE,
 * QUEUE_BUSY (which is counted). */
int queue_admit(queue *q, size_t size);

/* Lock held, room is there, laters has place.  Queues or hands a message as queue_send does: QUEUE_OK
 * or QUEUE_NO_MEMORY. */
int queue_put(queue *q, const uint8_t *data, size_t size, message_attachment *attachment,
              queue_laters *laters);

/* What a message of that many bytes counts. */
static inline size_t
queue_charge(size_t size)
{
  return size < QUEUE_MESSAGE_MIN ? QUEUE_MESSAGE_MIN : size;
}

/* Lock held.  Bytes and messages in the queue, as far as known_out tells: never less than there are. */
static inline size_t
queue_size(const queue *q)
{
  return q->in.size - q->known_out.size;
}

static inline size_t
queue_messages(const queue *q)
{
  return (size_t)(q->in.messages - q->known_out.messages);
}

/* Lock held.  Looks at what receivers have claimed, which costs both sides a cache line. */
void queue_look(queue *q);

/* Lock held.  Whether so many bytes fit beside what is there and what is reserved. */
static inline int
queue_fits(const queue *q, size_t cost)
{
  size_t used = queue_size(q) + q->reserved_size;
  /* What was returned may be more than there is room for. */
  return used <= q->limits.max_size && cost <= q->limits.max_size - used &&
         queue_messages(q) + q->reserved_messages < q->limits.max_messages;
}

/* queue_drain.c */

/* Lock held.  Wakes those for whom little enough is left, while queue_may_wake. */
void queue_wake_drained(queue *q, queue_laters *laters);

/* queue_senders.c */

/* Lock held, closed or not.  Serves the senders that wait, in order, while laters has place. */
void queue_serve_senders(queue *q, queue_laters *laters);

#endif
