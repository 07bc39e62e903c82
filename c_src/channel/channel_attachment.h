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

/* The external format of one binary in two parts, the header and the binary; or that alone. */
typedef struct binary_attachment {
  message_attachment base;
  ErlNifIOVec *iovec;         /* that keeps the binary, or NULL */
  struct binary_group *group; /* that does, or NULL */
  ERL_NIF_TERM term;          /* the binary, until it joins a group */
  message_part parts[2];
  uint8_t header[BINARY_HEADER_SIZE];
} binary_attachment;

/* Fills a movable one with a binary of the calling NIF's environment, which is the term and has that size. */
void channel_attachment_fill_binary(binary_attachment *out, ERL_NIF_TERM term, size_t size);

/* The same without the header: the binary as it is. */
void channel_attachment_fill_bytes(binary_attachment *out, ERL_NIF_TERM term, size_t size);

/* One that has memory of its own, with the iovec (made with a NULL environment, of one binary).  NULL when
 * memory is short; the iovec is taken over all the same. */
message_attachment *channel_attachment_of_binary(ErlNifIOVec *iovec);

#endif
