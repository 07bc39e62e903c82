#include "channel_attachment.h"

#include <stdlib.h>

#include "../term/handles.h"
#include "../term/term_ext.h"

typedef struct channel_attachment {
  message_attachment base;
  ErlNifIOVec *iovec; /* or NULL */
  size_t resource_count;
  /* resource_count pointers to resources, then the parts */
  void *resources[];
} channel_attachment;

static void
release_all(ErlNifIOVec *iovec, void **resources, size_t count)
{
  for (size_t i = 0; i < count; i++) {
    handle_release(resources[i]);
  }
  if (iovec != NULL) {
    enif_free_iovec(iovec);
  }
}

/* Any thread. */
static void
attachment_release(message_attachment *base)
{
  channel_attachment *self = (channel_attachment *)base;
  release_all(self->iovec, self->resources, self->resource_count);
  free(self);
}

message_attachment *
channel_attachment_new(ErlNifIOVec *iovec, void **resources, size_t count)
{
  size_t part_count = iovec != NULL ? (size_t)iovec->iovcnt : 0;
  channel_attachment *self =
      malloc(sizeof(*self) + count * sizeof(void *) + part_count * sizeof(message_part));
  if (self == NULL) {
    release_all(iovec, resources, count);
    return NULL;
  }
  message_part *parts = (message_part *)(self->resources + count);
  for (size_t i = 0; i < part_count; i++) {
    parts[i].data = (const uint8_t *)iovec->iov[i].iov_base;
    parts[i].size = iovec->iov[i].iov_len;
  }
  for (size_t i = 0; i < count; i++) {
    self->resources[i] = resources[i];
  }
  self->base.release = attachment_release;
  self->base.parts = parts;
  self->base.part_count = part_count;
  self->base.movable = 0;
  self->iovec = iovec;
  self->resource_count = count;
  return &self->base;
}

/* Any thread. */
static void
release_moved(message_attachment *base)
{
  enif_free_iovec(((binary_attachment *)base)->iovec);
}

/* Any thread. */
static void
release_own(message_attachment *base)
{
  release_moved(base);
  free(base);
}

void
channel_attachment_fill_binary(binary_attachment *out, ErlNifIOVec *iovec)
{
  out->base = (message_attachment){release_moved, out->parts, 2, sizeof(*out)};
  out->iovec = iovec;
  out->header[0] = EXT_VERSION;
  out->header[1] = EXT_BINARY;
  ext_put_u32(out->header + 2, (uint32_t)iovec->size);
  out->parts[0] = (message_part){out->header, BINARY_HEADER_SIZE};
  out->parts[1] = (message_part){(const uint8_t *)iovec->iov[0].iov_base, iovec->size};
}

message_attachment *
channel_attachment_of_binary(ErlNifIOVec *iovec)
{
  binary_attachment *self = malloc(sizeof(*self));
  if (self == NULL) {
    enif_free_iovec(iovec);
    return NULL;
  }
  channel_attachment_fill_binary(self, iovec);
  self->base.movable = 0;
  self->base.release = release_own;
  return &self->base;
}

/* Any thread. */
static void
release_bytes(message_attachment *base)
{
  enif_free_iovec(((bytes_attachment *)base)->iovec);
}

void
channel_attachment_fill_bytes(bytes_attachment *out, ErlNifIOVec *iovec)
{
  out->base = (message_attachment){release_bytes, &out->part, 1, sizeof(*out)};
  out->iovec = iovec;
  out->part = (message_part){(const uint8_t *)iovec->iov[0].iov_base, iovec->size};
}
