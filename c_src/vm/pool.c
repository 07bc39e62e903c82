/* An elastic pool of threads with a bounded queue. */
#include "pool.h"

#include "../loop/lock_check.h"
#include "thread.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

typedef struct pool_worker {
  pool *owner;
  pthread_cond_t wake;
  uint64_t generation;           /* of the start that made it */
  struct pool_worker *next_idle; /* guarded by lock */
  pool_job *job;                 /* handed over while idle; guarded by lock */
  int is_idle;                   /* guarded by lock */
} pool_worker;

struct pool {
  pthread_mutex_t lock; /* a leaf: no other lock is taken under it */
  pthread_cond_t ended; /* workers went down or are none */
  pool_ops ops;
  pool_limits limits; /* guarded by lock, as all below */
  int running;
  uint64_t generation;
  pool_worker *idle; /* last in, first out */
  size_t idle_count;
  size_t workers;   /* of this generation, starting ones included */
  size_t starting;  /* of those, threads that have not asked for a job yet */
  size_t abandoned; /* of earlier generations */
  pool_job *head;
  pool_job *tail;
  size_t queued;
};

pool *
pool_new(const pool_ops *ops)
{
  pool *p = calloc(1, sizeof(*p));
  if (p == NULL) {
    return NULL;
  }
  if (pthread_mutex_init(&p->lock, NULL) != 0) {
    free(p);
    return NULL;
  }
  if (thread_cond_init(&p->ended) != 0) {
    pthread_mutex_destroy(&p->lock);
    free(p);
    return NULL;
  }
  p->ops = *ops;
  return p;
}

/* Lock held. */
static void
queue_push(pool *p, pool_job *job)
{
  assert(lock_is_held(&p->lock) && !job->queued);
  job->next = NULL;
  job->prev = p->tail;
  if (p->tail != NULL) {
    p->tail->next = job;
  } else {
    p->head = job;
  }
  p->tail = job;
  job->queued = 1;
  p->queued++;
}

/* Lock held; the job is queued. */
static void
queue_unlink(pool *p, pool_job *job)
{
  assert(lock_is_held(&p->lock) && job->queued && p->queued > 0);
  if (job->prev != NULL) {
    job->prev->next = job->next;
  } else {
    p->head = job->next;
  }
  if (job->next != NULL) {
    job->next->prev = job->prev;
  } else {
    p->tail = job->prev;
  }
  job->next = job->prev = NULL;
  job->queued = 0;
  p->queued--;
}

/* Lock held; somebody is idle. */
static pool_worker *
idle_pop(pool *p)
{
  pool_worker *w = p->idle;
  assert(lock_is_held(&p->lock) && w != NULL && w->is_idle && p->idle_count > 0);
  p->idle = w->next_idle;
  p->idle_count--;
  w->is_idle = 0;
  return w;
}

/* Lock held; the worker is idle. */
static void
idle_unlink(pool *p, pool_worker *w)
{
  assert(lock_is_held(&p->lock) && w->is_idle && p->idle_count > 0);
  pool_worker **at = &p->idle;
  while (*at != w) {
    at = &(*at)->next_idle;
  }
  *at = w->next_idle;
  p->idle_count--;
  w->is_idle = 0;
}

/* Lock held.  Waits for a job while idle: NULL when the worker should end. */
static pool_job *
wait_for_job(pool *p, pool_worker *w)
{
  w->job = NULL;
  w->next_idle = p->idle;
  p->idle = w;
  p->idle_count++;
  w->is_idle = 1;
  struct timespec deadline = thread_deadline(p->limits.idle_ms);
  while (w->is_idle) {
    if (pthread_cond_timedwait(&w->wake, &p->lock, &deadline) == ETIMEDOUT && w->is_idle) {
      idle_unlink(p, w);
    }
  }
  return w->job;
}

/* Lock held.  The next job of this worker, waiting for it; NULL when it should end. */
static pool_job *
next_job(pool *p, pool_worker *w)
{
  if (w->generation != p->generation || !p->running) {
    return NULL;
  }
  pool_job *job = p->head;
  if (job != NULL) {
    queue_unlink(p, job);
    return job;
  }
  return wait_for_job(p, w);
}

/* Lock held.  The worker counts no longer. */
static void
worker_gone(pool *p, const pool_worker *w)
{
  if (w->generation == p->generation) {
    p->workers--;
  } else {
    p->abandoned--;
  }
  pthread_cond_broadcast(&p->ended);
}

/* Lock held, and released around each drop. */
static void
drop_queued(pool *p)
{
  pool_job *job;
  while ((job = p->head) != NULL) {
    queue_unlink(p, job);
    pthread_mutex_unlock(&p->lock);
    job->drop(job);
    pthread_mutex_lock(&p->lock);
  }
}

