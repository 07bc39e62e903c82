/* Many who wait, and many messages that are given back: what one call does, counted. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "channel_chores.h"
#include "queue.h"

#define NONE QUEUE_UNBOUNDED

enum { CROWD = 20000, AT_ONCE_MAX = 100 };

static int passed, failed;

static const queue_limits unlimited = {NONE, NONE, NONE, NONE};

#define CHECK(condition)                                                                           \
  do {                                                                                             \
    if (!(condition)) {                                                                            \
      fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #condition);                    \
      return -1;                                                                                   \
    }                                                                                              \
  } while (0)

static int woken;       /* so far */
static int disorder;    /* woken before one that had come earlier */
static int handed_over; /* calls of settle_later */

static void
note_wake(int number)
{
  disorder += number != woken;
  woken++;
}

static void
note_hand_over(queue *q)
{
  (void)q;
  handed_over++;
}

static void
nothing(void *arg)
{
  (void)arg;
}

typedef struct receiver {
  queue_waiter base;
  int number;
  int leaves_work;
} receiver;

typedef struct sender {
  queue_sender base;
  int number;
} sender;

static receiver receivers[CROWD];
static sender senders[CROWD];

static int
wake_receiver(queue_waiter *w, enum queue_wake_reason reason, queue_laters *laters)
{
  receiver *r = (receiver *)w;
  (void)reason;
  note_wake(r->number);
  if (r->leaves_work) {
    queue_later(laters, nothing, r);
  }
  return 0;
}

static int
wake_sender(queue_sender *s, queue_laters *laters)
{
  (void)laters;
  note_wake(((sender *)s)->number);
  return 0;
}

/* A queue with limits that hands over what is too much for one call. */
static void
begin(queue *q, const queue_limits *limits)
{
  woken = disorder = handed_over = 0;
  queue_init(q, limits);
  q->settle_later = note_hand_over;
}

static int
wait_all(queue *q, int leaves_work)
{
  message m;
  for (int i = 0; i < CROWD; i++) {
    receivers[i] =
        (receiver){.base = {.wake = wake_receiver}, .number = i, .leaves_work = leaves_work};
    CHECK(queue_wait(q, &receivers[i].base, &m) == QUEUE_EMPTY);
  }
  return 0;
}

/* Each asks for room for one message; there is none. */
static int
ask_all(queue *q)
{
  for (int i = 0; i < CROWD; i++) {
    senders[i] = (sender){.base = {.wake = wake_sender}, .number = i};
    CHECK(queue_send_wait(q, &senders[i].base, 1, NULL) == QUEUE_EMPTY);
  }
  return 0;
}

/* The part of the thread that may take its time: no step wakes many, all together wake everybody. */
static int
settle_all(queue *q)
{
  int before, more;
  do {
    before = woken;
    more = queue_settle_more(q);
    CHECK(woken - before <= AT_ONCE_MAX);
  } while (more);
  CHECK(woken == CROWD && disorder == 0);
  return 0;
}

static int
closing_wakes_a_crowd_in_small_parts(void)
{
  queue q;
  message m;
  for (int leaves_work = 0; leaves_work < 2; leaves_work++) {
    begin(&q, &unlimited);
    CHECK(wait_all(&q, leaves_work) == 0);
    queue_close(&q);
    CHECK(woken > 0 && woken <= AT_ONCE_MAX && handed_over == 1);
    CHECK(queue_wait(&q, &(queue_waiter){.wake = wake_receiver}, &m) == QUEUE_CLOSED);
    queue_close(&q);
    CHECK(woken <= 2 * AT_ONCE_MAX && handed_over == 1);
    CHECK(settle_all(&q) == 0);
    CHECK(queue_claim(&q, &receivers[CROWD - 1].base, &m) == QUEUE_CLOSED);
    queue_destroy(&q);
  }
  return 0;
}

