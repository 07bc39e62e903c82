/* Waiting on several queues at once, as a plain C program (for TSan and ASan too). */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "queue_select.h"
#include "thread_wait.h"

#define QUEUES 3
#define CONSUMERS 4
#define MESSAGES 20000 /* in each queue */

static int passed, failed;

#define CHECK(condition)                                                                           \
  do {                                                                                             \
    if (!(condition)) {                                                                            \
      fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #condition);                    \
      return -1;                                                                                   \
    }                                                                                              \
  } while (0)

static int wakes;

static int
count_wake(queue_select *s, queue_laters *laters)
{
  (void)laters;
  wakes++;
  return s->owner == NULL ? 0 : -1;
}

static queue_select *
select_on(queue *queues, size_t count)
{
  queue_select *s = queue_select_new(count, QUEUE_THREAD);
  for (size_t i = 0; i < count; i++) {
    s->arms[i].queue = &queues[i];
  }
  s->wake = count_wake;
  return s;
}

static void
init_queues(queue *queues, size_t count)
{
  wakes = 0;
  for (size_t i = 0; i < count; i++) {
    queue_init(&queues[i], &QUEUE_NO_LIMITS);
  }
}

static void
destroy_queues(queue *queues, size_t count)
{
  for (size_t i = 0; i < count; i++) {
    queue_destroy(&queues[i]);
  }
}

static int
send_value(queue *q, int value)
{
  return queue_send(q, (uint8_t *)&value, sizeof(value), NULL);
}

static int
value_of(message *m)
{
  int value;
  memcpy(&value, m->data, sizeof(value));
  message_release(m);
  return value;
}

static size_t
messages_in(queue *q)
{
  queue_info info;
  queue_get_info(q, &info);
  return info.messages;
}

static size_t
waiters_of(queue *q)
{
  queue_info info;
  queue_get_info(q, &info);
  return queue_count_kinds(info.waiters);
}

static int
what_is_there_is_taken_first_where_it_was_asked_for(void)
{
  queue q[2];
  message m;
  size_t arm;
  init_queues(q, 2);
  queue_select *s = select_on(q, 2);
  CHECK(queue_select_take(s, 0, &m, &arm) == QUEUE_EMPTY);
  send_value(&q[0], 1);
  send_value(&q[1], 2);
  CHECK(queue_select_take(s, 1, &m, &arm) == QUEUE_OK && arm == 1 && value_of(&m) == 2);
  CHECK(queue_select_wait(s, 1, &m, &arm) == QUEUE_OK && arm == 0 && value_of(&m) == 1);
  CHECK(waiters_of(&q[0]) == 0 && waiters_of(&q[1]) == 0);
  queue_select_free(s);
  destroy_queues(q, 2);
  return 0;
}

static int
one_queue_hands_and_the_others_keep(void)
{
  queue q[2];
  message m;
  size_t arm;
  init_queues(q, 2);
  queue_select *s = select_on(q, 2);
  CHECK(queue_select_wait(s, 0, &m, &arm) == QUEUE_EMPTY);
  CHECK(queue_select_is_waiting(s) && queue_select_claim(s, &m, &arm) == QUEUE_EMPTY);
  send_value(&q[1], 2);
  send_value(&q[0], 1);
  CHECK(wakes == 1 && !queue_select_is_waiting(s) && !queue_select_withdraw(s));
  CHECK(messages_in(&q[0]) == 1 && messages_in(&q[1]) == 1);
  CHECK(queue_select_claim(s, &m, &arm) == QUEUE_OK && arm == 1 && value_of(&m) == 2);
  CHECK(messages_in(&q[0]) == 1 && messages_in(&q[1]) == 0);
  CHECK(queue_take(&q[0], &m) == QUEUE_OK && value_of(&m) == 1);
  queue_select_free(s);
  destroy_queues(q, 2);
  return 0;
}

