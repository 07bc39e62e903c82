/* The functions of term_buf (plain C; compiled into the codec and into the NIF). */
#ifndef BEAMLOOP_TERM_BUF_H
#define BEAMLOOP_TERM_BUF_H

#include "term_api.h"

/* Any thread.  Room for extra more bytes; 0, or -1 when memory is short. */
int term_buf_reserve(term_buf *buf, size_t extra);

/* Any thread.  Gives the memory back; the buffer is empty afterwards and may be used again. */
void term_buf_free(term_buf *buf);

/* Any thread.  Appends size bytes; 0, or -1 when memory is short. */
int term_buf_append(term_buf *buf, const void *data, size_t size);

#endif
