/* The pending queue; see pending.h.  Two buffers change places at every drain, so that a steady
 * stream of events allocates nothing.
 *
 * tests/models/pending.pml is its model, which spin searches; an invariant named here is asserted there. */
#include "pending.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "lock_check.h"
#include "waker.h"

/* A drained buffer larger than this is given back instead of kept for reuse. */
#define PENDING_KEEP_EVENTS 4096

struct pending_buffer {
  pending_event *events;
  size_t count;
  size_t capacity;
};

struct loop_core {
  atomic_int refs;
  pthread_mutex_t lock;
  pthread_cond_t cond;          /* waits use lock and the monotonic clock */
  struct pending_buffer queued; /* guarded by lock */
  struct pending_buffer taken;  /* the loop's thread alone */
  size_t kept;                  /* guarded by lock: all of taken, or 0 */
  size_t reserved;              /* guarded by lock: room in either buffer for events of sources */
  atomic_size_t count;          /* of queued and kept; written under lock */
  atomic_int state;             /* enum pending_state; written under lock */
  int waker_fd;                 /* guarded by lock; -1 until the first sleep in the poller */
  bool in_poller;               /* guarded by lock; a sleep there was announced and has not ended */
  bool closed;                  /* guarded by lock */
};

static atomic_size_t live_cores;

loop_core *
pending_new(void)
{
  loop_core *core = calloc(1, sizeof(*core));
  pthread_condattr_t attr;

  if (core == NULL)
    return NULL;
  atomic_init(&core->refs, 1);
  atomic_init(&core->count, 0);
  atomic_init(&core->state, PENDING_AWAKE);
  core->waker_fd = -1;
  pthread_mutex_init(&core->lock, NULL);
  pthread_condattr_init(&attr);
  pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
  pthread_cond_init(&core->cond, &attr);
  pthread_condattr_destroy(&attr);
  atomic_fetch_add_explicit(&live_cores, 1, memory_order_relaxed);
  return core;
}

size_t
pending_live(void)
{
  return atomic_load_explicit(&live_cores, memory_order_relaxed);
}

void
pending_incref(loop_core *core)
{
  int before = atomic_fetch_add_explicit(&core->refs, 1, memory_order_relaxed);

  assert(before > 0);
  (void)before;
}

/* Lock held, or nobody else is left.  Gives the descriptor back. */
static void
close_waker(loop_core *core)
{
  if (core->waker_fd >= 0)
    waker_close(core->waker_fd);
  core->waker_fd = -1;
}

void
pending_decref(loop_core *core)
{
  int before = atomic_fetch_sub_explicit(&core->refs, 1, memory_order_acq_rel);

  assert(before > 0);
  if (before != 1)
    return;
  assert(!lock_is_held(&core->lock));
  close_waker(core);
  pthread_cond_destroy(&core->cond);
  pthread_mutex_destroy(&core->lock);
  free(core->queued.events);
  free(core->taken.events);
  free(core);
  atomic_fetch_sub_explicit(&live_cores, 1, memory_order_relaxed);
}

/* Call with the lock held.  Makes room for so many more events.  0, or -1 when memory is short. */
static int
buffer_make_room(struct pending_buffer *buffer, size_t room)
{
  size_t capacity = buffer->capacity ? buffer->capacity : 64;
  pending_event *events;

  assert(buffer->count <= buffer->capacity);
  if (buffer->capacity - buffer->count >= room)
    return 0;
  while (capacity - buffer->count < room)
    capacity *= 2;
  events = realloc(buffer->events, capacity * sizeof(*events));
  if (events == NULL)
    return -1;
  buffer->events = events;
  buffer->capacity = capacity;
  return 0;
}

/* Call with the lock held.  0, or -1 when memory is short. */
static int
queue_event(loop_core *core, uint64_t id, int kind)
{
  struct pending_buffer *queued = &core->queued;

  if (buffer_make_room(queued, kind >= LOOP_EVENT_SOURCE ? 1 : core->reserved + 1) < 0)
    return -1;
  queued->events[queued->count++] = (pending_event){.id = id, .kind = kind};
  return 0;
}

/* Call with the lock held; releases it.  Ends the loop's sleep, whichever it is; the state is changed
 * with that, so that nobody else does it for the same sleep (invariant PENDING_ONE_WAKE).  The eventfd is
 * written under the lock, because pending_close may close it; the condition lives as long as the
 * caller's reference (invariant PENDING_ALIVE), and signalling it without the lock spares the sleeper one
 * block on it. */
static void
wake_and_unlock(loop_core *core)
{
  int state = atomic_load_explicit(&core->state, memory_order_relaxed);

  assert(lock_is_held(&core->lock));
  assert(pending_count(core) == core->queued.count + core->kept);
  assert(!core->closed || core->queued.count == 0);
  if (state == PENDING_AWAKE) {
    pthread_mutex_unlock(&core->lock);
    return;
  }
  atomic_store_explicit(&core->state, PENDING_AWAKE, memory_order_relaxed);
  if (state == PENDING_WAIT_POLLER && core->waker_fd >= 0)
    waker_wake(core->waker_fd);
  pthread_mutex_unlock(&core->lock);
  if (state == PENDING_WAIT_COND)
    pthread_cond_signal(&core->cond);
}

/* What was accepted is taken once, in order (invariant PENDING_ORDER), and nothing is accepted after the
 * close (invariant PENDING_REFUSED). */
int
pending_post(loop_core *core, uint64_t id, int kind)
{
  pthread_mutex_lock(&core->lock);
  if (core->closed || queue_event(core, id, kind) < 0) {
    pthread_mutex_unlock(&core->lock);
    return -1;
  }
  atomic_store_explicit(&core->count, core->queued.count + core->kept, memory_order_relaxed);
  wake_and_unlock(core);
  return 0;
}

