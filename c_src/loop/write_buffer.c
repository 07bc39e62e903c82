/* What waits to be sent, in order. */
#include "transport.h"

#ifndef NDEBUG
#define CHECKED_CHUNKS 64

/* For assert alone.  What waits adds up; of many chunks nobody adds. */
static bool
buffer_is_sound(const struct write_buffer *out)
{
  size_t bytes = 0;

  if (out->first + out->count > out->capacity)
    return false;
  for (size_t i = 0; out->count <= CHECKED_CHUNKS && i < out->count; i++)
    bytes += out->chunks[out->first + i].size;
  return out->count > CHECKED_CHUNKS || bytes == out->bytes;
}
#endif

static void
buffer_free(struct write_buffer *out)
{
  if (out->chunks != out->few)
    PyMem_Free(out->chunks);
  out->chunks = NULL;
  out->first = out->count = out->capacity = out->bytes = 0;
}

static int
buffer_grow(struct write_buffer *out)
{
  size_t capacity = out->capacity * 2;
  bool few = out->chunks == out->few;
  struct write_chunk *chunks = PyMem_Realloc(few ? NULL : out->chunks, capacity * sizeof(*chunks));

  if (chunks == NULL) {
    PyErr_NoMemory();
    return -1;
  }
  if (few)
    memcpy(chunks, out->few, sizeof(out->few));
  out->chunks = chunks;
  out->capacity = capacity;
  return 0;
}

/* Makes room for one more chunk. */
static int
buffer_reserve(struct write_buffer *out)
{
  if (out->capacity == 0) {
    out->chunks = out->few;
    out->capacity = WRITE_BUFFER_FEW;
  }
  if (out->first + out->count < out->capacity)
    return 0;
  if (out->first > 0 && out->count <= out->capacity / 2) {
    memmove(out->chunks, out->chunks + out->first, out->count * sizeof(*out->chunks));
    out->first = 0;
    return 0;
  }
  return buffer_grow(out);
}

int
buffer_append(struct write_buffer *out, PyObject *owner, const char *start, size_t size)
{
  if (buffer_reserve(out) < 0)
    return -1;
  out->chunks[out->first + out->count++] =
      (struct write_chunk){.owner = Py_NewRef(owner), .start = start, .size = size};
  out->bytes += size;
  assert(buffer_is_sound(out));
  return 0;
}

void
buffer_pop(struct write_buffer *out)
{
  struct write_chunk chunk;

  assert(out->count > 0);
  chunk = out->chunks[out->first++];
  out->bytes -= chunk.size;
  if (--out->count == 0)
    buffer_free(out);
  Py_DECREF(chunk.owner);
}

void
buffer_consume(struct write_buffer *out, size_t n)
{
  assert(n <= out->bytes);
  while (out->count > 0 && n >= out->chunks[out->first].size) {
    n -= out->chunks[out->first].size;
    buffer_pop(out);
  }
  if (n > 0) {
    out->chunks[out->first].start += n;
    out->chunks[out->first].size -= n;
    out->bytes -= n;
  }
  assert(buffer_is_sound(out));
}

void
buffer_drop(struct write_buffer *out)
{
  while (out->count > 0) {
    out->count--;
    Py_DECREF(out->chunks[out->first++].owner);
  }
  buffer_free(out);
}
