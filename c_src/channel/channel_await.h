/* The awaitable behind async_receive(), __anext__() and async_send(), as its files share it: the
 * coroutine (channel_await.c), what it does at the queue (channel_await_queue.c), its waiting and waking
 * (channel_wait.c), and the future that a task sees in it (channel_future.c).  The GIL is held in every
 * function here.
 */
#ifndef BEAMLOOP_CHANNEL_AWAIT_H
#define BEAMLOOP_CHANNEL_AWAIT_H

#include "channel_outgoing.h"
#include "channel_python.h"
#include "queue_select.h"

enum await_phase {
  PHASE_NEW,      /* nobody has awaited it yet */
  PHASE_YIELDED,  /* gave the loop a turn before looking for a message */
  PHASE_WAITING,  /* among the queue's waiters, or woken and not resumed yet */
  PHASE_FINISHED, /* returned, raised or closed */
};

struct channel_await {
  PyObject_HEAD
  queue_waiter waiter;  /* of a receive */
  queue_select *select; /* of a select, or NULL; and so these: */
  PyObject *channels;   /* tuple */
  size_t arm;           /* whose message came */
  Py_ssize_t max;       /* messages that a receive_many takes at most */
  byte_read *read;      /* of a byte channel as a stream, or NULL */
  queue_drain drain;    /* of a wait for the direction to Erlang to become drained */
  queue_sender sender;  /* of a send, and so what it sends */
  channel_outgoing out;
  gate_link link;
  channel_state *state;
  channel_object *channel; /* NULL when it only gives a value, and when finished */
  PyObject *value;         /* what it gives then */
  enum channel_await_kind kind;
  int bytes; /* of a byte channel */
  enum await_phase phase;
  int64_t timeout;  /* nanoseconds, or -1 */
  int64_t deadline; /* monotonic, when it waits with a timeout */
  int blocking;     /* _asyncio_future_blocking */
  int done;         /* as a future: its callback was run or is scheduled */
  int timed_out;
  int cancelled;
  PyObject *cancel_message;
  PyObject *loop;     /* that it waits on */
  PyObject *callback; /* of the task that waits */
  PyObject *context;
  PyObject *timer; /* handle of the timeout, or of the next poll */
  channel_await *next_free;
};

/* Whether it waits for a message to Python. */
static inline int
await_receives(const channel_await *self)
{
  return self->kind != AWAIT_SEND && self->kind != AWAIT_DRAINED;
}

/* channel_await_queue.c: a queue_result; *m is a message that was received. */

/* Receives or sends, if that can be done now; else QUEUE_EMPTY. */
int await_try(channel_await *self, message *m);

/* As await_try, but QUEUE_EMPTY makes it wait. */
int await_wait(channel_await *self, message *m);

/* After a wait; QUEUE_EMPTY: it waits still. */
int await_claim(channel_await *self, message *m);

/* Stops waiting, and gives back a message or room that it has. */
void await_give_up(channel_await *self);

/* Stops waiting unless it has been woken: 1 when it has stopped. */
int await_time_out(channel_await *self);

int await_still_waits(channel_await *self);

/* channel_await_read.c */

/* Before a read looks for its first message: 1 when *out is its result, or NULL with an exception. */
int await_read_begin(channel_await *self, PyObject **out);

/* A message was claimed, which is consumed, or the channel is closed: as await_read_begin; 0, it needs
 * another message. */
int await_read_feed(channel_await *self, int result, message *m, PyObject **out);

/* After that: it waits no more, with what is left of its timeout. */
void await_read_on(channel_await *self);
void await_read_clear(channel_await *self);

/* channel_select.c */

/* Number of the channel that is looked at first; another each time, so that none is preferred. */
size_t select_first(channel_await *self);
void select_clear(channel_await *self); /* it does not wait */

/* channel_wait.c */

/* Puts it in the gate of the running loop, or makes it poll; it becomes a waiter of the queue next.
 * 0, or -1 with an exception. */
int await_choose_wake(channel_await *self);

/* Starts its timeout, and its polling.  0, or -1 with an exception. */
int await_start_timers(channel_await *self);
void await_stop_timer(channel_await *self);

/* Whether it polls, having no gate. */
int await_polls(const channel_await *self);

/* Stops waiting, if it does, and gives back what it was handed; nobody wakes it any more. */
void await_withdraw(channel_await *self);

/* Schedules the task's callback for the loop's next turn.  0, or -1 with an exception. */
int await_schedule_callback(channel_await *self);

/* channel_future.c: methods of the type; and what cancel() leads to. */
void await_set_cancelled(channel_await *self);
PyObject *await_future_get_loop(PyObject *object, PyObject *ignored);
PyObject *await_future_add_done_callback(PyObject *object, PyObject *args, PyObject *kwargs);
PyObject *await_future_remove_done_callback(PyObject *object, PyObject *callback);
PyObject *await_future_cancel(PyObject *object, PyObject *args, PyObject *kwargs);
PyObject *await_future_result(PyObject *object, PyObject *ignored);
PyObject *await_future_done(PyObject *object, PyObject *ignored);
PyObject *await_future_cancelled(PyObject *object, PyObject *ignored);
PyObject *await_future_get_blocking(PyObject *object, void *closure);
int await_future_set_blocking(PyObject *object, PyObject *value, void *closure);

#endif
