/* The C API of the event loop, reached through the capsule "erlang._loop._C_API".
 *
 * Plain C: needs neither Python.h nor erl_nif.h, so that code on either side of the border can
 * post to a loop.  The loop core is reference-counted in C and outlives its Python loop: posting
 * to a loop that is closing or closed is safe and reported.
 *
 * Lock order: GIL, then the caller's own lock (a channel's), then the core's pending lock.
 */
#ifndef BEAMLOOP_LOOP_API_H
#define BEAMLOOP_LOOP_API_H

#include <stddef.h>
#include <stdint.h>

#define LOOP_API_CAPSULE "erlang._loop._C_API"
#define LOOP_API_VERSION 1

typedef struct _object PyObject;
typedef struct loop_core loop_core;

/* Kinds of events, the numbers that Python sees from _run_once_native_for and gives _dispatch. */
enum loop_event_kind {
  LOOP_EVENT_READ = 1,
  LOOP_EVENT_WRITE = 2,
  LOOP_EVENT_TIMER = 3,  /* a timer, or a channel wait: resolved through loop._timers */
  LOOP_EVENT_SOURCE = 4, /* a registered source: resolved through the source table */
};

/* What a source runs when an event for it is dispatched.  On the loop's thread, with the GIL, as an
 * ordinary entry of the ready queue.  Returns 0, or -1 with a Python exception set, which goes to
 * the loop's exception handler. */
typedef int (*loop_source_fn)(PyObject *owner, int kind);

typedef struct loop_api {
  uint32_t version; /* LOOP_API_VERSION */
  uint32_t size;    /* sizeof(loop_api) */

  /* GIL held.  The core of a Python loop object (an instance of _loop.NativeLoop), as a new
   * reference; NULL without an exception when the object is no native loop. */
  loop_core *(*core_of)(PyObject *loop);

  /* Any thread, GIL or not. */
  void (*core_incref)(loop_core *core);
  void (*core_decref)(loop_core *core);

  /* event_loop_add_pending.  Any thread; no GIL needed; takes the pending lock.  Queues the event
   * (id, kind) and wakes the loop if it sleeps.  0, or -1 when the loop is closed or closing or
   * memory is short: nothing was queued then. */
  int (*post)(loop_core *core, uint64_t id, int kind);

  /* GIL held, loop's thread.  Registers a source that lives until source_remove or loop close; the
   * loop holds a strong reference to owner meanwhile (and visits it for the cyclic GC).  Any number
   * of events may be posted for one id.  The id, never 0 and never used again; 0 with an exception
   * set when the loop is closed or memory is short. */
  uint64_t (*source_add)(PyObject *loop, loop_source_fn fn, PyObject *owner);

  /* GIL held.  Drops the source; events still queued for it are ignored.  1 when it was there,
   * 0 when not (the loop was closed, or it was removed before).  Never raises. */
  int (*source_remove)(PyObject *loop, uint64_t id);

  /* GIL held.  The native loop running on this thread as a borrowed reference, or NULL without an
   * exception when none runs here or the one that runs is a foreign loop. */
  PyObject *(*running)(void);
} loop_api;

#endif
