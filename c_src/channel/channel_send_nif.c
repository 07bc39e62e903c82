/* Sending from Erlang: what is sent, and as what payload. */
#include "channel_nif.h"

#include <string.h>

#include "channel_attachment.h"
#include "channel_nif_internal.h"
#include "../term/handle_bundle_nif.h"
#include "../term/handles.h"
#include "../term/nif_encode.h"

/* What one call of nif_channel_send_many does at most. */
#define MANY_MAX_BYTES 65536
#define MANY_MAX_MESSAGES 500
#define MANY_MAX_NS 300000

ERL_NIF_TERM
channel_make_result(ErlNifEnv *env, int result)
{
  switch (result) {
  case QUEUE_OK:
    return channel_atoms.ok;
  case QUEUE_BUSY:
    return channel_atoms.busy;
  case QUEUE_CLOSED:
    return channel_make_error(env, channel_atoms.closed);
  case QUEUE_TOO_LARGE:
    return channel_make_error(env, channel_atoms.too_large);
  default:
    return channel_make_error(env, channel_atoms.system_limit);
  }
}

/* A queue_result; the attachment (or NULL) is taken over. */
static int
send_payload(channel_handle *h, const uint8_t *data, size_t size, message_attachment *attachment)
{
  int result = queue_send(&h->channel->to_python, data, size, attachment);
  if (result != QUEUE_OK && attachment != NULL) {
    attachment->release(attachment);
  }
  return result;
}

ERL_NIF_TERM
channel_send_for(ErlNifEnv *env, channel_handle *h, const uint8_t *data, size_t size,
                 message_attachment *attachment, const ERL_NIF_TERM *ref)
{
  if (ref == NULL) {
    return channel_make_result(env, send_payload(h, data, size, attachment));
  }
  if (data != NULL) {
    message_attachment *copy = message_attachment_copy(data, size, attachment);
    if (copy == NULL && attachment != NULL) {
      attachment->release(attachment);
    }
    attachment = copy;
  }
  return attachment == NULL ? channel_make_result(env, QUEUE_NO_MEMORY)
                            : channel_send_or_wait(env, h, *ref, size, attachment);
}

/* The channel does not keep itself. */
static void
forget_own(const channel_handle *h, nif_encoding *encoding)
{
  unsigned count = 0;
  for (unsigned i = 0; i < encoding->handle_count; i++) {
    if (encoding->handles[i] == h) {
      handle_release(encoding->handles[i]);
    } else {
      encoding->handles[count++] = encoding->handles[i];
    }
  }
  encoding->handle_count = count;
}

/* Encodes a small term and what it keeps alive: 1, 0 declined, -1 memory is short. */
static int
encode(ErlNifEnv *env, const channel_handle *h, ERL_NIF_TERM term, nif_encoding *encoding,
       message_attachment **attachment)
{
  *attachment = NULL;
  if (!nif_encode_small(env, term, encoding)) {
    return 0;
  }
  forget_own(h, encoding);
  if (encoding->handle_count == 0) {
    return 1;
  }
  *attachment = channel_attachment_new(NULL, encoding->handles, encoding->handle_count);
  return *attachment == NULL ? -1 : 1;
}

/* Of a millisecond's slice. */
#define PERCENT_NS 10000

/* Has the process give way the sooner that encoded for so long: a call alone counts as nothing.  What costs
 * less than a percent is left to that. */
static void
charge(ErlNifEnv *env, unsigned nanoseconds)
{
  if (nanoseconds >= PERCENT_NS) {
    unsigned percent = nanoseconds / PERCENT_NS;
    enif_consume_timeslice(env, percent > 100 ? 100 : (int)percent);
  }
}