static int
who_gives_up_gives_back(void)
{
  queue q[2];
  message m;
  size_t arm;
  init_queues(q, 2);
  queue_select *first = select_on(q, 2), *second = select_on(q, 2);
  CHECK(queue_select_wait(first, 0, &m, &arm) == QUEUE_EMPTY);
  CHECK(queue_select_wait(second, 0, &m, &arm) == QUEUE_EMPTY);
  send_value(&q[1], 7);
  queue_select_cancel(first);
  CHECK(queue_select_claim(second, &m, &arm) == QUEUE_OK && arm == 1 && value_of(&m) == 7);
  CHECK(queue_select_wait(first, 0, &m, &arm) == QUEUE_EMPTY);
  CHECK(queue_select_withdraw(first));
  CHECK(waiters_of(&q[0]) == 0 && waiters_of(&q[1]) == 0);
  queue_select_free(first);
  queue_select_free(second);
  destroy_queues(q, 2);
  return 0;
}

static int
a_waiter_that_cannot_be_woken_is_passed_over(void)
{
  queue q[2];
  message m;
  size_t arm;
  init_queues(q, 2);
  queue_select *s = select_on(q, 2);
  s->owner = &wakes; /* refuses */
  CHECK(queue_select_wait(s, 0, &m, &arm) == QUEUE_EMPTY);
  send_value(&q[0], 3);
  CHECK(queue_take(&q[0], &m) == QUEUE_OK && value_of(&m) == 3);
  queue_select_cancel(s);
  queue_select_free(s);
  destroy_queues(q, 2);
  return 0;
}

static int
it_is_closed_when_all_are(void)
{
  queue q[2];
  message m;
  size_t arm;
  init_queues(q, 2);
  queue_select *s = select_on(q, 2);
  queue_close(&q[0]);
  CHECK(queue_select_wait(s, 0, &m, &arm) == QUEUE_EMPTY && wakes == 0);
  queue_close(&q[1]);
  CHECK(wakes == 1 && queue_select_claim(s, &m, &arm) == QUEUE_CLOSED);
  CHECK(queue_select_take(s, 1, &m, &arm) == QUEUE_CLOSED);
  CHECK(queue_select_wait(s, 1, &m, &arm) == QUEUE_CLOSED);
  queue_select_free(s);
  destroy_queues(q, 2);
  return 0;
}

static int
one_queue_may_be_named_twice(void)
{
  queue q;
  message m;
  size_t arm;
  init_queues(&q, 1);
  queue_select *s = queue_select_new(2, QUEUE_THREAD);
  s->wake = count_wake;
  s->arms[0].queue = s->arms[1].queue = &q;
  CHECK(queue_select_wait(s, 0, &m, &arm) == QUEUE_EMPTY && waiters_of(&q) == 2);
  send_value(&q, 1);
  send_value(&q, 2);
  CHECK(wakes == 1 && queue_select_claim(s, &m, &arm) == QUEUE_OK && value_of(&m) == 1);
  CHECK(waiters_of(&q) == 0 && queue_take(&q, &m) == QUEUE_OK && value_of(&m) == 2);
  queue_select_free(s);
  destroy_queues(&q, 1);
  return 0;
}

static int
messages_handed_without_a_wait_can_be_given_back(void)
{
  queue q;
  message m[4];
  queue_info info;
  init_queues(&q, 1);
  CHECK(queue_hand_some(&q, m, 4) == 0);
  for (int i = 1; i <= 5; i++) {
    send_value(&q, i);
  }
  CHECK(queue_hand_some(&q, m, 4) == 4 && messages_in(&q) == 5);
  queue_claim_some(&q, m, 2, 4);
  CHECK(value_of(&m[0]) == 1 && value_of(&m[1]) == 2 && messages_in(&q) == 3);
  CHECK(queue_hand_some(&q, m, 1) == 1);
  queue_claim_some(&q, m, 1, 1);
  CHECK(value_of(&m[0]) == 3);
  CHECK(queue_take(&q, m) == QUEUE_OK && value_of(m) == 4);
  CHECK(queue_take(&q, m) == QUEUE_OK && value_of(m) == 5);
  queue_get_info(&q, &info);
  CHECK(info.size == 0 && info.total_out == 5 && q.handed == 0);
  destroy_queues(&q, 1);
  return 0;
}

