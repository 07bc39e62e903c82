/* Receiving, for the transports of byte streams. */
#include "transport.h"

#include <errno.h>

#define READ_LARGE (32 * 1024) /* from here on no scratch buffer is worth its copy */
#define READ_ROOM (16 * 1024)  /* room is made in multiples of this */

int
transport_note_read(stream *self, ssize_t n, size_t room)
{
  if (n < 0) {
    if (errno == EINTR)
      return 0;
    self->readable = false;
    if (errno == EAGAIN || errno == EWOULDBLOCK)
      return 0;
    PyErr_SetFromErrno(PyExc_OSError);
    return -1;
  }
  /* A short read proves that there is no more only if no end or error is behind it. */
  if (n == 0 || ((size_t)n < room && !self->hung_up))
    self->readable = false;
  return 1;
}

/* Adapts what the next read makes room for to what this one brought. */
static void
note_size(stream *self, size_t n, size_t room)
{
  if (n == room)
    self->read_hint = room * 2 < TRANSPORT_MAX_READ ? room * 2 : TRANSPORT_MAX_READ;
  else if (n >= self->read_hint / 2)
    self->read_hint = n;
  else
    self->read_hint -= self->read_hint / 8;
}

int
transport_receive_scratch(stream *self, char **scratch, size_t *size)
{
  ssize_t n;
  int rc;

  *scratch = readers_scratch(self->loop, TRANSPORT_MAX_READ);
  if (*scratch == NULL)
    return -1;
  n = self->kind->receive(self->fd, *scratch, TRANSPORT_MAX_READ);
  rc = transport_note_read(self, n, TRANSPORT_MAX_READ);
  *size = rc > 0 ? (size_t)n : 0;
  return rc;
}

/* Receives into the loop's buffer and copies. */
static int
receive_small(stream *self, struct piece *piece)
{
  char *scratch;
  size_t size;
  int rc = transport_receive_scratch(self, &scratch, &size);

  if (rc <= 0)
    return rc;
  self->read_hint = size;
  if (piece_new(self->loop, size, piece) < 0)
    return -1;
  memcpy(PyBytes_AS_STRING(piece->bytes), scratch, size);
  return 1;
}

/* Receives into a bytes object that is then cut to size: no copy, where much came before.  While the
 * protocol keeps no pieces, the rest of the room stays for the next one. */
static int
receive_large(stream *self, struct piece *piece)
{
  size_t size = (self->read_hint + READ_ROOM - 1) / READ_ROOM * READ_ROOM;
  ssize_t n;
  int rc;

  if (piece_new(self->loop, size, piece) < 0)
    return -1;
  n = self->kind->receive(self->fd, PyBytes_AS_STRING(piece->bytes), piece->room);
  rc = transport_note_read(self, n, piece->room);
  if (rc <= 0) {
    Py_DECREF(piece->bytes);
    return rc;
  }
  note_size(self, (size_t)n, piece->room);
  return piece_cut(piece, (size_t)n, self->keeps_pieces) < 0 ? -1 : 1;
}

int
transport_receive(stream *self, struct piece *piece)
{
  return self->read_hint < READ_LARGE ? receive_small(self, piece) : receive_large(self, piece);
}

PyObject *
transport_give(stream *self, PyObject *protocol, struct piece *piece)
{
  native_loop *loop = (native_loop *)Py_NewRef((PyObject *)self->loop);
  PyObject *result =
      PyObject_CallMethodOneArg(protocol, loop->state->transports.str_data_received, piece->bytes);

  self->keeps_pieces = !piece_done(loop, piece);
  Py_DECREF(loop);
  return result;
}
