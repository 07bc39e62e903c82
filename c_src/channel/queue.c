/* The queue; see queue.h.
 *
 * tests/models/handoff.pml is its model, which spin searches; an invariant named here is asserted there. */
#include "queue_internal.h"

#include <stddef.h>
#include <string.h>

#include "cpu_relax.h"
#include "message_pool.h"

#define LOCK_SPINS 40
#define TURNS_MAX 6 /* at the lock, of one call that wakes */

/* Of attention: what a claim is looked at for. */
#define EACH_CLAIM 1 /* senders wait, or who waits until little is left, or the queue is closed */
#define LAST_CLAIM 2 /* a large segment is not kept once nothing is queued */

/* The lock is held for well under a microsecond, a sleep in the kernel costs several: try for about
 * as long as the holder needs before sleeping. */
static void
lock(pthread_mutex_t *mutex)
{
  for (int i = 0; i < LOCK_SPINS; i++) {
    if (pthread_mutex_trylock(mutex) == 0) {
      return;
    }
    cpu_relax();
  }
  pthread_mutex_lock(mutex);
}

#ifndef NDEBUG
#define CHECKED_WAITERS 32

/* For assert alone.  So many are counted, and so many were seen before there were enough or no more. */
static int
counts_agree(size_t counted, size_t seen, int more)
{
  return more ? counted > seen : counted == seen;
}

/* For assert alone, lock held.  The first waiters are linked both ways, and the last one is the last. */
static int
waiters_are_sound(const queue *q)
{
  const queue_waiter *before = NULL, *w = q->first_waiter;
  size_t count = 0;
  for (; w != NULL && count < CHECKED_WAITERS; before = w, w = w->next, count++) {
    if (w->state != WAITER_WAITING || w->prev != before || w->kind >= QUEUE_KINDS) {
      return 0;
    }
  }
  return counts_agree(queue_count_kinds(q->waiters), count, w != NULL) &&
         (w != NULL || q->last_waiter == before);
}

/* As waiters_are_sound. */
static int
senders_are_sound(const queue *q)
{
  const queue_sender *before = NULL, *s = q->first_sender;
  size_t count = 0;
  for (; s != NULL && count < CHECKED_WAITERS; before = s, s = s->next, count++) {
    if (s->state != SENDER_WAITING || s->prev != before || s->kind >= QUEUE_KINDS) {
      return 0;
    }
  }
  return counts_agree(queue_count_kinds(q->senders), count, s != NULL) &&
         (s != NULL || q->last_sender == before);
}

/* For assert alone, lock held.  What has gone out had come in, and what is reserved is the senders'. */
static int
queue_is_sound(const queue *q)
{
  return lock_is_held((pthread_mutex_t *)&q->mutex) && waiters_are_sound(q) &&
         senders_are_sound(q) && q->in.messages >= q->known_out.messages &&
         q->in.size >= q->known_out.size && q->handed <= queue_messages(q) &&
         (q->reserved_messages > 0 || q->reserved_size == 0) &&
         (q->first_sender == NULL || atomic_load(&q->attention));
}
#endif

void
queue_lock(queue *q)
{
  lock(&q->mutex);
}

void
queue_unlock(queue *q)
{
  assert(queue_is_sound(q));
  pthread_mutex_unlock(&q->mutex);
}

/* Both locks, for who looks at all messages. */
static void
lock_all(queue *q)
{
  lock(&q->head);
  lock(&q->mutex);
}

static void
unlock_head(queue *q)
{
  pthread_mutex_unlock(&q->head);
}

/* No lock held. */
static void
run_laters(queue_laters *laters)
{
  for (unsigned i = 0; i < laters->count; i++) {
    laters->items[i].run(laters->items[i].arg);
  }
  laters->count = laters->woken = 0;
}

/* Lock held.  Another may have taken over already what is left to be done. */
static int
must_hand_over(queue *q, int more)
{
  int must = more && q->settle_later != NULL && !q->settling_later;
  if (must) {
    q->settling_later = 1;
  }
  return must;
}

