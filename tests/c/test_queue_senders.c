/* Senders that wait for room in a queue, as a plain C program (for TSan and ASan too). */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "queue.h"
#include "thread_wait.h"

#define NONE QUEUE_UNBOUNDED

static int passed, failed;

#define CHECK(condition)                                                                           \
  do {                                                                                             \
    if (!(condition)) {                                                                            \
      fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #condition);                    \
      return -1;                                                                                   \
    }                                                                                              \
  } while (0)

/* A message that its sender leaves with the queue. */
typedef struct letter {
  message_attachment attachment;
  message_part part;
  int value;
  atomic_int released;
} letter;

static void
letter_release(message_attachment *self)
{
  atomic_fetch_add(&((letter *)self)->released, 1);
}

static void
write_letter(letter *l, int value)
{
  l->value = value;
  l->part = (message_part){(const uint8_t *)&l->value, sizeof(l->value)};
  l->attachment = (message_attachment){letter_release, &l->part, 1, 0, NULL};
  atomic_init(&l->released, 0);
}

/* A sender that counts how often it is woken, and in which order. */
typedef struct probe {
  queue_sender sender;
  letter letter;
  int wakes;
  int turn;
  int refuse;
} probe;

static int turns;

static int
probe_wake(queue_sender *s, queue_laters *laters)
{
  probe *p = (probe *)s;
  (void)laters;
  p->wakes++;
  p->turn = ++turns;
  return p->refuse ? -1 : 0;
}

static void
init_probe(probe *p, int value)
{
  memset(p, 0, sizeof(*p));
  p->sender.wake = probe_wake;
  p->sender.kind = QUEUE_PROCESS;
  write_letter(&p->letter, value);
}

static int
wait_probe(queue *q, probe *p)
{
  return queue_send_wait(q, &p->sender, sizeof(int), &p->letter.attachment);
}

static int
send_value(queue *q, int value)
{
  return queue_send(q, (uint8_t *)&value, sizeof(value), NULL);
}

/* The value of the next message, or -1. */
static int
take_value(queue *q)
{
  message m;
  int value = -1;
  if (queue_take(q, &m) == QUEUE_OK) {
    memcpy(&value, m.data != NULL ? m.data : m.attachment->parts[0].data, sizeof(value));
    message_release(&m);
  }
  return value;
}

static queue_info
info_of(queue *q)
{
  queue_info info;
  queue_get_info(q, &info);
  return info;
}

static int
senders_that_wait_are_served_in_order(void)
{
  queue q;
  probe p[3];
  queue_init(&q, &(queue_limits){NONE, 1, NONE, NONE});
  CHECK(send_value(&q, 10) == QUEUE_OK);
  for (int i = 0; i < 3; i++) {
    init_probe(&p[i], i);
    CHECK(wait_probe(&q, &p[i]) == QUEUE_EMPTY);
    CHECK(queue_send_end(&q, &p[i].sender) == QUEUE_EMPTY);
  }
  CHECK(info_of(&q).senders[QUEUE_PROCESS] == 3 && info_of(&q).messages == 1);
  CHECK(take_value(&q) == 10);
  CHECK(p[0].wakes == 1 && p[1].wakes == 0);
  CHECK(queue_send_end(&q, &p[0].sender) == QUEUE_OK);
  CHECK(take_value(&q) == 0 && take_value(&q) == 1 && take_value(&q) == 2);
  CHECK(p[1].turn == p[0].turn + 1 && p[2].turn == p[1].turn + 1 && p[2].wakes == 1);
  CHECK(queue_send_end(&q, &p[2].sender) == QUEUE_OK);
  CHECK(p[0].letter.released == 1 && p[2].letter.released == 1);
  CHECK(info_of(&q).total_in == 4 && queue_count_kinds(info_of(&q).senders) == 0);
  queue_destroy(&q);
  return 0;
}

