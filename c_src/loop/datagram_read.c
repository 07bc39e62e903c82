/* Receiving datagrams: a few at a time from the kernel, one at a time for the protocol.
 *
 * What one system call brought and the protocol does not take yet, as it paused, is held. */
#include "datagram.h"

#include <errno.h>
#include <sys/un.h>

#define NAMES(self) (&(self)->base.loop->state->transports)
#define READ_LARGE (16 * 1024) /* from here on the first of a few is received without a copy */
#define READ_BATCH 16          /* datagrams in one go, before others have their turn */

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

/* What one call receives. */
struct batch {
  struct mmsghdr messages[DATAGRAM_SLOTS];
  struct iovec iov[DATAGRAM_SLOTS];
  union any_address addresses[DATAGRAM_SLOTS];
  PyObject *first; /* a bytes object that the first slot is in, or NULL */
};

/* As recvmmsg(), into slots of the scratch buffer. */
static int
receive_raw(datagram *self, char *scratch, int slots, struct batch *batch)
{
  size_t room = TRANSPORT_MAX_READ / (size_t)slots;
  int n;

  for (int i = 0; i < slots; i++) {
    struct msghdr *header = &batch->messages[i].msg_hdr;
    char *slot = scratch + (size_t)i * room;

    if (i == 0 && batch->first != NULL)
      slot = PyBytes_AS_STRING(batch->first);
    batch->iov[i] = (struct iovec){.iov_base = slot, .iov_len = room};
    *header = (struct msghdr){.msg_name = &batch->addresses[i],
                              .msg_namelen = sizeof(batch->addresses[i]),
                              .msg_iov = &batch->iov[i],
                              .msg_iovlen = 1};
  }
  do {
    n = recvmmsg(self->base.fd, batch->messages, (unsigned)slots, MSG_DONTWAIT, NULL);
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

/* What slot i holds, as bytes. */
static PyObject *
take_data(struct batch *batch, int i)
{
  Py_ssize_t size = (Py_ssize_t)batch->messages[i].msg_len;
  PyObject *data;

  if (i > 0 || batch->first == NULL)
    return PyBytes_FromStringAndSize(batch->iov[i].iov_base, size);
  data = batch->first;
  batch->first = NULL;
  /* It fails without anything left to release. */
  (void)_PyBytes_Resize(&data, size);
  return data;
}

static int
hold_batch(datagram *self, struct batch *batch, int n)
{
  for (int i = 0; i < n; i++) {
    PyObject *data = take_data(batch, i);
    PyObject *address = NULL;

    if (data != NULL)
      address = address_object(&self->addresses, &batch->addresses[i].any,
                               batch->messages[i].msg_hdr.msg_namelen);
    if (address == NULL) {
      Py_XDECREF(data);
      return -1;
    }
    self->base.read_hint = (size_t)PyBytes_GET_SIZE(data);
    hold(self, data, address);
  }
  return n;
}

/* Holds what the kernel has, several datagrams for IP.  How many, or -1 with an exception. */
static int
receive_native(datagram *self)
{
  int slots = is_ip(self) ? DATAGRAM_SLOTS : 1;
  char *scratch = readers_scratch(self->base.loop, TRANSPORT_MAX_READ);
  struct batch batch;
  int n;

  batch.first = NULL;
  if (scratch == NULL)
    return -1;
  if (slots > 1 && self->base.read_hint >= READ_LARGE) {
    batch.first = PyBytes_FromStringAndSize(NULL, TRANSPORT_MAX_READ / DATAGRAM_SLOTS);
    if (batch.first == NULL)
      return -1;
  }
  n = receive_raw(self, scratch, slots, &batch);
  if (n < 0) {
    n = receive_failed(self);
  } else {
    /* The kernel found nothing behind the last one, unless what stopped it was an error. */
    if (n < slots && !self->base.hung_up)
      self->base.readable = false;
    n = hold_batch(self, &batch, n);
  }
  Py_XDECREF(batch.first);
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
      return datagram_error(self, base->kind->read_error);
    n = deliver_all(self);
    if (n < 0)
      return -1;
    done += n;
  } while (done < READ_BATCH && base->loop != NULL && transport_may_read(base));
  return 0;
}