int
pending_reserve(loop_core *core)
{
  int rc;

  pthread_mutex_lock(&core->lock);
  rc = buffer_make_room(&core->queued, core->reserved + 1);
  if (rc == 0)
    rc = buffer_make_room(&core->taken, core->reserved + 1);
  if (rc == 0)
    core->reserved++;
  pthread_mutex_unlock(&core->lock);
  return rc;
}

void
pending_unreserve(loop_core *core)
{
  pthread_mutex_lock(&core->lock);
  assert(core->reserved > 0);
  core->reserved--;
  pthread_mutex_unlock(&core->lock);
}

void
pending_wake(loop_core *core)
{
  pthread_mutex_lock(&core->lock);
  wake_and_unlock(core);
}

void
pending_wake_if_asleep(loop_core *core)
{
  if (atomic_load_explicit(&core->state, memory_order_relaxed) != PENDING_AWAKE)
    pending_wake(core);
}

/* Whoever sleeps is woken (invariant PENDING_CLOSE).  The poller would forget the edge of a descriptor that
 * is closed before it has reported it: who sleeps there closes it afterwards. */
void
pending_close(loop_core *core)
{
  pthread_mutex_lock(&core->lock);
  core->closed = true;
  core->queued.count = core->kept = 0;
  atomic_store_explicit(&core->count, 0, memory_order_relaxed);
  if (!core->in_poller)
    close_waker(core);
  wake_and_unlock(core);
}

size_t
pending_count(loop_core *core)
{
  return atomic_load_explicit(&core->count, memory_order_relaxed);
}

int
pending_waker_fd(loop_core *core)
{
  int fd;

  pthread_mutex_lock(&core->lock);
  errno = EBADF; /* of a closed one */
  if (core->waker_fd < 0 && !core->closed)
    core->waker_fd = waker_open();
  fd = core->waker_fd;
  pthread_mutex_unlock(&core->lock);
  return fd;
}

/* Under the lock, so that a poster sees the sleep or the loop its event (invariant PENDING_WAKE). */
bool
pending_prepare(loop_core *core, enum pending_state mode)
{
  bool may_sleep;

  pthread_mutex_lock(&core->lock);
  /* Whoever sleeps still cannot go to sleep: each sleep's end was announced. */
  assert(atomic_load_explicit(&core->state, memory_order_relaxed) == PENDING_AWAKE);
  may_sleep = core->queued.count == 0 && core->kept == 0 && !core->closed;
  if (may_sleep) {
    atomic_store_explicit(&core->state, mode, memory_order_relaxed);
    core->in_poller = mode == PENDING_WAIT_POLLER;
  }
  pthread_mutex_unlock(&core->lock);
  return may_sleep;
}

void
pending_wait(loop_core *core, int64_t deadline_ns)
{
  struct timespec deadline;
  int rc = 0;

  deadline.tv_sec = (time_t)(deadline_ns / 1000000000);
  deadline.tv_nsec = (long)(deadline_ns % 1000000000);
  pthread_mutex_lock(&core->lock);
  while (atomic_load_explicit(&core->state, memory_order_relaxed) == PENDING_WAIT_COND &&
         rc != ETIMEDOUT) {
    if (deadline_ns < 0)
      rc = pthread_cond_wait(&core->cond, &core->lock);
    else
      rc = pthread_cond_timedwait(&core->cond, &core->lock, &deadline);
  }
  atomic_store_explicit(&core->state, PENDING_AWAKE, memory_order_relaxed);
  pthread_mutex_unlock(&core->lock);
}

void
pending_awake(loop_core *core)
{
  pthread_mutex_lock(&core->lock);
  atomic_store_explicit(&core->state, PENDING_AWAKE, memory_order_relaxed);
  core->in_poller = false;
  if (core->closed)
    close_waker(core);
  pthread_mutex_unlock(&core->lock);
}

/* Call with the lock held, on the loop's thread.  Empties the buffer that the last drain handed out. */
static void
reset_taken(loop_core *core)
{
  struct pending_buffer *taken = &core->taken;
  pending_event *smaller;

  taken->count = 0;
  if (taken->capacity <= PENDING_KEEP_EVENTS || core->reserved > PENDING_KEEP_EVENTS)
    return;
  smaller = realloc(taken->events, PENDING_KEEP_EVENTS * sizeof(*smaller));
  if (smaller == NULL)
    return;
  taken->events = smaller;
  taken->capacity = PENDING_KEEP_EVENTS;
}

pending_event *
pending_take(loop_core *core, size_t *count)
{
  struct pending_buffer empty;

  if (pending_count(core) == 0) {
    *count = 0;
    return core->taken.events;
  }
  pthread_mutex_lock(&core->lock);
  if (core->kept == 0) {
    reset_taken(core);
    empty = core->taken;
    core->taken = core->queued;
    core->queued = empty;
  }
  core->kept = 0;
  atomic_store_explicit(&core->count, core->queued.count, memory_order_relaxed);
  pthread_mutex_unlock(&core->lock);
  *count = core->taken.count;
  return core->taken.events;
}

void
pending_keep(loop_core *core, size_t count)
{
  struct pending_buffer *taken = &core->taken;

  assert(count <= taken->count);
  pthread_mutex_lock(&core->lock);
  memmove(taken->events, taken->events + taken->count - count, count * sizeof(*taken->events));
  taken->count = core->kept = count;
  atomic_store_explicit(&core->count, core->queued.count + count, memory_order_relaxed);
  pthread_mutex_unlock(&core->lock);
}
