/* The native datagram transport: what its files share. */
#ifndef BEAMLOOP_DATAGRAM_H
#define BEAMLOOP_DATAGRAM_H

#include "transport.h"

#include <sys/socket.h>

#define ADDRESSES_KEPT 4 /* a power of two */
#define DATAGRAM_SLOTS 4 /* datagrams that one system call receives */

struct address_pair {
  PyObject *object; /* an immutable tuple, or NULL */
  socklen_t size;
  union {
    struct sockaddr any;
    uint32_t words[7]; /* as large as an IPv6 address, and aligned as one */
    char bytes[28];
  } raw;
};

/* The addresses seen last, so that a reply neither parses nor formats its peer's. */
struct address_cache {
  struct address_pair pairs[ADDRESSES_KEPT];
  unsigned next;
};

struct received {
  PyObject *data;
  PyObject *address;
};

typedef struct datagram {
  stream base;
  PyObject *address; /* the only one that may be sent to, or None */
  struct address_cache addresses;
  struct received held[DATAGRAM_SLOTS]; /* received, not given to the protocol yet */
  int held_first;
  int held_count;
  int family;
  bool connected;
  bool watches_write;
  bool retry_due;
} datagram;

/* --- datagram_address.c ----------------------------------------------------------------------- */

/* A new reference to what socket.recvfrom() would return as the address. */
PyObject *address_object(struct address_cache *cache, const struct sockaddr *address,
                         socklen_t size);
/* The raw form of object, if it is a numeric address of family; NULL, without an exception, for
 * everything that the socket module is to judge. */
const struct address_pair *address_raw(struct address_cache *cache, int family, PyObject *object);
void address_cache_clear(struct address_cache *cache);

/* --- datagram_read.c ---------------------------------------------------------------------------- */

int datagram_read(stream *self);
void datagram_drop_held(datagram *self);

/* --- datagram_write.c --------------------------------------------------------------------------- */

int datagram_write_ready(stream *self);
PyObject *datagram_sendto(datagram *self, PyObject *const *args, Py_ssize_t nargs, PyObject *names);
PyObject *datagram_retry(datagram *self, PyObject *ignored);
/* Tells the protocol of the OSError that is set; other exceptions are fatal. */
int datagram_error(datagram *self, const char *message);

#endif
