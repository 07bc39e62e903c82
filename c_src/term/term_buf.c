/* The growing byte buffer of term_api.h. */
#include "term_internal.h"

#include <stdlib.h>

#define BUF_FIRST 256

/* Any thread.  Room for extra more bytes; 0, or -1 when memory is short. */
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

/* Any thread.  Gives the memory back; the buffer is empty afterwards and may be used again. */
void
term_buf_free(term_buf *buf)
{
  if (buf->owned) {
    free(buf->data);
  }
  *buf = (term_buf){0};
}
