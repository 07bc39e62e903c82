/* The load: load tcp|udp|tls|pipe PORT CONNECTIONS SIZE [CA_FILE].
 *
 * For pipes PORT is the server's process id; it gets their other ends through the abstract Unix
 * socket of the name bench-PORT.
 *
 * Opens the connections, prints "ready", and then runs for as many seconds as each line of standard
 * input says: every connection sends SIZE bytes, waits until the same came back, and sends again.
 * Prints "requests seconds p50_us p99_us resent" for each run, at whose end nothing is under way.
 * What comes back is compared with what was sent. */
#define _GNU_SOURCE

#include "load_tls.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define BUCKETS 1000000 /* of 1 us */
#define STALLED 5       /* seconds without an answer */

struct connection {
  int fd;
  int in;          /* what is received from: fd, but for pipes */
  struct tls *tls; /* NULL where none is spoken */
  size_t to_send;
  size_t to_receive;
  double began;
};

static char payload[1 << 20], sink[1 << 20];
static uint64_t histogram[BUCKETS];
static uint64_t requests, resent;
static struct connection *connections;
static int count, under_way, epoll, is_udp, is_pipe, stopping;
static size_t size;

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

/* Bytes sent or received; -1 when the other side is to be waited for. */
static ssize_t
put(struct connection *c, const char *data, size_t n)
{
  ssize_t sent;

  if (is_pipe)
    sent = write(c->fd, data, n);
  else
    sent = c->tls ? tls_send(c->tls, data, n) : send(c->fd, data, n, MSG_NOSIGNAL);
  if (sent < 0 && errno != EAGAIN && errno != ECONNREFUSED)
    die("send");
  return sent;
}

static ssize_t
get(struct connection *c, char *data, size_t n)
{
  ssize_t got;

  if (is_pipe)
    got = read(c->in, data, n);
  else
    got = c->tls ? tls_recv(c->tls, data, n) : recv(c->fd, data, n, 0);
  if (got == 0 || (got < 0 && errno != EAGAIN))
    die("recv");
  return got;
}

static void
send_more(struct connection *c)
{
  while (c->to_send > 0) {
    ssize_t n = put(c, payload + size - c->to_send, c->to_send);

    if (n < 0)
      return;
    c->to_send -= (size_t)n;
  }
}

static void
begin(struct connection *c)
{
  c->to_send = c->to_receive = size;
  c->began = now();
  under_way++;
  send_more(c);
}

static void
finish(struct connection *c)
{
  int us = (int)((now() - c->began) * 1e6);

  histogram[us < BUCKETS ? us : BUCKETS - 1]++;
  requests++;
  under_way--;
}

static void
serve(struct connection *c, uint32_t events)
{
  if (events & EPOLLOUT)
    send_more(c);
  while (c->to_receive > 0) {
    ssize_t n = get(c, sink, is_udp ? sizeof(sink) : c->to_receive);

    if (n < 0)
      return;
    if ((size_t)n > c->to_receive || memcmp(sink, payload + size - c->to_receive, (size_t)n) != 0) {
      fprintf(stderr, "load: what came back is not what was sent\n");
      exit(1);
    }
    c->to_receive -= (size_t)n;
  }
  finish(c);
  if (!stopping)
    begin(c);
}

/* A datagram may get lost where the system has no room for it. */
static void
send_again(void)
{
  for (int i = 0; is_udp && i < count; i++) {
    if (connections[i].to_receive > 0) {
      connections[i].to_send = size;
      send_more(&connections[i]);
      resent++;
    }
  }
}

static double
percentile(double share)
{
  uint64_t seen = 0;
  int i = 0;

  while (i < BUCKETS - 1 && (double)(seen += histogram[i]) < share * (double)requests)
    i++;
  return i;
}

