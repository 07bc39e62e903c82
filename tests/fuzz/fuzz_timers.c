/* The timer heap against a plain list: whatever is inserted and removed, the first to fire is the one
 * with the earliest deadline, and of equal ones the one that was set first. */
#include "loop_internal.h"

#include "fuzz.h"

#define TIMERS 512

/* A timer as the heap knows it; only its slot and its references are used. */
static timer_handle timers[TIMERS];
static struct {
  int64_t when;
  uint64_t order;
  int waits;
} model[TIMERS];

/* What the heap needs of handle.c. */
void
handle_track(handle *self)
{
  (void)self;
}

int
handle_traverse_owned(handle *self, visitproc visit, void *arg)
{
  (void)self, (void)visit, (void)arg;
  return 0;
}

static int
first_of_model(void)
{
  int first = -1;
  for (int i = 0; i < TIMERS; i++) {
    if (model[i].waits &&
        (first < 0 || model[i].when < model[first].when ||
         (model[i].when == model[first].when && model[i].order < model[first].order))) {
      first = i;
    }
  }
  return first;
}

static void
check(const struct timer_heap *heap)
{
  uint32_t count = 0;
  for (int i = 0; i < TIMERS; i++) {
    count += (uint32_t)model[i].waits;
    REQUIRE(model[i].waits == (timers[i].slot != -1));
    REQUIRE(Py_REFCNT(&timers[i]) == 1 + model[i].waits);
  }
  REQUIRE(heap->len == count);
  int first = first_of_model();
  REQUIRE(timers_first(heap) == (first < 0 ? DEADLINE_NEVER : model[first].when));
}

static void
insert(struct timer_heap *heap, fuzz_input *in, uint64_t order)
{
  int i = (int)fuzz_below(in, 2) * 256 + (int)fuzz_byte(in);
  if (model[i].waits) {
    timers_remove(heap, &timers[i]);
    model[i].waits = 0;
  } else {
    /* Few different deadlines: many are equal. */
    model[i].when = (int64_t)fuzz_below(in, 40) - 10;
    model[i].order = order;
    model[i].waits = 1;
    REQUIRE(timers_insert(heap, &timers[i], model[i].when) == 0);
  }
}

static void
pop(struct timer_heap *heap)
{
  int first = first_of_model();
  if (first >= 0) {
    timer_handle *popped = timers_pop(heap);
    REQUIRE(popped == &timers[first]);
    handle_leave_queue(&popped->base);
    model[first].waits = 0;
  }
}

static void
clear(struct timer_heap *heap)
{
  timers_clear(heap);
  for (int i = 0; i < TIMERS; i++) {
    model[i].waits = 0;
  }
}

int
LLVMFuzzerInitialize(int *argc, char ***argv)
{
  (void)argc, (void)argv;
  Py_InitializeEx(0);
  for (int i = 0; i < TIMERS; i++) {
    Py_SET_REFCNT(&timers[i], 1);
    timers[i].slot = -1;
  }
  return 0;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
  fuzz_input in = {data, size};
  /* The numbers of the order wrap in some runs. */
  struct timer_heap heap = {.next_seq = fuzz_below(&in, 2) ? UINT32_MAX - 20 : 0};
  for (uint64_t order = 0; in.left > 0; order++) {
    switch (fuzz_below(&in, 8)) {
    case 0:
    case 1:
      pop(&heap);
      break;
    case 2:
      if (fuzz_below(&in, 32) == 31) {
        clear(&heap);
      }
      break;
    default:
      insert(&heap, &in, order);
    }
    if (order % 16 == 0) {
      check(&heap);
    }
  }
  check(&heap);
  clear(&heap);
  check(&heap);
  return 0;
}
