/* The table of descriptors on their way to Python: each number is taken once, whoever tries, and either
 * settled or withdrawn. */
#include "descriptors.h"

#include <assert.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

#ifdef NDEBUG
#error "the assertions are the test"
#endif

#define MANY 1000
#define THREADS 4

static uint64_t numbers[MANY];
static atomic_int taken[MANY]; /* how often each was */

/* As take, and the descriptor is the taker's. */
static int
take_for_good(uint64_t number)
{
  int owned, fd = descriptors_take(number, &owned);

  if (fd >= 0)
    assert(descriptors_settle(number, 1));
  return fd;
}

static uint64_t
put(int fd)
{
  return descriptors_put(fd, 1);
}

static void
each_is_taken_once(void)
{
  uint64_t first = put(7), second = put(0);

  assert(first != 0 && second != 0 && first != second);
  assert(descriptors_count() == 2);
  assert(take_for_good(first) == 7);
  assert(take_for_good(first) == -1);
  assert(take_for_good(second) == 0);
  assert(take_for_good(second) == -1);
  assert(descriptors_count() == 0);
}

static void
numbers_are_not_used_again(void)
{
  uint64_t old = put(1);

  assert(take_for_good(old) == 1);
  for (int i = 0; i < MANY; i++) {
    uint64_t number = put(i);

    assert(number != old);
    assert(take_for_good(old) == -1);
    assert(take_for_good(number) == i);
  }
}

static void
what_is_no_number_is_nothing(void)
{
  assert(take_for_good(0) == -1);
  assert(take_for_good(1) == -1);
  assert(take_for_good(UINT64_MAX) == -1);
}

static void
what_waits_can_be_withdrawn(void)
{
  uint64_t owned = descriptors_put(5, 1), foreign = descriptors_put(6, 0);
  int fd;

  assert(descriptors_withdraw(owned, &fd) && fd == 5);
  assert(descriptors_withdraw(foreign, &fd) && fd == -1);
  assert(!descriptors_withdraw(owned, &fd) && fd == -1);
  assert(take_for_good(owned) == -1 && !descriptors_settle(owned, 1));
  assert(descriptors_count() == 0);
}

static void
what_is_taken_is_settled_or_withdrawn(void)
{
  uint64_t settled = descriptors_put(5, 1), withdrawn = descriptors_put(6, 0);
  int fd, owned;

  assert(!descriptors_settle(settled, 1)); /* not taken */
  assert(descriptors_take(settled, &owned) == 5 && owned);
  assert(descriptors_take(withdrawn, &owned) == 6 && !owned);
  assert(descriptors_count() == 2);
  assert(descriptors_settle(settled, 1));
  assert(!descriptors_withdraw(settled, &fd) && fd == -1);
  /* It is the taker that has it: nothing for the other to close, and the number is not free yet. */
  assert(descriptors_withdraw(withdrawn, &fd) && fd == -1);
  assert(!descriptors_withdraw(withdrawn, &fd));
  assert(descriptors_count() == 0);
  assert(!descriptors_settle(withdrawn, 1));
  assert(!descriptors_settle(withdrawn, 1) && take_for_good(withdrawn) == -1);
}

/* Whoever put it learns that nobody has it, however late it asks. */
static void
what_is_refused_is_nobodys(void)
{
  uint64_t refused = descriptors_put(5, 1), both = descriptors_put(6, 1);
  int fd, owned;

  assert(descriptors_take(refused, &owned) == 5 && descriptors_take(both, &owned) == 6);
  assert(!descriptors_settle(refused, 0));
  assert(descriptors_count() == 1);
  assert(!descriptors_settle(refused, 1) && take_for_good(refused) == -1);
  assert(descriptors_withdraw(refused, &fd) && fd == -1);
  assert(!descriptors_withdraw(refused, &fd));
  assert(descriptors_withdraw(both, &fd) && fd == -1);
  assert(!descriptors_settle(both, 0));
  assert(!descriptors_withdraw(both, &fd));
  assert(descriptors_count() == 0);
}

static atomic_int outcomes[2];

static void *
withdraw_all(void *unused)
{
  (void)unused;
  for (int i = 0; i < MANY; i++) {
    int fd;

    if (descriptors_withdraw(numbers[i], &fd)) {
      assert(fd == i || fd == -1);
      atomic_fetch_add(&outcomes[0], 1);
    }
  }
  return NULL;
}

static void *
settle_all(void *unused)
{
  (void)unused;
  for (int i = 0; i < MANY; i++) {
    int owned;

    if (descriptors_take(numbers[i], &owned) >= 0 && descriptors_settle(numbers[i], 1))
      atomic_fetch_add(&outcomes[1], 1);
  }
  return NULL;
}

static void
one_of_both_is_first(void)
{
  pthread_t threads[2];

  for (int i = 0; i < MANY; i++)
    numbers[i] = descriptors_put(i, 1);
  assert(pthread_create(&threads[0], NULL, withdraw_all, NULL) == 0);
  assert(pthread_create(&threads[1], NULL, settle_all, NULL) == 0);
  for (int i = 0; i < 2; i++)
    assert(pthread_join(threads[i], NULL) == 0);
  assert(atomic_load(&outcomes[0]) + atomic_load(&outcomes[1]) == MANY);
  assert(descriptors_count() == 0);
}

static void *
take_all(void *unused)
{
  (void)unused;
  for (int i = 0; i < MANY; i++) {
    int fd = take_for_good(numbers[i]);

    assert(fd == -1 || fd == i);
    if (fd == i)
      atomic_fetch_add(&taken[i], 1);
    /* Others come and go meanwhile. */
    assert(take_for_good(put(MANY + i)) == MANY + i);
  }
  return NULL;
}

static void
threads_share_them_out(void)
{
  pthread_t threads[THREADS];

  for (int i = 0; i < MANY; i++)
    numbers[i] = put(i);
  assert(descriptors_count() == MANY);
  for (int i = 0; i < THREADS; i++)
    assert(pthread_create(&threads[i], NULL, take_all, NULL) == 0);
  for (int i = 0; i < THREADS; i++)
    assert(pthread_join(threads[i], NULL) == 0);
  for (int i = 0; i < MANY; i++)
    assert(atomic_load(&taken[i]) == 1);
  assert(descriptors_count() == 0);
}

int
main(void)
{
  each_is_taken_once();
  numbers_are_not_used_again();
  what_is_no_number_is_nothing();
  what_waits_can_be_withdrawn();
  what_is_taken_is_settled_or_withdrawn();
  what_is_refused_is_nobodys();
  one_of_both_is_first();
  threads_share_them_out();
  puts("ok");
  return 0;
}
