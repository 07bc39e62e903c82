/* References that Erlang gave up and that wait for a thread with the GIL. */
#include "object_handle.h"

#include "pool.h"
#include "runtime.h"

#include <pthread.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static object_drop *list; /* guarded by lock */
static size_t pending;    /* guarded by lock */
static int job_under_way; /* guarded by lock */

static void
run_drops(pool_job *job, void *worker)
{
  (void)job;
  object_drops_run(worker);
}

/* The pool stopped: what is queued waits for the next start. */
static void
keep_drops(pool_job *job)
{
  (void)job;
  pthread_mutex_lock(&lock);
  job_under_way = 0;
  pthread_mutex_unlock(&lock);
}

static pool_job drops_job = {run_drops, keep_drops, NULL, NULL, 0};

/* Lock held; it is not afterwards. */
static void
submit_and_unlock(void)
{
  int submit = list != NULL && !job_under_way;
  if (submit) {
    job_under_way = 1;
  }
  pthread_mutex_unlock(&lock);
  if (submit && pool_submit(runtime_pool(), &drops_job, 1) != POOL_OK) {
    keep_drops(&drops_job);
  }
}

void
object_drop_later(object_drop *drop)
{
  pthread_mutex_lock(&lock);
  drop->next = list;
  list = drop;
  pending++;
  submit_and_unlock();
}

void
object_drops_resume(void)
{
  pthread_mutex_lock(&lock);
  submit_and_unlock();
}

object_drop *
object_drops_take(void)
{
  pthread_mutex_lock(&lock);
  object_drop *taken = list;
  list = NULL;
  pending = 0;
  /* Whatever is queued from here on finds the job gone and submits it again. */
  if (taken == NULL) {
    job_under_way = 0;
  }
  pthread_mutex_unlock(&lock);
  return taken;
}

size_t
object_drops_pending(void)
{
  pthread_mutex_lock(&lock);
  size_t count = pending;
  pthread_mutex_unlock(&lock);
  return count;
}
