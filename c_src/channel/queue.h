/* One direction of a channel: a bounded queue of messages, the receivers that wait for them and the
 * senders that wait for room.
 *
 * Plain C: knows neither Python nor Erlang.  A message is handed to the first waiter, in the order
 * of arrival; nobody is woken to race for it.  A handed message is still the queue's (it counts in
 * size) until its waiter claims it; a waiter that gives up gives it back, to the head, where the
 * next waiter gets it.  Messages are never queued while somebody waits.
 *
 * Senders that wait are served first come first served as well, and nobody overtakes them: while
 * one waits, other sends are refused.  A sender that waits either leaves its message with the
 * queue, which takes it in when there is room, or has room reserved for it and sends then.
 *
 * However many wait, no call wakes more than a few of them: where more are to be woken, as when the
 * queue is closed, the rest is left to a thread of its owner's.
 *
 * Locks: the queue's own, held for O(1) work, after the GIL and before any lock that a waiter's wake
 * takes.  There are two, so that a receiver does not meet senders at each message: the head lock
 * guards the messages that come next, the lock the rest, and is taken second.  Payload is released
 * without either.
 */
#ifndef BEAMLOOP_QUEUE_H
#define BEAMLOOP_QUEUE_H

#include <pthread.h>
#include <stdatomic.h>
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

/* Who waits; queue_info counts them apart. */
enum queue_kind { QUEUE_COROUTINE = 0, QUEUE_THREAD, QUEUE_PROCESS, QUEUE_KINDS };

/* What may be in the queue. */
typedef struct queue_limits {
  size_t max_size;     /* bytes, or QUEUE_UNBOUNDED */
  size_t max_messages; /* or QUEUE_UNBOUNDED */
  /* Once size has reached high_watermark, or a send was refused for want of room while size was
   * above low_watermark, there is no room for anybody until size has fallen to low_watermark.
   * QUEUE_UNBOUNDED for both: there is room as soon as a message fits. */
  size_t high_watermark;
  size_t low_watermark; /* less than high_watermark */
} queue_limits;

#define QUEUE_NO_LIMITS                                                                            \
  ((queue_limits){QUEUE_UNBOUNDED, QUEUE_UNBOUNDED, QUEUE_UNBOUNDED, QUEUE_UNBOUNDED})

/* What wakes leave to be done when the queue's lock is free again. */
#define QUEUE_LATER_MAX 9

typedef struct queue_laters {
  unsigned count;
  unsigned woken; /* waiters and senders, since the lock was taken */
  struct {
    void (*run)(void *arg);
    void *arg;
  } items[QUEUE_LATER_MAX];
} queue_laters;

/* The places need no value. */
static inline void
queue_laters_init(queue_laters *laters)
{
  laters->count = laters->woken = 0;
}

static inline void
queue_later(queue_laters *laters, void (*run)(void *arg), void *arg)
{
  laters->items[laters->count].run = run;
  laters->items[laters->count++].arg = arg;
}

typedef struct queue_waiter queue_waiter;
typedef struct queue_sender queue_sender;

/* Embedded in its owner.  Zero-initialised, wake and kind set. */
struct queue_waiter {
  /* Queue's lock held; the waiter is out of the list already.  Must not take the GIL or the
   * queue's lock.  May leave one thing for later (a costly system call, an enif_send); the waiter
   * itself may be gone by then.  0, or -1 when nobody is there to be woken (its loop is closed): a
   * message handed to it goes to the next.  A notify waiter may free itself; it leaves nothing for
   * later. */
  int (*wake)(queue_waiter *w, enum queue_wake_reason reason, queue_laters *laters);
  int notify; /* wants to be told once that messages are there; none is handed to it */
  enum queue_kind kind;
  /* guarded by the queue's lock: */
  enum queue_waiter_state state;
  queue_waiter *next;
  queue_waiter *prev;
  message handed;
};

enum queue_sender_state {
  SENDER_IDLE = 0, /* not the queue's business */
  SENDER_WAITING,  /* in the queue's list */
  SENDER_GRANTED,  /* room is reserved for it */
  SENDER_DONE,     /* result tells */
};

