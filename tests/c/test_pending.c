/* The pending queue as a plain C program (for TSan and ASan too): nothing posted is lost, a sleeper
 * is woken in both modes, and a closed core refuses. */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "pending.h"

#define POSTERS 4
#define EVENTS_EACH 50000
#define SECOND_NS INT64_C(1000000000)

static int passed, failed;

#define CHECK(condition)                                                                           \
  do {                                                                                             \
    if (!(condition)) {                                                                            \
      fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #condition);                    \
      return -1;                                                                                   \
    }                                                                                              \
  } while (0)

static int64_t
now_ns(void)
{
  struct timespec ts;

  clock_gettime(CLOCK_MONOTONIC, &ts);
  return (int64_t)ts.tv_sec * SECOND_NS + ts.tv_nsec;
}

/* --- one thread ------------------------------------------------------------------------------ */

static int
test_events_come_out_in_order(void)
{
  loop_core *core = pending_new();
  pending_event *events;
  size_t count;

  for (uint64_t id = 1; id <= 1000; id++)
    CHECK(pending_post(core, id, LOOP_EVENT_SOURCE) == 0);
  CHECK(pending_count(core) == 1000);
  events = pending_take(core, &count);
  CHECK(count == 1000);
  for (size_t i = 0; i < count; i++)
    CHECK(events[i].id == i + 1 && events[i].kind == LOOP_EVENT_SOURCE);
  pending_take(core, &count);
  CHECK(count == 0 && pending_count(core) == 0);
  pending_decref(core);
  return 0;
}

/* What could not be worked through for want of memory comes again, before what came later. */
static int
test_kept_events_come_again(void)
{
  loop_core *core = pending_new();
  pending_event *events;
  size_t count;

  for (uint64_t id = 0; id < 10; id++)
    CHECK(pending_post(core, id, LOOP_EVENT_SOURCE) == 0);
  events = pending_take(core, &count);
  CHECK(count == 10);
  pending_keep(core, 3);
  CHECK(pending_count(core) == 3 && !pending_prepare(core, PENDING_WAIT_COND));
  CHECK(pending_post(core, 10, LOOP_EVENT_SOURCE) == 0 && pending_count(core) == 4);
  events = pending_take(core, &count);
  CHECK(count == 3 && events[0].id == 7 && events[2].id == 9 && pending_count(core) == 1);
  events = pending_take(core, &count);
  CHECK(count == 1 && events[0].id == 10);
  pending_take(core, &count);
  CHECK(count == 0 && pending_prepare(core, PENDING_WAIT_COND));
  pending_decref(core);
  return 0;
}

/* Room is reserved in both buffers, however many other events there are. */
static int
test_reserved_room_stays(void)
{
  loop_core *core = pending_new();
  size_t count;

  for (int i = 0; i < 5000; i++)
    CHECK(pending_reserve(core) == 0);
  for (int round = 0; round < 4; round++) {
    for (uint64_t id = 0; id < 5000; id++)
      CHECK(pending_post(core, id, LOOP_EVENT_READ) == 0);
    for (uint64_t id = 0; id < 5000; id++)
      CHECK(pending_post(core, id, LOOP_EVENT_SOURCE) == 0);
    pending_take(core, &count);
    CHECK(count == 10000);
  }
  for (int i = 0; i < 5000; i++)
    pending_unreserve(core);
  pending_take(core, &count);
  pending_decref(core);
  return 0;
}

static int
test_queued_events_forbid_sleep(void)
{
  loop_core *core = pending_new();
  size_t count;

  CHECK(pending_post(core, 1, LOOP_EVENT_TIMER) == 0);
  CHECK(!pending_prepare(core, PENDING_WAIT_COND));
  CHECK(!pending_prepare(core, PENDING_WAIT_POLLER));
  pending_take(core, &count);
  CHECK(pending_prepare(core, PENDING_WAIT_COND));
  pending_awake(core);
  pending_decref(core);
  return 0;
}

static int
test_deadline_is_never_early(void)
{
  loop_core *core = pending_new();

  for (int i = 0; i < 20; i++) {
    int64_t deadline = now_ns() + 1000000 + i * 1000;

    CHECK(pending_prepare(core, PENDING_WAIT_COND));
    pending_wait(core, deadline);
    CHECK(now_ns() >= deadline);
  }
  pending_decref(core);
  return 0;
}

