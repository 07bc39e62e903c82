/* The growing byte buffer of term_api.h. */
#include "term_buf.h"

#include <stdlib.h>
#include <string.h>

#define BUF_FIRST 256

int
term_buf_reserve(term_buf *buf, size_t extra)
{
  if (buf->capacity - buf->size >= extra) {
    return 0;
  }
  if (extra > SIZE_MAX / 2 - buf->size) {
    return -1;
  }
  size_t capacity = buf->capacity < BUF_FIRST ? BUF_FIRST : buf->capacity;
  while (capacity < buf->size + extra) {
    capacity += capacity / 2;
  }
  uint8_t *data = realloc(buf->owned ? buf->data : NULL, capacity);
  if (data == NULL) {
    return -1;
  }
  if (!buf->owned && buf->size > 0) {
    memcpy(data, buf->data, buf->size);
  }
  buf->data = data;
  buf->capacity = capacity;
  buf->owned = 1;
  return 0;
}

void
term_buf_free(term_buf *buf)
{
  if (buf->owned) {
    free(buf->data);
  }
  *buf = (term_buf){0};
}

int
term_buf_append(term_buf *buf, const void *data, size_t size)
{
  if (term_buf_reserve(buf, size) != 0) {
    return -1;
  }
  memcpy(buf->data + buf->size, data, size);
  buf->size += size;
  return 0;
}
