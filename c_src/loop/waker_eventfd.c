/* The waker on Linux: an eventfd, watched edge-triggered and never read.  Every write is a new
 * edge whatever the counter holds, and the counter cannot reach its limit of 2^64 - 2. */
#include "waker.h"

#include <errno.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <unistd.h>

int
waker_open(void)
{
  return eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
}

void
waker_wake(int fd)
{
  uint64_t one = 1;
  ssize_t written;

  do {
    written = write(fd, &one, sizeof(one));
  } while (written < 0 && errno == EINTR);
}

void
waker_close(int fd)
{
  close(fd);
}
