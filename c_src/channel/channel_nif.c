#include "channel_nif.h"

#include <string.h>

#include "channel_attachment.h"
#include "channel_core.h"
#include "../term/handles.h"
#include "../term/nif_encode.h"
#include "../term/nif_terms.h"

#define SCRATCH_SIZE 4096

/* The resource behind a py_channel:channel(). */
typedef struct erlang_handle {
  channel_handle base;
  int registered; /* constant once a term was made */
  ErlNifMonitor owner;
} erlang_handle;

static ErlNifResourceType *handle_type;

/* Set at load, constant afterwards. */
static struct {
  ERL_NIF_TERM ok, busy, error, closed, too_large, system_limit, declined, infinity, none, noproc;
  ERL_NIF_TERM write, size, max_size, messages, waiters, total_in, total_out;
} atoms;

static void
make_atoms(ErlNifEnv *env)
{
  atoms.ok = enif_make_atom(env, "ok");
  atoms.busy = enif_make_atom(env, "busy");
  atoms.error = enif_make_atom(env, "error");
  atoms.closed = enif_make_atom(env, "closed");
  atoms.too_large = enif_make_atom(env, "too_large");
  atoms.system_limit = enif_make_atom(env, "system_limit");
  atoms.declined = enif_make_atom(env, "declined");
  atoms.infinity = enif_make_atom(env, "infinity");
  atoms.none = enif_make_atom(env, "none");
  atoms.noproc = enif_make_atom(env, "noproc");
  atoms.write = enif_make_atom(env, "write");
  atoms.size = enif_make_atom(env, "size");
  atoms.max_size = enif_make_atom(env, "max_size");
  atoms.messages = enif_make_atom(env, "messages");
  atoms.waiters = enif_make_atom(env, "waiters");
  atoms.total_in = enif_make_atom(env, "total_in");
  atoms.total_out = enif_make_atom(env, "total_out");
}

/* The handle was all that Erlang had of the channel: nobody there can send any more. */
static void
handle_destroyed(ErlNifEnv *env, void *resource)
{
  erlang_handle *h = resource;
  (void)env;
  if (h->registered) {
    handles_remove(h);
  }
  if (h->base.channel != NULL) {
    queue_close(&h->base.channel->to_python);
    channel_decref(h->base.channel);
  }
}

static void
owner_died(ErlNifEnv *env, void *resource, ErlNifPid *pid, ErlNifMonitor *monitor)
{
  (void)env, (void)pid, (void)monitor;
  channel_close(((erlang_handle *)resource)->base.channel);
}

int
channel_nif_load(ErlNifEnv *env)
{
  ErlNifResourceTypeInit init = {.dtor = handle_destroyed, .down = owner_died};
  make_atoms(env);
  handle_type = enif_open_resource_type_x(env, "py_channel", &init,
                                          ERL_NIF_RT_CREATE | ERL_NIF_RT_TAKEOVER, NULL);
  return handle_type == NULL ? -1 : nif_encode_register_type(handle_type);
}

static ERL_NIF_TERM
make_error(ErlNifEnv *env, ERL_NIF_TERM reason)
{
  return enif_make_tuple2(env, atoms.error, reason);
}

static int
get_channel(ErlNifEnv *env, ERL_NIF_TERM term, channel **out)
{
  void *h;
  if (!enif_get_resource(env, term, handle_type, &h)) {
    return 0;
  }
  *out = ((channel_handle *)h)->channel;
  return 1;
}

static int
get_max_size(ErlNifEnv *env, ERL_NIF_TERM term, size_t *out)
{
  ErlNifUInt64 value;
  if (enif_is_identical(term, atoms.infinity)) {
    *out = QUEUE_UNBOUNDED;
    return 1;
  }
  if (!enif_get_uint64(env, term, &value) || value == 0) {
    return 0;
  }
  *out = value > QUEUE_UNBOUNDED ? QUEUE_UNBOUNDED : (size_t)value;
  return 1;
}

/* Makes the resource with its channel, registered; NULL when memory is short.  With one count. */
static erlang_handle *
new_handle(const queue_limits *limits)
{
  erlang_handle *h = enif_alloc_resource(handle_type, sizeof(*h));
  if (h == NULL) {
    return NULL;
  }
  memset(h, 0, sizeof(*h));
  h->base.channel = channel_create(limits);
  if (h->base.channel != NULL && handles_add(h, HANDLE_CHANNEL) == 0) {
    h->registered = 1;
    return h;
  }
  enif_release_resource(h);
  return NULL;
}