static int
nobody_overtakes_a_sender_that_waits(void)
{
  queue q;
  probe large;
  static uint8_t bytes[100];
  message_part part = {bytes, 100};
  queue_init(&q, &(queue_limits){150, NONE, NONE, NONE});
  CHECK(queue_send(&q, bytes, 60, NULL) == QUEUE_OK);
  CHECK(queue_send(&q, bytes, 32, NULL) == QUEUE_OK);
  init_probe(&large, 0);
  large.letter.part = part;
  CHECK(queue_send_wait(&q, &large.sender, 100, &large.letter.attachment) == QUEUE_EMPTY);
  /* This would fit, but it is not its turn. */
  CHECK(queue_send(&q, bytes, 32, NULL) == QUEUE_BUSY);
  CHECK(queue_send_cancel(&q, &large.sender) == 1);
  CHECK(queue_send(&q, bytes, 32, NULL) == QUEUE_OK);
  queue_destroy(&q);
  return 0;
}

static int
a_first_sender_that_gives_up_makes_way_for_smaller_ones(void)
{
  queue q;
  probe large, small;
  queue_init(&q, &(queue_limits){100, NONE, NONE, NONE});
  CHECK(send_value(&q, 1) == QUEUE_OK);
  init_probe(&large, 0);
  init_probe(&small, 2);
  CHECK(queue_send_wait(&q, &large.sender, 90, NULL) == QUEUE_EMPTY);
  CHECK(wait_probe(&q, &small) == QUEUE_EMPTY);
  CHECK(queue_send_cancel(&q, &large.sender) == 1 && large.wakes == 0);
  CHECK(small.wakes == 1 && queue_send_end(&q, &small.sender) == QUEUE_OK);
  CHECK(queue_send_cancel(&q, &large.sender) == 1);
  CHECK(take_value(&q) == 1 && take_value(&q) == 2);
  queue_destroy(&q);
  return 0;
}

static int
what_never_fits_is_refused_at_once(void)
{
  queue q;
  probe p;
  queue_init(&q, &(queue_limits){100, NONE, NONE, NONE});
  init_probe(&p, 0);
  CHECK(queue_send_wait(&q, &p.sender, 101, &p.letter.attachment) == QUEUE_TOO_LARGE);
  CHECK(send_value(&q, 1) == QUEUE_OK);
  CHECK(queue_send_wait(&q, &p.sender, 101, NULL) == QUEUE_TOO_LARGE);
  CHECK(queue_count_kinds(info_of(&q).senders) == 0 && p.letter.released == 0);
  queue_destroy(&q);
  return 0;
}

static int
closing_refuses_all_who_wait(void)
{
  enum { COUNT = 3 * QUEUE_LATER_MAX };
  queue q;
  static probe p[COUNT];
  queue_init(&q, &(queue_limits){NONE, 1, NONE, NONE});
  CHECK(send_value(&q, 7) == QUEUE_OK);
  for (int i = 0; i < COUNT; i++) {
    init_probe(&p[i], i);
    CHECK(wait_probe(&q, &p[i]) == QUEUE_EMPTY);
  }
  queue_close(&q);
  for (int i = 0; i < COUNT; i++) {
    CHECK(p[i].wakes == 1);
    CHECK(queue_send_cancel(&q, &p[i].sender) == 0);
    CHECK(queue_send_end(&q, &p[i].sender) == QUEUE_CLOSED);
    CHECK(p[i].letter.released == 0);
  }
  CHECK(wait_probe(&q, &p[0]) == QUEUE_CLOSED);
  CHECK(take_value(&q) == 7 && take_value(&q) == -1);
  queue_destroy(&q);
  return 0;
}

