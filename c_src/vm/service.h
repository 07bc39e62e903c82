/* The service thread: does what a scheduler may not, because it needs the GIL or waits.
 *
 * Cancellations and the stop of the interpreter run here, in order.  It never runs user code, so
 * that it is never held up by it.  Plain C: neither Python.h nor erl_nif.h.
 */
#ifndef BEAMLOOP_VM_SERVICE_H
#define BEAMLOOP_VM_SERVICE_H

#include <stdint.h>
#include <time.h>

typedef struct service_item service_item;

/* Embedded in what is to be served; one item is posted again only after it ran. */
struct service_item {
  service_item *next;   /* guarded by the queue's lock */
  struct timespec when; /* guarded by the queue's lock: of what runs later */
  void (*run)(service_item *item);
};

/* Any thread, once.  begin runs first on the new thread.  0 or -1. */
int service_start(void (*begin)(void));

/* Any thread; no GIL needed; takes the queue's lock, a leaf. */
void service_post(service_item *item);

/* As service_post, but the item runs when so many milliseconds are over. */
void service_post_later(service_item *item, int64_t milliseconds);

/* As service_post, of an item that was posted to run later; any other is left alone. */
void service_hasten(service_item *item);

#endif
