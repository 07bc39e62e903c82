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

/* The external format of one binary, which the iovec (taken over, made with a NULL environment) holds:
 * two parts, the header and the binary.  NULL when memory is short. */
message_attachment *channel_attachment_of_binary(ErlNifIOVec *iovec);

#endif
