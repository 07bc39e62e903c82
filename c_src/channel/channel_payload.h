/* The payload of a message from Python that is not copied: what is large, or names live handles.
 *
 * It becomes a binary of Erlang's without being copied again.  Plain C interface (channel_payload_nif.c);
 * any thread, GIL or not.
 */
#ifndef BEAMLOOP_CHANNEL_PAYLOAD_H
#define BEAMLOOP_CHANNEL_PAYLOAD_H

#include "message_store.h"
#include "../term/term_link.h"

/* What is up to this size, and names no handles, is better copied into the queue. */
#define CHANNEL_COPY_MAX 4096

/* Takes over data (malloc'ed), and keeps the handles until Erlang has dropped the payload.  NULL when
 * memory is short: data is the caller's still. */
message_attachment *channel_payload_new(uint8_t *data, size_t size, const handle_list *handles);

#define BINARY_HEADER_SIZE 6 /* of an encoded binary: version, tag, four bytes of length */

/* A message that is one binary of that size, more than CHANNEL_COPY_MAX, and nothing else.  *data is where
 * its bytes are to be written before it is sent.  NULL when memory is short. */
message_attachment *channel_payload_binary(size_t size, uint8_t **data);

#endif