/* A sender that waits for room.  Embedded in its owner.  Zero-initialised, wake and kind set. */
struct queue_sender {
  /* Queue's lock held; the sender is out of the list already: call queue_send_end to learn why.
   * Must not take the GIL or the queue's lock.  May leave one thing for later, as above.  0, or -1
   * when nobody is there to be woken: room reserved for it goes to the next. */
  int (*wake)(queue_sender *s, queue_laters *laters);
  enum queue_kind kind;
  /* guarded by the queue's lock: */
  enum queue_sender_state state;
  int result; /* of SENDER_DONE: QUEUE_OK, QUEUE_CLOSED or QUEUE_NO_MEMORY */
  queue_sender *next;
  queue_sender *prev;
  size_t size;                    /* of its message */
  message_attachment *attachment; /* its message, left with the queue; or NULL: room is reserved */
};

/* Who waits until little is left.  Embedded in its owner.  Zero-initialised, wake and mark set. */
typedef struct queue_drain queue_drain;

struct queue_drain {
  /* Queue's lock held; it is out of the list already.  Must not take the GIL or the queue's lock.  May
   * leave one thing for later, as above. */
  void (*wake)(queue_drain *d, queue_laters *laters);
  size_t mark; /* bytes that may be left; constant */
  /* guarded by the queue's lock: */
  int waiting;
  queue_drain *next;
  queue_drain *prev;
};

#define QUEUE_CACHE_LINE 64

/* What has gone in or out so far: the difference is what is there. */
typedef struct queue_totals {
  uint64_t messages;
  size_t size; /* bytes */
} queue_totals;

typedef struct queue queue;

struct queue {
  queue_limits limits; /* constant */
  /* Set after queue_init, or NULL.  No lock held.  There are more to be woken than one call may wake:
   * has queue_settle_more called until that gives 0, on a thread that may take the time.  With NULL
   * the call wakes all of them. */
  void (*settle_later)(queue *q);

  /* Receivers' side. */
  _Alignas(QUEUE_CACHE_LINE) pthread_mutex_t head;
  message_list next; /* come before incoming; guarded by head */
  /* Claimed; changed with head or mutex held. */
  atomic_uint_fast64_t messages_out;
  atomic_size_t size_out;

  /* Whether somebody besides the claimer has to learn of a claim (queue.c).  Written with mutex held. */
  _Alignas(QUEUE_CACHE_LINE) atomic_int attention;

  /* Senders' side; all of it guarded by mutex. */
  _Alignas(QUEUE_CACHE_LINE) pthread_mutex_t mutex;
  message_list incoming;
  message_place place; /* where the next payload goes */
  queue_totals in;
  queue_totals known_out; /* not more than what has gone out */
  queue_waiter *first_waiter;
  queue_waiter *last_waiter;
  queue_sender *first_sender;
  queue_sender *last_sender;
  queue_drain *first_drain; /* in no order */
  size_t waiters[QUEUE_KINDS];
  size_t senders[QUEUE_KINDS];
  size_t handed;
  size_t reserved_size; /* room granted to senders that have not sent yet */
  size_t reserved_messages;
  uint64_t busy; /* sends refused for want of room */
  int congested; /* waits for size to fall to the low watermark */
  int closed;
  int settling_later; /* settle_later was called, and queue_settle_more has not given 0 yet */
};

typedef struct queue_info {
  queue_limits limits;
  size_t size, messages;
  size_t waiters[QUEUE_KINDS]; /* receivers that wait, by kind */
  size_t senders[QUEUE_KINDS]; /* senders that wait, by kind */
  uint64_t total_in, total_out, busy;
  int closed;
} queue_info;

/* All kinds together. */
static inline size_t
queue_count_kinds(const size_t *by_kind)
{
  return by_kind[QUEUE_COROUTINE] + by_kind[QUEUE_THREAD] + by_kind[QUEUE_PROCESS];
}

void queue_init(queue *q, const queue_limits *limits);

/* The last user: nobody waits (notify waiters apart, which are dropped).  Releases what is queued.
 */
void queue_destroy(queue *q);

/* Any thread, GIL or not; takes the lock.  Sends one message: a payload to copy (attachment NULL or
 * without parts), or data == NULL and size the total of the attachment's parts.  QUEUE_OK,
 * QUEUE_CLOSED, QUEUE_BUSY, QUEUE_TOO_LARGE or QUEUE_NO_MEMORY; the attachment is taken over on
 * QUEUE_OK only. */
