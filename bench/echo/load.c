/* The load: load PORT CONNECTIONS SIZE SECONDS.  Each connection sends SIZE bytes, waits until all
 * came back, and sends again.  Prints "requests seconds p50_us p99_us". */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define BUCKETS 100000 /* of 1 us */

struct connection {
  int fd;
  size_t to_send;
  size_t to_receive;
  double began;
};

static char payload[1 << 20], sink[1 << 20];
static uint64_t histogram[BUCKETS];
static uint64_t requests;

static double
now(void)
{
  struct timespec ts;

  clock_gettime(CLOCK_MONOTONIC, &ts);
  return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void
die(const char *what)
{
  perror(what);
  exit(1);
}

static void
send_more(struct connection *c)
{
  while (c->to_send > 0) {
    ssize_t n = send(c->fd, payload, c->to_send, MSG_NOSIGNAL | MSG_DONTWAIT);

    if (n < 0 && errno == EAGAIN)
      return;
    if (n < 0)
      die("send");
    c->to_send -= (size_t)n;
  }
}

static void
begin(struct connection *c, size_t size)
{
  c->to_send = c->to_receive = size;
  c->began = now();
  send_more(c);
}

static void
finish(struct connection *c)
{
  int us = (int)((now() - c->began) * 1e6);

  histogram[us < BUCKETS ? us : BUCKETS - 1]++;
  requests++;
}

static void
serve(struct connection *c, uint32_t events, size_t size)
{
  if (events & EPOLLOUT)
    send_more(c);
  while (events & EPOLLIN) {
    ssize_t n = recv(c->fd, sink, c->to_receive, MSG_DONTWAIT);

    if (n < 0 && errno == EAGAIN)
      return;
    if (n <= 0)
      die("recv");
    c->to_receive -= (size_t)n;
    if (c->to_receive > 0)
      continue;
    finish(c);
    begin(c, size);
    return;
  }
}

static int
percentile(double share)
{
  uint64_t seen = 0;

  for (int i = 0; i < BUCKETS; i++) {
    seen += histogram[i];
    if ((double)seen >= share * (double)requests)
      return i;
  }
  return BUCKETS;
}

static void
open_connection(struct connection *c, int epoll, int port)
{
  struct sockaddr_in address = {.sin_family = AF_INET,
                                .sin_port = htons((uint16_t)port),
                                .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data = {.ptr = c}};
  int one = 1;

  c->fd = socket(AF_INET, SOCK_STREAM, 0);
  if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&address, sizeof(address)) < 0)
    die("connect");
  setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
  if (epoll_ctl(epoll, EPOLL_CTL_ADD, c->fd, &event) < 0)
    die("epoll_ctl");
}

int
main(int argc, char **argv)
{
  int port, count, epoll = epoll_create1(0);
  struct connection *connections;
  struct epoll_event events[256];
  double start, end;
  size_t size;

  if (argc != 5)
    return 2;
  port = atoi(argv[1]);
  count = atoi(argv[2]);
  size = (size_t)atol(argv[3]);
  connections = calloc((size_t)count, sizeof(*connections));
  if (connections == NULL || size > sizeof(payload))
    return 2;
  for (int i = 0; i < count; i++)
    open_connection(&connections[i], epoll, port);
  start = now();
  end = start + atof(argv[4]);
  for (int i = 0; i < count; i++)
    begin(&connections[i], size);
  while (now() < end) {
    int n = epoll_wait(epoll, events, 256, 100);

    for (int i = 0; i < n; i++)
      serve(events[i].data.ptr, events[i].events, size);
  }
  printf("%llu %.3f %d %d\n", (unsigned long long)requests, now() - start, percentile(0.5),
         percentile(0.99));
  return 0;
}
