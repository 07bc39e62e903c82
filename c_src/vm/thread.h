/* Starting threads of ours: every signal blocked, detached.  Plain C. */
#ifndef BEAMLOOP_VM_THREAD_H
#define BEAMLOOP_VM_THREAD_H

#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#define VM_STACK_SIZE ((size_t)8 << 20)

/* Any thread.  0, or an errno value: no thread was started then. */
int thread_spawn(void *(*fn)(void *), void *arg);

/* The thread itself: the name that ps and debuggers show, at most 15 bytes. */
void thread_set_name(const char *name);

/* Any thread.  The monotonic clock plus so many milliseconds, for thread_cond_init's conditions. */
struct timespec thread_deadline(int64_t milliseconds);

/* Any thread.  A condition whose timed waits use the monotonic clock.  0 or an errno value. */
int thread_cond_init(pthread_cond_t *cond);

/* Scheduler thread, once at load: remembers the mask that children of Python get. */
void thread_remember_signal_mask(void);

/* Any thread.  That mask. */
const sigset_t *thread_child_signal_mask(void);

/* Any thread.  Is this a forked child of the virtual machine's process? */
int thread_in_forked_child(void);

#endif
