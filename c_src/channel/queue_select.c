/* Waiting for several queues at once; see queue_select.h.
 *
 * tests/models/select.pml is its model, which spin searches; an invariant named here is asserted there. */
#include "queue_select.h"

#include <stdlib.h>

#define SELECT_CLOSED (SIZE_MAX - 1)
#define SELECT_STOPPED SIZE_MAX

/* Lock of the arm's queue held.  The first arm to change the word wins, and the owner is woken once; closed
 * wins when no arm is open any more (invariant SELECT_NOBODY_LEFT, invariant SELECT_CLOSED_LAST). */
static int
wake_arm(queue_waiter *base, enum queue_wake_reason reason, queue_laters *laters)
{
  queue_arm *arm = (queue_arm *)base;
  queue_select *s = arm->select;
  size_t waits = 0;
  size_t winner = (size_t)(arm - s->arms) + 1;
  if (reason == QUEUE_WAKE_CLOSED) {
    if (atomic_fetch_sub(&s->open, 1) != 1) {
      return 0;
    }
    winner = SELECT_CLOSED;
  }
  if (!atomic_compare_exchange_strong(&s->won, &waits, winner)) {
    return -1;
  }
  return s->wake(s, laters);
}

queue_select *
queue_select_new(size_t count, enum queue_kind kind)
{
  queue_select *s = calloc(1, sizeof(*s) + count * sizeof(s->arms[0]));
  if (s == NULL) {
    return NULL;
  }
  s->count = count;
  atomic_init(&s->won, SELECT_STOPPED);
  for (size_t i = 0; i < count; i++) {
    s->arms[i].base.wake = wake_arm;
    s->arms[i].base.kind = kind;
    s->arms[i].select = s;
  }
  return s;
}

void
queue_select_free(queue_select *s)
{
  free(s);
}

int
queue_select_take(queue_select *s, size_t first, message *out, size_t *arm)
{
  size_t closed = 0;
  for (size_t i = 0; i < s->count; i++) {
    size_t at = (first + i) % s->count;
    int result = queue_take(s->arms[at].queue, out);
    if (result == QUEUE_OK) {
      *arm = at;
      return QUEUE_OK;
    }
    closed += result == QUEUE_CLOSED;
  }
  return closed == s->count ? QUEUE_CLOSED : QUEUE_EMPTY;
}

int
queue_select_wait(queue_select *s, size_t first, message *out, size_t *arm)
{
  atomic_store(&s->open, s->count);
  atomic_store(&s->won, 0);
  /* Woken while it puts itself in the lists: no need to go on. */
  for (size_t i = 0; i < s->count && atomic_load(&s->won) == 0; i++) {
    size_t at = (first + i) % s->count;
    int result = queue_wait(s->arms[at].queue, &s->arms[at].base, out);
    if (result == QUEUE_OK) {
      *arm = at;
      queue_select_cancel(s);
      return QUEUE_OK;
    }
    if (result == QUEUE_CLOSED && atomic_fetch_sub(&s->open, 1) == 1) {
      queue_select_cancel(s);
      return QUEUE_CLOSED;
    }
  }
  return QUEUE_EMPTY;
}

int
queue_select_claim(queue_select *s, message *out, size_t *arm)
{
  size_t won = atomic_load(&s->won);
  int result = QUEUE_CLOSED;
  if (won == 0) {
    return QUEUE_EMPTY;
  }
  if (won <= s->count) {
    *arm = won - 1;
    result = queue_claim(s->arms[*arm].queue, &s->arms[*arm].base, out);
  }
  queue_select_cancel(s);
  return result;
}

void
queue_select_cancel(queue_select *s)
{
  /* No queue hands it anything any more; who has won gets its message back
   * (invariant SELECT_ONE, invariant SELECT_KEPT, invariant SELECT_ONCE). */
  size_t waits = 0;
  atomic_compare_exchange_strong(&s->won, &waits, SELECT_STOPPED);
  for (size_t i = 0; i < s->count; i++) {
    queue_cancel(s->arms[i].queue, &s->arms[i].base);
  }
}

int
queue_select_withdraw(queue_select *s)
{
  size_t waits = 0;
  if (!atomic_compare_exchange_strong(&s->won, &waits, SELECT_STOPPED)) {
    return 0;
  }
  queue_select_cancel(s);
  return 1;
}

int
queue_select_is_waiting(const queue_select *s)
{
  return atomic_load(&s->won) == 0;
}
