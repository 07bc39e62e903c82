/* The queue core and the thread wait object, as a plain C program (for TSan and ASan too). */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "queue.h"
#include "thread_wait.h"

#define NONE QUEUE_UNBOUNDED

static int passed, failed;

static const queue_limits unlimited = {NONE, NONE, NONE, NONE};

#define CHECK(condition)                                                                           \
  do {                                                                                             \
    if (!(condition)) {                                                                            \
      fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #condition);                    \
      return -1;                                                                                   \
    }                                                                                              \
  } while (0)

/* A waiter that counts how it is woken. */
typedef struct probe {
  queue_waiter waiter;
  int wakes;
  enum queue_wake_reason last;
  int refuse;
} probe;

static int
probe_wake(queue_waiter *w, enum queue_wake_reason reason, queue_laters *laters)
{
  (void)laters;
  probe *p = (probe *)w;
  p->wakes++;
  p->last = reason;
  return p->refuse ? -1 : 0;
}

static int
send_text(queue *q, const char *text)
{
  return queue_send(q, (const uint8_t *)text, strlen(text), NULL);
}

/* Takes the next message and compares it: 1 when it is text. */
static int
is_text(message *m, const char *text)
{
  int same = m->size == strlen(text) && (m->size == 0 || memcmp(m->data, text, m->size) == 0);
  message_release(m);
  return same;
}

static int
take_text(queue *q, const char *text)
{
  message m;
  return queue_take(q, &m) == QUEUE_OK && is_text(&m, text);
}

static int
boundaries_are_kept_and_empty_messages_are_messages(void)
{
  queue q;
  message m;
  queue_init(&q, &unlimited);
  CHECK(queue_take(&q, &m) == QUEUE_EMPTY);
  CHECK(send_text(&q, "one") == QUEUE_OK);
  CHECK(send_text(&q, "") == QUEUE_OK);
  CHECK(send_text(&q, "three") == QUEUE_OK);
  CHECK(take_text(&q, "one"));
  CHECK(take_text(&q, ""));
  CHECK(take_text(&q, "three"));
  CHECK(queue_take(&q, &m) == QUEUE_EMPTY);
  queue_destroy(&q);
  return 0;
}

static int
many_messages_of_many_sizes_keep_order_and_content(void)
{
  enum { COUNT = 20000, MAX = 70000 };
  static uint8_t bytes[MAX];
  queue q;
  message m;
  queue_init(&q, &unlimited);
  for (int round = 0; round < 2; round++) {
    for (int i = 0; i < COUNT; i++) {
      size_t size = i % 1000 == 7 ? MAX : (size_t)(i * 37 % 300);
      memset(bytes, i & 255, size);
      CHECK(queue_send(&q, bytes, size, NULL) == QUEUE_OK);
    }
    for (int i = 0; i < COUNT; i++) {
      size_t size = i % 1000 == 7 ? MAX : (size_t)(i * 37 % 300);
      CHECK(queue_take(&q, &m) == QUEUE_OK);
      CHECK(m.size == size);
      CHECK(size == 0 || (m.data[0] == (i & 255) && m.data[size - 1] == (i & 255)));
      message_release(&m);
    }
  }
  queue_destroy(&q);
  return 0;
}

static int
a_full_queue_is_busy_and_the_impossible_is_too_large(void)
{
  static const uint8_t bytes[101];
  queue q;
  queue_info info;
  queue_init(&q, &(queue_limits){100, NONE, NONE, NONE});
  CHECK(queue_send(&q, bytes, 101, NULL) == QUEUE_TOO_LARGE);
  CHECK(queue_send(&q, bytes, 1, NULL) == QUEUE_OK);
  CHECK(queue_send(&q, bytes, 68, NULL) == QUEUE_OK);
  CHECK(queue_send(&q, bytes, 1, NULL) == QUEUE_BUSY);
  queue_get_info(&q, &info);
  CHECK(info.size == 100 && info.limits.max_size == 100 && info.messages == 2 && info.busy == 1);
  message m;
  CHECK(queue_take(&q, &m) == QUEUE_OK);
  message_release(&m);
  CHECK(queue_send(&q, bytes, 1, NULL) == QUEUE_OK);
  queue_destroy(&q);
  return 0;
}

