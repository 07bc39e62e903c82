/* A call from an Erlang process into Python: its life in C.
 *
 * A call is an Erlang resource.  Its answer goes out once: whoever moves `state` away from
 * CALL_PENDING decides, the worker that replies or the caller that gave up.  The Erlang wrapper that
 * comes too late to cancel waits for the message, which is then sure to come: nothing is ever left
 * in the caller's mailbox.
 *
 * Plain C: call_nif.c implements the Erlang side, call_python.c the Python side.
 */
#ifndef BEAMLOOP_VM_CALL_H
#define BEAMLOOP_VM_CALL_H

#include "pool.h"
#include "service.h"

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

enum call_state { CALL_PENDING = 0, CALL_REPLIED, CALL_CANCELLED };

enum call_kind {
  CALL_FUNCTION = 0,  /* {Target, Function, Args, Kwargs} */
  CALL_EVAL = 1,      /* {Expression, Locals} */
  CALL_EXEC = 2,      /* Code */
  CALL_COROUTINE = 3, /* as CALL_FUNCTION, of a coroutine function, on a loop */
};

/* What the event loop on the thread of a call that is to end has been asked. */
enum call_interruption {
  INTERRUPT_NONE = 0, /* nothing, or it has answered */
  INTERRUPT_LOOP,     /* to end its tasks */
  INTERRUPT_BOTH,     /* as INTERRUPT_LOOP, and CallCancelled was raised besides */
};

struct thread_wait;
struct inbox;

typedef struct vm_call {
  pool_job job; /* first; on a worker */
  atomic_int state;
  enum call_kind kind;
  unsigned decode_flags;
  service_item interruption;      /* posted by who cancels, then by itself until the call ends */
  struct inbox *inbox;            /* coroutine calls: where they run; counted, set at submit */
  int detached;                   /* nobody waits for an answer; set at submit */
  struct vm_call *next;           /* guarded by the inbox's lock: calls to start */
  struct vm_call *next_cancelled; /* guarded by the inbox's lock */
  int stopped;                    /* guarded by the GIL: told that the interpreter stops */
  unsigned long thread;           /* guarded by the GIL: the Python thread that runs it, else 0 */
  void *thread_state;             /* guarded by the GIL: that thread's PyThreadState, borrowed */
  struct thread_wait *wait;       /* guarded by the GIL: that thread's, borrowed */
  enum call_interruption pending; /* guarded by the GIL */
  int interrupted;                /* guarded by the GIL: somebody began to end it */
  int reached;                    /* guarded by the GIL: an interruption has reached its code */
  int pause;                      /* guarded by the GIL: milliseconds between the last two looks */
  void *task;                     /* guarded by the GIL: the asyncio task of a coroutine call */
} vm_call;

/* One line of a traceback or a text, UTF-8. */
typedef struct call_text {
  const char *data;
  size_t size;
} call_text;

typedef struct call_error {
  call_text name;
  call_text message;
  const call_text *traceback;
  size_t traceback_count;
} call_error;

/* ---- call_nif.c ---- */

/* Any thread; no GIL needed. */
void call_keep(vm_call *call);
void call_release(vm_call *call);

/* The thread that runs the call; no GIL (it copies what is long).  The encoded payload, valid until
 * call_forget_payload.  0, or -1 when memory is short. */
int call_payload(vm_call *call, const uint8_t **data, size_t *size);
void call_forget_payload(vm_call *call);

/* Any thread; the GIL may be held.  Each answers the caller unless it was answered or gave up before:
 * 1 when this call answered it, 0 otherwise. */
int call_reply_value(vm_call *call, uint8_t *ext, size_t size); /* {ok, Value}; ext changes */
int call_reply_done(vm_call *call);                             /* ok */
int call_reply_error(vm_call *call, const call_error *error);   /* {error, {N, M, T}} */
int call_reply_reason(vm_call *call, const char *reason);       /* {error, Reason} */

/* Any thread; no GIL needed.  1 when the call was pending and is cancelled hereby. */
int call_cancel(vm_call *call);

/* ---- call_python.c ---- */

/* Worker thread, without the GIL.  Runs and answers the call, and releases it. */
void call_run(pool_job *job, void *worker);

/* Any thread: the pool stopped.  Answers not_running and releases the call. */
void call_drop(pool_job *job);

/* ---- interrupt_python.c ---- */

/* Service thread, without the GIL.  Ends the Python code that the call runs, if it still runs: wakes
 * the wait that it is in, has its event loop cancel its tasks, or raises CallCancelled in it.  Comes
 * back to it until the call has ended, then releases it. */
void call_interrupt(service_item *item);

/* Service thread, GIL held; the caller holds a count.  The interpreter stops: answers not_running,
 * then as call_interrupt does. */
void call_stop(vm_call *call);

/* GIL held, the thread that ran the call, which has ended: nothing of its interruption is left on the
 * thread for the next call. */
void call_interruption_over(vm_call *call, unsigned long thread);

/* GIL held.  Raises CallCancelled in what this Python thread runs. */
void call_raise_cancelled(unsigned long thread);

#endif
