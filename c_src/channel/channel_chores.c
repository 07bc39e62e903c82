#define _GNU_SOURCE /* pthread_setname_np */
#include "channel_chores.h"

#include <pthread.h>
#include <stddef.h>
#include <time.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static channel_chore *first; /* guarded by lock, and so the rest */
static channel_chore *last;
static int running;           /* the thread is there */
static pthread_cond_t posted; /* monotonic; made with the first chore */
static int sleeping;          /* the thread waits for one */

#define LINGER 1 /* seconds without a chore after which the thread ends */

/* Lock held. */
static void
append(channel_chore *chore)
{
  chore->next = NULL;
  if (last != NULL) {
    last->next = chore;
  } else {
    first = chore;
  }
  last = chore;
}

/* Lock held, and free meanwhile.  Waits until there is a chore, for a while. */
static void
await_chore(void)
{
  struct timespec until;
  int failed = 0;
  clock_gettime(CLOCK_MONOTONIC, &until);
  until.tv_sec += LINGER;
  sleeping = 1;
  while (first == NULL && failed == 0) {
    failed = pthread_cond_timedwait(&posted, &lock, &until);
  }
  sleeping = 0;
}

/* Lock held.  The next one, or NULL and the thread ends. */
static channel_chore *
next_chore(void)
{
  if (first == NULL) {
    await_chore();
  }
  channel_chore *chore = first;
  if (chore == NULL) {
    running = 0;
    return NULL;
  }
  first = chore->next;
  if (first == NULL) {
    last = NULL;
  }
  return chore;
}

static void *
work(void *arg)
{
  channel_chore *chore;
  (void)arg;
#ifdef __linux__
  pthread_setname_np(pthread_self(), "beamloop_chores");
#endif
  pthread_mutex_lock(&lock);
  while ((chore = next_chore()) != NULL) {
    pthread_mutex_unlock(&lock);
    int more = chore->step(chore);
    pthread_mutex_lock(&lock);
    if (more) {
      append(chore);
    }
  }
  pthread_mutex_unlock(&lock);
  return NULL;
}

static void
make_cond(void)
{
  pthread_condattr_t attr;
  pthread_condattr_init(&attr);
  pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
  pthread_cond_init(&posted, &attr);
  pthread_condattr_destroy(&attr);
}

/* All that there is, on this thread, for there can be no other. */
static void
work_at_once(void)
{
  channel_chore *chore;
  pthread_mutex_lock(&lock);
  while (first != NULL) {
    chore = next_chore();
    pthread_mutex_unlock(&lock);
    while (chore->step(chore)) {
    }
    pthread_mutex_lock(&lock);
  }
  running = 0;
  pthread_mutex_unlock(&lock);
}

void
channel_chore_post(channel_chore *chore)
{
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_t thread;
  pthread_once(&once, make_cond);
  pthread_mutex_lock(&lock);
  append(chore);
  int start = !running;
  running = 1;
  if (sleeping) {
    pthread_cond_signal(&posted);
  }
  pthread_mutex_unlock(&lock);
  if (!start) {
    return;
  }
  /* The new thread inherits a mask that blocks what ours block. */
  if (pthread_create(&thread, NULL, work, NULL) == 0) {
    pthread_detach(thread);
  } else {
    work_at_once();
  }
}