static void
run(double seconds)
{
  struct epoll_event events[256];
  double start = now(), last = start;

  memset(histogram, 0, sizeof(histogram));
  requests = resent = 0;
  stopping = 0;
  for (int i = 0; i < count; i++)
    begin(&connections[i]);
  while (under_way > 0) {
    int n = epoll_wait(epoll, events, 256, 100);

    for (int i = 0; i < n; i++) {
      struct connection *c = events[i].data.ptr;

      if (c->to_receive > 0)
        serve(c, events[i].events);
    }
    if (n > 0)
      last = now();
    else
      send_again();
    if (now() - last > STALLED) {
      fprintf(stderr, "load: no answer for %d s\n", STALLED);
      exit(1);
    }
    stopping = now() - start >= seconds;
  }
  printf("%llu %.6f %.0f %.0f %llu\n", (unsigned long long)requests, now() - start, percentile(0.5),
         percentile(0.99), (unsigned long long)resent);
  fflush(stdout);
}

static void
watch(struct connection *c, int fd)
{
  struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data = {.ptr = c}};

  if (fcntl(fd, F_SETFL, O_NONBLOCK) < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) < 0)
    die("epoll_ctl");
}

static int
connect_control(int pid)
{
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  int n = snprintf(address.sun_path + 1, sizeof(address.sun_path) - 1, "bench-%d", pid);
  socklen_t length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n);
  int fd = socket(AF_UNIX, SOCK_STREAM, 0);

  if (fd < 0 || connect(fd, (struct sockaddr *)&address, length) < 0)
    die("connect");
  return fd;
}

/* Gives the server the reading end of one pipe and the writing end of another. */
static void
open_pipes(struct connection *c, int control)
{
  int there[2], back[2], given[2];
  char byte = 0;
  union {
    struct cmsghdr header;
    char room[CMSG_SPACE(sizeof(given))];
  } extra = {.header = {.cmsg_len = CMSG_LEN(sizeof(given)),
                        .cmsg_level = SOL_SOCKET,
                        .cmsg_type = SCM_RIGHTS}};
  struct iovec iov = {.iov_base = &byte, .iov_len = 1};
  struct msghdr message = {.msg_iov = &iov,
                           .msg_iovlen = 1,
                           .msg_control = extra.room,
                           .msg_controllen = sizeof(extra.room)};

  if (pipe(there) < 0 || pipe(back) < 0)
    die("pipe");
  given[0] = there[0];
  given[1] = back[1];
  memcpy(CMSG_DATA(&extra.header), given, sizeof(given));
  if (sendmsg(control, &message, 0) < 0)
    die("sendmsg");
  close(given[0]);
  close(given[1]);
  c->fd = there[1];
  c->in = back[0];
  watch(c, c->fd);
  watch(c, c->in);
}

static void
open_connection(struct connection *c, int port, const char *ca_file)
{
  struct sockaddr_in address = {.sin_family = AF_INET,
                                .sin_port = htons((uint16_t)port),
                                .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  int one = 1;

  c->fd = socket(AF_INET, is_udp ? SOCK_DGRAM : SOCK_STREAM, 0);
  if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&address, sizeof(address)) < 0)
    die("connect");
  if (!is_udp)
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
  if (ca_file != NULL)
    c->tls = tls_connect(c->fd, ca_file);
  watch(c, c->fd);
}

int
main(int argc, char **argv)
{
  char line[64];
  int control = -1;

  if (argc < 5 || argc > 6)
    return 2;
  is_udp = strcmp(argv[1], "udp") == 0;
  is_pipe = strcmp(argv[1], "pipe") == 0;
  count = atoi(argv[3]);
  size = (size_t)atol(argv[4]);
  connections = calloc((size_t)count, sizeof(*connections));
  epoll = epoll_create1(0);
  if (connections == NULL || epoll < 0 || size == 0 || size > sizeof(payload))
    return 2;
  /* A line, for servers that read lines; no two pieces of it are alike. */
  for (size_t i = 0; i < size; i++)
    payload[i] = (char)('0' + (i * 7 + i / 251) % 64);
  payload[size - 1] = '\n';
  if (is_pipe)
    control = connect_control(atoi(argv[2]));
  for (int i = 0; i < count; i++) {
    if (is_pipe)
      open_pipes(&connections[i], control);
    else
      open_connection(&connections[i], atoi(argv[2]), argc == 6 ? argv[5] : NULL);
  }
  if (is_pipe)
    close(control);
  printf("ready\n");
  fflush(stdout);
  while (fgets(line, sizeof(line), stdin) != NULL)
    run(atof(line));
  return 0;
}
