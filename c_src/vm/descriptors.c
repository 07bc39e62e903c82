/* The table of descriptors that wait to be taken.  A number is a slot and a generation, so that one
 * that was taken never means another. */
#include "descriptors.h"

#include <pthread.h>
#include <stdlib.h>

#define SLOT_BITS 20
#define SLOT_MASK ((UINT64_C(1) << SLOT_BITS) - 1)

struct slot {
  uint64_t number; /* the last one that it had; never 0 once it was used */
  int fd;          /* -1 when the slot is free */
  size_t next_free;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct slot *slots; /* guarded by lock, as is the rest */
static size_t capacity;
static size_t used;       /* slots that were ever used */
static size_t first_free; /* slot + 1, or 0 */
static size_t waiting;

/* With the lock.  A free slot, or NULL. */
static struct slot *
free_slot(void)
{
  if (first_free != 0) {
    struct slot *slot = &slots[first_free - 1];
    first_free = slot->next_free;
    return slot;
  }
  if (used == capacity) {
    size_t more = capacity == 0 ? 16 : 2 * capacity;
    struct slot *grown = more <= SLOT_MASK + 1 ? realloc(slots, more * sizeof(*slots)) : NULL;
    if (grown == NULL) {
      return NULL;
    }
    slots = grown;
    capacity = more;
  }
  slots[used] = (struct slot){.number = used, .fd = -1};
  return &slots[used++];
}

uint64_t
descriptors_put(int fd)
{
  uint64_t number = 0;
  pthread_mutex_lock(&lock);
  struct slot *slot = free_slot();
  if (slot != NULL) {
    number = slot->number += SLOT_MASK + 1;
    slot->fd = fd;
    waiting++;
  }
  pthread_mutex_unlock(&lock);
  return number;
}

int
descriptors_take(uint64_t number)
{
  size_t index = (size_t)(number & SLOT_MASK);
  int fd = -1;
  pthread_mutex_lock(&lock);
  if (index < used && slots[index].number == number && slots[index].fd >= 0) {
    fd = slots[index].fd;
    slots[index].fd = -1;
    slots[index].next_free = first_free;
    first_free = index + 1;
    waiting--;
  }
  pthread_mutex_unlock(&lock);
  return fd;
}

size_t
descriptors_count(void)
{
  pthread_mutex_lock(&lock);
  size_t count = waiting;
  pthread_mutex_unlock(&lock);
  return count;
}
