#include "queue.h"

#include <string.h>

#include "cpu_relax.h"

#define LOCK_SPINS 40

/* The lock is held for well under a microsecond, a sleep in the kernel costs several: try for about
 * as long as the holder needs before sleeping. */
static void
lock(queue *q)
{
  for (int i = 0; i < LOCK_SPINS; i++) {
    if (pthread_mutex_trylock(&q->mutex) == 0) {
      return;
    }
    cpu_relax();
  }
  pthread_mutex_lock(&q->mutex);
}

static void
unlock(queue *q)
{
  pthread_mutex_unlock(&q->mutex);
}

static void
unlock_then(queue *q, const queue_later *later)
{
  pthread_mutex_unlock(&q->mutex);
  if (later->run != NULL) {
    later->run(later->arg);
  }
}

static size_t
charge(size_t size)
{
  return size < QUEUE_MESSAGE_MIN ? QUEUE_MESSAGE_MIN : size;
}

void
queue_init(queue *q, size_t max_size)
{
  memset(q, 0, sizeof(*q));
  pthread_mutex_init(&q->mutex, NULL);
  message_store_init(&q->store);
  q->max_size = max_size;
}

/* Lock held. */
static void
append_waiter(queue *q, queue_waiter *w)
{
  w->state = WAITER_WAITING;
  w->next = NULL;
  w->prev = q->last_waiter;
  if (q->last_waiter != NULL) {
    q->last_waiter->next = w;
  } else {
    q->first_waiter = w;
  }
  q->last_waiter = w;
  q->waiters++;
}

/* Lock held; w is in the list. */
static void
unlink_waiter(queue *q, queue_waiter *w)
{
  if (w->prev != NULL) {
    w->prev->next = w->next;
  } else {
    q->first_waiter = w->next;
  }
  if (w->next != NULL) {
    w->next->prev = w->prev;
  } else {
    q->last_waiter = w->prev;
  }
  w->next = w->prev = NULL;
  w->state = WAITER_IDLE;
  q->waiters--;
}

/* Lock held.  Hands m to the first waiter that can be woken: 1, or 0 when there is none. */
static int
hand(queue *q, const message *m, queue_later *later)
{
  queue_waiter *w;
  while ((w = q->first_waiter) != NULL) {
    unlink_waiter(q, w);
    if (w->notify) {
      w->wake(w, QUEUE_WAKE_NOTIFY, NULL);
      continue;
    }
    w->handed = *m;
    w->state = WAITER_HANDED;
    if (w->wake(w, QUEUE_WAKE_HANDED, later) == 0) {
      q->handed++;
      return 1;
    }
    w->state = WAITER_IDLE;
  }
  return 0;
}

/* Lock held.  The queue is closed and drained: tells everybody who waits. */
static void
wake_all_closed(queue *q)
{
  queue_waiter *w;
  while ((w = q->first_waiter) != NULL) {
    unlink_waiter(q, w);
    if (!w->notify) {
      w->state = WAITER_CLOSED;
    }
    w->wake(w, QUEUE_WAKE_CLOSED, NULL);
  }
}

/* Lock held.  A message has been claimed. */
static void
account_claim(queue *q, const message *m)
{
  q->size -= charge(m->size);
  q->messages--;
  q->total_out++;
  if (q->closed && q->messages == 0) {
    wake_all_closed(q);
  }
}

/* Lock held. */
static int
admit(queue *q, size_t cost)
{
  if (q->closed) {
    return QUEUE_CLOSED;
  }
  if (cost > q->max_size) {
    return QUEUE_TOO_LARGE;
  }
  if (cost > q->max_size - q->size) {
    q->busy++;
    return QUEUE_BUSY;
  }
  return QUEUE_OK;
}

/* Lock held.  On failure nothing has changed and *m is to be released. */
static int
store_message(queue *q, const uint8_t *data, size_t size, message *m)
{
  if (data == NULL) {
    *m = (message){.size = size};
  } else if (message_copy_in(&q->store, data, size, m) < 0) {
    return QUEUE_NO_MEMORY;
  }
  m->sequence = q->total_in;
  return QUEUE_OK;
}

