/* Receiving datagrams: a few at a time from the kernel, one at a time for the protocol.
 *
 * What one system call brought and the protocol does not take yet, as it paused, is held. */
#include "datagram.h"

#include <errno.h>
#include <sys/un.h>

#define NAMES(self) (&(self)->base.loop->state->transports)
#define READ_BATCH 16 /* datagrams in one go, before others have their turn */

_Static_assert(TRANSPORT_MAX_READ / DATAGRAM_SLOTS >= 65536, "no IP datagram is larger");

union any_address {
  struct sockaddr any;
  struct sockaddr_storage storage;
  struct sockaddr_un un;
};

static bool
is_ip(const datagram *self)
{
  return self->family == AF_INET || self->family == AF_INET6;
}

static void
hold(datagram *self, PyObject *data, PyObject *address)
{
  struct received *place = &self->held[self->held_first + self->held_count++];

  place->data = data;
  place->address = address;
}

void
datagram_drop_held(datagram *self)
{
  while (self->held_count > 0) {
    struct received one = self->held[self->held_first++];

    self->held_count--;
    Py_DECREF(one.data);
    Py_DECREF(one.address);
  }
  self->held_first = 0;
}

/* As recvmmsg(), into slots of the scratch buffer. */
static int
receive_raw(datagram *self, char *scratch, int slots, struct mmsghdr *messages, struct iovec *iov,
            union any_address *addresses)
{
  size_t room = TRANSPORT_MAX_READ / (size_t)slots;
  int n;

  memset(messages, 0, (size_t)slots * sizeof(*messages));
  for (int i = 0; i < slots; i++) {
    iov[i] = (struct iovec){.iov_base = scratch + (size_t)i * room, .iov_len = room};
    messages[i].msg_hdr.msg_name = &addresses[i];
    messages[i].msg_hdr.msg_namelen = sizeof(addresses[i]);
    messages[i].msg_hdr.msg_iov = &iov[i];
    messages[i].msg_hdr.msg_iovlen = 1;
  }
  do {
    n = recvmmsg(self->base.fd, messages, (unsigned)slots, MSG_DONTWAIT, NULL);
  } while (n < 0 && errno == EINTR);
  return n;
}

/* After a failed receive: 0 when there is nothing now, else -1 with an OSError set. */
static int
receive_failed(datagram *self)
{
  if (errno == EAGAIN || errno == EWOULDBLOCK) {
    self->base.readable = self->base.hung_up = false;
    return 0;
  }
  /* These would come again for ever. */
  if (errno == EBADF || errno == ENOTSOCK)
    self->base.readable = false;
  PyErr_SetFromErrno(PyExc_OSError);
  return -1;
}

/* Holds what the kernel has, several datagrams for IP.  How many, or -1 with an exception. */
static int
receive_native(datagram *self)
{
  int slots = is_ip(self) ? DATAGRAM_SLOTS : 1;
  char *scratch = readers_scratch(self->base.loop, TRANSPORT_MAX_READ);
  struct mmsghdr messages[DATAGRAM_SLOTS];
  struct iovec iov[DATAGRAM_SLOTS];
  union any_address addresses[DATAGRAM_SLOTS];
  int n;

  if (scratch == NULL)
    return -1;
  n = receive_raw(self, scratch, slots, messages, iov, addresses);
  if (n < 0)
    return receive_failed(self);
  /* The kernel found nothing behind the last one, unless what stopped it was an error. */
  if (n < slots && !self->base.hung_up)
    self->base.readable = false;
  for (int i = 0; i < n; i++) {
    PyObject *data = PyBytes_FromStringAndSize(iov[i].iov_base, (Py_ssize_t)messages[i].msg_len);
    PyObject *address =
        address_object(&self->addresses, &addresses[i].any, messages[i].msg_hdr.msg_namelen);

    if (data == NULL || address == NULL) {
      Py_XDECREF(data);
      Py_XDECREF(address);
      return -1;
    }
    hold(self, data, address);
  }
  return n;
}

/* True, and the exception is gone, when a method of the socket only found nothing to do. */
static bool
would_block(void)
{
  if (!PyErr_ExceptionMatches(PyExc_BlockingIOError) &&
      !PyErr_ExceptionMatches(PyExc_InterruptedError))
    return false;
  PyErr_Clear();
  return true;
}

/* The same by the socket's own method, for the families that only Python knows. */
static int
receive_foreign(datagram *self)
{
  PyObject *pair = PyObject_CallMethod(self->base.sock, "recvfrom", "i", TRANSPORT_MAX_READ);
  PyObject *data, *address;

  if (pair == NULL) {
    if (!would_block())
      return -1;
    self->base.readable = false;
    return 0;
  }
  if (!PyArg_ParseTuple(pair, "OO", &data, &address)) {
    Py_DECREF(pair);
    return -1;
  }
  hold(self, Py_NewRef(data), Py_NewRef(address));
  Py_DECREF(pair);
  return 1;
}

static int
receive(datagram *self)
{
  self->held_first = 0;
  if (is_ip(self) || self->family == AF_UNIX)
    return receive_native(self);
  return receive_foreign(self);
}

/* Gives the first one that is held to the protocol. */
static int
deliver(datagram *self)
{
  struct received one = self->held[self->held_first++];
  PyObject *protocol = Py_NewRef(self->base.protocol);
  PyObject *args[] = {protocol, one.data, one.address};
  PyObject *result;

  self->held_count--;
  result = PyObject_VectorcallMethod(NAMES(self)->str_datagram_received, args,
                                     3 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
  Py_XDECREF(result);
  Py_DECREF(protocol);
  Py_DECREF(one.data);
  Py_DECREF(one.address);
  return result == NULL ? -1 : 0;
}

/* The transport is ready for as long as something is held. */
static int
deliver_all(datagram *self)
{
  int delivered = 0, rc = 0;

  while (rc == 0 && self->held_count > 0 && self->base.loop != NULL && !self->base.conn_lost &&
         transport_is_reading(&self->base)) {
    rc = deliver(self);
    delivered++;
  }
  self->base.readable |= self->held_count > 0;
  return rc < 0 ? -1 : delivered;
}

int
datagram_read(stream *base)
{
  datagram *self = (datagram *)base;
  int done = 0;

  do {
    int n;

    if (self->held_count == 0 && receive(self) < 0)
      return datagram_error(self, "Fatal read error on datagram transport");
    n = deliver_all(self);
    if (n < 0)
      return -1;
    done += n;
  } while (done < READ_BATCH && base->loop != NULL && transport_may_read(base));
  return 0;
}
