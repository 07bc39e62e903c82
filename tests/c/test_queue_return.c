/* Messages that are given back after they were claimed, whole or in part, as a plain C program (for TSan
 * and ASan too). */
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "queue.h"

#define MESSAGES 20000
#define READERS 3

static int passed, failed;

#define CHECK(condition)                                                                           \
  do {                                                                                             \
    if (!(condition)) {                                                                            \
      fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #condition);                    \
      return -1;                                                                                   \
    }                                                                                              \
  } while (0)

static int
send_text(queue *q, const char *text)
{
  return queue_send(q, (const uint8_t *)text, strlen(text), NULL);
}

static int
is_text(const message *m, const char *text)
{
  return m->size == strlen(text) && memcmp(m->data, text, m->size) == 0;
}

typedef struct pieces {
  message_attachment base;
  message_part parts[3];
} pieces;

static int releases;

static void
count_release(message_attachment *base)
{
  (void)base;
  releases++;
}

static int
test_pieces_are_trimmed_one_by_one(void)
{
  pieces p = {.parts = {{(const uint8_t *)"ab", 2}, {NULL, 0}, {(const uint8_t *)"cde", 3}}};
  p.base = (message_attachment){count_release, p.parts, 3, 0, NULL};
  message m = {.size = 5, .attachment = &p.base};
  message_trim(&m, 1);
  CHECK(m.size == 4 && p.base.part_count == 3 && p.base.parts[0].data[0] == 'b');
  message_trim(&m, 1);
  CHECK(m.size == 3 && p.base.part_count == 1 && p.base.parts[0].data[0] == 'c');
  message_trim(&m, 2);
  CHECK(m.size == 1 && p.base.parts[0].size == 1 && p.base.parts[0].data[0] == 'e');
  return 0;
}

static int
test_what_comes_back_is_first_and_counted(void)
{
  queue q;
  message m[2], out;
  queue_info info;
  queue_init(&q, &QUEUE_NO_LIMITS);
  CHECK(send_text(&q, "one") == QUEUE_OK && send_text(&q, "two") == QUEUE_OK);
  CHECK(send_text(&q, "three") == QUEUE_OK);
  CHECK(queue_take(&q, &m[0]) == QUEUE_OK && queue_take(&q, &m[1]) == QUEUE_OK);
  message_trim(&m[0], 2);
  queue_return(&q, m, 2);
  queue_return(&q, m, 0);
  queue_get_info(&q, &info);
  CHECK(info.messages == 3 && info.size == 3 * QUEUE_MESSAGE_MIN && info.total_out == 0);
  CHECK(queue_take(&q, &out) == QUEUE_OK && is_text(&out, "e"));
  message_release(&out);
  CHECK(queue_take(&q, &out) == QUEUE_OK && is_text(&out, "two"));
  message_release(&out);
  CHECK(queue_take(&q, &out) == QUEUE_OK && is_text(&out, "three"));
  message_release(&out);
  queue_get_info(&q, &info);
  CHECK(info.messages == 0 && info.size == 0 && info.total_out == 3);
  queue_destroy(&q);
  return 0;
}

/* Of 100 bytes, 60 stay: the claim of the rest gives back those 60. */
static int
test_a_part_counts_what_it_is(void)
{
  queue q;
  message m;
  queue_info info;
  uint8_t data[100] = {0};
  queue_init(&q, &QUEUE_NO_LIMITS);
  CHECK(queue_send(&q, data, sizeof(data), NULL) == QUEUE_OK);
  CHECK(queue_take(&q, &m) == QUEUE_OK);
  message_trim(&m, 40);
  queue_return(&q, &m, 1);
  queue_get_info(&q, &info);
  CHECK(info.size == 60);
  CHECK(queue_take(&q, &m) == QUEUE_OK && m.size == 60);
  message_release(&m);
  queue_get_info(&q, &info);
  CHECK(info.size == 0);
  queue_destroy(&q);
  return 0;
}

static int
test_more_than_there_is_room_for_keeps_senders_out(void)
{
  queue q;
  message first, out;
  queue_limits limits = QUEUE_NO_LIMITS;
  limits.max_size = 2 * QUEUE_MESSAGE_MIN;
  queue_init(&q, &limits);
  CHECK(send_text(&q, "1") == QUEUE_OK && queue_take(&q, &first) == QUEUE_OK);
  CHECK(send_text(&q, "2") == QUEUE_OK && send_text(&q, "3") == QUEUE_OK);
  queue_return(&q, &first, 1);
  CHECK(send_text(&q, "4") == QUEUE_BUSY);
  CHECK(queue_take(&q, &out) == QUEUE_OK && is_text(&out, "1"));
  message_release(&out);
  CHECK(send_text(&q, "4") == QUEUE_BUSY);
  CHECK(queue_take(&q, &out) == QUEUE_OK && is_text(&out, "2"));
  message_release(&out);
  CHECK(send_text(&q, "4") == QUEUE_OK);
  queue_destroy(&q);
  return 0;
}

static int
accept_wake(queue_waiter *w, enum queue_wake_reason reason, queue_laters *laters)
{
  (void)w, (void)reason, (void)laters;
  return 0;
}