static int
test_closed_core_refuses(void)
{
  loop_core *core = pending_new();
  size_t count;

  CHECK(pending_post(core, 1, LOOP_EVENT_SOURCE) == 0);
  pending_incref(core);
  pending_close(core);
  pending_close(core);
  CHECK(pending_post(core, 2, LOOP_EVENT_SOURCE) == -1);
  pending_wake(core);
  pending_take(core, &count);
  CHECK(count == 0);
  pending_decref(core);
  CHECK(pending_post(core, 3, LOOP_EVENT_SOURCE) == -1);
  pending_decref(core);
  return 0;
}

/* 1 when the descriptor is readable, 0 when not, -1 when it was closed. */
static int
is_readable(int fd)
{
  struct pollfd watched = {.fd = fd, .events = POLLIN};

  if (poll(&watched, 1, 0) < 0 || watched.revents & POLLNVAL)
    return -1;
  return watched.revents != 0;
}

static int
test_close_forbids_sleep(void)
{
  loop_core *core = pending_new();

  pending_close(core);
  CHECK(!pending_prepare(core, PENDING_WAIT_COND));
  CHECK(!pending_prepare(core, PENDING_WAIT_POLLER));
  CHECK(pending_waker_fd(core) == -1 && errno == EBADF);
  pending_decref(core);
  return 0;
}

static int
test_close_ends_a_sleep_on_the_condition(void)
{
  loop_core *core = pending_new();

  CHECK(pending_prepare(core, PENDING_WAIT_COND));
  pending_close(core);
  pending_wait(core, -1);
  pending_decref(core);
  return 0;
}

/* The descriptor lives until the sleeper has come back, whether the close or a post ended its sleep. */
static int
test_close_ends_a_sleep_in_the_poller(void)
{
  for (int posted = 0; posted <= 1; posted++) {
    loop_core *core = pending_new();
    int waker = pending_waker_fd(core);

    CHECK(waker >= 0 && pending_prepare(core, PENDING_WAIT_POLLER));
    CHECK(!posted || pending_post(core, 1, LOOP_EVENT_SOURCE) == 0);
    pending_close(core);
    CHECK(is_readable(waker) == 1);
    pending_awake(core);
    CHECK(is_readable(waker) == -1);
    pending_decref(core);
  }
  return 0;
}

static int
test_awake_loop_costs_no_wake(void)
{
  loop_core *core = pending_new();
  struct pollfd watched = {.fd = pending_waker_fd(core), .events = POLLIN};

  CHECK(watched.fd >= 0);
  for (int i = 0; i < 100; i++)
    CHECK(pending_post(core, 1, LOOP_EVENT_SOURCE) == 0);
  pending_wake(core);
  pending_wake_if_asleep(core);
  CHECK(poll(&watched, 1, 0) == 0);
  pending_decref(core);
  return 0;
}

/* --- several threads ------------------------------------------------------------------------- */

struct poster {
  pthread_t thread;
  loop_core *core;
  uint64_t base;
  int refused;
};

static void *
post_all(void *arg)
{
  struct poster *poster = arg;

  for (uint64_t i = 0; i < EVENTS_EACH; i++)
    poster->refused += pending_post(poster->core, poster->base + i, LOOP_EVENT_SOURCE) != 0;
  pending_decref(poster->core);
  return NULL;
}

static int
start_posters(struct poster *posters, loop_core *core)
{
  for (int i = 0; i < POSTERS; i++) {
    posters[i] = (struct poster){.core = core, .base = (uint64_t)i * EVENTS_EACH};
    pending_incref(core);
    if (pthread_create(&posters[i].thread, NULL, post_all, &posters[i]) != 0)
      return -1;
  }
  return 0;
}

/* Sleeps as a loop does, in the given mode. */
static void
sleep_once(loop_core *core, enum pending_state mode, int waker)
{
  if (!pending_prepare(core, mode))
    return;
  if (mode == PENDING_WAIT_COND) {
    pending_wait(core, now_ns() + 10 * SECOND_NS);
  } else {
    struct pollfd watched = {.fd = waker, .events = POLLIN};
    uint64_t counter;

    /* poll() reports levels where epoll would see an edge, so the counter is read here. */
    if (poll(&watched, 1, 10000) > 0 && read(waker, &counter, sizeof(counter)) < 0)
      perror("read");
    pending_awake(core);
  }
}

