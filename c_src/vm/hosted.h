/* Event loops that Erlang starts besides the default one, each on a thread of its own.  Plain C. */
#ifndef BEAMLOOP_VM_HOSTED_H
#define BEAMLOOP_VM_HOSTED_H

struct inbox;

/* The loop's thread, with the GIL: the loop takes calls from now on.  The inbox is borrowed. */
typedef void (*hosted_ready_fn)(void *arg, struct inbox *in);

/* The loop's thread, without the GIL.  Makes a loop, says so, runs it until its inbox is told to stop
 * and closes it.  0, or -1 with the text in error when it could not be made (ready was not called). */
int hosted_run(hosted_ready_fn ready, void *arg, char *error, unsigned size);

#endif
