#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "channel_outgoing.h"

#include <stdlib.h>

#include "channel_payload.h"

/* Removes the channel's own handle from the list: whoever receives the message in Erlang has that, and
 * the channel would keep itself. */
static void
forget_own(channel_outgoing *out, const channel *c)
{
  size_t count = 0;
  for (size_t i = 0; i < out->handles.count; i++) {
    struct handle_list_item item = out->handles.items[i];
    if (item.kind == HANDLE_CHANNEL && ((channel_handle *)item.resource)->channel == c) {
      handle_release(item.resource);
    } else {
      out->handles.items[count++] = item;
    }
  }
  out->handles.count = count;
}

/* The buffer's memory, or a copy of what was lent, without much room to spare; NULL when memory is
 * short. */
static uint8_t *
own_memory(channel_outgoing *out)
{
  uint8_t *data;
  if (out->buf.owned && out->buf.capacity - out->size < out->size / 8) {
    return out->buf.data;
  }
  if (out->buf.owned) {
    data = realloc(out->buf.data, out->size);
    if (data != NULL) {
      out->buf.data = data;
      out->buf.capacity = out->size;
    }
    return out->buf.data;
  }
  data = malloc(out->size);
  if (data != NULL) {
    memcpy(data, out->buf.data, out->size);
  }
  return data;
}

/* Makes an attachment of the buffer.  0, or -1 when memory is short. */
static int
attach(channel_outgoing *out)
{
  uint8_t *data = own_memory(out);
  if (data == NULL) {
    return -1;
  }
  out->attachment = channel_payload_new(data, out->size, &out->handles);
  if (out->attachment == NULL) {
    if (!out->buf.owned) {
      free(data);
    }
    return -1;
  }
  out->buf = (term_buf){0};
  return 0;
}

/* A large binary needs no encoding.  0, or -1 when memory is short. */
static int
copy_large(channel_outgoing *out, const void *data, size_t size)
{
  uint8_t *copy;
  out->attachment = channel_payload_binary(size, &copy);
  if (out->attachment == NULL) {
    return -1;
  }
  memcpy(copy, data, size);
  return 0;
}

static int
is_large_binary(PyObject *term)
{
  return PyBytes_CheckExact(term) && PyBytes_GET_SIZE(term) > CHANNEL_COPY_MAX &&
         (size_t)PyBytes_GET_SIZE(term) <= UINT32_MAX;
}

/* 0, or -1 with an exception. */
static int
encode_large_binary(channel_outgoing *out, PyObject *bytes)
{
  size_t size = (size_t)PyBytes_GET_SIZE(bytes);
  if (copy_large(out, PyBytes_AS_STRING(bytes), size) < 0) {
    PyErr_NoMemory();
    return -1;
  }
  out->size = BINARY_HEADER_SIZE + size;
  return 0;
}

int
outgoing_encode(channel_outgoing *out, channel *c, PyObject *term)
{
  if (is_large_binary(term)) {
    return encode_large_binary(out, term);
  }
  if (term_link_encode(term, &out->buf, 0, &out->handles, NULL) < 0) {
    outgoing_clear(out);
    return -1;
  }
  out->size = out->buf.size;
  forget_own(out, c);
  /* What is small and names no handles is copied into the queue. */
  if ((out->size > CHANNEL_COPY_MAX || out->handles.count > 0) && attach(out) < 0) {
    outgoing_clear(out);
    PyErr_NoMemory();
    return -1;
  }
  return 0;
}

int
outgoing_bytes(channel_outgoing *out, const void *data, size_t size, int keep)
{
  /* Without a pointer there would be no message. */
  out->buf = (term_buf){(uint8_t *)(size > 0 ? data : ""), size, size, 0};
  out->size = size;
  int failed = 0;
  if (size > CHANNEL_COPY_MAX) {
    failed = copy_large(out, data, size) < 0;
    out->buf = (term_buf){0};
  } else if (keep && size > 0) {
    uint8_t *copy = own_memory(out);
    failed = copy == NULL;
    out->buf.data = copy;
    out->buf.owned = !failed;
  }
  if (failed) {
    outgoing_clear(out);
    PyErr_NoMemory();
    return -1;
  }
  return 0;
}

/* After a send. */
static int
note_sent(channel_outgoing *out, int result)
{
  if (result == QUEUE_OK) {
    out->attachment = NULL;
    /* Our own counts of the handles last until then, so that none is dropped before. */
    handle_list_given(&out->handles);
  }
  return result;
}

int
outgoing_send(channel_outgoing *out, channel *c)
{
  const uint8_t *data = out->attachment == NULL ? out->buf.data : NULL;
  return note_sent(out, queue_send(&c->to_erlang, data, out->size, out->attachment));
}

int
outgoing_send_granted(channel_outgoing *out, channel *c, queue_sender *s)
{
  const uint8_t *data = out->attachment == NULL ? out->buf.data : NULL;
  return note_sent(out, queue_send_granted(&c->to_erlang, s, data, out->size, out->attachment));
}

void
outgoing_clear(channel_outgoing *out)
{
  if (out->attachment != NULL) {
    out->attachment->release(out->attachment);
    out->attachment = NULL;
  }
  term_link_api()->buf_free(&out->buf);
  handle_list_release(&out->handles);
}
