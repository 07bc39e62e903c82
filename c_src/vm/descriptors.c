/* The table of descriptors that are under way.  A number is a slot and a generation, so that one
 * that was taken never means another. */
#include "descriptors.h"

#include <pthread.h>
#include <stdlib.h>

#define SLOT_BITS 20
#define SLOT_MASK ((UINT64_C(1) << SLOT_BITS) - 1)

enum state {
  FREE = 0,
  WAITING,
  TAKEN,
  WITHDRAWN, /* while it was taken: the slot is free when it is settled */
  REFUSED,   /* the slot is free when it is withdrawn */
};

struct slot {
  uint64_t number; /* the last one that it had; never 0 once it was used */
  enum state state;
  int fd;
  int owned;
  size_t next_free;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct slot *slots; /* guarded by lock, as is the rest */
static size_t capacity;
static size_t used;       /* slots that were ever used */
static size_t first_free; /* slot + 1, or 0 */
static size_t unsettled;

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
  slots[used] = (struct slot){.number = used};
  return &slots[used++];
}

/* With the lock. */
static void
release_slot(struct slot *slot)
{
  slot->state = FREE;
  slot->next_free = first_free;
  first_free = (size_t)(slot - slots) + 1;
}

/* With the lock.  The slot that the number names, or NULL. */
static struct slot *
find(uint64_t number)
{
  size_t index = (size_t)(number & SLOT_MASK);
  struct slot *slot = index < used ? &slots[index] : NULL;
  return slot != NULL && slot->state != FREE && slot->number == number ? slot : NULL;
}

uint64_t
descriptors_put(int fd, int owned)
{
  uint64_t number = 0;
  pthread_mutex_lock(&lock);
  struct slot *slot = free_slot();
  if (slot != NULL) {
    number = slot->number += SLOT_MASK + 1;
    slot->fd = fd;
    slot->owned = owned;
    slot->state = WAITING;
    unsettled++;
  }
  pthread_mutex_unlock(&lock);
  return number;
}

int
descriptors_take(uint64_t number, int *owned)
{
  int fd = -1;
  pthread_mutex_lock(&lock);
  struct slot *slot = find(number);
  if (slot != NULL && slot->state == WAITING) {
    slot->state = TAKEN;
    fd = slot->fd;
    *owned = slot->owned;
  }
  pthread_mutex_unlock(&lock);
  return fd;
}

int
descriptors_settle(uint64_t number, int accepted)
{
  pthread_mutex_lock(&lock);
  struct slot *slot = find(number);
  int in_time = slot != NULL && slot->state == TAKEN;
  unsettled -= (size_t)in_time;
  if (in_time && !accepted) {
    slot->state = REFUSED;
  } else if (in_time || (slot != NULL && slot->state == WITHDRAWN)) {
    release_slot(slot);
  }
  pthread_mutex_unlock(&lock);
  return in_time && accepted;
}

int
descriptors_withdraw(uint64_t number, int *fd)
{
  *fd = -1;
  pthread_mutex_lock(&lock);
  struct slot *slot = find(number);
  enum state state = slot == NULL ? FREE : slot->state;
  if (state == WAITING || state == TAKEN) {
    unsettled--;
  }
  if (state == WAITING && slot->owned) {
    *fd = slot->fd;
  }
  if (state == TAKEN) {
    slot->state = WITHDRAWN;
  } else if (state == WAITING || state == REFUSED) {
    release_slot(slot);
  }
  pthread_mutex_unlock(&lock);
  return state == WAITING || state == TAKEN || state == REFUSED;
}

size_t
descriptors_count(void)
{
  pthread_mutex_lock(&lock);
  size_t count = unsettled;
  pthread_mutex_unlock(&lock);
  return count;
}
