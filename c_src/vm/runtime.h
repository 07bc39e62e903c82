/* The life of the interpreter: start, stop, start again, the end.  Plain C.
 *
 * CPython is initialised once, on a thread of its own that keeps its thread state for good and is
 * what Python calls the main thread.  A stop ends the loops and the workers and parks that thread;
 * the next start is served by the same one.  Nothing is ever finalised.
 */
#ifndef BEAMLOOP_VM_RUNTIME_H
#define BEAMLOOP_VM_RUNTIME_H

#include "pool.h"

#include <stddef.h>

#define RUNTIME_ERROR_SIZE 1024

typedef struct runtime_config {
  char *executable; /* malloc'ed: what sys.executable is */
  char *packages;   /* malloc'ed: the directory to append to sys.path */
  pool_limits limits;
} runtime_config;

enum runtime_phase {
  RUNTIME_NEW = 0,
  RUNTIME_STARTING,
  RUNTIME_RUNNING,
  RUNTIME_STOPPING,
  RUNTIME_PARKED,
  RUNTIME_FAILED, /* CPython could not be initialised, which cannot be tried twice */
};

/* Who is told when a start or a stop is done (interp_nif.c). */
typedef struct notice notice;

/* Any thread.  Tells and frees; error is NULL for ok, else UTF-8 text. */
void notice_send(notice *n, const char *error);

/* Scheduler thread; does not wait.  Each takes over config's strings and the notice. */
void runtime_start(const runtime_config *config, notice *n);
void runtime_stop(int64_t milliseconds, notice *n);

/* Scheduler thread; does not wait.  Runs what Python registered with atexit, on its main thread. */
void runtime_run_atexit(notice *n);

/* Scheduler thread, while the virtual machine halts: nothing is stopped in order then.  Runs what
 * Python registered with atexit, on the service thread; waits for it, at most so long. */
void runtime_halt(int64_t milliseconds);

/* Any thread. */
enum runtime_phase runtime_get_phase(void);
pool *runtime_pool(void);

/* ---- interp_python.c: what the main thread does with CPython ---- */

/* Main thread, once.  Initialises CPython and keeps the GIL; 0, or -1 with the text in error. */
int interp_initialise(const runtime_config *config, char *error, size_t size);

/* Main thread, GIL held.  Makes ready what a start needs; 0, or -1 with the text in error. */
int interp_open(char *error, size_t size);

/* Main thread, GIL held.  Runs the default loop until it is told to stop. */
void interp_serve(void);

/* Main thread.  Between two starts it does not hold the GIL. */
void interp_park(void);
void interp_unpark(void);

/* GIL held; main thread unless the virtual machine halts. */
void interp_run_atexit(void);

/* Service thread: its permanent thread state. */
void interp_service_begin(void);

/* Service thread, without the GIL. */
void interp_cancel_running(void);
void interp_service_atexit(void);
void interp_stop_loops(void);
void interp_interrupt_main(void);

/* Worker thread: a permanent thread state, without the GIL on return. */
void *interp_worker_begin(void);
void interp_worker_end(void *worker);

#endif
