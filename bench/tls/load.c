/* The load: load PORT CONNECTIONS SIZE SECONDS.  Each connection, TLS 1.3, sends SIZE bytes, waits
 * until all came back, and sends again.  Prints "requests seconds p50_us p99_us".  The server's
 * certificate is not checked: this measures, it does not trust. */
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <openssl/ssl.h>
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
  SSL *ssl;
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

/* True when the call has to wait for the socket. */
static int
again(SSL *ssl, int n, const char *what)
{
  int error = SSL_get_error(ssl, n);

  if (error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE)
    die(what);
  return 1;
}

static void
send_more(struct connection *c)
{
  while (c->to_send > 0) {
    int n = SSL_write(c->ssl, payload, (int)c->to_send);

    if (n <= 0 && again(c->ssl, n, "SSL_write"))
      return;
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
serve(struct connection *c, size_t size)
{
  send_more(c);
  for (;;) {
    int n = SSL_read(c->ssl, sink, (int)c->to_receive);

    if (n <= 0 && again(c->ssl, n, "SSL_read"))
      return;
    c->to_receive -= (size_t)n;
    if (c->to_receive == 0) {
      finish(c);
      begin(c, size);
    }
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
open_connection(struct connection *c, SSL_CTX *context, int epoll, int port)
{
  struct sockaddr_in address = {.sin_family = AF_INET,
                                .sin_port = htons((uint16_t)port),
                                .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data = {.ptr = c}};
  int fd = socket(AF_INET, SOCK_STREAM, 0);
  int one = 1;

  if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
    die("connect");
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
  c->ssl = SSL_new(context);
  if (c->ssl == NULL || SSL_set_fd(c->ssl, fd) != 1 || SSL_connect(c->ssl) != 1)
    die("TLS handshake");
  if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) < 0)
    die("epoll_ctl");
}

/* From now on nothing blocks. */
static void
make_nonblocking(struct connection *c)
{
  int fd = SSL_get_fd(c->ssl);

  if (fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) < 0)
    die("fcntl");
  SSL_set_mode(c->ssl, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
}

int
main(int argc, char **argv)
{
  int port, count, epoll = epoll_create1(0);
  SSL_CTX *context = SSL_CTX_new(TLS_client_method());
  struct connection *connections;
  struct epoll_event events[256];
  double start, end;
  size_t size;

  if (argc != 5 || context == NULL)
    return 2;
  port = atoi(argv[1]);
  count = atoi(argv[2]);
  size = (size_t)atol(argv[3]);
  connections = calloc((size_t)count, sizeof(*connections));
  if (connections == NULL || size > sizeof(payload))
    return 2;
  SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION);
  for (int i = 0; i < count; i++) {
    open_connection(&connections[i], context, epoll, port);
    make_nonblocking(&connections[i]);
  }
  start = now();
  end = start + atof(argv[4]);
  for (int i = 0; i < count; i++)
    begin(&connections[i], size);
  while (now() < end) {
    int n = epoll_wait(epoll, events, 256, 100);

    for (int i = 0; i < n; i++)
      serve(events[i].data.ptr, size);
  }
  printf("%llu %.3f %d %d\n", (unsigned long long)requests, now() - start, percentile(0.5),
         percentile(0.99));
  return 0;
}