static int
room_is_reserved_until_its_owner_sends_or_gives_up(void)
{
  queue q;
  probe first, second;
  int value = 5;
  queue_init(&q, &(queue_limits){64, NONE, NONE, NONE});
  init_probe(&first, 0);
  init_probe(&second, 0);
  first.sender.kind = QUEUE_COROUTINE;
  CHECK(send_value(&q, 1) == QUEUE_OK && send_value(&q, 2) == QUEUE_OK);
  CHECK(queue_send_wait(&q, &first.sender, sizeof(value), NULL) == QUEUE_EMPTY);
  CHECK(queue_send_wait(&q, &second.sender, sizeof(value), NULL) == QUEUE_EMPTY);
  CHECK(info_of(&q).senders[QUEUE_COROUTINE] == 1);
  CHECK(take_value(&q) == 1 && first.wakes == 1 && second.wakes == 0);
  CHECK(info_of(&q).size == 32 && info_of(&q).messages == 1);
  CHECK(queue_send_end(&q, &first.sender) == QUEUE_OK);
  CHECK(queue_send_cancel(&q, &first.sender) == 1);
  CHECK(second.wakes == 1);
  CHECK(queue_send_granted(&q, &second.sender, (uint8_t *)&value, sizeof(value), NULL) == QUEUE_OK);
  CHECK(send_value(&q, 6) == QUEUE_BUSY);
  CHECK(take_value(&q) == 2 && take_value(&q) == 5 && take_value(&q) == -1);
  CHECK(queue_send_wait(&q, &first.sender, sizeof(value), NULL) == QUEUE_OK);
  queue_close(&q);
  CHECK(queue_send_granted(&q, &first.sender, (uint8_t *)&value, sizeof(value), NULL) ==
        QUEUE_CLOSED);
  CHECK(q.reserved_size == 0 && q.reserved_messages == 0);
  queue_destroy(&q);
  return 0;
}

static int
room_for_a_sender_that_nobody_can_wake_goes_to_the_next(void)
{
  queue q;
  probe dead, alive;
  queue_init(&q, &(queue_limits){NONE, 1, NONE, NONE});
  CHECK(send_value(&q, 1) == QUEUE_OK);
  init_probe(&dead, 0);
  init_probe(&alive, 2);
  dead.refuse = 1;
  CHECK(queue_send_wait(&q, &dead.sender, sizeof(int), NULL) == QUEUE_EMPTY);
  CHECK(wait_probe(&q, &alive) == QUEUE_EMPTY);
  CHECK(take_value(&q) == 1 && take_value(&q) == 2);
  queue_destroy(&q);
  return 0;
}

static int
receiver_wake(queue_waiter *w, enum queue_wake_reason reason, queue_laters *laters)
{
  (void)w, (void)reason, (void)laters;
  return 0;
}

static int
a_message_that_had_to_wait_is_handed_to_the_next_receiver(void)
{
  queue q;
  probe p;
  message m;
  queue_waiter a = {.wake = receiver_wake}, b = a;
  queue_init(&q, &(queue_limits){NONE, 1, NONE, NONE});
  CHECK(queue_wait(&q, &a, &m) == QUEUE_EMPTY && queue_wait(&q, &b, &m) == QUEUE_EMPTY);
  CHECK(send_value(&q, 1) == QUEUE_OK);
  init_probe(&p, 2);
  CHECK(wait_probe(&q, &p) == QUEUE_EMPTY);
  CHECK(queue_claim(&q, &a, &m) == QUEUE_OK);
  message_release(&m);
  CHECK(p.wakes == 1 && b.state == WAITER_HANDED);
  CHECK(queue_claim(&q, &b, &m) == QUEUE_OK && m.attachment == &p.letter.attachment);
  message_release(&m);
  queue_destroy(&q);
  return 0;
}

static int
between_the_watermarks_there_is_no_room_on_the_way_down(void)
{
  queue q;
  probe p;
  queue_init(&q, &(queue_limits){NONE, NONE, 96, 32});
  CHECK(send_value(&q, 1) == QUEUE_OK && send_value(&q, 2) == QUEUE_OK);
  CHECK(take_value(&q) == 1 && send_value(&q, 3) == QUEUE_OK && send_value(&q, 4) == QUEUE_OK);
  CHECK(send_value(&q, 5) == QUEUE_BUSY);
  init_probe(&p, 6);
  CHECK(wait_probe(&q, &p) == QUEUE_EMPTY);
  CHECK(take_value(&q) == 2 && p.wakes == 0 && send_value(&q, 7) == QUEUE_BUSY);
  CHECK(take_value(&q) == 3 && p.wakes == 1);
  CHECK(take_value(&q) == 4 && take_value(&q) == 6 && info_of(&q).busy == 3);
  queue_destroy(&q);
  return 0;
}

