/* The floor: what a server costs over epoll without an interpreter.  floor tcp|udp|churn|churn_unix prints
 * its port, or the number in the name of its Unix socket, and serves until it is killed: echoes streams (registered once, edge-triggered, a receive and
 * a send per message, as the loop does), echoes datagrams, or accepts and closes. */
#define _GNU_SOURCE

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static char scratch[256 * 1024];

static void
die(const char *what)
{
  perror(what);
  exit(1);
}

static int
open_socket(int type)
{
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t length = sizeof(address);
  int fd = socket(AF_INET, type | SOCK_NONBLOCK, 0);

  if (fd < 0 || bind(fd, (struct sockaddr *)&address, length) < 0 ||
      (type == SOCK_STREAM && listen(fd, 1024) < 0) ||
      getsockname(fd, (struct sockaddr *)&address, &length) < 0)
    die("listen");
  printf("%d\n", ntohs(address.sin_port));
  fflush(stdout);
  return fd;
}

/* An abstract one, "bench-PID". */
static int
open_unix_socket(void)
{
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  int length = snprintf(address.sun_path + 1, 100, "bench-%d", (int)getpid());
  socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)length);
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);

  if (fd < 0 || bind(fd, (struct sockaddr *)&address, size) < 0 || listen(fd, 1024) < 0)
    die("listen");
  printf("%d\n", (int)getpid());
  fflush(stdout);
  return fd;
}

static void
accept_all(int epoll, int listener)
{
  int one = 1, fd;

  while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
    struct epoll_event event = {.events = EPOLLIN | EPOLLET | EPOLLRDHUP, .data = {.fd = fd}};

    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
  }
}

/* The clients of this bench read all they are sent, so that waiting in send is as good as a queue. */
static int
send_all(int fd, const char *data, size_t left)
{
  while (left > 0) {
    ssize_t n = send(fd, data, left, MSG_NOSIGNAL);

    if (n < 0 && errno != EAGAIN)
      return -1;
    if (n > 0) {
      data += n;
      left -= (size_t)n;
    }
  }
  return 0;
}

static void
echo(int fd)
{
  ssize_t n;

  do {
    n = recv(fd, scratch, sizeof(scratch), 0);
    if (n == 0 || (n < 0 && errno != EAGAIN) || (n > 0 && send_all(fd, scratch, (size_t)n) < 0)) {
      close(fd);
      return;
    }
  } while (n == (ssize_t)sizeof(scratch));
}

static void
echo_datagrams(int fd)
{
  struct sockaddr_in from;
  socklen_t length = sizeof(from);
  ssize_t n;

  while ((n = recvfrom(fd, scratch, sizeof(scratch), 0, (struct sockaddr *)&from, &length)) >= 0) {
    if (sendto(fd, scratch, (size_t)n, 0, (struct sockaddr *)&from, length) < 0 && errno != EAGAIN)
      die("sendto");
    length = sizeof(from);
  }
}

static void
accept_and_close(int listener)
{
  int fd;

  while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0)
    close(fd);
}

int
main(int argc, char **argv)
{
  const char *kind = argc == 2 ? argv[1] : "tcp";
  int is_udp = strcmp(kind, "udp") == 0, is_unix = strcmp(kind, "churn_unix") == 0;
  int is_churn = is_unix || strcmp(kind, "churn") == 0;
  int listener = is_unix ? open_unix_socket() : open_socket(is_udp ? SOCK_DGRAM : SOCK_STREAM);
  int epoll = epoll_create1(0);
  struct epoll_event listening = {.events = EPOLLIN, .data = {.fd = listener}};
  struct epoll_event events[256];

  if (epoll < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &listening) < 0)
    die("epoll");
  for (;;) {
    int n = epoll_wait(epoll, events, 256, -1);

    for (int i = 0; i < n; i++) {
      if (events[i].data.fd != listener)
        echo(events[i].data.fd);
      else if (is_udp)
        echo_datagrams(listener);
      else if (is_churn)
        accept_and_close(listener);
      else
        accept_all(epoll, listener);
    }
  }
}
