/* What the Erlang face attaches to a message: a payload kept by reference, and the live resources
 * that the message names, kept until it is released.  Plain C over erl_nif (channel_attachment.c).
 */
#ifndef BEAMLOOP_CHANNEL_ATTACHMENT_H
#define BEAMLOOP_CHANNEL_ATTACHMENT_H

#include <erl_nif.h>

#include "message_store.h"

/* Takes over the iovec (made with a NULL environment; or NULL) and one count of each resource, on
 * failure too.  NULL when memory is short. */
message_attachment *channel_attachment_new(ErlNifIOVec *iovec, void **resources, size_t count);

#define BINARY_HEADER_SIZE 6 /* version, tag, four bytes of length */

/* The external format of one binary: two parts, the header and the binary. */
typedef struct binary_attachment {
  message_attachment base;
  ErlNifIOVec *iovec;
  message_part parts[2];
  uint8_t header[BINARY_HEADER_SIZE];
} binary_attachment;

/* One binary as it is. */
typedef struct bytes_attachment {
  message_attachment base;
  ErlNifIOVec *iovec;
  message_part part;
} bytes_attachment;

/* Fills a movable one with the iovec (made with a NULL environment, of one binary), which it takes
 * over. */
void channel_attachment_fill_bytes(bytes_attachment *out, ErlNifIOVec *iovec);

/* Fills a movable one with the iovec (made with a NULL environment, of one binary), which it takes
 * over. */
void channel_attachment_fill_binary(binary_attachment *out, ErlNifIOVec *iovec);

/* One that has memory of its own.  NULL when memory is short; the iovec is taken over all the same. */
message_attachment *channel_attachment_of_binary(ErlNifIOVec *iovec);

#endif