void
queue_finish(queue *q, queue_laters *laters)
{
  for (unsigned turn = 1;; turn++) {
    int more = !queue_may_wake(laters);
    int last = !more || q->settling_later || (turn == TURNS_MAX && q->settle_later != NULL);
    int hand_over = last && must_hand_over(q, more);
    queue_unlock(q);
    run_laters(laters);
    if (atomic_load_explicit(&message_pool_wants, memory_order_relaxed)) {
      message_pool_fill();
    }
    if (hand_over) {
      q->settle_later(q);
    }
    if (last) {
      return;
    }
    queue_lock(q);
    queue_settle(q, laters);
  }
}

int
queue_settle_more(queue *q)
{
  queue_laters laters;
  queue_laters_init(&laters);
  queue_lock(q);
  queue_settle(q, &laters);
  int more = !queue_may_wake(&laters);
  q->settling_later = more;
  queue_unlock(q);
  run_laters(&laters);
  return more;
}

/* Lock held. */
static size_t
queued_bytes(message_place *place)
{
  queue *q = (queue *)((char *)place - offsetof(queue, place));
  queue_look(q);
  return queue_size(q);
}

/* Lock held. */
static void
place_grown(message_place *place)
{
  queue *q = (queue *)((char *)place - offsetof(queue, place));
  atomic_fetch_or(&q->attention, LAST_CLAIM);
}

void
queue_init(queue *q, const queue_limits *limits)
{
  memset(q, 0, sizeof(*q));
  q->place.queued = queued_bytes;
  q->place.grown = place_grown;
  pthread_mutex_init(&q->head, NULL);
  pthread_mutex_init(&q->mutex, NULL);
  q->limits = *limits;
}

/* Lock held. */
static void
append_waiter(queue *q, queue_waiter *w)
{
  assert(lock_is_held(&q->mutex) && w->state != WAITER_WAITING && w->state != WAITER_HANDED);
  w->state = WAITER_WAITING;
  w->next = NULL;
  w->prev = q->last_waiter;
  if (q->last_waiter != NULL) {
    q->last_waiter->next = w;
  } else {
    q->first_waiter = w;
  }
  q->last_waiter = w;
  q->waiters[w->kind]++;
}

/* Lock held; w is in the list. */
static void
unlink_waiter(queue *q, queue_waiter *w)
{
  assert(w->state == WAITER_WAITING);
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
  q->waiters[w->kind]--;
}

/* Lock held.  Hands m to the first waiter that can be woken: 1, or 0 when there is none.  It is nobody
 * else's then (invariant QUEUE_ONCE). */
static int
hand(queue *q, const message *m, queue_laters *laters)
{
  assert(lock_is_held(&q->mutex));
  queue_waiter *w;
  while ((w = q->first_waiter) != NULL) {
    unlink_waiter(q, w);
    laters->woken++;
    if (w->notify) {
      w->wake(w, QUEUE_WAKE_NOTIFY, laters);
      continue;
    }
    w->handed = *m;
    w->state = WAITER_HANDED;
    if (w->wake(w, QUEUE_WAKE_HANDED, laters) == 0) {
      q->handed++;
      return 1;
    }
    w->state = WAITER_IDLE;
  }
  return 0;
}

/* Lock held.  The queue is closed and drained: tells those who wait. */
static void
wake_all_closed(queue *q, queue_laters *laters)
{
  queue_waiter *w;
  while ((w = q->first_waiter) != NULL && queue_may_wake(laters)) {
    unlink_waiter(q, w);
    laters->woken++;
    if (!w->notify) {
      w->state = WAITER_CLOSED;
    }
    w->wake(w, QUEUE_WAKE_CLOSED, laters);
  }
}

void
queue_look(queue *q)
{
  q->known_out.messages = atomic_load(&q->messages_out);
  q->known_out.size = atomic_load(&q->size_out);
  if (queue_size(q) <= q->limits.low_watermark) {
    q->congested = 0;
  }
}

static void
retire(void *segment)
{
  message_segment_retire(segment);
}

/* Lock held; nothing is queued.  A large segment would be most of what a channel at rest takes; to give it
 * back may be a system call. */
static void
shrink(queue *q, queue_laters *laters)
{
  message_segment *segment = message_place_shrink(&q->place);
  if (segment != NULL) {
    queue_later(laters, retire, segment);
  }
}

