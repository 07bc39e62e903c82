/* One direction of a channel: a bounded queue of messages and the receivers that wait for them.
 *
 * Plain C: knows neither Python nor Erlang.  A message is handed to the first waiter, in the order
 * of arrival; nobody is woken to race for it.  A handed message is still the queue's (it counts in
 * size) until its waiter claims it; a waiter that gives up gives it back, to the head, where the
 * next waiter gets it.  Messages are never queued while somebody waits.
 *
 * Lock: the queue's own, held for O(1) work, after the GIL and before any lock that a waiter's wake
 * takes.  Payload is released without it.
 */
#ifndef BEAMLOOP_QUEUE_H
#define BEAMLOOP_QUEUE_H

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

#include "message_store.h"

#define QUEUE_UNBOUNDED SIZE_MAX
#define QUEUE_MESSAGE_MIN 32 /* what a message counts at least, in bytes */

enum queue_result {
  QUEUE_OK = 0,
  QUEUE_EMPTY,     /* nothing there; for queue_wait and queue_claim: the waiter waits (still) */
  QUEUE_CLOSED,    /* sending: refused; receiving: closed and drained */
  QUEUE_BUSY,      /* no room now */
  QUEUE_TOO_LARGE, /* there will never be room */
  QUEUE_NO_MEMORY,
};

enum queue_waiter_state {
  WAITER_IDLE = 0, /* not the queue's business */
  WAITER_WAITING,  /* in the queue's list */
  WAITER_HANDED,   /* holds a message that it has not claimed */
  WAITER_CLOSED,   /* woken because the queue is closed and drained */
};

enum queue_wake_reason {
  QUEUE_WAKE_HANDED, /* a message is the waiter's to claim */
  QUEUE_WAKE_CLOSED, /* there will be no more messages */
  QUEUE_WAKE_NOTIFY, /* a message is there for whoever takes it (notify waiters only) */
  QUEUE_WAKE_DROP,   /* the queue is going away (notify waiters only) */
};

typedef struct queue_waiter queue_waiter;

/* Something to do when the queue's lock is free again. */
typedef struct queue_later {
  void (*run)(void *arg); /* or NULL */
  void *arg;
} queue_later;

/* Embedded in its owner.  Zero-initialised, wake set. */
struct queue_waiter {
  /* Queue's lock held; the waiter is out of the list already.  Must not take the GIL or the
   * queue's lock.  May leave a costly system call for later (unless NULL, and used once); the
   * waiter itself may be gone by then.  0, or -1 when nobody is there to be woken (its loop is
   * closed): a message handed to it goes to the next.  A notify waiter may free itself. */
  int (*wake)(queue_waiter *w, enum queue_wake_reason reason, queue_later *later);
  int notify; /* wants to be told once that messages are there; none is handed to it */
  /* guarded by the queue's lock: */
  enum queue_waiter_state state;
  queue_waiter *next;
  queue_waiter *prev;
  message handed;
};

typedef struct queue {
  pthread_mutex_t mutex;
  size_t max_size; /* bytes, or QUEUE_UNBOUNDED; constant */
  /* guarded by mutex: */
  message_store store;
  queue_waiter *first_waiter;
  queue_waiter *last_waiter;
  size_t waiters;
  size_t size;     /* bytes, handed messages included */
  size_t messages; /* handed ones included */
  size_t handed;
  uint64_t total_in;
  uint64_t total_out; /* claimed */
  uint64_t busy;      /* sends refused for want of room */
  int closed;
} queue;

typedef struct queue_info {
  size_t size, max_size, messages, waiters;
  uint64_t total_in, total_out, busy;
  int closed;
} queue_info;

void queue_init(queue *q, size_t max_size);

/* The last user: nobody waits (notify waiters apart, which are dropped).  Releases what is queued.
 */
void queue_destroy(queue *q);

/* Any thread, GIL or not; takes the lock.  Sends one message: a payload to copy (attachment NULL or
 * without parts), or data == NULL and size the total of the attachment's parts.  QUEUE_OK,
 * QUEUE_CLOSED, QUEUE_BUSY, QUEUE_TOO_LARGE or QUEUE_NO_MEMORY; the attachment is taken over on
 * QUEUE_OK only. */
int queue_send(queue *q, const uint8_t *data, size_t size, message_attachment *attachment);

/* Any thread, GIL or not; takes the lock.  Claims the first message that nobody has been handed:
 * QUEUE_OK, QUEUE_EMPTY or QUEUE_CLOSED.  The caller releases the message. */
int queue_take(queue *q, message *out);

/* As queue_take, but QUEUE_EMPTY puts the idle waiter w at the end of the list. */
int queue_wait(queue *q, queue_waiter *w, message *out);

/* Any thread, GIL or not; takes the lock.  QUEUE_EMPTY: the notify waiter w is in the list and will
 * be told;  QUEUE_OK: there is something to take, or nothing any more, already; w is not in the
 * list. */
int queue_notify(queue *q, queue_waiter *w);

/* Any thread, GIL or not; takes the lock.  Claims what w was handed: QUEUE_OK; QUEUE_CLOSED;
 * QUEUE_EMPTY when it is waiting still.  After QUEUE_OK and QUEUE_CLOSED w is idle. */
int queue_claim(queue *q, queue_waiter *w, message *out);

/* Any thread, GIL or not; takes the lock.  w stops waiting and gives back what it was handed; idle
 * afterwards, and its wake runs no more.  Harmless when it is idle. */
void queue_cancel(queue *q, queue_waiter *w);

/* Any thread, GIL or not; takes the lock.  w stops waiting if it has not been woken: 1, and it is
 * idle; else 0, and nothing is changed. */
int queue_withdraw(queue *q, queue_waiter *w);

/* Any thread, GIL or not; takes the lock.  1 while w is in the list, 0 when it was woken or is
 * idle. */
int queue_is_waiting(queue *q, const queue_waiter *w);

/* Any thread, GIL or not; takes the lock.  Refuses further sends; receivers drain what is there. */
void queue_close(queue *q);

/* Any thread; takes the lock. */
void queue_get_info(queue *q, queue_info *out);

#endif
