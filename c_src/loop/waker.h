/* A descriptor that one write makes readable: how a thread ends another's sleep in the poller. */
#ifndef BEAMLOOP_WAKER_H
#define BEAMLOOP_WAKER_H

/* Any thread.  A new waker's descriptor, non-blocking and close-on-exec; -1 with errno set. */
int waker_open(void);

/* Any thread.  Makes the descriptor report an edge. */
void waker_wake(int fd);

/* Any thread, once nobody uses fd any more. */
void waker_close(int fd);

#endif