static int
what_is_given_back_of_many_goes_to_those_who_wait(void)
{
  queue q;
  message m[3], one;
  queue_select *s = queue_select_new(1, QUEUE_THREAD);
  size_t arm;
  init_queues(&q, 1);
  s->arms[0].queue = &q;
  s->wake = count_wake;
  wakes = 0;
  for (int i = 1; i <= 3; i++) {
    send_value(&q, i);
  }
  CHECK(queue_hand_some(&q, m, 3) == 3);
  CHECK(queue_select_wait(s, 0, &one, &arm) == QUEUE_EMPTY);
  queue_claim_some(&q, m, 1, 3);
  CHECK(value_of(&m[0]) == 1 && wakes == 1);
  CHECK(queue_select_claim(s, &one, &arm) == QUEUE_OK && value_of(&one) == 2);
  CHECK(queue_take(&q, &one) == QUEUE_OK && value_of(&one) == 3);
  queue_select_free(s);
  destroy_queues(&q, 1);
  return 0;
}

/* --- with threads --- */

static queue shared[QUEUES];
static atomic_int seen[QUEUES * MESSAGES];

static int
wake_thread(queue_select *s, queue_laters *laters)
{
  (void)laters;
  thread_wait_wake(s->owner);
  return 0;
}

static void *
produce(void *arg)
{
  size_t n = (size_t)arg;
  for (int i = 0; i < MESSAGES; i++) {
    send_value(&shared[n], (int)n * MESSAGES + i);
    if (i % 64 == 0) {
      sched_yield();
    }
  }
  queue_close(&shared[n]);
  return NULL;
}

/* Gives up now and then, after whatever has happened meanwhile. */
static void *
consume(void *arg)
{
  queue_select *s = select_on(shared, QUEUES);
  thread_wait *wait = thread_wait_current();
  unsigned turn = *(unsigned *)arg;
  message m;
  size_t arm;
  int result;
  s->wake = wake_thread;
  s->owner = wait;
  do {
    thread_wait_begin(wait);
    result = queue_select_wait(s, turn++ % QUEUES, &m, &arm);
    while (result == QUEUE_EMPTY && turn % 5 != 0) {
      thread_wait_sleep(wait, THREAD_WAIT_FOREVER);
      result = queue_select_claim(s, &m, &arm);
    }
    queue_select_cancel(s);
    thread_wait_end(wait);
    if (result == QUEUE_OK) {
      atomic_fetch_add(&seen[value_of(&m)], 1);
    }
  } while (result != QUEUE_CLOSED);
  queue_select_free(s);
  return NULL;
}

static int
threads_get_each_message_once(void)
{
  pthread_t producers[QUEUES], consumers[CONSUMERS];
  unsigned turns[CONSUMERS];
  init_queues(shared, QUEUES);
  for (unsigned i = 0; i < CONSUMERS; i++) {
    turns[i] = i;
    pthread_create(&consumers[i], NULL, consume, &turns[i]);
  }
  for (size_t i = 0; i < QUEUES; i++) {
    pthread_create(&producers[i], NULL, produce, (void *)i);
  }
  for (size_t i = 0; i < QUEUES; i++) {
    pthread_join(producers[i], NULL);
  }
  for (size_t i = 0; i < CONSUMERS; i++) {
    pthread_join(consumers[i], NULL);
  }
  for (size_t i = 0; i < QUEUES * MESSAGES; i++) {
    CHECK(atomic_load(&seen[i]) == 1);
  }
  destroy_queues(shared, QUEUES);
  CHECK(message_live_blocks() == 0);
  return 0;
}

#define RUN(test) (test() == 0 ? passed++ : (failed++, fprintf(stderr, "FAILED: %s\n", #test)))

int
main(void)
{
  RUN(what_is_there_is_taken_first_where_it_was_asked_for);
  RUN(one_queue_hands_and_the_others_keep);
  RUN(who_gives_up_gives_back);
  RUN(a_waiter_that_cannot_be_woken_is_passed_over);
  RUN(it_is_closed_when_all_are);
  RUN(one_queue_may_be_named_twice);
  RUN(messages_handed_without_a_wait_can_be_given_back);
  RUN(what_is_given_back_of_many_goes_to_those_who_wait);
  RUN(threads_get_each_message_once);
  printf("%d passed, %d failed\n", passed, failed);
  return failed != 0;
}