static int
closing_refuses_a_crowd_of_senders_in_small_parts(void)
{
  queue q;
  begin(&q, &(queue_limits){NONE, 1, NONE, NONE});
  CHECK(queue_send(&q, (const uint8_t *)"x", 1, NULL) == QUEUE_OK);
  CHECK(ask_all(&q) == 0);
  queue_close(&q);
  CHECK(woken > 0 && woken <= AT_ONCE_MAX && handed_over == 1);
  CHECK(queue_send(&q, (const uint8_t *)"x", 1, NULL) == QUEUE_CLOSED);
  CHECK(settle_all(&q) == 0);
  CHECK(queue_send_end(&q, &senders[CROWD - 1].base) == QUEUE_CLOSED);
  queue_destroy(&q);
  return 0;
}

/* One claim makes room for all of them. */
static int
room_for_a_crowd_is_granted_in_small_parts(void)
{
  queue q;
  message m;
  begin(&q, &(queue_limits){32 * CROWD, NONE, NONE, 32});
  for (int i = 0; i < CROWD; i++) {
    CHECK(queue_send(&q, (const uint8_t *)"x", 1, NULL) == QUEUE_OK);
  }
  CHECK(ask_all(&q) == 0);
  for (int i = 0; i < CROWD; i++) {
    CHECK(woken == 0);
    CHECK(queue_take(&q, &m) == QUEUE_OK);
    message_release(&m);
    if (i == CROWD - 2) {
      break;
    }
  }
  CHECK(woken > 0 && woken <= AT_ONCE_MAX && handed_over == 1);
  /* Nobody overtakes those who have not been woken yet. */
  CHECK(queue_send(&q, (const uint8_t *)"y", 1, NULL) == QUEUE_BUSY);
  CHECK(queue_take(&q, &m) == QUEUE_OK);
  message_release(&m);
  CHECK(settle_all(&q) == 0);
  for (int i = 0; i < CROWD; i++) {
    CHECK(queue_send_granted(&q, &senders[i].base, (const uint8_t *)"z", 1, NULL) == QUEUE_OK);
  }
  queue_destroy(&q);
  return 0;
}

static int
without_such_a_thread_the_call_wakes_everybody(void)
{
  queue q;
  begin(&q, &unlimited);
  q.settle_later = NULL;
  CHECK(wait_all(&q, 1) == 0);
  queue_close(&q);
  CHECK(woken == CROWD && disorder == 0);
  queue_destroy(&q);
  return 0;
}

/* --- giving back --- */

static unsigned
logarithm(unsigned n)
{
  unsigned log = 0;
  while (n >>= 1) {
    log++;
  }
  return log;
}

/* Hands CROWD messages, and gives them back in the order that `nth` says. */
static int
give_back(int (*nth)(int i))
{
  queue q;
  message m;
  begin(&q, &unlimited);
  CHECK(wait_all(&q, 0) == 0);
  for (int i = 0; i < CROWD + 10; i++) {
    CHECK(queue_send(&q, (uint8_t *)&i, sizeof(i), NULL) == QUEUE_OK);
  }
  for (int i = 0; i < CROWD; i++) {
    size_t before = q.next.returned.steps;
    queue_cancel(&q, &receivers[nth(i)].base);
    CHECK(q.next.returned.steps - before <= 2 * logarithm(CROWD) + 2);
  }
  for (int i = 0; i < CROWD + 10; i++) {
    size_t before = q.next.returned.steps;
    CHECK(queue_take(&q, &m) == QUEUE_OK);
    CHECK(q.next.returned.steps - before <= 2 * logarithm(CROWD) + 2);
    CHECK(memcmp(m.data, &i, sizeof(i)) == 0);
    message_release(&m);
  }
  CHECK(queue_take(&q, &m) == QUEUE_EMPTY);
  queue_destroy(&q);
  return 0;
}

static int
first_to_last(int i)
{
  return i;
}

static int
last_to_first(int i)
{
  return CROWD - 1 - i;
}

static int
scattered(int i)
{
  return (int)((long)i * 7919 % CROWD);
}

static int
giving_back_costs_the_logarithm_of_what_was_given_back(void)
{
  CHECK(give_back(first_to_last) == 0);
  CHECK(give_back(last_to_first) == 0);
  CHECK(give_back(scattered) == 0);
  return 0;
}