int queue_send(queue *q, const uint8_t *data, size_t size, message_attachment *attachment);

/* --- senders that wait for room: any thread, GIL or not; each takes the lock --- */

/* Sends the attachment's parts, size bytes in all, or leaves them with the queue and waits; without
 * an attachment, reserves room for a message of that size, or waits for it.  QUEUE_OK: sent, or room
 * is reserved (s is granted); QUEUE_EMPTY: s waits, at the end of the list; QUEUE_CLOSED,
 * QUEUE_TOO_LARGE or QUEUE_NO_MEMORY: s is idle and the attachment its maker's still. */
int queue_send_wait(queue *q, queue_sender *s, size_t size, message_attachment *attachment);

/* What became of s.  QUEUE_EMPTY: it waits still; QUEUE_OK: its message was sent (s is idle), or room
 * is reserved (s is granted); QUEUE_CLOSED or QUEUE_NO_MEMORY: s is idle and the attachment its
 * maker's again. */
int queue_send_end(queue *q, queue_sender *s);

/* Sends into the room reserved for s; data, size (at most what was reserved) and attachment as for
 * queue_send.  QUEUE_OK, QUEUE_CLOSED or QUEUE_NO_MEMORY; s is idle, and the attachment taken over on
 * QUEUE_OK only. */
int queue_send_granted(queue *q, queue_sender *s, const uint8_t *data, size_t size,
                       message_attachment *attachment);

/* s stops waiting or gives up its room: 1, it is idle, and the attachment its maker's again.  0 when
 * its message was sent or refused already: queue_send_end tells.  1 when it is idle. */
int queue_send_cancel(queue *q, queue_sender *s);

/* s stops waiting if it has not been woken: 1, and it is idle; else 0, and nothing is changed. */
int queue_send_withdraw(queue *q, queue_sender *s);

/* 1 while s is in the list, 0 when it was woken or is idle. */
int queue_sender_is_waiting(queue *q, const queue_sender *s);

/* --- who waits until little is left: any thread, GIL or not; each takes the lock --- */

/* 1: more than so many bytes are queued, and d is woken when no more than its mark are, or when the
 * queue is closed; 0: there is nothing to wait for. */
int queue_drain_wait(queue *q, queue_drain *d, size_t above);

/* 1 when d waited and waits no more, 0 when it was woken. */
int queue_drain_cancel(queue *q, queue_drain *d);

int queue_drain_is_waiting(queue *q, const queue_drain *d);

/* --- receivers --- */

/* Any thread, GIL or not; takes the lock.  Claims the first message that nobody has been handed:
 * QUEUE_OK, QUEUE_EMPTY or QUEUE_CLOSED.  The caller releases the message. */
int queue_take(queue *q, message *out);

/* As queue_take, but QUEUE_EMPTY puts the idle waiter w at the end of the list. */
int queue_wait(queue *q, queue_waiter *w, message *out);

/* Any thread, GIL or not; takes the lock once.  Hands the caller the messages that are there, at most
 * max: their number.  They are the queue's still until queue_claim_some. */
size_t queue_hand_some(queue *q, message *out, size_t max);

/* Any thread, GIL or not; takes the lock once.  Of count messages that queue_hand_some gave, claims the
 * first ones, which the caller releases, and gives back the others. */
void queue_claim_some(queue *q, const message *handed, size_t claimed, size_t count);

/* Any thread, GIL or not; takes the lock.  Gives back messages that were claimed, which may have lost
 * some of their first bytes since: to those who wait, or to the head of the queue, where their sequence
 * says.  They come in whether there is room or not. */
void queue_return(queue *q, const message *claimed, size_t count);

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

/* Any thread, GIL or not; takes the lock.  Refuses further sends, and senders that wait; receivers
 * drain what is there. */
void queue_close(queue *q);

/* A thread that may take the time; takes the lock.  Wakes some of those who are to be woken: 1 when there
 * are more. */
int queue_settle_more(queue *q);

/* Any thread; takes the lock. */
void queue_get_info(queue *q, queue_info *out);

#endif
