/* Messages in the order of their sequence, whichever way they come: those that were given back.
 *
 * Plain C.  A leftist heap of nodes: putting in and taking out cost O(log n), each time, and no node is
 * ever moved.  Guarded by the queue's locks.
 */
#ifndef BEAMLOOP_MESSAGE_HEAP_H
#define BEAMLOOP_MESSAGE_HEAP_H

#include <stddef.h>

struct message;

typedef struct message_node message_node;

/* Zero-initialised is empty. */
typedef struct message_heap {
  message_node *first;
  size_t steps; /* nodes compared so far */
} message_heap;

/* Cannot fail: memory being short for one small block ends the process, as it does in the emulator. */
void message_heap_put(message_heap *heap, const struct message *m);

/* Takes the message that was sent first: 1, or 0 when there is none. */
int message_heap_take(message_heap *heap, struct message *out);

#endif
