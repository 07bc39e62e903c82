/* Memory that is made ready ahead, and queues that grow into it. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "message_pool.h"
#include "queue.h"

static int passed, failed;

#define CHECK(condition)                                                                           \
  do {                                                                                             \
    if (!(condition)) {                                                                            \
      fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #condition);                    \
      return -1;                                                                                   \
    }                                                                                              \
  } while (0)

static int
wants(void)
{
  return atomic_load(&message_pool_wants);
}

/* Waits for a block. */
static uint8_t *
take_block(void)
{
  uint8_t *block;
  while ((block = message_pool_take()) == NULL) {
    message_pool_fill();
  }
  return block;
}

static int
nothing_is_made_ready_before_somebody_wants_it(void)
{
  CHECK(!wants());
  CHECK(message_pool_take() == NULL);
  CHECK(wants());
  return 0;
}

static int
blocks_are_aligned_and_nobody_elses(void)
{
  enum { COUNT = 3 * MESSAGE_POOL_READY };
  uint8_t *blocks[COUNT];
  for (int i = 0; i < COUNT; i++) {
    blocks[i] = take_block();
    CHECK((uintptr_t)blocks[i] % MESSAGE_POOL_BLOCK == 0);
    memset(blocks[i], i + 1, MESSAGE_POOL_BLOCK);
  }
  for (int i = 0; i < COUNT; i++) {
    CHECK(blocks[i][0] == i + 1 && blocks[i][MESSAGE_POOL_BLOCK - 1] == i + 1);
    message_pool_give(blocks[i]);
  }
  return 0;
}

enum { SIZE = 1030, COUNT = 60000 };

static void
write_message(uint8_t *out, int number)
{
  memset(out, number & 255, SIZE);
  memcpy(out, &number, sizeof(number));
}

/* Much more than what one block holds, released while more comes. */
static int
a_queue_that_grows_keeps_its_messages(void)
{
  static uint8_t sent[SIZE];
  queue q;
  message m;
  size_t before = message_live_blocks();
  queue_init(&q, &QUEUE_NO_LIMITS);
  for (int i = 0; i < COUNT; i++) {
    write_message(sent, i);
    CHECK(queue_send(&q, sent, SIZE, NULL) == QUEUE_OK);
    /* So that some segments come from it, whatever the threads do. */
    if (i % 4000 == 0) {
      message_pool_give(take_block());
    }
  }
  size_t segments = message_live_blocks() - before;
  CHECK(segments < (size_t)COUNT * SIZE / 65536);
  for (int i = 0; i < COUNT; i++) {
    write_message(sent, i);
    CHECK(queue_take(&q, &m) == QUEUE_OK && m.size == SIZE && memcmp(m.data, sent, SIZE) == 0);
    message_release(&m);
  }
  queue_destroy(&q);
  CHECK(message_live_blocks() == before);
  return 0;
}

/* As much passes through it, but little is queued at any time. */
static int
a_queue_that_stays_short_takes_no_blocks(void)
{
  static uint8_t sent[SIZE];
  queue q;
  message m;
  queue_init(&q, &QUEUE_NO_LIMITS);
  message_pool_give(take_block());
  atomic_store(&message_pool_wants, 0);
  for (int i = 0; i < COUNT; i++) {
    CHECK(queue_send(&q, sent, SIZE, NULL) == QUEUE_OK);
    if (i >= 1000) {
      CHECK(queue_take(&q, &m) == QUEUE_OK);
      message_release(&m);
    }
  }
  CHECK(!wants());
  queue_destroy(&q);
  return 0;
}

/* Fills a queue until its segment is a block of the pool; how many messages that took. */
static int
fill_with_blocks(queue *q)
{
  static uint8_t sent[SIZE];
  int count = 0;
  while (!q->place.large) {
    if (queue_send(q, sent, SIZE, NULL) != QUEUE_OK) {
      return -1;
    }
    if (++count % 4000 == 0) {
      message_pool_give(take_block());
    }
  }
  return count;
}

