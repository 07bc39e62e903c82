/* The service thread: does what a scheduler may not, because it needs the GIL or waits.
 *
 * Cancellations and the stop of the interpreter run here, in order.  It never runs user code, so
 * that it is never held up by it.  Plain C: neither Python.h nor erl_nif.h.
 */
#ifndef BEAMLOOP_VM_SERVICE_H
#define BEAMLOOP_VM_SERVICE_H

typedef struct service_item service_item;

/* Embedded in what is to be served; one item is posted again only after it ran. */
struct service_item {
  service_item *next; /* guarded by the queue's lock */
  void (*run)(service_item *item);
};

/* Any thread, once.  begin runs first on the new thread.  0 or -1. */
int service_start(void (*begin)(void));

/* Any thread; no GIL needed; takes the queue's lock, a leaf. */
void service_post(service_item *item);

#endif
