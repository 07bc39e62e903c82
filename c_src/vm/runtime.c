/* The life of the interpreter: a small state machine around the main Python thread. */
#include "runtime.h"

#include "object_handle.h"
#include "service.h"
#include "thread.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum command { COMMAND_NONE = 0, COMMAND_START, COMMAND_ATEXIT };

static struct {
  pthread_mutex_t lock; /* guards all below; nothing else is locked under it */
  pthread_cond_t changed;
  int made; /* changed is initialised, the threads exist */
  enum runtime_phase phase;
  enum command command; /* for the main thread */
  notice *command_notice;
  notice *stop_notice;
  int64_t stop_ms;
  int halted; /* what was registered with atexit has run, for a halt */
  runtime_config config;
  char error[RUNTIME_ERROR_SIZE]; /* why the phase is RUNTIME_FAILED */
  pool *workers;                  /* written once, before the threads exist */
} rt = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* Any thread; takes the lock. */
static void
set_phase(enum runtime_phase phase)
{
  pthread_mutex_lock(&rt.lock);
  rt.phase = phase;
  pthread_cond_broadcast(&rt.changed);
  pthread_mutex_unlock(&rt.lock);
}

/* Main thread.  The first start initialises CPython, the later ones take the GIL again. */
static int
take_interpreter(int *initialised, char *error, size_t size)
{
  if (*initialised) {
    interp_unpark();
    return 0;
  }
  if (interp_initialise(&rt.config, error, size) != 0) {
    return -1;
  }
  *initialised = 1;
  return service_start(interp_service_begin);
}

/* Main thread, without the GIL.  One whole start, until the stop. */
static void
serve(int *initialised, notice *n)
{
  char error[RUNTIME_ERROR_SIZE] = "the service thread could not be started";
  if (take_interpreter(initialised, error, sizeof(error)) != 0) {
    pthread_mutex_lock(&rt.lock);
    memcpy(rt.error, error, sizeof(error));
    pthread_mutex_unlock(&rt.lock);
    set_phase(RUNTIME_FAILED);
    notice_send(n, error);
    return;
  }
  if (interp_open(error, sizeof(error)) != 0) {
    interp_park();
    set_phase(RUNTIME_PARKED);
    notice_send(n, error);
    return;
  }
  pool_start(rt.workers, &rt.config.limits);
  object_drops_resume();
  set_phase(RUNTIME_RUNNING);
  notice_send(n, NULL);
  interp_serve();
  interp_park();
  set_phase(RUNTIME_PARKED);
}

static void
run_atexit(int initialised, notice *n)
{
  if (initialised) {
    interp_unpark();
    interp_run_atexit();
    interp_park();
  }
  notice_send(n, NULL);
}

static void *
main_thread(void *arg)
{
  (void)arg;
  int initialised = 0;
  thread_set_name("beamloop_python");
  for (;;) {
    pthread_mutex_lock(&rt.lock);
    while (rt.command == COMMAND_NONE) {
      pthread_cond_wait(&rt.changed, &rt.lock);
    }
    enum command command = rt.command;
    notice *n = rt.command_notice;
    rt.command = COMMAND_NONE;
    rt.command_notice = NULL;
    if (command == COMMAND_START && rt.phase != RUNTIME_FAILED) {
      rt.phase = RUNTIME_STARTING;
    }
    pthread_mutex_unlock(&rt.lock);
    if (command == COMMAND_START) {
      serve(&initialised, n);
    } else {
      run_atexit(initialised, n);
    }
  }
  return NULL;
}

static const pool_ops worker_ops = {interp_worker_begin, interp_worker_end};

/* Lock held.  Makes the pool and the main thread, once.  0 or -1. */
static int
make_threads(void)
{
  if (rt.made) {
    return 0;
  }
  if (rt.workers == NULL && (rt.workers = pool_new(&worker_ops)) == NULL) {
    return -1;
  }
  if (thread_cond_init(&rt.changed) != 0) {
    return -1;
  }
  if (thread_spawn(main_thread, NULL) != 0) {
    pthread_cond_destroy(&rt.changed);
    return -1;
  }
  rt.made = 1;
  return 0;
}

/* Lock held.  Hands the main thread its next command; an answer that nobody waits for any more is
 * given up. */
static void
post_command(enum command command, notice *n, notice **stale)
{
  *stale = rt.command_notice;
  rt.command = command;
  rt.command_notice = n;
  pthread_cond_broadcast(&rt.changed);
}

/* Lock held. */
static void
replace_config(const runtime_config *config)
{
  free(rt.config.executable);
  free(rt.config.packages);
  rt.config = *config;
}

