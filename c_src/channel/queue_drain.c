/* Who waits until little is left in a queue, without taking the place of those who wait for room. */
#include "queue_internal.h"

/* Lock held; d is in the list. */
static void
unlink_drain(queue *q, queue_drain *d)
{
  if (d->prev != NULL) {
    d->prev->next = d->next;
  } else {
    q->first_drain = d->next;
  }
  if (d->next != NULL) {
    d->next->prev = d->prev;
  }
  d->next = d->prev = NULL;
  d->waiting = 0;
}

/* Lock held. */
static int
is_drained(const queue *q, const queue_drain *d)
{
  return q->closed || queue_size(q) <= d->mark;
}

void
queue_wake_drained(queue *q, queue_laters *laters)
{
  queue_drain *next;
  for (queue_drain *d = q->first_drain; d != NULL && queue_may_wake(laters); d = next) {
    next = d->next;
    if (is_drained(q, d)) {
      unlink_drain(q, d);
      laters->woken++;
      d->wake(d, laters);
    }
  }
}

int
queue_drain_wait(queue *q, queue_drain *d, size_t above)
{
  queue_laters laters;
  queue_laters_init(&laters);
  queue_lock(q);
  queue_look(q);
  int waits = queue_size(q) > above && !is_drained(q, d);
  if (waits) {
    d->waiting = 1;
    d->prev = NULL;
    d->next = q->first_drain;
    if (q->first_drain != NULL) {
      q->first_drain->prev = d;
    }
    q->first_drain = d;
    /* From here on a claim looks for it: who claimed before is seen by this settle. */
    atomic_store(&q->attention, 1);
    queue_settle(q, &laters);
  }
  queue_finish(q, &laters);
  return waits;
}

int
queue_drain_cancel(queue *q, queue_drain *d)
{
  queue_lock(q);
  int waited = d->waiting;
  if (waited) {
    unlink_drain(q, d);
  }
  queue_unlock(q);
  return waited;
}

int
queue_drain_is_waiting(queue *q, const queue_drain *d)
{
  queue_lock(q);
  int waiting = d->waiting;
  queue_unlock(q);
  return waiting;
}
