/* An elastic pool of threads with a bounded queue.  Plain C: neither Python.h nor erl_nif.h.
 *
 * A job is handed to the worker that became idle last, so that the others may expire.  When nobody
 * is idle a worker is started, up to the maximum; then jobs queue in order, up to a limit.
 */
#ifndef BEAMLOOP_VM_POOL_H
#define BEAMLOOP_VM_POOL_H

#include <stddef.h>
#include <stdint.h>

typedef struct pool pool;
typedef struct pool_job pool_job;

/* Embedded in what is to run. */
struct pool_job {
  void (*run)(pool_job *job, void *worker); /* worker thread */
  void (*drop)(pool_job *job);              /* any thread: the pool stopped before it ran */
  pool_job *next;                           /* guarded by the pool's lock, as the two below */
  pool_job *prev;
  int queued;
};

typedef struct pool_ops {
  void *(*worker_begin)(void);      /* worker thread: its state; NULL when it cannot serve */
  void (*worker_end)(void *worker); /* worker thread, last of all */
} pool_ops;

typedef struct pool_limits {
  size_t max_workers;
  size_t max_queued;
  int64_t idle_ms; /* an idle worker ends after so long */
} pool_limits;

typedef struct pool_stats {
  size_t workers;
  size_t idle;
  size_t queued;
  size_t abandoned; /* workers of an earlier start that have not come back yet */
} pool_stats;

enum pool_result { POOL_OK = 0, POOL_OVERLOADED = -1, POOL_STOPPED = -2 };

/* Any thread.  A stopped pool, or NULL (memory). */
pool *pool_new(const pool_ops *ops);

/* Any thread; takes the lock.  From now on jobs are taken. */
void pool_start(pool *p, const pool_limits *limits);

/* Any thread; takes the lock; may start a thread.  Exempt jobs ignore max_queued. */
int pool_submit(pool *p, pool_job *job, int exempt);

/* Any thread; takes the lock.  1 when the job was still queued, and will never run; 0 otherwise. */
int pool_remove(pool *p, pool_job *job);

/* Any thread; takes the lock.  Refuses jobs, drops the queued ones, sends the idle workers home. */
void pool_stop(pool *p);

/* Any thread but a worker; waits.  The number of workers that did not end in time; they count as
 * abandoned from then on and end when their job does. */
size_t pool_join(pool *p, int64_t milliseconds);

/* Any thread; takes the lock. */
pool_stats pool_get_stats(pool *p);

#endif