void
runtime_start(const runtime_config *config, notice *n)
{
  notice *stale = NULL;
  char error[RUNTIME_ERROR_SIZE] = "";
  int answer = 1;
  pthread_mutex_lock(&rt.lock);
  if (rt.phase == RUNTIME_FAILED) {
    memcpy(error, rt.error, sizeof(error));
  } else if (make_threads() != 0) {
    snprintf(error, sizeof(error), "the interpreter's thread could not be started");
  } else if (rt.phase == RUNTIME_STARTING || rt.command == COMMAND_START) {
    snprintf(error, sizeof(error), "another start is under way");
  } else if (rt.phase != RUNTIME_RUNNING) {
    /* A main thread that is still busy with what stopped serves this when it comes back. */
    replace_config(config);
    post_command(COMMAND_START, n, &stale);
    config = NULL;
    answer = 0;
  }
  pthread_mutex_unlock(&rt.lock);
  if (config != NULL) {
    free(config->executable);
    free(config->packages);
  }
  if (stale != NULL) {
    notice_send(stale, "another start or stop came first");
  }
  if (answer) {
    notice_send(n, error[0] != '\0' ? error : NULL);
  }
}

/* Service thread.  1 when the main thread parked within the time. */
static int
wait_parked(int64_t milliseconds)
{
  struct timespec deadline = thread_deadline(milliseconds);
  pthread_mutex_lock(&rt.lock);
  while (rt.phase == RUNTIME_STOPPING) {
    if (pthread_cond_timedwait(&rt.changed, &rt.lock, &deadline) == ETIMEDOUT) {
      break;
    }
  }
  int parked = rt.phase != RUNTIME_STOPPING;
  pthread_mutex_unlock(&rt.lock);
  return parked;
}

/* Service thread.  The whole stop, under its deadline: half of it asks, the rest insists. */
static void
stop_now(service_item *item)
{
  (void)item;
  pthread_mutex_lock(&rt.lock);
  int64_t milliseconds = rt.stop_ms;
  notice *n = rt.stop_notice;
  rt.stop_notice = NULL;
  pthread_mutex_unlock(&rt.lock);
  pool_stop(rt.workers);
  interp_cancel_running();
  interp_stop_loops();
  int parked = wait_parked(milliseconds / 2);
  if (!parked) {
    interp_interrupt_main();
    parked = wait_parked(milliseconds / 4);
  }
  size_t left = pool_join(rt.workers, milliseconds / 4);
  notice_send(n, parked && left == 0 ? NULL : "python code did not end in time and was abandoned");
}

void
runtime_stop(int64_t milliseconds, notice *n)
{
  static service_item stop_item = {.run = stop_now};
  pthread_mutex_lock(&rt.lock);
  int running = rt.phase == RUNTIME_RUNNING;
  if (running) {
    rt.phase = RUNTIME_STOPPING;
    rt.stop_ms = milliseconds;
    rt.stop_notice = n;
  }
  pthread_mutex_unlock(&rt.lock);
  if (running) {
    service_post(&stop_item);
  } else {
    notice_send(n, NULL);
  }
}

void
runtime_run_atexit(notice *n)
{
  notice *stale = NULL;
  pthread_mutex_lock(&rt.lock);
  int made = rt.made;
  if (made) {
    post_command(COMMAND_ATEXIT, n, &stale);
  }
  pthread_mutex_unlock(&rt.lock);
  if (stale != NULL) {
    notice_send(stale, "another start or stop came first");
  }
  if (!made) {
    notice_send(n, NULL);
  }
}

/* Service thread. */
static void
halt_now(service_item *item)
{
  (void)item;
  interp_service_atexit();
  pthread_mutex_lock(&rt.lock);
  rt.halted = 1;
  pthread_cond_broadcast(&rt.changed);
  pthread_mutex_unlock(&rt.lock);
}

void
runtime_halt(int64_t milliseconds)
{
  static service_item halt_item = {.run = halt_now};
  struct timespec deadline = thread_deadline(milliseconds);
  pthread_mutex_lock(&rt.lock);
  int initialised =
      rt.phase == RUNTIME_RUNNING || rt.phase == RUNTIME_STOPPING || rt.phase == RUNTIME_PARKED;
  if (initialised && !rt.halted) {
    service_post(&halt_item); /* its lock is a leaf */
    while (!rt.halted) {
      if (pthread_cond_timedwait(&rt.changed, &rt.lock, &deadline) == ETIMEDOUT) {
        break;
      }
    }
  }
  pthread_mutex_unlock(&rt.lock);
}

enum runtime_phase
runtime_get_phase(void)
{
  pthread_mutex_lock(&rt.lock);
  enum runtime_phase phase = rt.phase;
  pthread_mutex_unlock(&rt.lock);
  return phase;
}

pool *
runtime_pool(void)
{
  return rt.workers;
}
