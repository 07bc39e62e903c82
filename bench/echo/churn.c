/* The load of short connections: churn PORT CONCURRENT, or churn NUMBER CONCURRENT unix for the
 * abstract Unix socket "bench-NUMBER".
 *
 * Runs for as many seconds as each line of standard input says: so many at the same time connect,
 * wait until the server closes, and connect again.  Prints as load does.  The end of a TCP
 * connection is a reset, which leaves no port in TIME_WAIT: the ports would run out. */
#define _GNU_SOURCE

#include <arpa/inet.h>
#include <errno.h>
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
#define STALLED_MS 5000

struct slot {
  int fd;
  double began;
};

static uint64_t histogram[BUCKETS];
static uint64_t connections;
static int epoll, open_now;
static union {
  struct sockaddr any;
  struct sockaddr_in inet;
  struct sockaddr_un local;
} address;
static socklen_t address_size;

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
open_slot(struct slot *slot)
{
  struct epoll_event event = {.events = EPOLLIN, .data = {.ptr = slot}};

  slot->began = now();
  slot->fd = socket(address.any.sa_family, SOCK_STREAM | SOCK_NONBLOCK, 0);
  if (slot->fd < 0)
    die("socket");
  if (connect(slot->fd, &address.any, address_size) < 0 && errno != EINPROGRESS)
    die("connect");
  if (epoll_ctl(epoll, EPOLL_CTL_ADD, slot->fd, &event) < 0)
    die("epoll_ctl");
  open_now++;
}

static void
end_slot(struct slot *slot)
{
  struct linger reset = {.l_onoff = 1, .l_linger = 0};
  int us = (int)((now() - slot->began) * 1e6);
  char byte;

  if (recv(slot->fd, &byte, 1, 0) != 0)
    die("the server did not close: recv");
  if (address.any.sa_family == AF_INET)
    setsockopt(slot->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
  close(slot->fd);
  histogram[us < BUCKETS ? us : BUCKETS - 1]++;
  connections++;
  open_now--;
}

static int
percentile(double share)
{
  uint64_t seen = 0;
  int i = 0;

  while (i < BUCKETS - 1 && (double)(seen += histogram[i]) < share * (double)connections)
    i++;
  return i;
}

static void
run(struct slot *slots, int count, double seconds)
{
  struct epoll_event events[256];
  double start = now();

  memset(histogram, 0, sizeof(histogram));
  connections = 0;
  for (int i = 0; i < count; i++)
    open_slot(&slots[i]);
  while (open_now > 0) {
    int n = epoll_wait(epoll, events, 256, STALLED_MS);

    if (n <= 0)
      die("no answer: epoll_wait");
    for (int i = 0; i < n; i++) {
      end_slot(events[i].data.ptr);
      if (now() - start < seconds)
        open_slot(events[i].data.ptr);
    }
  }
  printf("%llu %.6f %d %d 0\n", (unsigned long long)connections, now() - start, percentile(0.5),
         percentile(0.99));
  fflush(stdout);
}

static void
set_address(int number, int is_unix)
{
  if (is_unix) {
    address.local.sun_family = AF_UNIX;
    address_size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 +
                               (size_t)snprintf(address.local.sun_path + 1, 100, "bench-%d", number));
    return;
  }
  address.inet.sin_family = AF_INET;
  address.inet.sin_port = htons((uint16_t)number);
  address.inet.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address_size = sizeof(address.inet);
}

int
main(int argc, char **argv)
{
  struct slot *slots;
  char line[64];
  int count;

  if (argc != 3 && argc != 4)
    return 2;
  count = atoi(argv[2]);
  slots = calloc((size_t)count, sizeof(*slots));
  epoll = epoll_create1(0);
  if (slots == NULL || epoll < 0)
    return 2;
  set_address(atoi(argv[1]), argc == 4);
  printf("ready\n");
  fflush(stdout);
  while (fgets(line, sizeof(line), stdin) != NULL)
    run(slots, count, atof(line));
  return 0;
}
