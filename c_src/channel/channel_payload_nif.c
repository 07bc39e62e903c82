#include "channel_payload.h"

#include <stdlib.h>
#include <string.h>

#include "channel_nif_internal.h"
#include "../term/handle_bundle.h"
#include "../term/handles.h"
#include "../term/nif_terms.h"
#include "../term/term_ext.h"

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

static void
payload_destroyed(ErlNifEnv *env, void *resource)
{
  payload *self = resource;
  (void)env;
  free(self->data);
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

#define BINARY_HEADER_SIZE 6 /* version, tag, four bytes of length */

/* The payload is one binary and nothing else. */
static int
is_binary(const uint8_t *data, size_t size)
{
  return size >= BINARY_HEADER_SIZE && data[1] == EXT_BINARY &&
         ext_get_u32(data + 2) == size - BINARY_HEADER_SIZE;
}

/* A large message: a binary refers to the payload, without a copy;  another term is left to
 * binary_to_term, which yields. */
static ERL_NIF_TERM
make_large(ErlNifEnv *env, message_attachment *attachment)
{
  const message_part *part = &attachment->parts[0];
  ERL_NIF_TERM whole = enif_make_resource_binary(env, attachment, part->data, part->size);
  if (!is_binary(part->data, part->size)) {
    return enif_make_tuple2(env, channel_atoms.encoded, whole);
  }
  ERL_NIF_TERM binary =
      enif_make_sub_binary(env, whole, BINARY_HEADER_SIZE, part->size - BINARY_HEADER_SIZE);
  return enif_make_tuple2(env, channel_atoms.ok, binary);
}

ERL_NIF_TERM
channel_make_received_bytes(ErlNifEnv *env, message *m)
{
  ERL_NIF_TERM binary;
  if (m->attachment != NULL) {
    binary = enif_make_resource_binary(env, m->attachment, m->attachment->parts[0].data, m->size);
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
  const uint8_t *data = m->data != NULL ? m->data : m->attachment->parts[0].data;
  if (m->data == NULL && m->size > CHANNEL_COPY_MAX) {
    result = make_large(env, m->attachment);
  } else if (nif_term_from_ext(env, data, m->size, &term)) {
    /* In parts of a millisecond, by estimate. */
    enif_consume_timeslice(env, 1 + (int)(m->size / 512));
    result = enif_make_tuple2(env, channel_atoms.ok, term);
  } else {
    result = channel_make_error(env, channel_atoms.bad_message);
  }
  message_release(m);
  return result;
}
