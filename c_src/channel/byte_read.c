#define _GNU_SOURCE /* memmem */
#include "byte_read.h"

#include <stdlib.h>
#include <string.h>

void
byte_read_init(byte_read *r, channel_object *channel, enum byte_read_kind kind)
{
  memset(r, 0, sizeof(*r));
  r->kind = kind;
  r->channel = channel;
  r->held = r->first;
  r->capacity = READ_HELD_FIRST;
}

int
byte_read_begin(byte_read *r)
{
  if (r->kind < READ_EXACTLY) {
    return 0;
  }
  if (r->channel->reading) {
    PyErr_SetString(PyExc_RuntimeError,
                    "another thread or coroutine reads from this ByteChannel already");
    return -1;
  }
  r->channel->reading = 1;
  r->began = 1;
  return 0;
}

static queue *
queue_of(byte_read *r)
{
  return &r->channel->channel->to_python;
}

/* Takes over the message: 0, or -1 when memory is short. */
static int
hold(byte_read *r, const message *m)
{
  if (r->count == r->capacity) {
    message *own = r->held == r->first ? NULL : r->held;
    message *more = realloc(own, 2 * r->capacity * sizeof(*more));
    if (more == NULL) {
      return -1;
    }
    if (own == NULL) {
      memcpy(more, r->first, sizeof(r->first));
    }
    r->held = more;
    r->capacity *= 2;
  }
  r->held[r->count++] = *m;
  r->size += m->size;
  return 0;
}

static void
copy_message(const message *m, uint8_t *to, size_t size)
{
  if (m->attachment == NULL) {
    if (size > 0) {
      memcpy(to, m->data, size);
    }
    return;
  }
  for (const message_part *part = m->attachment->parts; size > 0; part++) {
    size_t piece = part->size < size ? part->size : size;
    memcpy(to, part->data, piece);
    to += piece;
    size -= piece;
  }
}

/* The first bytes of what is held. */
static void
copy_held(const byte_read *r, uint8_t *to, size_t size)
{
  for (size_t i = 0; size > 0; i++) {
    size_t piece = r->held[i].size < size ? r->held[i].size : size;
    copy_message(&r->held[i], to, piece);
    to += piece;
    size -= piece;
  }
}

/* Lets go of the first bytes of what is held; the rest goes back to the queue. */
static void
use_held(byte_read *r, size_t size)
{
  size_t i = 0;
  while (i < r->count && r->held[i].size <= size) {
    size -= r->held[i].size;
    message_release(&r->held[i++]);
  }
  if (i < r->count && size > 0) {
    message_trim(&r->held[i], size);
  }
  queue_return(queue_of(r), r->held + i, r->count - i);
  r->count = 0;
  r->size = 0;
}

/* The first bytes of what is held, used; NULL with an exception, and nothing is used. */
static PyObject *
take_held(byte_read *r, size_t size)
{
  PyObject *bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)size);
  if (bytes != NULL) {
    copy_held(r, (uint8_t *)PyBytes_AS_STRING(bytes), size);
    use_held(r, size);
  }
  return bytes;
}

void
byte_read_clear(byte_read *r)
{
  /* Empty chunks too. */
  queue_return(queue_of(r), r->held, r->count);
  r->count = 0;
  r->size = 0;
  if (r->began) {
    r->channel->reading = 0;
    r->began = 0;
  }
  if (r->held != r->first) {
    free(r->held);
    r->held = r->first;
  }
  free(r->gathered);
  r->gathered = NULL;
  if (r->target.obj != NULL) {
    PyBuffer_Release(&r->target);
  }
  Py_CLEAR(r->separator);
}

/* --- asyncio's errors --- */

/* Raises asyncio's error of that name. */
static void
raise_asyncio(const char *name, PyObject *arguments)
{
  PyObject *module = arguments == NULL ? NULL : PyImport_ImportModule("asyncio");
  PyObject *type = module == NULL ? NULL : PyObject_GetAttrString(module, name);
  PyObject *error = type == NULL ? NULL : PyObject_Call(type, arguments, NULL);
  if (error != NULL) {
    PyErr_SetObject(type, error);
  }
  Py_XDECREF(error);
  Py_XDECREF(type);
  Py_XDECREF(module);
  Py_XDECREF(arguments);
}

static void
raise_incomplete(byte_read *r)
{
  PyObject *partial = take_held(r, r->size);
  if (partial == NULL) {
    return;
  }
  raise_asyncio("IncompleteReadError", r->kind == READ_EXACTLY
                                           ? Py_BuildValue("(Nn)", partial, (Py_ssize_t)r->wanted)
                                           : Py_BuildValue("(NO)", partial, Py_None));
}

