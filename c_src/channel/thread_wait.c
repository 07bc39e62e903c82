#include "thread_wait.h"

#include "cpu_relax.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

struct thread_wait {
  atomic_uint refs;
  int waiting; /* guarded by the GIL */
  pthread_mutex_t mutex;
  pthread_cond_t cond;
  atomic_int woken;       /* written with mutex held */
  atomic_int interrupted; /* written with mutex held */
};

static pthread_key_t key;
static pthread_once_t key_once = PTHREAD_ONCE_INIT;
static int key_ok;
static _Thread_local thread_wait *current;

static void
thread_ended(void *w)
{
  current = NULL;
  thread_wait_decref(w);
}

static void
make_key(void)
{
  key_ok = pthread_key_create(&key, thread_ended) == 0;
}

static thread_wait *
thread_wait_new(void)
{
  thread_wait *w = calloc(1, sizeof(*w));
  pthread_condattr_t attr;
  if (w == NULL) {
    return NULL;
  }
  atomic_init(&w->refs, 1);
  pthread_mutex_init(&w->mutex, NULL);
  pthread_condattr_init(&attr);
  pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
  pthread_cond_init(&w->cond, &attr);
  pthread_condattr_destroy(&attr);
  return w;
}

thread_wait *
thread_wait_current(void)
{
  if (current != NULL) {
    return current;
  }
  pthread_once(&key_once, make_key);
  if (!key_ok) {
    return NULL;
  }
  thread_wait *w = thread_wait_new();
  if (w != NULL && pthread_setspecific(key, w) != 0) {
    thread_wait_decref(w);
    return NULL;
  }
  current = w;
  return w;
}

void
thread_wait_incref(thread_wait *w)
{
  atomic_fetch_add_explicit(&w->refs, 1, memory_order_relaxed);
}

void
thread_wait_decref(thread_wait *w)
{
  if (atomic_fetch_sub_explicit(&w->refs, 1, memory_order_acq_rel) != 1) {
    return;
  }
  pthread_cond_destroy(&w->cond);
  pthread_mutex_destroy(&w->mutex);
  free(w);
}

void
thread_wait_begin(thread_wait *w)
{
  pthread_mutex_lock(&w->mutex);
  w->woken = 0;
  w->interrupted = 0;
  pthread_mutex_unlock(&w->mutex);
  w->waiting = 1;
}

int
thread_wait_spin(thread_wait *w, int64_t nanoseconds)
{
  int64_t until = thread_wait_clock() + nanoseconds;
  do {
    for (int i = 0; i < 16; i++) {
      if (atomic_load_explicit(&w->woken, memory_order_acquire) ||
          atomic_load_explicit(&w->interrupted, memory_order_acquire)) {
        return 1;
      }
      cpu_relax();
    }
  } while (thread_wait_clock() < until);
  return 0;
}

int
thread_wait_sleep(thread_wait *w, int64_t deadline)
{
  struct timespec until = {.tv_sec = (time_t)(deadline / 1000000000),
                           .tv_nsec = (long)(deadline % 1000000000)};
  int failed = 0;
  int result;
  pthread_mutex_lock(&w->mutex);
  while (!w->woken && !w->interrupted && failed == 0) {
    failed = deadline == THREAD_WAIT_FOREVER ? pthread_cond_wait(&w->cond, &w->mutex)
                                             : pthread_cond_timedwait(&w->cond, &w->mutex, &until);
  }
  if (w->interrupted) {
    result = THREAD_WAIT_INTERRUPTED;
  } else if (w->woken) {
    w->woken = 0;
    result = THREAD_WAIT_WOKEN;
  } else {
    result = THREAD_WAIT_TIMEOUT;
  }
  pthread_mutex_unlock(&w->mutex);
  return result;
}

int
thread_wait_end(thread_wait *w)
{
  w->waiting = 0;
  pthread_mutex_lock(&w->mutex);
  int interrupted = w->interrupted;
  w->interrupted = 0;
  pthread_mutex_unlock(&w->mutex);
  return interrupted;
}

void
thread_wait_wake(thread_wait *w)
{
  pthread_mutex_lock(&w->mutex);
  w->woken = 1;
  pthread_mutex_unlock(&w->mutex);
  /* Not with the mutex held: the thread that wakes up needs it at once. */
  pthread_cond_signal(&w->cond);
}

int
thread_wait_interrupt(thread_wait *w)
{
  if (!w->waiting) {
    return 0;
  }
  pthread_mutex_lock(&w->mutex);
  w->interrupted = 1;
  pthread_cond_signal(&w->cond);
  pthread_mutex_unlock(&w->mutex);
  return 1;
}

int64_t
thread_wait_clock(void)
{
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}