int
queue_send(queue *q, const uint8_t *data, size_t size, message_attachment *attachment)
{
  message m = {.data = NULL};
  queue_later later = {.run = NULL};
  lock(q);
  int result = admit(q, charge(size));
  if (result == QUEUE_OK) {
    result = store_message(q, data, size, &m);
  }
  if (result != QUEUE_OK) {
    unlock(q);
    return result;
  }
  if (attachment != NULL) {
    message_attach(&m, attachment);
  }
  if (!hand(q, &m, &later) && message_push(&q->store, &m) < 0) {
    unlock(q);
    if (attachment != NULL) {
      message_detach(&m);
    }
    message_release(&m);
    return QUEUE_NO_MEMORY;
  }
  q->size += charge(size);
  q->messages++;
  q->total_in++;
  unlock_then(q, &later);
  return QUEUE_OK;
}

/* Lock held. */
static int
take(queue *q, message *out)
{
  if (message_pop(&q->store, out)) {
    account_claim(q, out);
    return QUEUE_OK;
  }
  /* What others were handed may be given back: closed is what has no message at all any more. */
  return q->closed && q->messages == 0 ? QUEUE_CLOSED : QUEUE_EMPTY;
}

int
queue_take(queue *q, message *out)
{
  lock(q);
  int result = take(q, out);
  unlock(q);
  return result;
}

int
queue_wait(queue *q, queue_waiter *w, message *out)
{
  lock(q);
  int result = take(q, out);
  if (result == QUEUE_EMPTY) {
    append_waiter(q, w);
  }
  unlock(q);
  return result;
}

int
queue_notify(queue *q, queue_waiter *w)
{
  lock(q);
  int there = q->messages > q->handed || (q->closed && q->messages == 0);
  if (!there) {
    append_waiter(q, w);
  }
  unlock(q);
  return there ? QUEUE_OK : QUEUE_EMPTY;
}

int
queue_claim(queue *q, queue_waiter *w, message *out)
{
  int result = QUEUE_EMPTY;
  lock(q);
  if (w->state == WAITER_HANDED) {
    *out = w->handed;
    w->state = WAITER_IDLE;
    q->handed--;
    account_claim(q, out);
    result = QUEUE_OK;
  } else if (w->state != WAITER_WAITING) {
    w->state = WAITER_IDLE;
    result = QUEUE_CLOSED;
  }
  unlock(q);
  return result;
}

void
queue_cancel(queue *q, queue_waiter *w)
{
  queue_later later = {.run = NULL};
  lock(q);
  if (w->state == WAITER_WAITING) {
    unlink_waiter(q, w);
  } else if (w->state == WAITER_HANDED) {
    w->state = WAITER_IDLE;
    q->handed--;
    if (!hand(q, &w->handed, &later)) {
      message_push_back(&q->store, &w->handed);
    }
  }
  w->state = WAITER_IDLE;
  unlock_then(q, &later);
}

int
queue_withdraw(queue *q, queue_waiter *w)
{
  lock(q);
  int waiting = w->state == WAITER_WAITING;
  if (waiting) {
    unlink_waiter(q, w);
  }
  unlock(q);
  return waiting;
}

int
queue_is_waiting(queue *q, const queue_waiter *w)
{
  lock(q);
  int waiting = w->state == WAITER_WAITING;
  unlock(q);
  return waiting;
}

void
queue_close(queue *q)
{
  lock(q);
  q->closed = 1;
  if (q->messages == 0) {
    wake_all_closed(q);
  }
  unlock(q);
}

void
queue_get_info(queue *q, queue_info *out)
{
  lock(q);
  *out = (queue_info){
      .size = q->size,
      .max_size = q->max_size,
      .messages = q->messages,
      .waiters = q->waiters,
      .total_in = q->total_in,
      .total_out = q->total_out,
      .busy = q->busy,
      .closed = q->closed,
  };
  unlock(q);
}

void
queue_destroy(queue *q)
{
  queue_waiter *w;
  while ((w = q->first_waiter) != NULL) {
    unlink_waiter(q, w);
    w->wake(w, QUEUE_WAKE_DROP, NULL);
  }
  message_store_clear(&q->store);
  pthread_mutex_destroy(&q->mutex);
}
