/* Descriptors on their way from Erlang to Python: each waits under a number that names no other.  It is
 * handed over in two steps, so that both sides know what became of it: the taker takes it, does with it what
 * may fail, and settles; until then the other side can withdraw it.  One of both is first.  Plain C; any
 * thread, GIL or not; the lock is a leaf. */
#ifndef BEAMLOOP_VM_DESCRIPTORS_H
#define BEAMLOOP_VM_DESCRIPTORS_H

#include <stddef.h>
#include <stdint.h>

/* The number of fd from now on, never 0; 0 when memory is short.  An owned one is closed when it is
 * withdrawn, by whoever has it then; else it is somebody else's until it is settled. */
uint64_t descriptors_put(int fd, int owned);

/* The descriptor, and whether it is owned; -1 when it was withdrawn or taken, or never put.  To be settled,
 * whatever happens. */
int descriptors_take(uint64_t number, int *owned);

/* The taker is done with what may fail, and accepts the descriptor or does not: 1 when it is the taker's; 0
 * when it is not accepted or was withdrawn meanwhile, and the taker closes it if it is owned. */
int descriptors_settle(uint64_t number, int accepted);

/* 1 when nobody has accepted it, and nobody will: *fd is what is to be closed, or -1 for nothing, as where
 * the taker closes it.  0 when it was accepted, or withdrawn before.  Always to be called. */
int descriptors_withdraw(uint64_t number, int *fd);

/* How many are neither accepted nor withdrawn nor refused. */
size_t descriptors_count(void);

#endif
