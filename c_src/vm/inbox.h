/* How calls reach an event loop: a queue beside the loop's pending queue.  Plain C.
 *
 * Calls to start, calls to cancel and the wish to stop are put here by any thread; one source event
 * tells the loop.  The inbox is counted and outlives its loop: a late call is refused, safely.
 */
#ifndef BEAMLOOP_VM_INBOX_H
#define BEAMLOOP_VM_INBOX_H

#include "../loop/loop_api.h"
#include "call.h"

typedef struct inbox inbox;

/* What was put in since the last take. */
typedef struct inbox_content {
  vm_call *calls;     /* counted, linked by next, in order */
  vm_call *cancelled; /* counted, linked by next_cancelled */
  int stop;
} inbox_content;

/* GIL held.  Takes over the count of core; NULL when memory is short. */
inbox *inbox_new(const loop_api *api, loop_core *core, uint64_t source);

/* Any thread; no GIL needed. */
void inbox_incref(inbox *in);
void inbox_decref(inbox *in);

/* Any thread; no GIL needed; takes the lock, then the loop's pending lock.  inbox_submit takes over
 * one count of the call when it returns 0; -1 when the loop is closed. */
int inbox_submit(inbox *in, vm_call *call);
void inbox_cancel(inbox *in, vm_call *call);
void inbox_stop(inbox *in);

/* Loop's thread.  Everything at once. */
inbox_content inbox_take(inbox *in);

/* Loop's thread.  Refuses from now on; what was queued is answered not_running. */
void inbox_close(inbox *in);

/* Any thread.  The default loop's inbox, counted for the caller, or NULL; set takes over a count. */
inbox *inbox_default(void);
void inbox_set_default(inbox *in);

#endif