void
queue_settle(queue *q, queue_laters *laters)
{
  assert(lock_is_held(&q->mutex));
  queue_look(q);
  if (q->first_sender != NULL) {
    queue_serve_senders(q, laters);
  }
  if (q->first_drain != NULL) {
    queue_wake_drained(q, laters);
  }
  if (queue_messages(q) == 0) {
    shrink(q, laters);
    if (q->closed) {
      wake_all_closed(q, laters);
    }
  }
  int each = q->first_sender != NULL || q->first_drain != NULL || q->closed;
  atomic_store(&q->attention, (each ? EACH_CLAIM : 0) | (q->place.large ? LAST_CLAIM : 0));
}

/* Any lock held.  A message has been claimed: the attention that is paid to that.  Who begins to care sets
 * it first and looks at what has gone out then: one of both sees the other (invariant QUEUE_NOBODY_LEFT). */
static int
account_claim(queue *q, const message *m)
{
  atomic_fetch_add(&q->size_out, queue_charge(m->size));
  atomic_fetch_add(&q->messages_out, 1);
  return atomic_load(&q->attention);
}

/* Lock held.  What does not fit by what is known may fit by what is so. */
static int
has_room(queue *q, size_t cost)
{
  if (q->first_sender != NULL) {
    return 0;
  }
  if (!q->congested && queue_fits(q, cost)) {
    return 1;
  }
  queue_look(q);
  return !q->congested && queue_fits(q, cost);
}

int
queue_admit(queue *q, size_t size)
{
  size_t cost = queue_charge(size);
  if (q->closed) {
    return QUEUE_CLOSED;
  }
  if (cost > q->limits.max_size) {
    return QUEUE_TOO_LARGE;
  }
  if (has_room(q, cost)) {
    return QUEUE_OK;
  }
  if (q->limits.low_watermark != QUEUE_UNBOUNDED && queue_size(q) > q->limits.low_watermark) {
    q->congested = 1;
  }
  q->busy++;
  return QUEUE_BUSY;
}

/* Lock held.  On failure nothing has changed and *m is to be released. */
static int
store_message(queue *q, const uint8_t *data, size_t size, message *m)
{
  if (data == NULL) {
    *m = (message){.size = size};
  } else if (message_copy_in(&q->place, data, size, m) < 0) {
    return QUEUE_NO_MEMORY;
  }
  m->sequence = q->in.messages;
  return QUEUE_OK;
}

int
queue_put(queue *q, const uint8_t *data, size_t size, message_attachment *attachment,
          queue_laters *laters)
{
  message m = {.data = NULL};
  if (store_message(q, data, size, &m) != QUEUE_OK) {
    return QUEUE_NO_MEMORY;
  }
  if (attachment != NULL && message_attach(&q->place, &m, attachment) < 0) {
    message_release(&m);
    return QUEUE_NO_MEMORY;
  }
  if (!hand(q, &m, laters) && message_push(&q->incoming, &m) < 0) {
    if (attachment != NULL) {
      message_detach(&m);
    }
    message_release(&m);
    return QUEUE_NO_MEMORY;
  }
  q->in.size += queue_charge(size);
  q->in.messages++;
  if (queue_size(q) >= q->limits.high_watermark) {
    queue_look(q);
    q->congested = queue_size(q) >= q->limits.high_watermark;
  }
  return QUEUE_OK;
}

int
queue_send(queue *q, const uint8_t *data, size_t size, message_attachment *attachment)
{
  queue_laters laters;
  queue_laters_init(&laters);
  queue_lock(q);
  int result = queue_admit(q, size);
  if (result == QUEUE_OK) {
    result = queue_put(q, data, size, attachment, &laters);
  }
  queue_finish(q, &laters);
  return result;
}

/* Both locks held.  Where none are left of those that come next, these are now those that came in. */
static void
move_incoming(queue *q)
{
  assert(lock_is_held(&q->head) && lock_is_held(&q->mutex));
  if (message_list_is_empty(&q->next) && !message_list_is_empty(&q->incoming)) {
    message_move_all(&q->incoming, &q->next);
  }
}