static int
messages_are_handed_in_the_order_of_waiting(void)
{
  queue q;
  message m;
  queue_info info;
  probe a = {.waiter.wake = probe_wake}, b = a;
  queue_init(&q, &unlimited);
  CHECK(queue_wait(&q, &a.waiter, &m) == QUEUE_EMPTY);
  CHECK(queue_wait(&q, &b.waiter, &m) == QUEUE_EMPTY);
  CHECK(queue_claim(&q, &a.waiter, &m) == QUEUE_EMPTY);
  CHECK(send_text(&q, "one") == QUEUE_OK && send_text(&q, "two") == QUEUE_OK);
  CHECK(a.wakes == 1 && b.wakes == 1 && a.last == QUEUE_WAKE_HANDED);
  queue_get_info(&q, &info);
  CHECK(info.size == 64 && info.messages == 2 && info.total_out == 0);
  CHECK(queue_take(&q, &m) == QUEUE_EMPTY);
  CHECK(queue_claim(&q, &b.waiter, &m) == QUEUE_OK && is_text(&m, "two"));
  CHECK(queue_claim(&q, &a.waiter, &m) == QUEUE_OK && is_text(&m, "one"));
  queue_get_info(&q, &info);
  CHECK(info.size == 0 && info.messages == 0 && info.total_out == 2 &&
        queue_count_kinds(info.waiters) == 0);
  queue_destroy(&q);
  return 0;
}

static int
what_is_given_back_goes_to_the_next_waiter_or_the_head(void)
{
  queue q;
  message m;
  probe p[4];
  memset(p, 0, sizeof(p));
  queue_init(&q, &unlimited);
  for (int i = 0; i < 4; i++) {
    p[i].waiter.wake = probe_wake;
    CHECK(queue_wait(&q, &p[i].waiter, &m) == QUEUE_EMPTY);
  }
  CHECK(send_text(&q, "1") == QUEUE_OK && send_text(&q, "2") == QUEUE_OK);
  CHECK(send_text(&q, "3") == QUEUE_OK);
  queue_cancel(&q, &p[0].waiter);
  CHECK(p[3].wakes == 1);
  CHECK(send_text(&q, "4") == QUEUE_OK);
  queue_cancel(&q, &p[1].waiter);
  queue_cancel(&q, &p[3].waiter);
  queue_cancel(&q, &p[2].waiter);
  queue_cancel(&q, &p[2].waiter);
  CHECK(take_text(&q, "1") && take_text(&q, "2") && take_text(&q, "3") && take_text(&q, "4"));
  queue_destroy(&q);
  return 0;
}

static int
giving_back_in_any_order_across_blocks_restores_the_order(void)
{
  enum { COUNT = 1000 };
  static probe p[COUNT];
  queue q;
  message m;
  memset(p, 0, sizeof(p));
  queue_init(&q, &unlimited);
  for (int i = 0; i < COUNT; i++) {
    p[i].waiter.wake = probe_wake;
    CHECK(queue_wait(&q, &p[i].waiter, &m) == QUEUE_EMPTY);
  }
  for (int i = 0; i < COUNT + 10; i++) {
    CHECK(queue_send(&q, (uint8_t *)&i, sizeof(i), NULL) == QUEUE_OK);
  }
  for (int i = 0; i < COUNT; i++) {
    queue_cancel(&q, &p[i * 7 % COUNT].waiter);
  }
  for (int i = 0; i < COUNT + 10; i++) {
    CHECK(queue_take(&q, &m) == QUEUE_OK);
    CHECK(memcmp(m.data, &i, sizeof(i)) == 0);
    message_release(&m);
  }
  queue_destroy(&q);
  return 0;
}

static int
a_waiter_that_cannot_be_woken_is_passed_over(void)
{
  queue q;
  message m;
  probe dead = {.waiter.wake = probe_wake, .refuse = 1};
  probe alive = {.waiter.wake = probe_wake};
  queue_init(&q, &unlimited);
  CHECK(queue_wait(&q, &dead.waiter, &m) == QUEUE_EMPTY);
  CHECK(queue_wait(&q, &alive.waiter, &m) == QUEUE_EMPTY);
  CHECK(send_text(&q, "x") == QUEUE_OK);
  CHECK(dead.wakes == 1 && alive.wakes == 1);
  CHECK(queue_claim(&q, &alive.waiter, &m) == QUEUE_OK && is_text(&m, "x"));
  queue_destroy(&q);
  return 0;
}

