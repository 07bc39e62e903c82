/* Sending.  What a callback writes to its own connection is gathered and leaves by one call when it
 * returns: bytes objects and views of what was received as they are, anything else as a copy.  What
 * the kernel does not take is kept in order; where much is kept, nothing is read meanwhile. */
#include "reactor.h"

#include <errno.h>
#include <sys/socket.h>

#define GATHER_MOST (64 * 1024) /* bytes; more leaves at once */
#define KEPT_BATCH 256          /* chunks that one call sends */

/* --- sending ----------------------------------------------------------------------------------- */

/* How much the kernel took, 0 for nothing now; or -errno.  Makes no exception, as that may run a finaliser,
 * which may write. */
static ssize_t
send_pieces(connection *self, struct iovec *pieces, size_t count)
{
  struct msghdr message = {.msg_iov = pieces, .msg_iovlen = count};
  ssize_t n;

  do {
    if (count == 1)
      n = send(self->fd, pieces->iov_base, pieces->iov_len, MSG_NOSIGNAL);
    else
      n = sendmsg(self->fd, &message, MSG_NOSIGNAL);
  } while (n < 0 && errno == EINTR);
  if (n >= 0) {
    self->reactor->sent += (uint64_t)n;
    return n;
  }
  return errno == EAGAIN || errno == EWOULDBLOCK ? 0 : -errno;
}

/* The connection ends by that error, unless it has meanwhile. */
static int
send_failed(connection *self, int error)
{
  errno = error;
  PyErr_SetFromErrno(PyExc_OSError);
  return connection_fail(self);
}

/* Reading stops while much is unsent and goes on when most of it has left. */
static void
note_kept(connection *self)
{
  if (self->out.bytes > self->reactor->write_limit)
    self->held = true;
  else if (self->out.bytes <= self->reactor->write_limit / 4)
    self->held = false;
}

int
connection_send_kept(connection *self)
{
  struct write_buffer *out = &self->out;

  while (out->count > 0) {
    struct iovec pieces[KEPT_BATCH];
    size_t count = out->count < KEPT_BATCH ? out->count : KEPT_BATCH;
    size_t total = 0;
    ssize_t n;

    for (size_t i = 0; i < count; i++) {
      const struct write_chunk *chunk = &out->chunks[out->first + i];

      pieces[i] = (struct iovec){.iov_base = (char *)chunk->start, .iov_len = chunk->size};
      total += chunk->size;
    }
    n = send_pieces(self, pieces, count);
    if (n < 0)
      return send_failed(self, (int)-n);
    buffer_consume(out, (size_t)n);
    if ((size_t)n < total) {
      self->writable = false;
      break;
    }
  }
  note_kept(self);
  return 0;
}

/* --- what is kept ------------------------------------------------------------------------------ */

/* Keeps a piece from offset on; kept is what holds its memory, which does not change if that is a
 * bytes object. */
static int
keep_piece(connection *self, PyObject *kept, const struct iovec *piece, size_t offset)
{
  const char *start = (char *)piece->iov_base + offset;
  size_t size = piece->iov_len - offset;
  PyObject *copy;
  int rc;

  if (PyBytes_CheckExact(kept))
    return buffer_append(&self->out, kept, start, size);
  copy = PyBytes_FromStringAndSize(start, (Py_ssize_t)size);
  if (copy == NULL)
    return -1;
  rc = buffer_append(&self->out, copy, PyBytes_AS_STRING(copy), size);
  Py_DECREF(copy);
  return rc;
}

/* Sends pieces as far as the kernel takes them, after what was kept before, and keeps the rest.  0, the errno
 * of a call that failed, or -1 with an exception; runs no Python code. */
static int
send_or_keep(connection *self, PyObject **kept, struct iovec *pieces, int count, size_t total)
{
  size_t sent = 0;

  if (self->out.count == 0) {
    ssize_t n = send_pieces(self, pieces, (size_t)count);

    if (n < 0)
      return (int)-n;
    sent = (size_t)n;
    if (sent == total)
      return 0;
    self->writable = false;
  }
  for (int i = 0; i < count; i++) {
    size_t gone = sent < pieces[i].iov_len ? sent : pieces[i].iov_len;

    sent -= gone;
    if (gone < pieces[i].iov_len && keep_piece(self, kept[i], &pieces[i], gone) < 0)
      return -1;
  }
  note_kept(self);
  return 0;
}

