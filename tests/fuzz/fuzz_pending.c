/* The pending queue against a list: what is posted is taken, in order, once; a sleep is announced only
 * when nothing waits, and what comes after that wakes it. */
#include "pending.h"

#include <sys/epoll.h>
#include <unistd.h>

#include "fuzz.h"

#define EVENTS 4096

static pending_event model[EVENTS];

typedef struct run {
  loop_core *core;
  int poller;
  size_t count;
  int closed;
  enum pending_state sleep; /* what was announced */
  int woken;                /* since then */
  uint64_t next_id;
} run;

static void
post(run *r, fuzz_input *in)
{
  if (r->count == EVENTS) {
    return;
  }
  pending_event event = {r->next_id++, 1 + (int)fuzz_below(in, 4)};
  REQUIRE(pending_post(r->core, event.id, event.kind) == (r->closed ? -1 : 0));
  if (!r->closed) {
    model[r->count++] = event;
    r->woken = 1;
  }
}

static void
take(run *r)
{
  size_t count;
  pending_event *events = pending_take(r->core, &count);
  REQUIRE(count == r->count);
  for (size_t i = 0; i < count; i++) {
    REQUIRE(events[i].id == model[i].id && events[i].kind == model[i].kind);
  }
  r->count = 0;
}

/* As the loop does it: announce, wait, and be awake again. */
static void
begin_sleep(run *r, enum pending_state mode)
{
  if (r->sleep == PENDING_AWAKE && !r->closed) {
    int may = pending_prepare(r->core, mode);
    REQUIRE(may == (r->count == 0));
    if (may) {
      r->sleep = mode;
      r->woken = 0;
    }
  }
}

static void
end_sleep(run *r)
{
  if (r->sleep == PENDING_WAIT_COND) {
    /* One that nobody woke ends at its deadline, which is over. */
    pending_wait(r->core, r->woken ? -1 : 1);
  } else if (r->sleep == PENDING_WAIT_POLLER) {
    struct epoll_event event;
    REQUIRE(epoll_wait(r->poller, &event, 1, 0) == r->woken);
    pending_awake(r->core);
  }
  r->sleep = PENDING_AWAKE;
}

static void
wake(run *r, int asleep_only)
{
  if (asleep_only) {
    pending_wake_if_asleep(r->core);
  } else {
    pending_wake(r->core);
  }
  r->woken = 1;
}

static void
step(run *r, fuzz_input *in)
{
  switch (fuzz_below(in, 12)) {
  case 0:
    end_sleep(r);
    take(r);
    break;
  case 1:
    begin_sleep(r, PENDING_WAIT_COND);
    break;
  case 2:
    begin_sleep(r, PENDING_WAIT_POLLER);
    break;
  case 3:
    end_sleep(r);
    break;
  case 4:
    wake(r, (int)fuzz_below(in, 2));
    break;
  case 5:
    if (fuzz_below(in, 16) == 15) {
      end_sleep(r);
      pending_close(r->core);
      r->closed = 1;
      r->count = 0;
    }
    break;
  default:
    post(r, in);
  }
  REQUIRE(pending_count(r->core) == r->count);
}

int
LLVMFuzzerInitialize(int *argc, char ***argv)
{
  (void)argc, (void)argv;
  return 0;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
  fuzz_input in = {data, size};
  run r = {.core = pending_new(), .next_id = 1};
  REQUIRE(r.core != NULL && pending_waker_fd(r.core) >= 0);
  /* Edge-triggered, as the loop has it. */
  struct epoll_event event = {.events = EPOLLIN | EPOLLET};
  r.poller = epoll_create1(EPOLL_CLOEXEC);
  REQUIRE(epoll_ctl(r.poller, EPOLL_CTL_ADD, pending_waker_fd(r.core), &event) == 0);
  while (in.left > 0) {
    step(&r, &in);
  }
  end_sleep(&r);
  take(&r);
  pending_decref(r.core);
  close(r.poller);
  return 0;
}
