/* Waiting for a message of whichever of several queues has one first.
 *
 * Plain C.  The waiter has an arm in each queue; all arms share one atomic word, which names the arm
 * that was handed a message.  A queue that comes second finds the word taken and hands its message to
 * the next in its list: so one message is handed at most, and none is lost.  A queue that is closed and
 * drained drops out; when all have, the waiter is told.
 *
 * Locks: those of the queues, one at a time.
 */
#ifndef BEAMLOOP_QUEUE_SELECT_H
#define BEAMLOOP_QUEUE_SELECT_H

#include <stdatomic.h>

#include "queue.h"

typedef struct queue_select queue_select;

typedef struct queue_arm {
  queue_waiter base;
  queue *queue;
  queue_select *select;
} queue_arm;

struct queue_select {
  /* A queue's lock held; runs once for each wait at most.  As a queue_waiter's wake. */
  int (*wake)(queue_select *s, queue_laters *laters);
  void *owner;        /* the wake's own */
  size_t count;       /* constant */
  atomic_size_t won;  /* 0: it waits; an arm's number from 1 on; or SELECT_CLOSED */
  atomic_size_t open; /* queues that may give a message still */
  queue_arm arms[];
};

/* All queues of count arms; wake and each arm's queue are set afterwards.  NULL when memory is short. */
queue_select *queue_select_new(size_t count, enum queue_kind kind);

/* Nobody waits with it. */
void queue_select_free(queue_select *s);

/* Any thread, GIL or not; each takes the queues' locks.  *arm is which queue's the message is. */

/* Claims a message that is there, looking at the queue of arm number first before the others:
 * QUEUE_OK, QUEUE_EMPTY, or QUEUE_CLOSED when all are closed and drained. */
int queue_select_take(queue_select *s, size_t first, message *out, size_t *arm);

/* As queue_select_take, but QUEUE_EMPTY makes it wait. */
int queue_select_wait(queue_select *s, size_t first, message *out, size_t *arm);

/* Claims what it was handed: QUEUE_OK; QUEUE_CLOSED; QUEUE_EMPTY when it waits still.  It waits no more
 * after QUEUE_OK and QUEUE_CLOSED. */
int queue_select_claim(queue_select *s, message *out, size_t *arm);

/* Stops waiting and gives back what it was handed; its wake runs no more.  Harmless when it does not
 * wait. */
void queue_select_cancel(queue_select *s);

/* Stops waiting if it has not been woken: 1; else 0. */
int queue_select_withdraw(queue_select *s);

/* 1 until it is woken. */
int queue_select_is_waiting(const queue_select *s);

#endif