static int
test_a_waiter_gets_what_comes_back(void)
{
  queue q;
  message m, out;
  queue_waiter w = {.wake = accept_wake, .kind = QUEUE_THREAD};
  queue_init(&q, &QUEUE_NO_LIMITS);
  CHECK(send_text(&q, "x") == QUEUE_OK && queue_take(&q, &m) == QUEUE_OK);
  CHECK(queue_wait(&q, &w, &out) == QUEUE_EMPTY);
  queue_return(&q, &m, 1);
  CHECK(queue_claim(&q, &w, &out) == QUEUE_OK && is_text(&out, "x"));
  message_release(&out);
  CHECK(queue_take(&q, &out) == QUEUE_EMPTY);
  queue_close(&q);
  CHECK(queue_take(&q, &out) == QUEUE_CLOSED);
  queue_destroy(&q);
  return 0;
}

static int told;

static void
tell(void *arg)
{
  (void)arg;
  told++;
}

static int
wake_later(queue_waiter *w, enum queue_wake_reason reason, queue_laters *laters)
{
  (void)reason;
  queue_later(laters, tell, w);
  return 0;
}

/* Each wake leaves something for later, of which one call has place for few. */
static int
test_very_many_waiters_get_what_comes_back(void)
{
  enum { MANY = 100 };
  static queue_waiter waiters[MANY];
  queue q;
  message m[MANY], out;
  queue_init(&q, &QUEUE_NO_LIMITS);
  for (int i = 0; i < MANY; i++) {
    CHECK(queue_send(&q, (const uint8_t *)&i, sizeof(i), NULL) == QUEUE_OK);
    CHECK(queue_take(&q, &m[i]) == QUEUE_OK);
  }
  for (int i = 0; i < MANY; i++) {
    waiters[i] = (queue_waiter){.wake = wake_later, .kind = QUEUE_THREAD};
    CHECK(queue_wait(&q, &waiters[i], &out) == QUEUE_EMPTY);
  }
  told = 0;
  queue_return(&q, m, MANY);
  CHECK(told == MANY);
  for (int i = 0; i < MANY; i++) {
    CHECK(queue_claim(&q, &waiters[i], &out) == QUEUE_OK && memcmp(out.data, &i, sizeof(i)) == 0);
    message_release(&out);
  }
  CHECK(queue_take(&q, &out) == QUEUE_EMPTY);
  queue_destroy(&q);
  return 0;
}

/* --- threads --- */

/* Takes some, and gives back all but a few bytes.  The bytes it has kept. */
static void *
read_and_return(void *arg)
{
  queue *q = arg;
  size_t kept = 0;
  unsigned turn = 0;
  for (;;) {
    message m[3];
    size_t count = 0;
    int result = QUEUE_EMPTY;
    while (count < 1 + turn % 3 && (result = queue_take(q, &m[count])) == QUEUE_OK) {
      count++;
    }
    if (count == 0 && result == QUEUE_CLOSED) {
      return (void *)kept;
    }
    if (count > 0 && turn++ % 2 == 0) {
      size_t some = m[0].size > 2 ? 2 : m[0].size - 1;
      message_trim(&m[0], some);
      kept += some;
      queue_return(q, m, count);
      count = 0;
    }
    while (count > 0) {
      kept += m[--count].size;
      message_release(&m[count]);
    }
    sched_yield();
  }
}

static int
test_readers_that_give_back_lose_nothing(void)
{
  queue q;
  pthread_t readers[READERS];
  queue_limits limits = QUEUE_NO_LIMITS;
  limits.max_messages = 50;
  uint8_t data[8] = {0};
  size_t sent = 0, kept = 0;
  queue_info info;
  queue_init(&q, &limits);
  for (int i = 0; i < READERS; i++) {
    CHECK(pthread_create(&readers[i], NULL, read_and_return, &q) == 0);
  }
  for (int i = 0; i < MESSAGES;) {
    size_t size = 1 + (size_t)i % sizeof(data);
    if (queue_send(&q, data, size, NULL) == QUEUE_OK) {
      sent += size;
      i++;
    } else {
      sched_yield();
    }
  }
  queue_close(&q);
  for (int i = 0; i < READERS; i++) {
    void *result;
    pthread_join(readers[i], &result);
    kept += (size_t)result;
  }
  /* A reader that was told of the end may have gone while another held the last messages. */
  message m;
  while (queue_take(&q, &m) == QUEUE_OK) {
    kept += m.size;
    message_release(&m);
  }
  CHECK(kept == sent);
  queue_get_info(&q, &info);
  CHECK(info.messages == 0 && info.size == 0 && info.total_out == MESSAGES);
  queue_destroy(&q);
  return 0;
}

static void
run(const char *name, int (*test)(void))
{
  if (test() == 0 && message_live_blocks() == 0) {
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
  RUN(test_pieces_are_trimmed_one_by_one);
  RUN(test_what_comes_back_is_first_and_counted);
  RUN(test_a_part_counts_what_it_is);
  RUN(test_more_than_there_is_room_for_keeps_senders_out);
  RUN(test_a_waiter_gets_what_comes_back);
  RUN(test_very_many_waiters_get_what_comes_back);
  RUN(test_readers_that_give_back_lose_nothing);
  printf("%d passed, %d failed\n", passed, failed);
  return failed != 0;
}