static int
closing_refuses_senders_and_lets_receivers_drain(void)
{
  queue q;
  message m;
  queue_init(&q, &unlimited);
  CHECK(send_text(&q, "last") == QUEUE_OK);
  queue_close(&q);
  queue_close(&q);
  CHECK(send_text(&q, "late") == QUEUE_CLOSED);
  CHECK(take_text(&q, "last"));
  CHECK(queue_take(&q, &m) == QUEUE_CLOSED);
  probe p = {.waiter.wake = probe_wake};
  CHECK(queue_wait(&q, &p.waiter, &m) == QUEUE_CLOSED);
  queue_destroy(&q);
  return 0;
}

static int
closed_waits_for_what_is_handed(void)
{
  queue q;
  message m;
  probe a = {.waiter.wake = probe_wake}, b = a, c = a;
  queue_init(&q, &unlimited);
  CHECK(queue_wait(&q, &a.waiter, &m) == QUEUE_EMPTY);
  CHECK(queue_wait(&q, &b.waiter, &m) == QUEUE_EMPTY);
  CHECK(send_text(&q, "x") == QUEUE_OK);
  queue_close(&q);
  CHECK(b.wakes == 0);
  queue_cancel(&q, &a.waiter);
  CHECK(b.wakes == 1 && b.last == QUEUE_WAKE_HANDED);
  CHECK(queue_wait(&q, &c.waiter, &m) == QUEUE_EMPTY);
  CHECK(queue_claim(&q, &b.waiter, &m) == QUEUE_OK && is_text(&m, "x"));
  CHECK(c.wakes == 1 && c.last == QUEUE_WAKE_CLOSED);
  CHECK(queue_claim(&q, &c.waiter, &m) == QUEUE_CLOSED);
  queue_destroy(&q);
  return 0;
}

static int
a_notify_waiter_is_told_and_takes_nothing(void)
{
  queue q;
  message m;
  probe told = {.waiter = {.wake = probe_wake, .notify = 1}}, again = told;
  probe real = {.waiter.wake = probe_wake};
  queue_init(&q, &unlimited);
  CHECK(queue_notify(&q, &told.waiter) == QUEUE_EMPTY);
  CHECK(queue_wait(&q, &real.waiter, &m) == QUEUE_EMPTY);
  CHECK(send_text(&q, "1") == QUEUE_OK);
  CHECK(told.wakes == 1 && told.last == QUEUE_WAKE_NOTIFY && real.wakes == 1);
  CHECK(send_text(&q, "2") == QUEUE_OK);
  CHECK(told.wakes == 1);
  CHECK(queue_notify(&q, &told.waiter) == QUEUE_OK);
  CHECK(take_text(&q, "2"));
  CHECK(queue_notify(&q, &told.waiter) == QUEUE_EMPTY);
  CHECK(queue_notify(&q, &again.waiter) == QUEUE_EMPTY);
  queue_cancel(&q, &told.waiter);
  CHECK(queue_claim(&q, &real.waiter, &m) == QUEUE_OK && is_text(&m, "1"));
  queue_destroy(&q);
  CHECK(again.wakes == 1 && again.last == QUEUE_WAKE_DROP && told.wakes == 1);
  return 0;
}

typedef struct counted {
  message_attachment attachment;
  message_part part;
  queue *q;
  int released;
} counted;

static void
counted_release(message_attachment *self)
{
  queue_info info;
  counted *c = (counted *)self;
  if (c->q != NULL) {
    queue_get_info(c->q, &info); /* would hang if the lock were held */
  }
  c->released++;
}