static void *
worker_main(void *arg)
{
  pool_worker *w = arg;
  pool *p = w->owner;
  thread_set_name("beamloop_worker");
  void *state = p->ops.worker_begin();
  pthread_mutex_lock(&p->lock);
  if (w->generation == p->generation) {
    p->starting--;
  }
  pool_job *job;
  while (state != NULL && (job = next_job(p, w)) != NULL) {
    pthread_mutex_unlock(&p->lock);
    job->run(job, state);
    pthread_mutex_lock(&p->lock);
  }
  pthread_mutex_unlock(&p->lock);
  if (state != NULL) {
    p->ops.worker_end(state);
  }
  pthread_mutex_lock(&p->lock);
  worker_gone(p, w);
  if (state == NULL && p->workers == 0) {
    drop_queued(p);
  }
  pthread_mutex_unlock(&p->lock);
  pthread_cond_destroy(&w->wake);
  free(w);
  return NULL;
}

/* Any thread; no lock; the new worker is counted already.  0 or -1. */
static int
start_worker(pool *p, uint64_t generation)
{
  pool_worker *w = calloc(1, sizeof(*w));
  if (w == NULL) {
    return -1;
  }
  w->owner = p;
  w->generation = generation;
  if (thread_cond_init(&w->wake) != 0) {
    free(w);
    return -1;
  }
  if (thread_spawn(worker_main, w) != 0) {
    pthread_cond_destroy(&w->wake);
    free(w);
    return -1;
  }
  return 0;
}

void
pool_start(pool *p, const pool_limits *limits)
{
  pthread_mutex_lock(&p->lock);
  p->limits = *limits;
  if (!p->running) {
    p->running = 1;
    p->generation++;
    p->abandoned += p->workers;
    p->workers = 0;
    p->starting = 0;
  }
  pthread_mutex_unlock(&p->lock);
}

/* Any thread; takes the lock.  A worker could not be started: 1 when nobody is left to run the job,
 * which then is not queued any more; 0 when it waits for a worker or runs already. */
static int
start_failed(pool *p, pool_job *job, uint64_t generation)
{
  int lost = 0;
  pthread_mutex_lock(&p->lock);
  if (generation == p->generation) {
    p->workers--;
    p->starting--;
    if (p->workers == 0 && job->queued) {
      queue_unlink(p, job);
      lost = 1;
    }
  } else {
    p->abandoned--;
  }
  pthread_cond_broadcast(&p->ended);
  pthread_mutex_unlock(&p->lock);
  return lost;
}

/* Lock held.  Jobs beyond those that the starting workers will take. */
static size_t
really_queued(const pool *p)
{
  return p->queued > p->starting ? p->queued - p->starting : 0;
}

int
pool_submit(pool *p, pool_job *job, int exempt)
{
  int result = POOL_OK;
  int grow = 0;
  pthread_mutex_lock(&p->lock);
  uint64_t generation = p->generation;
  if (!p->running) {
    result = POOL_STOPPED;
  } else if (p->idle != NULL) {
    pool_worker *w = idle_pop(p);
    w->job = job;
    pthread_cond_signal(&w->wake);
  } else if (p->workers < p->limits.max_workers) {
    queue_push(p, job);
    p->workers++;
    p->starting++;
    grow = 1;
  } else if (exempt || really_queued(p) < p->limits.max_queued) {
    queue_push(p, job);
  } else {
    result = POOL_OVERLOADED;
  }
  pthread_mutex_unlock(&p->lock);
  if (grow && start_worker(p, generation) != 0 && start_failed(p, job, generation)) {
    result = POOL_OVERLOADED;
  }
  return result;
}

int
pool_remove(pool *p, pool_job *job)
{
  pthread_mutex_lock(&p->lock);
  int was_queued = job->queued;
  if (was_queued) {
    queue_unlink(p, job);
  }
  pthread_mutex_unlock(&p->lock);
  return was_queued;
}

void
pool_stop(pool *p)
{
  pthread_mutex_lock(&p->lock);
  p->running = 0;
  while (p->idle != NULL) {
    pool_worker *w = idle_pop(p);
    pthread_cond_signal(&w->wake);
  }
  drop_queued(p);
  pthread_mutex_unlock(&p->lock);
}

size_t
pool_join(pool *p, int64_t milliseconds)
{
  struct timespec deadline = thread_deadline(milliseconds);
  pthread_mutex_lock(&p->lock);
  while (p->workers > 0 && !p->running) {
    if (pthread_cond_timedwait(&p->ended, &p->lock, &deadline) == ETIMEDOUT) {
      break;
    }
  }
  size_t left = p->workers;
  pthread_mutex_unlock(&p->lock);
  return left;
}

pool_stats
pool_get_stats(pool *p)
{
  pthread_mutex_lock(&p->lock);
  pool_stats stats = {p->workers, p->idle_count, really_queued(p), p->abandoned};
  pthread_mutex_unlock(&p->lock);
  return stats;
}
