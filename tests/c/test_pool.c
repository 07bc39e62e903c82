/* The worker pool as a plain C program: limits, removal, expiry, stop and start, many submitters. */
#include "pool.h"

#include <assert.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#ifdef NDEBUG
#error "the assertions are the test"
#endif

typedef struct test_job {
  pool_job job; /* first */
  atomic_int ran;
  atomic_int dropped;
} test_job;

static atomic_int begun;
static atomic_int ended;
static atomic_int gate_closed; /* jobs wait while it is set */
static atomic_int inside;      /* jobs that wait there */

static void *
begin_worker(void)
{
  atomic_fetch_add(&begun, 1);
  return &begun;
}

static void
end_worker(void *worker)
{
  assert(worker == &begun);
  atomic_fetch_add(&ended, 1);
}

static void
run_job(pool_job *job, void *worker)
{
  assert(worker == &begun);
  atomic_fetch_add(&inside, 1);
  while (atomic_load(&gate_closed)) {
    usleep(100);
  }
  atomic_fetch_sub(&inside, 1);
  atomic_fetch_add(&((test_job *)job)->ran, 1);
}

static void
drop_job(pool_job *job)
{
  atomic_fetch_add(&((test_job *)job)->dropped, 1);
}

static const pool_ops ops = {begin_worker, end_worker};

static test_job *
new_jobs(size_t count)
{
  test_job *jobs = calloc(count, sizeof(*jobs));
  assert(jobs != NULL);
  for (size_t i = 0; i < count; i++) {
    jobs[i].job.run = run_job;
    jobs[i].job.drop = drop_job;
  }
  return jobs;
}

/* A pool lives as long as its process does.  Volatile, or the compiler leaves out what is never read, and
 * the leak sanitizer finds no reference. */
static pool *volatile pools[8];
static size_t pool_count;

static pool *
started(size_t max_workers, size_t max_queued, int64_t idle_ms)
{
  pool *p = pool_new(&ops);
  assert(p != NULL);
  pools[pool_count++] = p;
  pool_start(p, &(pool_limits){max_workers, max_queued, idle_ms});
  return p;
}

static void
until(atomic_int *value, int wanted)
{
  for (int i = 0; atomic_load(value) != wanted; i++) {
    assert(i < 100000);
    usleep(100);
  }
}

static void
refuses_beyond_its_limits(void)
{
  pool *p = started(2, 3, 60000);
  test_job *jobs = new_jobs(7);
  atomic_store(&gate_closed, 1);
  for (int i = 0; i < 5; i++) {
    assert(pool_submit(p, &jobs[i].job, 0) == POOL_OK);
  }
  assert(pool_submit(p, &jobs[5].job, 0) == POOL_OVERLOADED);
  assert(pool_submit(p, &jobs[6].job, 1) == POOL_OK);
  until(&inside, 2);
  pool_stats stats = pool_get_stats(p);
  assert(stats.workers == 2 && stats.idle == 0 && stats.queued == 4);
  /* The last is still queued and can be taken back, once. */
  assert(pool_remove(p, &jobs[6].job) == 1);
  assert(pool_remove(p, &jobs[6].job) == 0);
  atomic_store(&gate_closed, 0);
  for (int i = 0; i < 5; i++) {
    until(&jobs[i].ran, 1);
  }
  pool_stop(p);
  assert(pool_join(p, 10000) == 0);
  assert(jobs[5].ran == 0 && jobs[6].ran == 0);
  free(jobs);
}

static void
idle_workers_expire(void)
{
  pool *p = started(8, 100, 20);
  test_job *jobs = new_jobs(8);
  atomic_store(&gate_closed, 1);
  for (int i = 0; i < 8; i++) {
    assert(pool_submit(p, &jobs[i].job, 0) == POOL_OK);
  }
  until(&inside, 8);
  assert(pool_get_stats(p).workers == 8);
  atomic_store(&gate_closed, 0);
  for (int i = 0; pool_get_stats(p).workers != 0; i++) {
    assert(i < 10000);
    usleep(1000);
  }
  pool_stop(p);
  free(jobs);
}

static void
stop_drops_the_queue_and_start_serves_again(void)
{
  pool *p = started(1, 100, 60000);
  test_job *jobs = new_jobs(6);
  atomic_store(&gate_closed, 1);
  assert(pool_submit(p, &jobs[0].job, 0) == POOL_OK);
  until(&inside, 1);
  for (int i = 1; i < 5; i++) {
    assert(pool_submit(p, &jobs[i].job, 0) == POOL_OK);
  }
  pool_stop(p);
  for (int i = 1; i < 5; i++) {
    assert(jobs[i].dropped == 1 && jobs[i].ran == 0);
  }
  assert(pool_submit(p, &jobs[5].job, 0) == POOL_STOPPED);
  assert(pool_join(p, 10) == 1);
  /* The one that is stuck counts as abandoned; another serves. */
  pool_start(p, &(pool_limits){1, 100, 60000});
  assert(pool_get_stats(p).abandoned == 1);
  assert(pool_submit(p, &jobs[5].job, 0) == POOL_OK);
  until(&inside, 2);
  atomic_store(&gate_closed, 0);
  until(&jobs[0].ran, 1);
  until(&jobs[5].ran, 1);
  for (int i = 0; pool_get_stats(p).abandoned != 0; i++) {
    assert(i < 10000);
    usleep(1000);
  }
  pool_stop(p);
  assert(pool_join(p, 10000) == 0);
  free(jobs);
}

#define SUBMITTERS 4
#define PER_SUBMITTER 5000

typedef struct submitter {
  pool *p;
  test_job *jobs;
  unsigned seed;
  int removed;
} submitter;

static void *
submit_many(void *arg)
{
  submitter *s = arg;
  for (int i = 0; i < PER_SUBMITTER; i++) {
    while (pool_submit(s->p, &s->jobs[i].job, 0) != POOL_OK) {
      usleep(50);
    }
    if (rand_r(&s->seed) % 8 == 0) {
      s->removed += pool_remove(s->p, &s->jobs[i].job);
    }
  }
  return NULL;
}

/* Every job runs once or was removed. */
static void
many_submitters_lose_nothing(void)
{
  pool *p = started(6, 200, 1);
  submitter submitters[SUBMITTERS];
  pthread_t threads[SUBMITTERS];
  for (int i = 0; i < SUBMITTERS; i++) {
    submitters[i] = (submitter){p, new_jobs(PER_SUBMITTER), (unsigned)i + 1, 0};
    assert(pthread_create(&threads[i], NULL, submit_many, &submitters[i]) == 0);
  }
  for (int i = 0; i < SUBMITTERS; i++) {
    pthread_join(threads[i], NULL);
  }
  for (int i = 0; pool_get_stats(p).workers != 0; i++) {
    assert(i < 10000);
    usleep(1000);
  }
  for (int i = 0; i < SUBMITTERS; i++) {
    int ran = 0;
    for (int j = 0; j < PER_SUBMITTER; j++) {
      assert(submitters[i].jobs[j].ran <= 1 && submitters[i].jobs[j].dropped == 0);
      ran += submitters[i].jobs[j].ran;
    }
    assert(ran + submitters[i].removed == PER_SUBMITTER);
    free(submitters[i].jobs);
  }
  pool_stop(p);
}

int
main(void)
{
  refuses_beyond_its_limits();
  idle_workers_expire();
  stop_drops_the_queue_and_start_serves_again();
  many_submitters_lose_nothing();
  for (int i = 0; atomic_load(&begun) != atomic_load(&ended); i++) {
    assert(i < 10000);
    usleep(1000);
  }
  puts("pool: ok");
  return 0;
}