static int
what_was_given_back_is_released_with_the_queue(void)
{
  queue q;
  size_t before = message_live_blocks();
  begin(&q, &unlimited);
  CHECK(wait_all(&q, 0) == 0);
  for (int i = 0; i < 1000; i++) {
    CHECK(queue_send(&q, (uint8_t *)&i, sizeof(i), NULL) == QUEUE_OK);
  }
  for (int i = 0; i < CROWD; i++) {
    queue_cancel(&q, &receivers[i].base);
  }
  CHECK(message_live_blocks() > before);
  queue_destroy(&q);
  CHECK(message_live_blocks() == before);
  return 0;
}

/* --- groups --- */

enum { GROUP_MAX = 3 };

typedef struct shared_group {
  message_group base;
  int refs;
  int joined;
} shared_group;

typedef struct guest {
  message_attachment base;
  shared_group *group;
} guest;

static int groups; /* alive */
static int refuse; /* to join */

static void
leave_group(message_group *base)
{
  shared_group *group = (shared_group *)base;
  if (--group->refs == 0) {
    groups--;
    free(group);
  }
}

static int
join_group(message_attachment *base, message_group **current)
{
  shared_group *group = (shared_group *)*current;
  if (refuse) {
    return -1;
  }
  if (group == NULL || group->joined == GROUP_MAX) {
    group = calloc(1, sizeof(*group));
    group->base.leave = leave_group;
    group->refs = 1;
    groups++;
    if (*current != NULL) {
      (*current)->leave(*current);
    }
    *current = &group->base;
  }
  group->joined++;
  group->refs++;
  ((guest *)base)->group = group;
  return 0;
}

static void
release_guest(message_attachment *base)
{
  guest *self = (guest *)base;
  if (self->group != NULL) {
    leave_group(&self->group->base);
  }
}

static int
send_guest(queue *q)
{
  guest g = {.base = {.release = release_guest, .movable = sizeof(g), .join = join_group}};
  return queue_send(q, NULL, 100, &g.base);
}

static int
a_group_lives_as_long_as_one_of_its_messages(void)
{
  queue q;
  message m[3 * GROUP_MAX];
  size_t before = message_live_blocks();
  queue_init(&q, &unlimited);
  groups = refuse = 0;
  for (int i = 0; i < 3 * GROUP_MAX; i++) {
    CHECK(send_guest(&q) == QUEUE_OK && groups == i / GROUP_MAX + 1);
  }
  for (int i = 0; i < 2 * GROUP_MAX; i++) {
    CHECK(queue_take(&q, &m[i]) == QUEUE_OK && groups == 3);
  }
  /* One message of each of the first two groups is left. */
  for (int i = 1; i < 2 * GROUP_MAX - 1; i++) {
    message_release(&m[i]);
  }
  CHECK(groups == 3);
  message_release(&m[0]);
  CHECK(groups == 2);
  message_release(&m[2 * GROUP_MAX - 1]);
  CHECK(groups == 1);
  queue_destroy(&q);
  CHECK(groups == 0 && message_live_blocks() == before);
  return 0;
}

static int
a_message_that_cannot_join_is_not_sent(void)
{
  queue q;
  queue_info info;
  size_t before = message_live_blocks();
  queue_init(&q, &unlimited);
  groups = 0;
  refuse = 1;
  CHECK(send_guest(&q) == QUEUE_NO_MEMORY);
  refuse = 0;
  CHECK(send_guest(&q) == QUEUE_OK);
  queue_get_info(&q, &info);
  CHECK(info.messages == 1);
  queue_destroy(&q);
  CHECK(groups == 0 && message_live_blocks() == before);
  return 0;
}

/* --- threads --- */

/* A queue and the chore that settles it, as a channel has them. */
typedef struct shared {
  queue q; /* first, so that the queue's address is the whole's */
  channel_chore chore;
  atomic_int done; /* chores that have ended */
} shared;

