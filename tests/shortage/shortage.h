/* Has what may fail for want of something fail in the shared objects of Beamloop: memory, Python objects,
 * threads, descriptors.
 *
 * Their calls leave through tables of addresses, the global offset tables.  There shortage_install puts
 * functions that count, fail when their turn has come, and else do what was asked; the rest of the process
 * goes by no such table, and sees nothing of it.
 */
#ifndef SHORTAGE_H
#define SHORTAGE_H

enum shortage_kind {
  SHORT_OF_MEMORY = 1,      /* malloc and its like, PyMem_*, enif_alloc*: NULL */
  SHORT_OF_OBJECTS = 2,     /* what makes or calls Python objects: MemoryError; the GIL is held */
  SHORT_OF_THREADS = 4,     /* pthread_create: EAGAIN */
  SHORT_OF_DESCRIPTORS = 8, /* eventfd, epoll_create1, accept4 and fcntl: EMFILE */
};

/* Any thread.  For the libraries that are loaded by now; doing it again adds those loaded since.  How many
 * addresses were replaced this time. */
int shortage_install(void);

/* Any thread.  Counts calls of these kinds and fails the one that is number `nth` (0: none), and with
 * `lasting` all that follow it; with `own` only those of the calling thread. */
void shortage_arm(long nth, int lasting, unsigned kinds, int own);

/* Any thread.  Nothing fails any more.  How many calls there were since shortage_arm. */
long shortage_disarm(void);

/* Any thread.  How many of those failed. */
long shortage_failed(void);

/* Any thread.  How much of what malloc, PyMem_* and enif_alloc_env gave since shortage_install has not
 * been given back. */
long shortage_held(void);

/* The last name that failed, for messages. */
const char *shortage_name(void);

#endif
