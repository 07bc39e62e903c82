/* Readiness of file descriptors, behind a handful of functions so that each kernel interface is
 * one file.  Plain C; the loop's thread alone, except where a line says otherwise. */
#ifndef BEAMLOOP_POLLER_H
#define BEAMLOOP_POLLER_H

#include <stdint.h>

/* What to watch, and what is reported.  An error or a hang-up is reported as POLLER_ERROR with
 * both POLLER_READ and POLLER_WRITE, since either callback may be the one that learns of it. */
enum poller_flags {
  POLLER_READ = 1,
  POLLER_WRITE = 2,
  POLLER_EDGE = 4,  /* watch only: report changes, not levels */
  POLLER_ERROR = 8, /* report only: error, hang-up, or the peer's end of stream */
};

typedef struct poller poller;

struct poller_event {
  int fd;
  uint32_t events;
};

/* NULL with errno set on failure. */
poller *poller_new(void);
void poller_free(poller *p);

/* Watches fd for the given flags; had tells whether it was watched before.  A descriptor number
 * that was closed and reused meanwhile is put right.  0, or -1 with errno set. */
int poller_watch(poller *p, int fd, uint32_t flags, int had);

/* Stops watching fd; one that the kernel has forgotten already is fine. */
void poller_forget(poller *p, int fd);

/* Without the GIL unless timeout_ns is 0.  Waits at most timeout_ns (negative: no limit), never
 * less.  How many events were stored, or -1 with errno set (EINTR among others). */
int poller_wait(poller *p, struct poller_event *events, int max, int64_t timeout_ns);

#endif
