/* A message on its way from Python to a channel's queue, and its sending without waiting.
 *
 * The GIL is held in every function here.
 */
#ifndef BEAMLOOP_CHANNEL_OUTGOING_H
#define BEAMLOOP_CHANNEL_OUTGOING_H

#include "channel_core.h"
#include "../term/term_link.h"

/* Zero-initialised is empty. */
typedef struct channel_outgoing {
  term_buf buf;                   /* the encoded term, unless the attachment has taken it over */
  handle_list handles;            /* that the term names */
  message_attachment *attachment; /* what is not to be copied, or NULL */
  size_t size;                    /* of the encoded term */
} channel_outgoing;

/* Encodes the term for the channel, into the buffer's memory (which may be lent) or a larger one.  0,
 * or -1 with an exception, and it is empty. */
int outgoing_encode(channel_outgoing *out, channel *c, PyObject *term);

/* Takes bytes as they are.  Few of them are lent, and have to live as long as it is not empty, unless
 * keep asks for a copy.  0, or -1 with an exception, and it is empty. */
int outgoing_bytes(channel_outgoing *out, const void *data, size_t size, int keep);

/* Sends it, if there is room: a queue_result. */
int outgoing_send(channel_outgoing *out, channel *c);

/* Sends it into the room that was granted to s: QUEUE_OK, QUEUE_CLOSED or QUEUE_NO_MEMORY. */
int outgoing_send_granted(channel_outgoing *out, channel *c, queue_sender *s);

/* Empties it; harmless when it is. */
void outgoing_clear(channel_outgoing *out);

#endif
