#include "channel_chores.h"

#include <pthread.h>
#include <stddef.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static channel_chore *first; /* guarded by lock, and so the rest */
static channel_chore *last;
static int running; /* the thread is there */

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

/* Lock held.  The next one, or NULL and the thread ends. */
static channel_chore *
next_chore(void)
{
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

void
channel_chore_post(channel_chore *chore)
{
  pthread_t thread;
  pthread_mutex_lock(&lock);
  append(chore);
  int start = !running;
  running = 1;
  pthread_mutex_unlock(&lock);
  if (!start) {
    return;
  }
  /* The new thread inherits a mask that blocks what ours block. */
  if (pthread_create(&thread, NULL, work, NULL) == 0) {
    pthread_detach(thread);
  } else {
    work(NULL);
  }
}
