#include "message_pool.h"

#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>

#include "channel_chores.h"

#define PAGE 4096 /* at most what a page has */

atomic_int message_pool_wants;

static _Atomic(void *) ready[MESSAGE_POOL_READY];

static int fill_one(channel_chore *chore);

static channel_chore fill = {.step = fill_one};
static atomic_int filling; /* the chore is posted */

void *
message_pool_take(void)
{
  void *block = NULL;
  int others = 0;
  for (int i = 0; i < MESSAGE_POOL_READY; i++) {
    if (atomic_load_explicit(&ready[i], memory_order_relaxed) == NULL) {
      continue;
    }
    if (block == NULL) {
      block = atomic_exchange(&ready[i], NULL);
    } else {
      others++;
    }
  }
  if (others < MESSAGE_POOL_READY - 1) {
    atomic_store_explicit(&message_pool_wants, 1, memory_order_relaxed);
  }
  return block;
}

/* Into an empty place: 1, or 0 when there is none. */
static int
keep(void *block)
{
  for (int i = 0; i < MESSAGE_POOL_READY; i++) {
    void *none = NULL;
    if (atomic_load_explicit(&ready[i], memory_order_relaxed) == NULL &&
        atomic_compare_exchange_strong(&ready[i], &none, block)) {
      return 1;
    }
  }
  return 0;
}

void
message_pool_give(void *block)
{
  if (!keep(block)) {
    munmap(block, MESSAGE_POOL_BLOCK);
  }
}

/* New memory at such an address, in huge pages where the system has them; NULL when there is none. */
static uint8_t *
map_block(void)
{
  uint8_t *whole = mmap(NULL, 2 * MESSAGE_POOL_BLOCK, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (whole == MAP_FAILED) {
    return NULL;
  }
  size_t before = -(uintptr_t)whole & (MESSAGE_POOL_BLOCK - 1);
  uint8_t *block = whole + before;
  if (before > 0) {
    munmap(whole, before);
  }
  munmap(block + MESSAGE_POOL_BLOCK, MESSAGE_POOL_BLOCK - before);
#ifdef MADV_HUGEPAGE
  madvise(block, MESSAGE_POOL_BLOCK, MADV_HUGEPAGE);
#endif
  return block;
}

static int
has_place(void)
{
  for (int i = 0; i < MESSAGE_POOL_READY; i++) {
    if (atomic_load_explicit(&ready[i], memory_order_relaxed) == NULL) {
      return 1;
    }
  }
  return 0;
}

/* The chores' thread. */
static int
fill_one(channel_chore *chore)
{
  (void)chore;
  uint8_t *block = has_place() ? map_block() : NULL;
  if (block == NULL) {
    atomic_store(&filling, 0);
    return 0;
  }
  for (size_t i = 0; i < MESSAGE_POOL_BLOCK; i += PAGE) {
    ((volatile uint8_t *)block)[i] = 0;
  }
  message_pool_give(block);
  return 1;
}

void
message_pool_fill(void)
{
  atomic_store_explicit(&message_pool_wants, 0, memory_order_relaxed);
  if (!atomic_exchange(&filling, 1)) {
    channel_chore_post(&fill);
  }
}