/* Both locks held.  The next message, claimed: QUEUE_OK, QUEUE_EMPTY or QUEUE_CLOSED. */
static int
take_any(queue *q, message *out, queue_laters *laters)
{
  move_incoming(q);
  if (message_pop(&q->next, out)) {
    if (account_claim(q, out)) {
      queue_settle(q, laters);
    }
    return QUEUE_OK;
  }
  queue_look(q);
  /* What others were handed may be given back: closed is what has no message at all any more
   * (invariant QUEUE_CLOSED_LAST). */
  return q->closed && queue_messages(q) == 0 ? QUEUE_CLOSED : QUEUE_EMPTY;
}

/* No lock held.  The next message, of those that came in before; 0 when there is none of them. */
static int
take_next(queue *q, message *out)
{
  lock(&q->head);
  int taken = message_pop(&q->next, out);
  int attention = taken ? account_claim(q, out) : 0;
  int settle = attention && ((attention & EACH_CLAIM) || message_list_is_empty(&q->next));
  unlock_head(q);
  if (settle) {
    queue_laters laters;
    queue_laters_init(&laters);
    queue_lock(q);
    queue_settle(q, &laters);
    queue_finish(q, &laters);
  }
  return taken;
}

/* Takes, or puts w (or NULL) among the waiters: nobody comes between the look and that
 * (invariant QUEUE_NO_WAIT_BESIDE). */
static int
take_or_wait(queue *q, queue_waiter *w, message *out)
{
  queue_laters laters;
  queue_laters_init(&laters);
  if (take_next(q, out)) {
    return QUEUE_OK;
  }
  lock_all(q);
  int result = take_any(q, out, &laters);
  if (result == QUEUE_EMPTY && w != NULL) {
    append_waiter(q, w);
  }
  unlock_head(q);
  queue_finish(q, &laters);
  return result;
}

int
queue_take(queue *q, message *out)
{
  return take_or_wait(q, NULL, out);
}

int
queue_wait(queue *q, queue_waiter *w, message *out)
{
  return take_or_wait(q, w, out);
}

size_t
queue_hand_some(queue *q, message *out, size_t max)
{
  size_t count = 0;
  lock_all(q);
  while (count < max) {
    move_incoming(q);
    if (!message_pop(&q->next, &out[count])) {
      break;
    }
    count++;
  }
  q->handed += count;
  unlock_head(q);
  queue_unlock(q);
  return count;
}

/* Both locks held.  To the next waiter, or to the head of the queue, where its sequence says: it is kept
 * (invariant QUEUE_KEPT) and in order (invariant QUEUE_ORDER). */
static void
give_back(queue *q, const message *m, queue_laters *laters)
{
  assert(lock_is_held(&q->head) && q->handed > 0);
  q->handed--;
  if (!hand(q, m, laters)) {
    message_push_back(&q->next, m);
  }
}

/* Both locks held.  Hands what is at the head of the queue to those who wait, while queue_may_wake: 1 when
 * there is more to be handed. */
static int
hand_returned(queue *q, queue_laters *laters)
{
  message m;
  while (q->first_waiter != NULL && !message_list_is_empty(&q->next)) {
    if (!queue_may_wake(laters)) {
      return 1;
    }
    message_pop(&q->next, &m);
    if (!hand(q, &m, laters)) {
      message_push_back(&q->next, &m);
    }
  }
  return 0;
}

/* Both locks held; only the second afterwards, both free meanwhile.  Puts messages, which nobody has been
 * handed any more, to the head of the queue, and hands them to those who wait, a few at a time. */
static void
give_back_all(queue *q, const message *messages, size_t count, queue_laters *laters)
{
  for (size_t i = 0; i < count; i++) {
    message_push_back(&q->next, &messages[i]);
  }
  while (hand_returned(q, laters)) {
    unlock_head(q);
    queue_unlock(q);
    run_laters(laters);
    lock_all(q);
  }
  unlock_head(q);
}

void
queue_return(queue *q, const message *claimed, size_t count)
{
  queue_laters laters;
  queue_laters_init(&laters);
  if (count == 0) {
    return;
  }
  lock_all(q);
  for (size_t i = 0; i < count; i++) {
    atomic_fetch_sub(&q->size_out, queue_charge(claimed[i].size));
    atomic_fetch_sub(&q->messages_out, 1);
  }
  /* Less has gone out than was known. */
  queue_look(q);
  give_back_all(q, claimed, count, &laters);
  queue_finish(q, &laters);
}

