#include "channel_payload.h"

#include <stdlib.h>
#include <string.h>

#include "channel_chores.h"
#include "channel_nif_internal.h"
#include "../term/handle_bundle.h"
#include "../term/handles.h"
#include "../term/nif_terms.h"

/* A resource, so that binaries in Erlang can refer to it. */
typedef struct payload {
  message_attachment base;
  message_part part;
  uint8_t *data;
  size_t count;
  void *keepers[]; /* handles or bundles of them, one count each */
} payload;

static ErlNifResourceType *payload_type;

/* Any thread. */
static void
payload_release(message_attachment *base)
{
  enif_release_resource(base);
}

/* More than this is given back on a thread that may take the time, for it goes back to the operating system
 * page by page, and a destructor runs on a scheduler. */
#define FREE_AT_ONCE_MAX 1048576

/* The thread of chores. */
static int
free_data(channel_chore *chore)
{
  free(chore);
  return 0;
}

/* Any thread. */
static void
free_payload(uint8_t *data, size_t size)
{
  if (size <= FREE_AT_ONCE_MAX) {
    free(data);
    return;
  }
  /* There is room enough for it in what nobody reads any more. */
  channel_chore *chore = (channel_chore *)(void *)data;
  chore->step = free_data;
  channel_chore_post(chore);
}

static void
payload_destroyed(ErlNifEnv *env, void *resource)
{
  payload *self = resource;
  (void)env;
  if (self->data != NULL) {
    free_payload(self->data, self->part.size);
  }
  for (size_t i = 0; i < self->count; i++) {
    handle_release(self->keepers[i]);
  }
}

int
channel_payload_nif_load(ErlNifEnv *env)
{
  ErlNifResourceTypeInit init = {.dtor = payload_destroyed};
  payload_type = enif_open_resource_type_x(env, "py_channel_payload", &init,
                                           ERL_NIF_RT_CREATE | ERL_NIF_RT_TAKEOVER, NULL);
  return payload_type == NULL ? -1 : 0;
}

/* Where they are many in bundles, so that none of our destructors lasts long.  0, or -1 when memory is
 * short. */
static int
keep_handles(payload *self, const handle_list *handles)
{
  if (handles->count <= HANDLE_BUNDLE_MAX) {
    for (size_t i = 0; i < handles->count; i++) {
      handle_keep(handles->items[i].resource);
      self->keepers[self->count++] = handles->items[i].resource;
    }
    return 0;
  }
  void *some[HANDLE_BUNDLE_MAX];
  for (size_t i = 0; i < handles->count;) {
    size_t count = 0;
    while (count < HANDLE_BUNDLE_MAX && i < handles->count) {
      some[count++] = handles->items[i++].resource;
    }
    void *bundle = handle_bundle_new(some, count);
    if (bundle == NULL) {
      return -1;
    }
    self->keepers[self->count++] = bundle;
  }
  return 0;
}

message_attachment *
channel_payload_new(uint8_t *data, size_t size, const handle_list *handles)
{
  size_t count =
      handles->count <= HANDLE_BUNDLE_MAX ? handles->count : handles->count / HANDLE_BUNDLE_MAX + 1;
  payload *self = enif_alloc_resource(payload_type, sizeof(*self) + count * sizeof(void *));
  if (self == NULL) {
    return NULL;
  }
  self->data = NULL;
  self->count = 0;
  if (keep_handles(self, handles) < 0) {
    enif_release_resource(self);
    return NULL;
  }
  self->base =
      (message_attachment){.release = payload_release, .parts = &self->part, .part_count = 1};
  self->part = (message_part){data, size};
  self->data = data;
  return &self->base;
}

/* A large binary is one of Erlang's from the beginning. */
typedef struct binary_payload {
  message_attachment base;
  ErlNifBinary binary;
  int received; /* it is the receiver's */
} binary_payload;

/* Any thread. */
static void
binary_release(message_attachment *base)
{
  binary_payload *self = (binary_payload *)base;
  if (!self->received) {
    enif_release_binary(&self->binary);
  }
  free(self);
}

message_attachment *
channel_payload_binary(size_t size, uint8_t **data)
{
  binary_payload *self = malloc(sizeof(*self));
  if (self == NULL || !enif_alloc_binary(size, &self->binary)) {
    free(self);
    return NULL;
  }
  self->base = (message_attachment){.release = binary_release};
  self->received = 0;
  *data = self->binary.data;
  return &self->base;
}

/* The payload as a binary that is not copied; that of an encoded term, or what is sent. */
static ERL_NIF_TERM
make_whole(ErlNifEnv *env, message_attachment *attachment)
{
  if (attachment->release == binary_release) {
    binary_payload *self = (binary_payload *)attachment;
    self->received = 1;
    return enif_make_binary(env, &self->binary);
  }
  const message_part *part = &attachment->parts[0];
  return enif_make_resource_binary(env, attachment, part->data, part->size);
}

/* A large message; what is no binary is left to binary_to_term, which yields. */
static ERL_NIF_TERM
make_large(ErlNifEnv *env, message_attachment *attachment)
{
  ERL_NIF_TERM kind =
      attachment->release == binary_release ? channel_atoms.ok : channel_atoms.encoded;
  return enif_make_tuple2(env, kind, make_whole(env, attachment));
}

static const uint8_t *
small_payload(const message *m)
{
  return m->data != NULL ? m->data : m->attachment->parts[0].data;
}

ERL_NIF_TERM
channel_make_received_bytes(ErlNifEnv *env, message *m)
{
  ERL_NIF_TERM binary;
  if (m->attachment != NULL) {
    binary = make_whole(env, m->attachment);
  } else {
    uint8_t *data = enif_make_new_binary(env, m->size, &binary);
    if (m->size > 0) {
      memcpy(data, m->data, m->size);
    }
  }
  message_release(m);
  return enif_make_tuple2(env, channel_atoms.ok, binary);
}

/* A small term is decoded here. */
ERL_NIF_TERM
channel_make_received(ErlNifEnv *env, message *m)
{
  ERL_NIF_TERM result, term;
  if (m->data == NULL && m->size > CHANNEL_COPY_MAX) {
    result = make_large(env, m->attachment);
  } else if (nif_term_from_ext(env, small_payload(m), m->size, &term)) {
    /* In parts of a millisecond, by estimate. */
    enif_consume_timeslice(env, 1 + (int)(m->size / 512));
    result = enif_make_tuple2(env, channel_atoms.ok, term);
  } else {
    result = channel_make_error(env, channel_atoms.bad_message);
  }
  message_release(m);
  return result;
}
