/* The service thread: a queue of intrusive items, run in order. */
#include "service.h"

#include "thread.h"

#include <pthread.h>
#include <stddef.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t posted = PTHREAD_COND_INITIALIZER;
static service_item *head; /* guarded by lock */
static service_item *tail; /* guarded by lock */

static void *
service_main(void *arg)
{
  void (*begin)(void) = *(void (**)(void))arg;
  thread_set_name("beamloop_svc");
  begin();
  for (;;) {
    pthread_mutex_lock(&lock);
    while (head == NULL) {
      pthread_cond_wait(&posted, &lock);
    }
    service_item *item = head;
    head = item->next;
    if (head == NULL) {
      tail = NULL;
    }
    pthread_mutex_unlock(&lock);
    item->run(item);
  }
  return NULL;
}

int
service_start(void (*begin)(void))
{
  static void (*begin_fn)(void); /* a function pointer may not travel as void * */
  begin_fn = begin;
  return thread_spawn(service_main, &begin_fn) == 0 ? 0 : -1;
}

void
service_post(service_item *item)
{
  pthread_mutex_lock(&lock);
  item->next = NULL;
  if (tail != NULL) {
    tail->next = item;
  } else {
    head = item;
  }
  tail = item;
  pthread_cond_signal(&posted);
  pthread_mutex_unlock(&lock);
}
