/* The service thread: a queue of intrusive items, run in order, and a list of those to run later. */
#include "service.h"

#include "thread.h"

#include <pthread.h>
#include <stddef.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t posted;
static service_item *head;  /* guarded by lock */
static service_item *tail;  /* guarded by lock */
static service_item *later; /* guarded by lock: the first to run first */

/* Lock held. */
static void
append(service_item *item)
{
  item->next = NULL;
  if (tail != NULL) {
    tail->next = item;
  } else {
    head = item;
  }
  tail = item;
}

static int
is_before(struct timespec a, struct timespec b)
{
  return a.tv_sec != b.tv_sec ? a.tv_sec < b.tv_sec : a.tv_nsec < b.tv_nsec;
}

/* Lock held.  Queues what was to run later and whose time has come. */
static void
take_due(void)
{
  struct timespec now = thread_deadline(0);
  while (later != NULL && !is_before(now, later->when)) {
    service_item *item = later;
    later = item->next;
    append(item);
  }
}

/* Service thread.  The next item to run; waits for one. */
static service_item *
next_item(void)
{
  pthread_mutex_lock(&lock);
  take_due();
  while (head == NULL) {
    if (later == NULL) {
      pthread_cond_wait(&posted, &lock);
    } else {
      struct timespec when = later->when;
      pthread_cond_timedwait(&posted, &lock, &when);
    }
    take_due();
  }
  service_item *item = head;
  head = item->next;
  if (head == NULL) {
    tail = NULL;
  }
  pthread_mutex_unlock(&lock);
  return item;
}

static void *
service_main(void *arg)
{
  void (*begin)(void) = *(void (**)(void))arg;
  thread_set_name("beamloop_svc");
  begin();
  for (;;) {
    service_item *item = next_item();
    item->run(item);
  }
  return NULL;
}

int
service_start(void (*begin)(void))
{
  static void (*begin_fn)(void); /* a function pointer may not travel as void * */
  begin_fn = begin;
  if (thread_cond_init(&posted) != 0) {
    return -1;
  }
  if (thread_spawn(service_main, &begin_fn) != 0) {
    pthread_cond_destroy(&posted);
    return -1;
  }
  return 0;
}

void
service_post(service_item *item)
{
  pthread_mutex_lock(&lock);
  append(item);
  pthread_cond_signal(&posted);
  pthread_mutex_unlock(&lock);
}

void
service_post_later(service_item *item, int64_t milliseconds)
{
  item->when = thread_deadline(milliseconds);
  pthread_mutex_lock(&lock);
  service_item **at = &later;
  while (*at != NULL && !is_before(item->when, (*at)->when)) {
    at = &(*at)->next;
  }
  item->next = *at;
  *at = item;
  pthread_cond_signal(&posted);
  pthread_mutex_unlock(&lock);
}

void
service_hasten(service_item *item)
{
  pthread_mutex_lock(&lock);
  service_item **at = &later;
  while (*at != NULL && *at != item) {
    at = &(*at)->next;
  }
  if (*at != NULL) {
    *at = item->next;
    append(item);
    pthread_cond_signal(&posted);
  }
  pthread_mutex_unlock(&lock);
}
