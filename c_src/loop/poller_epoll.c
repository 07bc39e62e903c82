/* The poller on Linux: epoll, with deadlines in nanoseconds where the kernel has epoll_pwait2. */
#define _GNU_SOURCE
#include "poller.h"

#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define POLLER_BATCH 256

struct poller {
  int fd;
  bool coarse; /* the kernel has no epoll_pwait2 */
  struct epoll_event batch[POLLER_BATCH];
};

poller *
poller_new(void)
{
  poller *p = malloc(sizeof(*p));

  if (p == NULL)
    return NULL;
  p->coarse = false;
  p->fd = epoll_create1(EPOLL_CLOEXEC);
  if (p->fd < 0) {
    free(p);
    return NULL;
  }
  return p;
}

void
poller_free(poller *p)
{
  close(p->fd);
  free(p);
}

int
poller_watch(poller *p, int fd, uint32_t flags, int had)
{
  struct epoll_event event = {.events = 0, .data = {.fd = fd}};
  int op = had ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
  int rc;

  if (flags & POLLER_READ)
    event.events |= EPOLLIN;
  if (flags & POLLER_WRITE)
    event.events |= EPOLLOUT;
  if (flags & POLLER_EDGE)
    event.events |= EPOLLET | EPOLLRDHUP;
  rc = epoll_ctl(p->fd, op, fd, &event);
  if (rc < 0 && op == EPOLL_CTL_MOD && errno == ENOENT)
    rc = epoll_ctl(p->fd, EPOLL_CTL_ADD, fd, &event);
  else if (rc < 0 && op == EPOLL_CTL_ADD && errno == EEXIST)
    rc = epoll_ctl(p->fd, EPOLL_CTL_MOD, fd, &event);
  return rc;
}

void
poller_forget(poller *p, int fd)
{
  struct epoll_event event = {.events = 0, .data = {.fd = fd}};
  int saved = errno;

  (void)epoll_ctl(p->fd, EPOLL_CTL_DEL, fd, &event);
  errno = saved;
}

/* Milliseconds rounded up, so that a timer never fires early. */
static int
round_up_ms(int64_t timeout_ns)
{
  int64_t ms;

  if (timeout_ns < 0)
    return -1;
  ms = timeout_ns / 1000000 + (timeout_ns % 1000000 != 0);
  return ms > INT_MAX ? INT_MAX : (int)ms;
}

static int
wait_raw(poller *p, int max, int64_t timeout_ns)
{
#ifdef SYS_epoll_pwait2
  if (timeout_ns > 0 && !p->coarse) {
    struct timespec ts = {.tv_sec = (time_t)(timeout_ns / 1000000000),
                          .tv_nsec = (long)(timeout_ns % 1000000000)};
    int n = (int)syscall(SYS_epoll_pwait2, p->fd, p->batch, max, &ts, NULL, 0);

    if (n >= 0 || (errno != ENOSYS && errno != EPERM))
      return n;
    p->coarse = true;
  }
#endif
  return epoll_wait(p->fd, p->batch, max, round_up_ms(timeout_ns));
}

int
poller_wait(poller *p, struct poller_event *events, int max, int64_t timeout_ns)
{
  int n = wait_raw(p, max < POLLER_BATCH ? max : POLLER_BATCH, timeout_ns);

  for (int i = 0; i < n; i++) {
    uint32_t got = p->batch[i].events;
    uint32_t flags = 0;

    if (got & ~(uint32_t)EPOLLOUT)
      flags |= POLLER_READ;
    if (got & ~(uint32_t)(EPOLLIN | EPOLLRDHUP))
      flags |= POLLER_WRITE;
    if (got & (EPOLLERR | EPOLLHUP | EPOLLRDHUP))
      flags |= POLLER_ERROR;
    events[i] = (struct poller_event){.fd = p->batch[i].data.fd, .events = flags};
  }
  return n;
}
