/* The table of descriptors on their way to Python: each number is taken once, whoever tries. */
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

static void
each_is_taken_once(void)
{
  uint64_t first = descriptors_put(7), second = descriptors_put(0);

  assert(first != 0 && second != 0 && first != second);
  assert(descriptors_count() == 2);
  assert(descriptors_take(first) == 7);
  assert(descriptors_take(first) == -1);
  assert(descriptors_take(second) == 0);
  assert(descriptors_take(second) == -1);
  assert(descriptors_count() == 0);
}

static void
numbers_are_not_used_again(void)
{
  uint64_t old = descriptors_put(1);

  assert(descriptors_take(old) == 1);
  for (int i = 0; i < MANY; i++) {
    uint64_t number = descriptors_put(i);

    assert(number != old);
    assert(descriptors_take(old) == -1);
    assert(descriptors_take(number) == i);
  }
}

static void
what_is_no_number_is_nothing(void)
{
  assert(descriptors_take(0) == -1);
  assert(descriptors_take(1) == -1);
  assert(descriptors_take(UINT64_MAX) == -1);
}

static void *
take_all(void *unused)
{
  (void)unused;
  for (int i = 0; i < MANY; i++) {
    int fd = descriptors_take(numbers[i]);

    assert(fd == -1 || fd == i);
    if (fd == i)
      atomic_fetch_add(&taken[i], 1);
    /* Others come and go meanwhile. */
    assert(descriptors_take(descriptors_put(MANY + i)) == MANY + i);
  }
  return NULL;
}

static void
threads_share_them_out(void)
{
  pthread_t threads[THREADS];

  for (int i = 0; i < MANY; i++)
    numbers[i] = descriptors_put(i);
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
  threads_share_them_out();
  puts("ok");
  return 0;
}
