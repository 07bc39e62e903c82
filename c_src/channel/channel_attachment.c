#include "channel_attachment.h"

#include <stdatomic.h>
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
  self->base =
      (message_attachment){.release = attachment_release, .parts = parts, .part_count = part_count};
  self->iovec = iovec;
  self->resource_count = count;
  return &self->base;
}

/* Several binaries that are kept together: an environment of their own costs much less than one for each,
 * or an iovec.  It is let go with the last of them, so they are few, and a larger one is kept alone. */
#define GROUP_BINARIES 16
#define GROUP_BYTES 262144

typedef struct binary_group {
  message_group base;
  atomic_uint refs; /* those who have joined and not left, and the queue while others may join */
  ErlNifEnv *env;   /* guarded by the queue's lock while others may join, and so: */
  unsigned count;
  size_t bytes;
} binary_group;

/* Any thread. */
static void
group_leave(message_group *base)
{
  binary_group *group = (binary_group *)base;
  if (atomic_fetch_sub_explicit(&group->refs, 1, memory_order_acq_rel) == 1) {
    enif_free_env(group->env);
    free(group);
  }
}

/* Queue's lock held.  A new one in the place of *current; 0, or -1 when memory is short. */
static int
renew_group(message_group **current)
{
  binary_group *group = malloc(sizeof(*group));
  ErlNifEnv *env = group == NULL ? NULL : enif_alloc_env();
  if (env == NULL) {
    free(group);
    return -1;
  }
  *group = (binary_group){.base = {group_leave}, .env = env};
  atomic_init(&group->refs, 1);
  if (*current != NULL) {
    (*current)->leave(*current);
  }
  *current = &group->base;
  return 0;
}

/* Queue's lock held. */
static int
join_group(message_attachment *base, message_group **current)
{
  binary_attachment *self = (binary_attachment *)base;
  binary_group *group = (binary_group *)*current;
  ErlNifBinary binary;
  size_t size = self->parts[base->part_count - 1].size;
  if (group == NULL || group->bytes + size > GROUP_BYTES) {
    if (renew_group(current) < 0) {
      return -1;
    }
    group = (binary_group *)*current;
  }
  /* The copy refers to the same bytes. */
  if (!enif_inspect_binary(group->env, enif_make_copy(group->env, self->term), &binary)) {
    return -1;
  }
  group->count++;
  group->bytes += binary.size;
  atomic_fetch_add_explicit(&group->refs, 1, memory_order_relaxed);
  self->group = group;
  self->parts[base->part_count - 1].data = binary.data;
  /* What is full does not wait for the next one to be let go. */
  if (group->count == GROUP_BINARIES || group->bytes >= GROUP_BYTES) {
    group_leave(&group->base);
    *current = NULL;
  }
  return 0;
}

/* Any thread. */
static void
release_joined(message_attachment *base)
{
  binary_group *group = ((binary_attachment *)base)->group;
  if (group != NULL) {
    group_leave(&group->base);
  }
}

/* Any thread. */
static void
release_own(message_attachment *base)
{
  enif_free_iovec(((binary_attachment *)base)->iovec);
  free(base);
}

static void
fill_header(binary_attachment *self, const uint8_t *data, size_t size)
{
  self->header[0] = EXT_VERSION;
  self->header[1] = EXT_BINARY;
  ext_put_u32(self->header + 2, (uint32_t)size);
  self->parts[0] = (message_part){self->header, BINARY_HEADER_SIZE};
  self->parts[1] = (message_part){data, size};
}

static void
fill_joining(binary_attachment *out, ERL_NIF_TERM term, size_t part_count)
{
  out->base = (message_attachment){.release = release_joined,
                                   .parts = out->parts,
                                   .part_count = part_count,
                                   .movable = sizeof(*out),
                                   .join = join_group};
  out->iovec = NULL;
  out->group = NULL;
  out->term = term;
}

void
channel_attachment_fill_binary(binary_attachment *out, ERL_NIF_TERM term, size_t size)
{
  fill_joining(out, term, 2);
  fill_header(out, NULL, size);
}

void
channel_attachment_fill_bytes(binary_attachment *out, ERL_NIF_TERM term, size_t size)
{
  fill_joining(out, term, 1);
  out->parts[0] = (message_part){NULL, size};
}

message_attachment *
channel_attachment_of_binary(ErlNifIOVec *iovec)
{
  binary_attachment *self = malloc(sizeof(*self));
  if (self == NULL) {
    enif_free_iovec(iovec);
    return NULL;
  }
  self->base = (message_attachment){.release = release_own, .parts = self->parts, .part_count = 2};
  self->iovec = iovec;
  self->group = NULL;
  self->term = 0;
  fill_header(self, (const uint8_t *)iovec->iov[0].iov_base, iovec->size);
  return &self->base;
}
