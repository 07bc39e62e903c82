/* Descriptors on their way from Erlang to Python: each waits under a number that names no other, for
 * whoever takes it first.  Plain C; any thread, GIL or not; the lock is a leaf. */
#ifndef BEAMLOOP_VM_DESCRIPTORS_H
#define BEAMLOOP_VM_DESCRIPTORS_H

#include <stddef.h>
#include <stdint.h>

/* The number of fd from now on, never 0; 0 when memory is short. */
uint64_t descriptors_put(int fd);

/* The descriptor, which is the caller's from now on; -1 when it was taken, or never put. */
int descriptors_take(uint64_t number);

/* How many wait. */
size_t descriptors_count(void);

#endif