void
queue_claim_some(queue *q, const message *handed, size_t claimed, size_t count)
{
  queue_laters laters;
  queue_laters_init(&laters);
  lock_all(q);
  assert(claimed <= count && count <= q->handed);
  q->handed -= count;
  for (size_t i = 0; i < claimed; i++) {
    account_claim(q, &handed[i]);
  }
  give_back_all(q, handed + claimed, count - claimed, &laters);
  queue_settle(q, &laters);
  queue_finish(q, &laters);
}

int
queue_notify(queue *q, queue_waiter *w)
{
  lock_all(q);
  queue_look(q);
  size_t messages = queue_messages(q);
  int there = messages > q->handed || (q->closed && messages == 0);
  if (!there) {
    append_waiter(q, w);
  }
  unlock_head(q);
  queue_unlock(q);
  return there ? QUEUE_OK : QUEUE_EMPTY;
}

int
queue_claim(queue *q, queue_waiter *w, message *out)
{
  queue_laters laters;
  queue_laters_init(&laters);
  int result = QUEUE_EMPTY;
  queue_lock(q);
  if (w->state == WAITER_HANDED) {
    *out = w->handed;
    w->state = WAITER_IDLE;
    q->handed--;
    if (account_claim(q, out)) {
      queue_settle(q, &laters);
    }
    result = QUEUE_OK;
  } else if (w->state != WAITER_WAITING) {
    w->state = WAITER_IDLE;
    result = QUEUE_CLOSED;
  }
  queue_finish(q, &laters);
  return result;
}

void
queue_cancel(queue *q, queue_waiter *w)
{
  queue_laters laters;
  queue_laters_init(&laters);
  lock_all(q);
  if (w->state == WAITER_WAITING) {
    unlink_waiter(q, w);
  } else if (w->state == WAITER_HANDED) {
    w->state = WAITER_IDLE;
    give_back(q, &w->handed, &laters);
  }
  w->state = WAITER_IDLE;
  unlock_head(q);
  queue_finish(q, &laters);
}

int
queue_withdraw(queue *q, queue_waiter *w)
{
  queue_lock(q);
  int waiting = w->state == WAITER_WAITING;
  if (waiting) {
    unlink_waiter(q, w);
  }
  queue_unlock(q);
  return waiting;
}

int
queue_is_waiting(queue *q, const queue_waiter *w)
{
  queue_lock(q);
  int waiting = w->state == WAITER_WAITING;
  queue_unlock(q);
  return waiting;
}

void
queue_close(queue *q)
{
  queue_laters laters;
  queue_laters_init(&laters);
  queue_lock(q);
  q->closed = 1;
  atomic_store(&q->attention, 1);
  queue_settle(q, &laters);
  queue_finish(q, &laters);
}

void
queue_get_info(queue *q, queue_info *out)
{
  lock_all(q);
  queue_look(q);
  *out = (queue_info){
      .limits = q->limits,
      .size = queue_size(q),
      .messages = queue_messages(q),
      .total_in = q->in.messages,
      .total_out = q->known_out.messages,
      .busy = q->busy,
      .closed = q->closed,
  };
  memcpy(out->waiters, q->waiters, sizeof(out->waiters));
  memcpy(out->senders, q->senders, sizeof(out->senders));
  unlock_head(q);
  queue_unlock(q);
}

void
queue_destroy(queue *q)
{
  queue_laters laters;
  queue_laters_init(&laters);
  queue_waiter *w;
  assert(q->first_sender == NULL && q->first_drain == NULL && q->handed == 0);
  while ((w = q->first_waiter) != NULL) {
    assert(w->notify);
    unlink_waiter(q, w);
    w->wake(w, QUEUE_WAKE_DROP, &laters);
  }
  message_list_clear(&q->next);
  message_list_clear(&q->incoming);
  message_place_clear(&q->place);
  pthread_mutex_destroy(&q->head);
  pthread_mutex_destroy(&q->mutex);
}
