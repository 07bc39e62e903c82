/* Memory that is there before it is needed: large blocks whose pages a thread of ours has touched.
 *
 * Plain C.  Memory that is new to the process comes by page faults, which cost more than all the rest of
 * sending a message and would be taken with a queue's lock held.  A few blocks are kept ready from the
 * first time on that somebody wanted one.  Any thread, GIL or not.
 */
#ifndef BEAMLOOP_MESSAGE_POOL_H
#define BEAMLOOP_MESSAGE_POOL_H

#include <stdatomic.h>

#define MESSAGE_POOL_BLOCK                                                                         \
  ((size_t)2 << 20)          /* bytes of each, and what its address is a multiple of */
#define MESSAGE_POOL_READY 4 /* blocks that are kept */

extern atomic_int message_pool_wants;

/* A block, or NULL when none is ready: it never waits, locks or calls the system. */
void *message_pool_take(void);

/* Has blocks made ready; where message_pool_wants, without a queue's lock. */
void message_pool_fill(void);

/* Gives a block back. */
void message_pool_give(void *block);

#endif
