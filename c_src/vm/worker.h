/* A Python thread of ours and what it runs now.  Plain C. */
#ifndef BEAMLOOP_VM_WORKER_H
#define BEAMLOOP_VM_WORKER_H

#include "call.h"

typedef struct vm_worker {
  void *thread_state;     /* a PyThreadState; its own thread only */
  unsigned long thread;   /* Python's identity of the thread */
  vm_call *current;       /* guarded by the GIL */
  unsigned long calls;    /* guarded by the GIL: begun so far */
  unsigned stops;         /* guarded by the GIL: stops of the interpreter that it knows of */
  struct vm_worker *next; /* guarded by the GIL: all workers */
  struct vm_worker *prev;
} vm_worker;

/* GIL held.  The first worker of all, linked by next. */
vm_worker *worker_first(void);

/* Any thread.  Its own worker, or NULL on a thread that is none. */
vm_worker *worker_own(void);

/* GIL held.  Whether the interpreter was stopped since the worker began: it runs nothing any more. */
int worker_is_stopped(const vm_worker *w);

#endif
