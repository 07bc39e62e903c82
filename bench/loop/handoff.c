/* Round trips between two threads: bare condition variables, and through the loop's C API.
 * Built as a shared library by handoff.py; needs neither Python.h nor erl_nif.h. */
#include <pthread.h>
#include <stdint.h>
#include <time.h>

#include "loop_api.h"

/* A place where one side puts a token and the other waits for it. */
struct mailbox {
  pthread_mutex_t lock;
  pthread_cond_t cond;
  int full; /* guarded by lock */
};

#define MAILBOX_INIT {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0}

static void
mailbox_put(struct mailbox *box)
{
  /* Signalled outside the lock: the one that wakes does not run into it. */
  pthread_mutex_lock(&box->lock);
  box->full = 1;
  pthread_mutex_unlock(&box->lock);
  pthread_cond_signal(&box->cond);
}

static void
mailbox_take(struct mailbox *box)
{
  pthread_mutex_lock(&box->lock);
  while (!box->full)
    pthread_cond_wait(&box->cond, &box->lock);
  box->full = 0;
  pthread_mutex_unlock(&box->lock);
}

static int64_t
now_ns(void)
{
  struct timespec ts;

  clock_gettime(CLOCK_MONOTONIC, &ts);
  return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

/* --- the floor ------------------------------------------------------------------------------- */

struct echo {
  struct mailbox to, back;
  int rounds;
};

static void *
echo_main(void *arg)
{
  struct echo *echo = arg;

  for (int i = 0; i < echo->rounds; i++) {
    mailbox_take(&echo->to);
    mailbox_put(&echo->back);
  }
  return NULL;
}

/* Call without the GIL.  Fills lengths with rounds round-trip times in ns; 0, or an errno. */
int
handoff_bare(int64_t *lengths, int rounds)
{
  struct echo echo = {MAILBOX_INIT, MAILBOX_INIT, rounds};
  pthread_t thread;
  int rc = pthread_create(&thread, NULL, echo_main, &echo);

  if (rc != 0)
    return rc;
  for (int i = 0; i < rounds; i++) {
    int64_t start = now_ns();

    mailbox_put(&echo.to);
    mailbox_take(&echo.back);
    lengths[i] = now_ns() - start;
  }
  return pthread_join(thread, NULL);
}

/* --- through the loop ------------------------------------------------------------------------ */

static struct mailbox answered = MAILBOX_INIT;

/* A loop_source_fn: on the loop's thread, with the GIL. */
int
handoff_answer(PyObject *owner, int kind)
{
  (void)owner;
  (void)kind;
  mailbox_put(&answered);
  return 0;
}

/* Any thread without the GIL.  As handoff_bare, the other side being the source id of a loop. */
int
handoff_loop(const loop_api *api, loop_core *core, uint64_t id, int64_t *lengths, int rounds)
{
  for (int i = 0; i < rounds; i++) {
    int64_t start = now_ns();

    if (api->post(core, id, LOOP_EVENT_SOURCE) != 0)
      return -1;
    mailbox_take(&answered);
    lengths[i] = now_ns() - start;
  }
  return 0;
}