static int
attachments_are_released_once_and_without_the_lock(void)
{
  queue q;
  message m;
  queue_init(&q, &(queue_limits){1000, NONE, NONE, NONE});
  counted a = {
      .attachment = {counted_release, &a.part, 1, 0, NULL}, .part = {(uint8_t *)"abc", 3}, .q = &q};
  counted b = {.attachment = {counted_release, NULL, 0, 0, NULL}, .q = &q};
  counted c = {.attachment = {counted_release, NULL, 0, 0, NULL}};
  CHECK(queue_send(&q, NULL, 3, &a.attachment) == QUEUE_OK);
  CHECK(queue_send(&q, (uint8_t *)"xy", 2, &b.attachment) == QUEUE_OK);
  CHECK(queue_send(&q, NULL, 2000, &c.attachment) == QUEUE_TOO_LARGE);
  CHECK(queue_take(&q, &m) == QUEUE_OK);
  CHECK(m.data == NULL && m.size == 3 && m.attachment->parts[0].data == a.part.data);
  message_release(&m);
  CHECK(a.released == 1);
  CHECK(queue_take(&q, &m) == QUEUE_OK && memcmp(m.data, "xy", 2) == 0);
  message_release(&m);
  CHECK(b.released == 1 && c.released == 0);
  CHECK(queue_send(&q, (uint8_t *)"xy", 2, &c.attachment) == QUEUE_OK);
  queue_destroy(&q);
  CHECK(c.released == 1);
  return 0;
}

/* Several threads: every message reaches exactly one consumer though consumers give up all the time. */

enum { PRODUCERS = 3, CONSUMERS = 3, PER_PRODUCER = 50000 };

static atomic_uchar seen[PRODUCERS * PER_PRODUCER];
static atomic_int duplicates;

typedef struct thread_waiter {
  queue_waiter waiter;
  thread_wait *wait;
} thread_waiter;

static void
wake_later(void *wait)
{
  thread_wait_wake(wait);
  thread_wait_decref(wait);
}

static int
thread_wake(queue_waiter *w, enum queue_wake_reason reason, queue_laters *laters)
{
  thread_wait *wait = ((thread_waiter *)w)->wait;
  (void)reason;
  thread_wait_incref(wait);
  queue_later(laters, wake_later, wait);
  return 0;
}

typedef struct job {
  queue *q;
  int first;
  unsigned seed;
} job;

static void *
produce(void *arg)
{
  job *j = arg;
  for (int i = 0; i < PER_PRODUCER; i++) {
    int value = j->first + i;
    while (queue_send(j->q, (uint8_t *)&value, sizeof(value), NULL) == QUEUE_BUSY) {
      usleep(10);
    }
  }
  return NULL;
}

static void
note(message *m)
{
  int value;
  memcpy(&value, m->data, sizeof(value));
  if (atomic_fetch_add(&seen[value], 1) != 0) {
    atomic_fetch_add(&duplicates, 1);
  }
  message_release(m);
}

static void *
consume(void *arg)
{
  job *j = arg;
  thread_waiter w = {.waiter.wake = thread_wake, .wait = thread_wait_current()};
  for (;;) {
    message m;
    thread_wait_begin(w.wait);
    int result = queue_wait(j->q, &w.waiter, &m);
    while (result == QUEUE_EMPTY) {
      int64_t until = thread_wait_clock() + rand_r(&j->seed) % 20000;
      thread_wait_spin(w.wait, rand_r(&j->seed) % 2000);
      if (thread_wait_sleep(w.wait, until) == THREAD_WAIT_TIMEOUT || rand_r(&j->seed) % 4 == 0) {
        queue_cancel(j->q, &w.waiter);
        break;
      }
      result = queue_claim(j->q, &w.waiter, &m);
    }
    thread_wait_end(w.wait);
    if (result == QUEUE_OK) {
      note(&m);
    } else if (result == QUEUE_CLOSED) {
      return NULL;
    }
  }
}