/* --- the gather -------------------------------------------------------------------------------- */

/* What holds a piece is a bytes object or a view of ours: to let go of it runs no Python code. */
static void
drop_gathered(struct gather *gather)
{
  for (int i = 0; i < gather->count; i++)
    Py_DECREF(gather->kept[i]);
  gather->count = 0;
  gather->bytes = 0;
}

int
connection_send_gathered(connection *self)
{
  struct gather *gather = &self->reactor->gather;
  int rc = 0;

  if (gather->owner != self || gather->count == 0)
    return 0;
  if (!self->lost)
    rc = send_or_keep(self, gather->kept, gather->pieces, gather->count, gather->bytes);
  drop_gathered(gather);
  if (rc > 0) {
    rc = send_failed(self, rc);
    /* A finaliser may have written meanwhile: that is lost with the connection. */
    drop_gathered(gather);
  }
  return rc;
}

/* Takes the reference to kept. */
static int
gather_piece(connection *self, PyObject *kept, char *data, size_t size)
{
  struct gather *gather = &self->reactor->gather;

  gather->kept[gather->count] = kept;
  gather->pieces[gather->count++] = (struct iovec){.iov_base = data, .iov_len = size};
  gather->bytes += size;
  if (gather->count < GATHER_PIECES && gather->bytes <= GATHER_MOST)
    return 0;
  return connection_send_gathered(self);
}

/* The same outside of a callback of its own: sends at once. */
static int
write_now(connection *self, PyObject *data, const Py_buffer *view)
{
  struct iovec piece = {.iov_base = view->buf, .iov_len = (size_t)view->len};

  int rc = send_or_keep(self, &data, &piece, 1, piece.iov_len);

  if (rc > 0)
    rc = send_failed(self, rc);
  return rc < 0 ? -1 : connection_schedule(self);
}

/* Anything but bytes and views of ours: it may change before it leaves. */
static Py_ssize_t
write_buffer_object(connection *self, PyObject *data, bool gathers)
{
  Py_buffer view;
  PyObject *copy;
  Py_ssize_t size;
  int rc;

  if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0)
    return -1;
  size = view.len;
  if (size == 0 || self->lost) {
    rc = 0;
  } else if (!gathers) {
    rc = write_now(self, data, &view);
  } else if (view.len > GATHER_MOST) {
    rc = connection_send_gathered(self);
    if (rc == 0 && !self->lost)
      rc = write_now(self, data, &view);
  } else {
    copy = PyBytes_FromStringAndSize(view.buf, view.len);
    rc = copy == NULL
             ? -1
             : gather_piece(self, copy, PyBytes_AS_STRING(copy), (size_t)PyBytes_GET_SIZE(copy));
  }
  PyBuffer_Release(&view);
  return rc < 0 ? -1 : size;
}

Py_ssize_t
connection_write(connection *self, PyObject *data)
{
  bool gathers = self->reactor->gather.owner == self;
  Py_ssize_t size;
  char *memory;

  if (gathers && PyBytes_CheckExact(data)) {
    memory = PyBytes_AS_STRING(data);
    size = PyBytes_GET_SIZE(data);
  } else if (gathers && reactor_is_own_view(self->reactor, data)) {
    memory = PyMemoryView_GET_BUFFER(data)->buf;
    size = PyMemoryView_GET_BUFFER(data)->len;
  } else {
    /* A buffer of Python's may do anything. */
    Py_INCREF(self);
    size = write_buffer_object(self, data, gathers);
    Py_DECREF(self);
    return size;
  }
  if (size > 0 && !self->lost && gather_piece(self, Py_NewRef(data), memory, (size_t)size) < 0)
    return -1;
  return size;
}