static int
a_refusal_above_the_low_watermark_holds_until_it_is_reached(void)
{
  queue q;
  queue_init(&q, &(queue_limits){96, NONE, NONE, 32});
  CHECK(send_value(&q, 1) == QUEUE_OK && send_value(&q, 2) == QUEUE_OK);
  CHECK(send_value(&q, 3) == QUEUE_OK && take_value(&q) == 1);
  CHECK(send_value(&q, 4) == QUEUE_OK && send_value(&q, 5) == QUEUE_BUSY);
  CHECK(take_value(&q) == 2 && send_value(&q, 5) == QUEUE_BUSY);
  CHECK(take_value(&q) == 3 && send_value(&q, 5) == QUEUE_OK);
  queue_destroy(&q);
  return 0;
}

/* Threads: every send that was accepted is received once, every other was told. */

enum { PRODUCERS = 4, CONSUMERS = 2, PER_PRODUCER = 20000 };

static atomic_uchar seen[PRODUCERS * PER_PRODUCER];
static atomic_uchar sent[PRODUCERS * PER_PRODUCER];

typedef struct thread_sender {
  queue_sender sender;
  thread_wait *wait;
} thread_sender;

static void
wake_later(void *wait)
{
  thread_wait_wake(wait);
  thread_wait_decref(wait);
}

static int
thread_wake(queue_sender *s, queue_laters *laters)
{
  thread_wait *wait = ((thread_sender *)s)->wait;
  thread_wait_incref(wait);
  queue_later(laters, wake_later, wait);
  return 0;
}

typedef struct job {
  queue *q;
  int first;
  unsigned seed;
} job;

static letter letters[PRODUCERS * PER_PRODUCER];

/* Sends a value and gives up at random: a queue_result, or QUEUE_BUSY when it gave up. */
static int
send_or_give_up(job *j, int value)
{
  thread_sender s = {.sender = {.wake = thread_wake, .kind = QUEUE_THREAD},
                     .wait = thread_wait_current()};
  int reserve = value % 3 == 0;
  write_letter(&letters[value], value);
  thread_wait_begin(s.wait);
  int result =
      queue_send_wait(j->q, &s.sender, sizeof(value), reserve ? NULL : &letters[value].attachment);
  while (result == QUEUE_EMPTY) {
    int64_t until = thread_wait_clock() + rand_r(&j->seed) % 100000;
    if (thread_wait_sleep(s.wait, until) == THREAD_WAIT_TIMEOUT && rand_r(&j->seed) % 4 == 0 &&
        queue_send_cancel(j->q, &s.sender)) {
      result = QUEUE_BUSY;
    } else {
      result = queue_send_end(j->q, &s.sender);
    }
  }
  thread_wait_end(s.wait);
  if (result == QUEUE_OK && reserve) {
    result = queue_send_granted(j->q, &s.sender, (uint8_t *)&value, sizeof(value), NULL);
  }
  return result;
}

static void *
produce(void *arg)
{
  job *j = arg;
  for (int i = 0; i < PER_PRODUCER; i++) {
    if (send_or_give_up(j, j->first + i) == QUEUE_OK) {
      atomic_store(&sent[j->first + i], 1);
    }
  }
  return NULL;
}

static atomic_int stop_consumers;

static void *
consume(void *arg)
{
  queue *q = arg;
  while (!atomic_load(&stop_consumers) || info_of(q).messages > 0) {
    int value = take_value(q);
    if (value >= 0) {
      atomic_fetch_add(&seen[value], 1);
    }
  }
  return NULL;
}