/* What is held has no separator within the limit: it stays, but a line is gone, as with asyncio. */
static void
raise_overrun(byte_read *r, const char *text, size_t consumed, size_t discard)
{
  if (r->kind == READ_LINE) {
    use_held(r, discard);
    PyErr_SetString(PyExc_ValueError, text);
  } else {
    raise_asyncio("LimitOverrunError", Py_BuildValue("(sn)", text, (Py_ssize_t)consumed));
  }
}

/* --- searching --- */

/* Appends a message to the copy of what is held: 0, or -1 when memory is short. */
static int
gather(byte_read *r, const message *m)
{
  size_t needed = r->gathered_size + m->size;
  if (needed > r->gathered_capacity) {
    size_t capacity = needed + needed / 2;
    uint8_t *more = realloc(r->gathered, capacity);
    if (more == NULL) {
      return -1;
    }
    r->gathered = more;
    r->gathered_capacity = capacity;
  }
  if (m->size > 0) {
    copy_message(m, r->gathered + r->gathered_size, m->size);
    r->gathered_size = needed;
  }
  return 0;
}

/* What is held, in one piece: 0, or -1 when memory is short. */
static int
in_one_piece(byte_read *r, const uint8_t **data)
{
  const message *m = &r->held[0];
  if (r->count == 1 && (m->attachment == NULL || m->attachment->part_count == 1)) {
    *data = m->attachment == NULL ? m->data : m->attachment->parts[0].data;
    return 0;
  }
  /* What was not gathered yet: all of it, or the newest. */
  for (size_t i = r->gathered_size == 0 ? 0 : r->count - 1; i < r->count; i++) {
    if (gather(r, &r->held[i]) < 0) {
      return -1;
    }
  }
  *data = r->gathered;
  return 0;
}

/* As StreamReader.readuntil(). */
static enum byte_read_state
look_for_separator(byte_read *r, PyObject **out)
{
  size_t length = (size_t)PyBytes_GET_SIZE(r->separator);
  size_t limit = r->channel->limit;
  const uint8_t *data, *found;
  if (in_one_piece(r, &data) < 0) {
    PyErr_NoMemory();
    return READ_DONE;
  }
  found = r->size < length ? NULL
                           : memmem(data + r->searched, r->size - r->searched,
                                    PyBytes_AS_STRING(r->separator), length);
  if (found != NULL) {
    size_t before = (size_t)(found - data);
    if (before > limit) {
      raise_overrun(r, "Separator is found, but chunk is longer than limit", before,
                    before + length);
    } else {
      *out = take_held(r, before + length);
    }
    return READ_DONE;
  }
  if (r->size >= length) {
    r->searched = r->size - length + 1;
  }
  if (r->searched > limit) {
    raise_overrun(r, "Separator is not found, and chunk exceed the limit", r->searched, r->size);
    return READ_DONE;
  }
  return READ_MORE;
}

/* --- feeding --- */

/* As much of the message as there is place for. */
static PyObject *
fill_target(byte_read *r)
{
  size_t place = (size_t)r->target.len;
  size_t size = r->size < place ? r->size : place;
  copy_held(r, r->target.buf, size);
  use_held(r, size);
  return PyLong_FromSize_t(size);
}

int
byte_read_at_once(byte_read *r, PyObject **out)
{
  if (r->kind == READ_EXACTLY && r->wanted == 0) {
    *out = PyBytes_FromStringAndSize(NULL, 0);
    return 1;
  }
  if (r->kind == READ_INTO && r->target.len == 0) {
    *out = PyLong_FromLong(0);
    return 1;
  }
  return 0;
}

enum byte_read_state
byte_read_feed(byte_read *r, message *m, PyObject **out)
{
  *out = NULL;
  if (r->kind == READ_VIEW) {
    *out = byte_view_of(r->channel->state, m);
    return READ_DONE;
  }
  if (hold(r, m) < 0) {
    queue_return(queue_of(r), m, 1);
    PyErr_NoMemory();
    return READ_DONE;
  }
  switch (r->kind) {
  case READ_INTO:
    *out = fill_target(r);
    return READ_DONE;
  case READ_EXACTLY:
    if (r->size < r->wanted) {
      return READ_MORE;
    }
    *out = take_held(r, r->wanted);
    return READ_DONE;
  default:
    return look_for_separator(r, out);
  }
}

PyObject *
byte_read_end(byte_read *r)
{
  if (r->kind == READ_LINE) {
    return take_held(r, r->size);
  }
  if (r->kind >= READ_EXACTLY) {
    raise_incomplete(r);
  } else {
    channel_set_closed(r->channel);
  }
  return NULL;
}