ERL_NIF_TERM
nif_channel_send(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{ /* (Channel, Term, Node[, Ref]) */
  channel_handle *h;
  uint8_t scratch[CHANNEL_SCRATCH_SIZE];
  nif_encoding encoding = {.node = argv[2], .data = scratch, .capacity = sizeof(scratch)};
  message_attachment *attachment;
  if ((h = channel_nif_get(env, argv[0])) == NULL) {
    return enif_make_badarg(env);
  }
  int encoded = encode(env, h, argv[1], &encoding, &attachment);
  charge(env, encoding.cost);
  if (encoded == 0) {
    return channel_atoms.declined;
  }
  if (encoded < 0) {
    return channel_make_result(env, QUEUE_NO_MEMORY);
  }
  return channel_send_for(env, h, scratch, encoding.size, attachment, argc == 4 ? &argv[3] : NULL);
}

/* One large binary, pinned; NULL when it is none. */
static ErlNifIOVec *
pin_binary(ErlNifEnv *env, ERL_NIF_TERM term)
{
  ErlNifIOVec *iovec = NULL;
  ERL_NIF_TERM tail;
  if (!enif_inspect_iovec(NULL, 1, enif_make_list1(env, term), &tail, &iovec)) {
    return NULL;
  }
  if (iovec->iovcnt == 1) {
    return iovec;
  }
  enif_free_iovec(iovec);
  return NULL;
}

ERL_NIF_TERM
nif_channel_send_binary(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{ /* (Channel, Binary[, Ref]) */
  channel_handle *h = channel_nif_get(env, argv[0]);
  ErlNifBinary binary;
  if (h == NULL || !enif_inspect_binary(env, argv[1], &binary) || binary.size > UINT32_MAX) {
    return enif_make_badarg(env);
  }
  size_t size = BINARY_HEADER_SIZE + binary.size;
  if (argc == 3) {
    ErlNifIOVec *iovec = pin_binary(env, argv[1]);
    return iovec == NULL ? enif_make_badarg(env)
                         : channel_send_for(env, h, NULL, size, channel_attachment_of_binary(iovec),
                                            &argv[2]);
  }
  binary_attachment kept;
  channel_attachment_fill_binary(&kept, argv[1], binary.size);
  return channel_make_result(env, send_payload(h, NULL, size, &kept.base));
}

ERL_NIF_TERM
nif_channel_send_many(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{ /* (Channel, Terms, Node) */
  channel_handle *h = channel_nif_get(env, argv[0]);
  uint8_t scratch[CHANNEL_SCRATCH_SIZE];
  nif_encoding encoding = {.node = argv[2], .data = scratch, .capacity = sizeof(scratch)};
  ERL_NIF_TERM head, next, list = argv[1];
  ERL_NIF_TERM answer = channel_atoms.more;
  size_t bytes = 0;
  unsigned sent = 0, cost = 0;
  (void)argc;
  if (h == NULL || !(enif_is_list(env, list))) {
    return enif_make_badarg(env);
  }
  while (bytes < MANY_MAX_BYTES && sent < MANY_MAX_MESSAGES && cost < MANY_MAX_NS &&
         enif_get_list_cell(env, list, &head, &next)) {
    message_attachment *attachment;
    int encoded = encode(env, h, head, &encoding, &attachment);
    cost += encoding.cost;
    if (encoded == 0) {
      answer = channel_atoms.declined;
      break;
    }
    int result =
        encoded < 0 ? QUEUE_NO_MEMORY : send_payload(h, scratch, encoding.size, attachment);
    if (result != QUEUE_OK) {
      answer = channel_make_result(env, result);
      break;
    }
    bytes += encoding.size;
    sent++;
    list = next;
  }
  /* By estimate: the caller goes on with the rest at once. */
  charge(env, PERCENT_NS + 200 * sent + (unsigned)bytes + cost);
  return enif_make_tuple3(env, answer, enif_make_uint(env, sent), list);
}

/* Keeps the resources behind those of a list of references that are handles, or bundles: their number, -1 when
 * it is no proper list, and then nothing is kept. */
static int
keep_handles(ErlNifEnv *env, ERL_NIF_TERM list, void **out, unsigned capacity)
{
  ERL_NIF_TERM head;
  unsigned count = 0;
  while (count < capacity && enif_get_list_cell(env, list, &head, &list)) {
    void *resource = handle_or_bundle(env, head);
    if (resource != NULL) {
      handle_keep(resource);
      out[count++] = resource;
    }
  }
  if (enif_is_empty_list(env, list)) {
    return (int)count;
  }
  while (count > 0) {
    handle_release(out[--count]);
  }
  return -1;
}

/* What a send of an iovec carries: either a copy in the scratch or an attachment that refers to it.
 */
typedef struct iovec_payload {
  uint8_t scratch[CHANNEL_SCRATCH_SIZE];
  const uint8_t *data; /* scratch, or NULL */
  size_t size;
  message_attachment *attachment; /* or NULL */
} iovec_payload;

/* Takes over the iovec and the counts of the resources.  0, or -1 when memory is short. */
static int
fill_payload(iovec_payload *payload, ErlNifIOVec *iovec, void **resources, size_t count)
{
  payload->data = NULL;
  payload->size = iovec->size;
  payload->attachment = NULL;
  if (iovec->size <= CHANNEL_SCRATCH_SIZE) {
    uint8_t *end = payload->scratch;
    for (int i = 0; i < iovec->iovcnt; i++) {
      memcpy(end, iovec->iov[i].iov_base, iovec->iov[i].iov_len);
      end += iovec->iov[i].iov_len;
    }
    payload->data = payload->scratch;
    enif_free_iovec(iovec);
    iovec = NULL;
  }
  if (iovec != NULL || count > 0) {
    payload->attachment = channel_attachment_new(iovec, resources, count);
    return payload->attachment == NULL ? -1 : 0;
  }
  return 0;
}

/* Reads both lists: 1 good, 0 they are not what they should be, -1 memory is short. */
static int
get_payload(ErlNifEnv *env, ERL_NIF_TERM iovec_term, ERL_NIF_TERM handles, iovec_payload *payload)
{
  ErlNifIOVec *iovec = NULL;
  ERL_NIF_TERM tail;
  unsigned length;
  if (!enif_get_list_length(env, handles, &length)) {
    return 0;
  }
  void **resources = enif_alloc((length + 1) * sizeof(void *));
  if (resources == NULL) {
    return -1;
  }
  int count = keep_handles(env, handles, resources, length);
  int result = 0;
  if (count >= 0 && enif_inspect_iovec(NULL, SIZE_MAX, iovec_term, &tail, &iovec)) {
    result = fill_payload(payload, iovec, resources, (size_t)count) == 0 ? 1 : -1;
  } else {
    while (count > 0) {
      handle_release(resources[--count]);
    }
  }
  enif_free(resources);
  return result;
}

ERL_NIF_TERM
channel_send_iovec(ErlNifEnv *env, channel_handle *h, ERL_NIF_TERM iovec, ERL_NIF_TERM handles,
                   const ERL_NIF_TERM *ref)
{
  iovec_payload payload;
  int good = h == NULL ? 0 : get_payload(env, iovec, handles, &payload);
  if (good == 0) {
    return enif_make_badarg(env);
  }
  if (good < 0) {
    return channel_make_result(env, QUEUE_NO_MEMORY);
  }
  return channel_send_for(env, h, payload.data, payload.size, payload.attachment, ref);
}

ERL_NIF_TERM
nif_channel_send_iovec(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{ /* (Channel, Iovec, Handles[, Ref]) */
  return channel_send_iovec(env, channel_nif_get(env, argv[0]), argv[1], argv[2],
                            argc == 4 ? &argv[3] : NULL);
}