/* With close_early, half the producers meet a closed queue. */
static int
run_threads(int close_early)
{
  queue q;
  pthread_t producer[PRODUCERS], consumer[CONSUMERS];
  job p[PRODUCERS];
  memset((void *)seen, 0, sizeof(seen));
  memset((void *)sent, 0, sizeof(sent));
  atomic_store(&stop_consumers, 0);
  queue_init(&q, &(queue_limits){32 * 20, 10, 32 * 9, 32 * 4});
  for (int i = 0; i < CONSUMERS; i++) {
    pthread_create(&consumer[i], NULL, consume, &q);
  }
  for (int i = 0; i < PRODUCERS; i++) {
    p[i] = (job){.q = &q, .first = i * PER_PRODUCER, .seed = (unsigned)i + 1};
    pthread_create(&producer[i], NULL, produce, &p[i]);
  }
  while (close_early && info_of(&q).total_in < PER_PRODUCER) {
  }
  if (close_early) {
    queue_close(&q);
  }
  for (int i = 0; i < PRODUCERS; i++) {
    pthread_join(producer[i], NULL);
  }
  atomic_store(&stop_consumers, 1);
  for (int i = 0; i < CONSUMERS; i++) {
    pthread_join(consumer[i], NULL);
  }
  for (int i = 0; i < PRODUCERS * PER_PRODUCER; i++) {
    CHECK(atomic_load(&seen[i]) == atomic_load(&sent[i]));
  }
  queue_info info = info_of(&q);
  CHECK(info.size == 0 && info.messages == 0 && info.total_in == info.total_out);
  CHECK(queue_count_kinds(info.senders) == 0);
  CHECK(q.reserved_size == 0 && q.reserved_messages == 0);
  queue_destroy(&q);
  return 0;
}

static int
threads_that_wait_and_give_up_lose_and_repeat_nothing(void)
{
  return run_threads(0);
}

static int
sends_racing_close_are_received_or_refused(void)
{
  return run_threads(1);
}

/* A sender that is told that its time is up: what it was granted already stays its own. */
static int
a_sender_that_was_woken_is_not_withdrawn(void)
{
  queue q;
  probe first, second;
  message m;
  int value = 0;
  queue_init(&q, &(queue_limits){NONE, 1, NONE, NONE});
  init_probe(&first, 1);
  init_probe(&second, 2);
  CHECK(queue_send(&q, (const uint8_t *)&value, sizeof(value), NULL) == QUEUE_OK);
  CHECK(queue_send_wait(&q, &first.sender, sizeof(int), NULL) == QUEUE_EMPTY);
  CHECK(queue_send_wait(&q, &second.sender, sizeof(int), NULL) == QUEUE_EMPTY);
  CHECK(queue_sender_is_waiting(&q, &first.sender));
  CHECK(queue_take(&q, &m) == QUEUE_OK);
  message_release(&m);
  CHECK(first.wakes == 1 && !queue_sender_is_waiting(&q, &first.sender));
  CHECK(queue_send_withdraw(&q, &first.sender) == 0);
  CHECK(queue_send_end(&q, &first.sender) == QUEUE_OK);
  CHECK(queue_send_withdraw(&q, &second.sender) == 1);
  CHECK(queue_send_withdraw(&q, &second.sender) == 0);
  CHECK(queue_send_granted(&q, &first.sender, (const uint8_t *)&value, sizeof(value), NULL) ==
        QUEUE_OK);
  CHECK(second.wakes == 0 && !queue_sender_is_waiting(&q, &second.sender));
  queue_destroy(&q);
  return 0;
}

static int
nothing_is_left_alive(void)
{
  CHECK(message_live_blocks() == 0);
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
  RUN(senders_that_wait_are_served_in_order);
  RUN(nobody_overtakes_a_sender_that_waits);
  RUN(a_first_sender_that_gives_up_makes_way_for_smaller_ones);
  RUN(what_never_fits_is_refused_at_once);
  RUN(closing_refuses_all_who_wait);
  RUN(room_is_reserved_until_its_owner_sends_or_gives_up);
  RUN(room_for_a_sender_that_nobody_can_wake_goes_to_the_next);
  RUN(a_message_that_had_to_wait_is_handed_to_the_next_receiver);
  RUN(between_the_watermarks_there_is_no_room_on_the_way_down);
  RUN(a_refusal_above_the_low_watermark_holds_until_it_is_reached);
  RUN(a_sender_that_was_woken_is_not_withdrawn);
  RUN(threads_that_wait_and_give_up_lose_and_repeat_nothing);
  RUN(sends_racing_close_are_received_or_refused);
  RUN(nothing_is_left_alive);
  printf("%d passed, %d failed\n", passed, failed);
  return failed != 0;
}