/* Whoever claims the last message has it given back, without another look at the queue. */
static int
a_queue_at_rest_keeps_no_block(void)
{
  queue q;
  message m;
  size_t before = message_live_blocks();
  queue_init(&q, &QUEUE_NO_LIMITS);
  for (int turn = 0; turn < 3; turn++) {
    int count = fill_with_blocks(&q);
    CHECK(count > 0);
    for (int i = 0; i < count; i++) {
      CHECK(message_live_blocks() > before);
      CHECK(queue_take(&q, &m) == QUEUE_OK);
      message_release(&m);
    }
    CHECK(message_live_blocks() == before);
  }
  queue_destroy(&q);
  return 0;
}

static int
wake_nobody(queue_waiter *w, enum queue_wake_reason reason, queue_laters *laters)
{
  (void)w;
  (void)reason;
  (void)laters;
  return 0;
}

/* The last message is handed to somebody who waits, or taken with many others. */
static int
a_block_goes_with_the_last_message_however_it_is_claimed(void)
{
  static message some[100];
  queue q;
  queue_waiter w = {.wake = wake_nobody};
  message m;
  size_t before = message_live_blocks(), taken;
  queue_init(&q, &QUEUE_NO_LIMITS);
  CHECK(fill_with_blocks(&q) > 0);
  while ((taken = queue_hand_some(&q, some, 100)) > 0) {
    queue_claim_some(&q, some, taken, taken);
    for (size_t i = 0; i < taken; i++) {
      message_release(&some[i]);
    }
  }
  CHECK(message_live_blocks() == before);

  CHECK(queue_wait(&q, &w, &m) == QUEUE_EMPTY);
  CHECK(queue_send(&q, (const uint8_t *)"", 0, NULL) == QUEUE_OK);
  CHECK(fill_with_blocks(&q) > 0);
  while (queue_take(&q, &m) == QUEUE_OK) {
    message_release(&m);
  }
  CHECK(q.place.large);
  CHECK(queue_claim(&q, &w, &m) == QUEUE_OK);
  CHECK(!q.place.large && message_live_blocks() == before);
  queue_destroy(&q);
  return 0;
}

/* What was taken is still read when the queue has let go of the block. */
static int
a_message_keeps_its_block(void)
{
  static uint8_t sent[SIZE];
  queue q;
  message m, last;
  size_t before = message_live_blocks();
  queue_init(&q, &QUEUE_NO_LIMITS);
  int count = fill_with_blocks(&q);
  write_message(sent, 7);
  CHECK(queue_send(&q, sent, SIZE, NULL) == QUEUE_OK);
  for (int i = 0; i < count; i++) {
    CHECK(queue_take(&q, &m) == QUEUE_OK);
    message_release(&m);
  }
  CHECK(queue_take(&q, &last) == QUEUE_OK && !q.place.large);
  CHECK(message_live_blocks() == before + 1);
  CHECK(memcmp(last.data, sent, SIZE) == 0);
  message_release(&last);
  CHECK(message_live_blocks() == before);
  queue_destroy(&q);
  return 0;
}

static void *
take_and_give(void *arg)
{
  (void)arg;
  for (int i = 0; i < 200; i++) {
    uint8_t *block = take_block();
    block[0] = block[MESSAGE_POOL_BLOCK - 1] = 1;
    message_pool_give(block);
  }
  return NULL;
}

static int
threads_share_the_pool(void)
{
  pthread_t threads[3];
  for (int i = 0; i < 3; i++) {
    CHECK(pthread_create(&threads[i], NULL, take_and_give, NULL) == 0);
  }
  for (int i = 0; i < 3; i++) {
    pthread_join(threads[i], NULL);
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
  RUN(nothing_is_made_ready_before_somebody_wants_it);
  RUN(blocks_are_aligned_and_nobody_elses);
  RUN(a_queue_that_grows_keeps_its_messages);
  RUN(a_queue_that_stays_short_takes_no_blocks);
  RUN(a_queue_at_rest_keeps_no_block);
  RUN(a_block_goes_with_the_last_message_however_it_is_claimed);
  RUN(a_message_keeps_its_block);
  RUN(threads_share_the_pool);
  printf("%d passed, %d failed\n", passed, failed);
  return failed == 0 ? 0 : 1;
}
