/* Where a Python thread sleeps in our C: one object per thread, a flag and a condition variable.
 *
 * Plain C.  A wait is: begin (with the GIL), hand the object to whoever will wake it, release the
 * GIL, sleep, take the GIL, end.  The waiting flag changes only while the GIL is held, so another
 * thread that holds the GIL can tell whether a cancellation should wake this wait (interrupt) or be
 * raised in the running Python code instead.
 *
 * Lock: the object's own, a leaf: nothing is called while it is held.
 */
#ifndef BEAMLOOP_THREAD_WAIT_H
#define BEAMLOOP_THREAD_WAIT_H

#include <stdint.h>

typedef struct thread_wait thread_wait;

enum thread_wait_result { THREAD_WAIT_WOKEN = 0, THREAD_WAIT_TIMEOUT, THREAD_WAIT_INTERRUPTED };

#define THREAD_WAIT_FOREVER INT64_MAX

/* Any thread.  The calling thread's own object, borrowed; it lives until the thread ends and as
 * long as somebody else holds a count.  NULL when memory is short. */
thread_wait *thread_wait_current(void);

/* Any thread. */
void thread_wait_incref(thread_wait *w);
void thread_wait_decref(thread_wait *w);

/* Own thread, GIL held.  Starts a wait: forgets earlier wakes, sets the waiting flag. */
void thread_wait_begin(thread_wait *w);

/* Own thread, between begin and end, without the GIL and without locks.  Sleeps until a wake, an
 * interrupt or the deadline (thread_wait_clock's nanoseconds, or THREAD_WAIT_FOREVER); returns at
 * once when one of them has come already.  A thread_wait_result; an interrupt goes first. */
int thread_wait_sleep(thread_wait *w, int64_t deadline);

/* Own thread, between begin and end, without the GIL.  Waits without sleeping, for so long at most: 1
 * when a wake or an interrupt has come (thread_wait_sleep returns at once then), else 0. */
int thread_wait_spin(thread_wait *w, int64_t nanoseconds);

/* Own thread, GIL held.  Ends the wait; 1 when it was interrupted (which is hereby taken up), else
 * 0. */
int thread_wait_end(thread_wait *w);

/* Any thread; no GIL needed; may be called with a channel's lock held.  The caller sees to it that w
 * lives until it returns: by a count, or because the thread cannot end its wait meanwhile. */
void thread_wait_wake(thread_wait *w);

/* Any thread, GIL held.  Interrupts the wait that the thread is in: 1; 0 when it is in none, and
 * nothing was done. */
int thread_wait_interrupt(thread_wait *w);

/* The monotonic clock in nanoseconds. */
int64_t thread_wait_clock(void);

#endif
