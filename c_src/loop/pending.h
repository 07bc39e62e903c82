/* The pending queue: events that any thread posts to a loop, and the loop's sleep on them.
 *
 * Plain C (neither Python.h nor erl_nif.h).  A loop_core is reference-counted and outlives the
 * loop object that made it.  A poster decides under the core's lock whether the loop sleeps, so
 * that no wake-up is lost and an awake loop costs no system call.
 */
#ifndef BEAMLOOP_PENDING_H
#define BEAMLOOP_PENDING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "loop_api.h"

/* Where the loop's thread is, as a poster sees it. */
enum pending_state {
  PENDING_AWAKE = 0,
  PENDING_WAIT_COND = 1,
  PENDING_WAIT_POLLER = 2,
};

typedef struct pending_event {
  uint64_t id;
  int kind;
} pending_event;

/* Any thread.  A new open core with one reference; NULL when memory is short. */
loop_core *pending_new(void);

/* Any thread.  Cores that are alive in the whole process. */
size_t pending_live(void);

/* Any thread.  The last decref frees the core. */
void pending_incref(loop_core *core);
void pending_decref(loop_core *core);

/* Any thread; takes the pending lock.  0, or -1 when closed or out of memory (nothing queued). */
int pending_post(loop_core *core, uint64_t id, int kind);

/* Loop's thread, not while it works through what it has taken; takes the pending lock.  From now on, until
 * pending_unreserve, there is room for one source event more, which no other event takes: a source that
 * has no more than one under way can always post.  0, or -1 when memory is short. */
int pending_reserve(loop_core *core);
void pending_unreserve(loop_core *core);

/* Any thread; takes the pending lock when the loop sleeps.  Ends its sleep, if it sleeps. */
void pending_wake(loop_core *core);

/* A thread that holds the GIL, under which the loop announces its sleeps.  As pending_wake, and costs
 * no lock while the loop is awake. */
void pending_wake_if_asleep(loop_core *core);

/* Any thread.  Ends every later post with -1, drops what is queued and ends the loop's sleep. */
void pending_close(loop_core *core);

/* Any thread, no lock: how many events wait to be drained (a hint for other threads). */
size_t pending_count(loop_core *core);

/* Loop's thread.  The descriptor whose readability means "wake up"; opened at the first call.
 * -1 with errno set when that fails. */
int pending_waker_fd(loop_core *core);

/* Loop's thread; takes the pending lock.  Announces a sleep in the given mode.  false when events
 * are queued already, or the core is closed: the loop must not sleep then. */
bool pending_prepare(loop_core *core, enum pending_state mode);

/* Loop's thread, without the GIL; takes the pending lock.  After pending_prepare with
 * PENDING_WAIT_COND: sleeps until a post, a wake or the monotonic deadline (ns; negative: none). */
void pending_wait(loop_core *core, int64_t deadline_ns);

/* Loop's thread; takes the pending lock.  Ends a sleep announced with PENDING_WAIT_POLLER. */
void pending_awake(loop_core *core);

/* Loop's thread; takes the pending lock.  All queued events, oldest first, valid until the next
 * call; *count receives how many. */
pending_event *pending_take(loop_core *core, size_t *count);

/* Loop's thread, after pending_take; takes the pending lock.  The last `count` of what was taken come again
 * with the next pending_take. */
void pending_keep(loop_core *core, size_t count);

#endif
