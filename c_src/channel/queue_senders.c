/* Senders that wait for room in a queue: first come first served, woken by whoever makes room. */
#include "queue_internal.h"

/* Lock held. */
static void
append_sender(queue *q, queue_sender *s)
{
  assert(s->state == SENDER_IDLE);
  s->state = SENDER_WAITING;
  s->next = NULL;
  s->prev = q->last_sender;
  if (q->last_sender != NULL) {
    q->last_sender->next = s;
  } else {
    q->first_sender = s;
  }
  q->last_sender = s;
  q->senders[s->kind]++;
}

/* Lock held; s is in the list. */
static void
unlink_sender(queue *q, queue_sender *s)
{
  assert(s->state == SENDER_WAITING);
  if (s->prev != NULL) {
    s->prev->next = s->next;
  } else {
    q->first_sender = s->next;
  }
  if (s->next != NULL) {
    s->next->prev = s->prev;
  } else {
    q->last_sender = s->prev;
  }
  s->next = s->prev = NULL;
  s->state = SENDER_IDLE;
  q->senders[s->kind]--;
}

/* Lock held. */
static void
reserve(queue *q, queue_sender *s)
{
  s->state = SENDER_GRANTED;
  q->reserved_size += queue_charge(s->size);
  q->reserved_messages++;
}

/* Lock held; s is granted. */
static void
release_room(queue *q, queue_sender *s)
{
  assert(s->state == SENDER_GRANTED && q->reserved_messages > 0 &&
         q->reserved_size >= queue_charge(s->size));
  s->state = SENDER_IDLE;
  q->reserved_size -= queue_charge(s->size);
  q->reserved_messages--;
}

/* Lock held; s is out of the list and there is room. */
static void
grant(queue *q, queue_sender *s, queue_laters *laters)
{
  if (s->attachment == NULL) {
    reserve(q, s);
    if (s->wake(s, laters) < 0) {
      release_room(q, s);
    }
    return;
  }
  s->result = queue_put(q, NULL, s->size, s->attachment, laters);
  s->state = SENDER_DONE;
  s->wake(s, laters);
}

void
queue_serve_senders(queue *q, queue_laters *laters)
{
  queue_sender *s;
  while ((s = q->first_sender) != NULL && queue_may_wake(laters)) {
    laters->woken++;
    if (q->closed) {
      unlink_sender(q, s);
      s->state = SENDER_DONE;
      s->result = QUEUE_CLOSED;
      s->wake(s, laters);
    } else if (!q->congested && queue_fits(q, queue_charge(s->size))) {
      unlink_sender(q, s);
      grant(q, s, laters);
    } else {
      return;
    }
  }
}

int
queue_send_wait(queue *q, queue_sender *s, size_t size, message_attachment *attachment)
{
  queue_laters laters;
  queue_laters_init(&laters);
  queue_lock(q);
  int result = queue_admit(q, size);
  s->size = size;
  s->attachment = attachment;
  if (result == QUEUE_BUSY) {
    append_sender(q, s);
    /* From here on a claim looks for senders: who claimed before is seen by this settle. */
    atomic_store(&q->attention, 1);
    queue_settle(q, &laters);
    result = QUEUE_EMPTY;
  } else if (result == QUEUE_OK && attachment == NULL) {
    reserve(q, s);
  } else if (result == QUEUE_OK) {
    result = queue_put(q, NULL, size, attachment, &laters);
  }
  queue_finish(q, &laters);
  return result;
}

int
queue_send_end(queue *q, queue_sender *s)
{
  int result = QUEUE_EMPTY;
  queue_lock(q);
  if (s->state == SENDER_GRANTED) {
    result = QUEUE_OK;
  } else if (s->state == SENDER_DONE) {
    s->state = SENDER_IDLE;
    result = s->result;
  }
  queue_unlock(q);
  return result;
}

int
queue_send_granted(queue *q, queue_sender *s, const uint8_t *data, size_t size,
                   message_attachment *attachment)
{
  queue_laters laters;
  queue_laters_init(&laters);
  int result = QUEUE_CLOSED;
  queue_lock(q);
  release_room(q, s);
  if (!q->closed) {
    result = queue_put(q, data, size, attachment, &laters);
  }
  queue_settle(q, &laters);
  queue_finish(q, &laters);
  return result;
}

int
queue_send_cancel(queue *q, queue_sender *s)
{
  queue_laters laters;
  queue_laters_init(&laters);
  queue_lock(q);
  int done = s->state == SENDER_DONE;
  if (s->state == SENDER_WAITING) {
    unlink_sender(q, s);
  } else if (s->state == SENDER_GRANTED) {
    release_room(q, s);
  }
  queue_settle(q, &laters);
  queue_finish(q, &laters);
  return !done;
}

int
queue_send_withdraw(queue *q, queue_sender *s)
{
  queue_laters laters;
  queue_laters_init(&laters);
  queue_lock(q);
  int waiting = s->state == SENDER_WAITING;
  if (waiting) {
    unlink_sender(q, s);
    queue_settle(q, &laters);
  }
  queue_finish(q, &laters);
  return waiting;
}

int
queue_sender_is_waiting(queue *q, const queue_sender *s)
{
  queue_lock(q);
  int waiting = s->state == SENDER_WAITING;
  queue_unlock(q);
  return waiting;
}