typedef struct member {
  queue_waiter base;
  atomic_int wakes;
} member;

static member members[CROWD];
static shared crowd;

static int
settle_crowd(channel_chore *chore)
{
  (void)chore;
  int more = queue_settle_more(&crowd.q);
  if (!more) {
    atomic_fetch_add(&crowd.done, 1);
  }
  return more;
}

static void
post_crowd(queue *q)
{
  channel_chore_post(&((shared *)q)->chore);
}

static int
wake_member(queue_waiter *w, enum queue_wake_reason reason, queue_laters *laters)
{
  (void)reason, (void)laters;
  atomic_fetch_add(&((member *)w)->wakes, 1);
  return 0;
}

/* Every other member gives up meanwhile. */
static void *
leave(void *arg)
{
  int *left = arg;
  for (int i = 0; i < CROWD; i += 2) {
    *left += queue_withdraw(&crowd.q, &members[CROWD - 1 - i].base);
  }
  return NULL;
}

static int
everybody_is_woken_or_has_left_when_a_queue_is_closed(void)
{
  pthread_t thread;
  message m;
  int left = 0, woken_members = 0;
  queue_init(&crowd.q, &unlimited);
  crowd.q.settle_later = post_crowd;
  crowd.chore.step = settle_crowd;
  for (int i = 0; i < CROWD; i++) {
    members[i].base.wake = wake_member;
    CHECK(queue_wait(&crowd.q, &members[i].base, &m) == QUEUE_EMPTY);
  }
  CHECK(pthread_create(&thread, NULL, leave, &left) == 0);
  queue_close(&crowd.q);
  pthread_join(thread, NULL);
  queue_info info;
  do {
    queue_get_info(&crowd.q, &info);
  } while (queue_count_kinds(info.waiters) > 0 || atomic_load(&crowd.done) == 0);
  for (int i = 0; i < CROWD; i++) {
    int wakes = atomic_load(&members[i].wakes);
    CHECK(wakes <= 1);
    woken_members += wakes;
  }
  CHECK(woken_members + left == CROWD);
  queue_destroy(&crowd.q);
  return 0;
}

enum { CHORES = 50, STEPS = 200 };

typedef struct counter {
  channel_chore chore;
  int steps;
  atomic_int ended;
} counter;

static counter counters[CHORES];

static int
count_step(channel_chore *chore)
{
  counter *c = (counter *)chore;
  if (++c->steps < STEPS) {
    return 1;
  }
  atomic_store(&c->ended, 1);
  return 0;
}

static int
all_chores_are_done_whenever_they_come(void)
{
  for (int i = 0; i < CHORES; i++) {
    counters[i].chore.step = count_step;
    channel_chore_post(&counters[i].chore);
    while (i % 10 == 9 && atomic_load(&counters[i].ended) == 0) {
    }
  }
  for (int i = 0; i < CHORES; i++) {
    while (atomic_load(&counters[i].ended) == 0) {
    }
    CHECK(counters[i].steps == STEPS);
  }
  return 0;
}

static void
run(const char *name, int (*test)(void))
{
  if (test() == 0) {
    passed++;
  } else {
    failed++;
    fprintf(stderr, "FAILED %s\n", name);
  }
}

#define RUN(test) run(#test, test)

int
main(void)
{
  RUN(closing_wakes_a_crowd_in_small_parts);
  RUN(closing_refuses_a_crowd_of_senders_in_small_parts);
  RUN(room_for_a_crowd_is_granted_in_small_parts);
  RUN(without_such_a_thread_the_call_wakes_everybody);
  RUN(giving_back_costs_the_logarithm_of_what_was_given_back);
  RUN(what_was_given_back_is_released_with_the_queue);
  RUN(a_group_lives_as_long_as_one_of_its_messages);
  RUN(a_message_that_cannot_join_is_not_sent);
  RUN(everybody_is_woken_or_has_left_when_a_queue_is_closed);
  RUN(all_chores_are_done_whenever_they_come);
  printf("%d passed, %d failed\n", passed, failed);
  return failed == 0 ? 0 : 1;
}