ERL_NIF_TERM
nif_channel_new(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{ /* (MaxSize, Owner) */
  size_t max_size;
  ErlNifPid owner;
  (void)argc;
  int owned = !enif_is_identical(argv[1], atoms.none);
  if (!get_max_size(env, argv[0], &max_size) ||
      (owned && !enif_get_local_pid(env, argv[1], &owner))) {
    return enif_make_badarg(env);
  }
  queue_limits limits = QUEUE_NO_LIMITS;
  limits.max_size = max_size;
  erlang_handle *h = new_handle(&limits);
  if (h == NULL) {
    return make_error(env, atoms.system_limit);
  }
  ERL_NIF_TERM result;
  if (owned && enif_monitor_process(env, h, &owner, &h->owner) != 0) {
    result = make_error(env, atoms.noproc);
  } else {
    result = enif_make_tuple2(env, atoms.ok, enif_make_resource(env, h));
  }
  enif_release_resource(h);
  return result;
}

/* Sends, and says what came of it; the attachment (or NULL) is taken over. */
static ERL_NIF_TERM
send_payload(ErlNifEnv *env, channel *c, const uint8_t *data, size_t size,
             message_attachment *attachment)
{
  int result = queue_send(&c->to_python, data, size, attachment);
  if (result == QUEUE_OK) {
    return atoms.ok;
  }
  if (attachment != NULL) {
    attachment->release(attachment);
  }
  switch (result) {
  case QUEUE_BUSY:
    return atoms.busy;
  case QUEUE_CLOSED:
    return make_error(env, atoms.closed);
  case QUEUE_TOO_LARGE:
    return make_error(env, atoms.too_large);
  default:
    return make_error(env, atoms.system_limit);
  }
}

ERL_NIF_TERM
nif_channel_send(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{ /* (Channel, Term) */
  channel *c;
  uint8_t scratch[SCRATCH_SIZE];
  nif_encoding encoding = {.data = scratch, .capacity = sizeof(scratch)};
  message_attachment *attachment = NULL;
  (void)argc;
  if (!get_channel(env, argv[0], &c)) {
    return enif_make_badarg(env);
  }
  if (!nif_encode_small(env, argv[1], &encoding)) {
    return atoms.declined;
  }
  if (encoding.handle_count > 0) {
    attachment = channel_attachment_new(NULL, encoding.handles, encoding.handle_count);
    if (attachment == NULL) {
      return make_error(env, atoms.system_limit);
    }
  }
  return send_payload(env, c, scratch, encoding.size, attachment);
}

/* Keeps the resources behind those of a list of references that are handles: their number, -1 when
 * it is no proper list, and then nothing is kept. */
static int
keep_handles(ErlNifEnv *env, ERL_NIF_TERM list, void **out, unsigned capacity)
{
  ERL_NIF_TERM head;
  unsigned count = 0;
  while (count < capacity && enif_get_list_cell(env, list, &head, &list)) {
    void *resource = nif_term_resource(env, head);
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
  uint8_t scratch[SCRATCH_SIZE];
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
  if (iovec->size <= SCRATCH_SIZE) {
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
nif_channel_send_iovec(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{ /* (Channel, Iovec, Handles) */
  channel *c;
  iovec_payload payload;
  (void)argc;
  if (!get_channel(env, argv[0], &c)) {
    return enif_make_badarg(env);
  }
  int good = get_payload(env, argv[1], argv[2], &payload);
  if (good == 0) {
    return enif_make_badarg(env);
  }
  if (good < 0) {
    return make_error(env, atoms.system_limit);
  }
  return send_payload(env, c, payload.data, payload.size, payload.attachment);
}

ERL_NIF_TERM
nif_channel_close(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{ /* (Channel, both | write) */
  channel *c;
  (void)argc;
  if (!get_channel(env, argv[0], &c)) {
    return enif_make_badarg(env);
  }
  if (enif_is_identical(argv[1], atoms.write)) {
    queue_close(&c->to_python);
  } else {
    channel_close(c);
  }
  return atoms.ok;
}

ERL_NIF_TERM
nif_channel_info(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{ /* (Channel) */
  channel *c;
  queue_info info;
  ERL_NIF_TERM map;
  (void)argc;
  if (!get_channel(env, argv[0], &c)) {
    return enif_make_badarg(env);
  }
  queue_get_info(&c->to_python, &info);
  ERL_NIF_TERM keys[] = {atoms.size,     atoms.max_size,  atoms.closed, atoms.messages,
                         atoms.total_in, atoms.total_out, atoms.busy,   atoms.waiters};
  ERL_NIF_TERM values[] = {
      enif_make_uint64(env, info.size),
      info.limits.max_size == QUEUE_UNBOUNDED ? atoms.infinity
                                              : enif_make_uint64(env, info.limits.max_size),
      enif_make_atom(env, info.closed ? "true" : "false"),
      enif_make_uint64(env, info.messages),
      enif_make_uint64(env, info.total_in),
      enif_make_uint64(env, info.total_out),
      enif_make_uint64(env, info.busy),
      enif_make_uint64(env, queue_count_kinds(info.waiters)),
  };
  enif_make_map_from_arrays(env, keys, values, sizeof(keys) / sizeof(keys[0]), &map);
  return map;
}

ERL_NIF_TERM
nif_channel_live(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{ /* () */
  (void)argc, (void)argv;
  return enif_make_tuple2(env, enif_make_uint64(env, channel_live()),
                          enif_make_uint64(env, message_live_blocks()));
}