static int
threads_that_give_up_at_random_lose_and_repeat_nothing(void)
{
  queue q;
  pthread_t producer[PRODUCERS], consumer[CONSUMERS];
  job p[PRODUCERS], c[CONSUMERS];
  queue_init(&q, &(queue_limits){32 * 50, NONE, NONE, NONE});
  for (int i = 0; i < CONSUMERS; i++) {
    c[i] = (job){.q = &q, .seed = (unsigned)i + 1};
    pthread_create(&consumer[i], NULL, consume, &c[i]);
  }
  for (int i = 0; i < PRODUCERS; i++) {
    p[i] = (job){.q = &q, .first = i * PER_PRODUCER};
    pthread_create(&producer[i], NULL, produce, &p[i]);
  }
  for (int i = 0; i < PRODUCERS; i++) {
    pthread_join(producer[i], NULL);
  }
  queue_close(&q);
  for (int i = 0; i < CONSUMERS; i++) {
    pthread_join(consumer[i], NULL);
  }
  for (int i = 0; i < PRODUCERS * PER_PRODUCER; i++) {
    CHECK(atomic_load(&seen[i]) == 1);
  }
  CHECK(atomic_load(&duplicates) == 0);
  queue_info info;
  queue_get_info(&q, &info);
  CHECK(info.size == 0 && info.messages == 0 && q.handed == 0);
  CHECK(queue_count_kinds(info.waiters) == 0);
  queue_destroy(&q);
  return 0;
}

/* The GIL of these tests: the waiting flag is changed and read under it. */
static pthread_mutex_t gil = PTHREAD_MUTEX_INITIALIZER;
static thread_wait *sleeper;

static void *
sleep_until_interrupted(void *arg)
{
  int *result = arg;
  thread_wait *w = thread_wait_current();
  pthread_mutex_lock(&gil);
  thread_wait_incref(w);
  sleeper = w;
  thread_wait_begin(w);
  pthread_mutex_unlock(&gil);
  result[0] = thread_wait_sleep(w, THREAD_WAIT_FOREVER);
  pthread_mutex_lock(&gil);
  result[1] = thread_wait_end(w);
  pthread_mutex_unlock(&gil);
  return NULL;
}

static int
an_interrupt_ends_a_wait_and_only_a_wait(void)
{
  pthread_t thread;
  int result[2] = {-1, -1};
  int interrupted = 0;
  CHECK(thread_wait_interrupt(thread_wait_current()) == 0);
  pthread_create(&thread, NULL, sleep_until_interrupted, result);
  while (!interrupted) {
    pthread_mutex_lock(&gil);
    interrupted = sleeper != NULL && thread_wait_interrupt(sleeper);
    pthread_mutex_unlock(&gil);
  }
  pthread_join(thread, NULL);
  CHECK(result[0] == THREAD_WAIT_INTERRUPTED && result[1] == 1);
  CHECK(thread_wait_interrupt(sleeper) == 0);
  thread_wait_decref(sleeper);
  return 0;
}

static int
a_wait_ends_at_its_deadline_and_not_before(void)
{
  thread_wait *w = thread_wait_current();
  thread_wait_begin(w);
  int64_t until = thread_wait_clock() + 5000000;
  CHECK(thread_wait_sleep(w, until) == THREAD_WAIT_TIMEOUT);
  CHECK(thread_wait_clock() >= until);
  thread_wait_wake(w);
  CHECK(thread_wait_sleep(w, THREAD_WAIT_FOREVER) == THREAD_WAIT_WOKEN);
  CHECK(thread_wait_end(w) == 0);
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

static int
nothing_is_left_alive(void)
{
  CHECK(message_live_blocks() == 0);
  return 0;
}

int
main(void)
{
  RUN(boundaries_are_kept_and_empty_messages_are_messages);
  RUN(many_messages_of_many_sizes_keep_order_and_content);
  RUN(a_full_queue_is_busy_and_the_impossible_is_too_large);
  RUN(messages_are_handed_in_the_order_of_waiting);
  RUN(what_is_given_back_goes_to_the_next_waiter_or_the_head);
  RUN(giving_back_in_any_order_across_blocks_restores_the_order);
  RUN(a_waiter_that_cannot_be_woken_is_passed_over);
  RUN(closing_refuses_senders_and_lets_receivers_drain);
  RUN(closed_waits_for_what_is_handed);
  RUN(a_notify_waiter_is_told_and_takes_nothing);
  RUN(attachments_are_released_once_and_without_the_lock);
  RUN(threads_that_give_up_at_random_lose_and_repeat_nothing);
  RUN(an_interrupt_ends_a_wait_and_only_a_wait);
  RUN(a_wait_ends_at_its_deadline_and_not_before);
  RUN(nothing_is_left_alive);
  printf("%d passed, %d failed\n", passed, failed);
  return failed != 0;
}