/* Drains until all posters' events have come; each must come once and in its poster's order. */
static int
drain_all(loop_core *core, enum pending_state mode)
{
  uint64_t next[POSTERS] = {0};
  size_t total = 0;
  int waker = mode == PENDING_WAIT_POLLER ? pending_waker_fd(core) : -1;

  while (total < (size_t)POSTERS * EVENTS_EACH) {
    size_t count;
    pending_event *events;

    sleep_once(core, mode, waker);
    events = pending_take(core, &count);
    for (size_t i = 0; i < count; i++) {
      uint64_t poster = events[i].id / EVENTS_EACH;

      CHECK(poster < POSTERS);
      CHECK(events[i].id % EVENTS_EACH == next[poster]);
      next[poster]++;
    }
    total += count;
  }
  return 0;
}

static int
nothing_lost(enum pending_state mode)
{
  struct poster posters[POSTERS];
  loop_core *core = pending_new();
  int rc;

  CHECK(start_posters(posters, core) == 0);
  rc = drain_all(core, mode);
  for (int i = 0; i < POSTERS; i++) {
    pthread_join(posters[i].thread, NULL);
    CHECK(posters[i].refused == 0);
  }
  pending_decref(core);
  return rc;
}

static int
test_nothing_lost_on_the_condition(void)
{
  return nothing_lost(PENDING_WAIT_COND);
}

static int
test_nothing_lost_in_the_poller(void)
{
  return nothing_lost(PENDING_WAIT_POLLER);
}

static int
test_close_under_posters(void)
{
  for (int round = 0; round < 20; round++) {
    struct poster posters[POSTERS];
    loop_core *core = pending_new();
    size_t count;

    CHECK(start_posters(posters, core) == 0);
    pending_take(core, &count);
    pending_close(core);
    CHECK(pending_post(core, 0, LOOP_EVENT_SOURCE) == -1);
    /* The posters' own references keep the core. */
    pending_decref(core);
    for (int i = 0; i < POSTERS; i++)
      pthread_join(posters[i].thread, NULL);
  }
  return 0;
}

/* A thread that answers each event on one core with an event on the other. */
struct echo {
  loop_core *in, *out;
  int rounds;
};

static void *
echo_all(void *arg)
{
  struct echo *echo = arg;

  for (int i = 0; i < echo->rounds; i++) {
    size_t count = 0;

    while (count == 0) {
      sleep_once(echo->in, PENDING_WAIT_COND, -1);
      pending_take(echo->in, &count);
    }
    pending_post(echo->out, 1, LOOP_EVENT_SOURCE);
  }
  return NULL;
}

static int
test_every_hand_off_wakes(void)
{
  struct echo echo = {.in = pending_new(), .out = pending_new(), .rounds = 20000};
  int64_t begin = now_ns();
  pthread_t thread;

  CHECK(pthread_create(&thread, NULL, echo_all, &echo) == 0);
  for (int i = 0; i < echo.rounds; i++) {
    size_t count = 0;

    CHECK(pending_post(echo.in, 1, LOOP_EVENT_SOURCE) == 0);
    while (count == 0) {
      sleep_once(echo.out, PENDING_WAIT_COND, -1);
      pending_take(echo.out, &count);
    }
  }
  pthread_join(thread, NULL);
  /* One lost wake-up would have cost ten seconds. */
  CHECK(now_ns() - begin < 10 * SECOND_NS);
  pending_decref(echo.in);
  pending_decref(echo.out);
  return 0;
}

static void
run(const char *name, int (*test)(void))
{
  if (test() == 0 && pending_live() == 0) {
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
  RUN(test_events_come_out_in_order);
  RUN(test_kept_events_come_again);
  RUN(test_reserved_room_stays);
  RUN(test_queued_events_forbid_sleep);
  RUN(test_deadline_is_never_early);
  RUN(test_closed_core_refuses);
  RUN(test_close_forbids_sleep);
  RUN(test_close_ends_a_sleep_on_the_condition);
  RUN(test_close_ends_a_sleep_in_the_poller);
  RUN(test_awake_loop_costs_no_wake);
  RUN(test_nothing_lost_on_the_condition);
  RUN(test_nothing_lost_in_the_poller);
  RUN(test_close_under_posters);
  RUN(test_every_hand_off_wakes);
  printf("%d passed, %d failed\n", passed, failed);
  return failed == 0 ? 0 : 1;
}
