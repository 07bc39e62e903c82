#include "channel_nif.h"

#include <string.h>

#include "channel_nif_internal.h"
#include "channel_subscriptions.h"
#include "../term/handles.h"
#include "../term/nif_encode.h"

/* The resource behind a py_channel:channel(). */
typedef struct erlang_handle {
  channel_handle base;
  int registered; /* constant once a term was made */
  ErlNifMonitor owner;
  subscriptions subscriptions;
} erlang_handle;

static ErlNifResourceType *handle_type;

channel_atoms_table channel_atoms;

static void
make_atoms(ErlNifEnv *env)
{
  channel_atoms_table *a = &channel_atoms;
  const struct {
    ERL_NIF_TERM *atom;
    const char *name;
  } all[] = {
      {&a->ok, "ok"},
      {&a->busy, "busy"},
      {&a->error, "error"},
      {&a->closed, "closed"},
      {&a->too_large, "too_large"},
      {&a->system_limit, "system_limit"},
      {&a->declined, "declined"},
      {&a->more, "more"},
      {&a->handed, "handed"},
      {&a->drained, "drained"},
      {&a->encoded, "encoded"},
      {&a->empty, "empty"},
      {&a->bad_message, "bad_message"},
      {&a->to_erlang, "to_erlang"},
      {&a->wait, "wait"},
      {&a->true_, "true"},
      {&a->false_, "false"},
      {&a->infinity, "infinity"},
      {&a->none, "none"},
      {&a->noproc, "noproc"},
      {&a->bytes, "bytes"},
      {&a->str, "str"},
      {&a->terms, "terms"},
      {&a->write, "write"},
      {&a->size, "size"},
      {&a->max_size, "max_size"},
      {&a->messages, "messages"},
      {&a->max_messages, "max_messages"},
      {&a->waiters, "waiters"},
      {&a->receivers, "receivers"},
      {&a->senders, "senders"},
      {&a->total_in, "total_in"},
      {&a->total_out, "total_out"},
      {&a->kinds[QUEUE_COROUTINE], "coroutine"},
      {&a->kinds[QUEUE_THREAD], "thread"},
      {&a->kinds[QUEUE_PROCESS], "process"},
  };
  for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
    *all[i].atom = enif_make_atom(env, all[i].name);
  }
}

/* Without a handle nobody in Erlang can send or receive any more. */
static void
handle_destroyed(ErlNifEnv *env, void *resource)
{
  erlang_handle *h = resource;
  channel *c = h->base.channel;
  (void)env;
  if (h->registered) {
    handles_remove(h);
  }
  subscriptions_clear(&h->subscriptions);
  if (atomic_fetch_sub(&c->handles, 1) == 1 && atomic_load(&c->given)) {
    channel_close(c);
  }
  channel_decref(c);
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
  if (handle_type == NULL || nif_encode_register_type(handle_type) != 0) {
    return -1;
  }
  return channel_send_nif_load(env) == 0 && channel_recv_nif_load(env) == 0 &&
                 channel_payload_nif_load(env) == 0 && byte_drain_nif_load(env) == 0
             ? 0
             : -1;
}

ERL_NIF_TERM
channel_make_error(ErlNifEnv *env, ERL_NIF_TERM reason)
{
  return enif_make_tuple2(env, channel_atoms.error, reason);
}

static channel_handle *
get_handle(ErlNifEnv *env, ERL_NIF_TERM term, int bytes)
{
  void *resource;
  if (!enif_get_resource(env, term, handle_type, &resource)) {
    return NULL;
  }
  channel_handle *h = resource;
  return h->channel->bytes == bytes ? h : NULL;
}

channel_handle *
channel_nif_get(ErlNifEnv *env, ERL_NIF_TERM term)
{
  return get_handle(env, term, 0);
}

channel_handle *
channel_nif_get_bytes(ErlNifEnv *env, ERL_NIF_TERM term)
{
  return get_handle(env, term, 1);
}

channel_handle *
channel_nif_get_kind(ErlNifEnv *env, ERL_NIF_TERM term, ERL_NIF_TERM kind)
{
  return get_handle(env, term, enif_is_identical(kind, channel_atoms.bytes));
}

subscriptions *
channel_nif_subscriptions(channel_handle *h)
{
  return &((erlang_handle *)h)->subscriptions;
}

/* A number from least on, or infinity. */
static int
get_limit(ErlNifEnv *env, ERL_NIF_TERM term, ErlNifUInt64 least, size_t *out)
{
  ErlNifUInt64 value;
  if (enif_is_identical(term, channel_atoms.infinity)) {
    *out = QUEUE_UNBOUNDED;
    return 1;
  }
  if (!enif_get_uint64(env, term, &value) || value < least) {
    return 0;
  }
  *out = value > QUEUE_UNBOUNDED ? QUEUE_UNBOUNDED : (size_t)value;
  return 1;
}

static int
get_limits(ErlNifEnv *env, ERL_NIF_TERM term, queue_limits *out)
{ /* {MaxSize, MaxMessages, HighWatermark, LowWatermark} */
  const ERL_NIF_TERM *e;
  int arity;
  return enif_get_tuple(env, term, &arity, &e) && arity == 4 &&
         get_limit(env, e[0], 1, &out->max_size) && get_limit(env, e[1], 1, &out->max_messages) &&
         get_limit(env, e[2], 1, &out->high_watermark) &&
         get_limit(env, e[3], 0, &out->low_watermark);
}

void *
channel_memory_alloc(size_t size)
{
  return enif_alloc(size);
}

void
channel_memory_free(void *memory)
{
  enif_free(memory);
}

/* A resource for the channel, registered, with one count; NULL when memory is short. */
static erlang_handle *
new_handle(channel *c)
{
  erlang_handle *h = enif_alloc_resource(handle_type, sizeof(*h));
  if (h == NULL) {
    return NULL;
  }
  memset(h, 0, sizeof(*h));
  channel_incref(c);
  h->base.channel = c;
  atomic_fetch_add(&c->handles, 1);
  subscriptions_init(&h->subscriptions);
  if (handles_add(h, HANDLE_CHANNEL) == 0) {
    h->registered = 1;
    if (atomic_load(&c->handle) == NULL) {
      handles_number(h, &c->number);
    }
    atomic_store(&c->handle, h);
    return h;
  }
  enif_release_resource(h);
  return NULL;
}

/* Makes a channel with its handle, which is given. */
static erlang_handle *
new_channel(const queue_limits *limits, int bytes)
{
  channel *c = channel_create(limits, bytes);
  if (c == NULL) {
    return NULL;
  }
  atomic_store(&c->given, 1);
  erlang_handle *h = new_handle(c);
  channel_decref(c);
  return h;
}

void *
channel_keep_handle(channel *c)
{
  void *known = atomic_load(&c->handle);
  void *kept = known == NULL ? NULL : handles_keep(known);
  /* Another channel's handle may be there by now. */
  if (kept != NULL && ((channel_handle *)kept)->channel != c) {
    handle_release(kept);
    kept = NULL;
  }
  if (kept == NULL) {
    kept = new_handle(c);
  }
  if (kept != NULL && c->held == NULL && !atomic_load(&c->given)) {
    handle_keep(kept);
    c->held = kept;
  }
  return kept;
}

ERL_NIF_TERM
nif_channel_new(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{ /* (Limits, Owner, bytes | str, terms | bytes) */
  queue_limits limits;
  ErlNifPid owner;
  (void)argc;
  int owned = !enif_is_identical(argv[1], channel_atoms.none);
  int as_str = enif_is_identical(argv[2], channel_atoms.str);
  if (!get_limits(env, argv[0], &limits) || (owned && !enif_get_local_pid(env, argv[1], &owner)) ||
      (!as_str && !enif_is_identical(argv[2], channel_atoms.bytes))) {
    return enif_make_badarg(env);
  }
  erlang_handle *h = new_channel(&limits, enif_is_identical(argv[3], channel_atoms.bytes));
  if (h == NULL) {
    return channel_make_error(env, channel_atoms.system_limit);
  }
  h->base.channel->binaries_as_str = as_str;
  ERL_NIF_TERM result;
  if (owned && enif_monitor_process(env, h, &owner, &h->owner) != 0) {
    result = channel_make_error(env, channel_atoms.noproc);
  } else {
    result = enif_make_tuple2(env, channel_atoms.ok, enif_make_resource(env, h));
  }
  enif_release_resource(h);
  return result;
}

ERL_NIF_TERM
nif_channel_close(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{ /* (Channel, both | write, Kind) */
  channel_handle *h = channel_nif_get_kind(env, argv[0], argv[2]);
  (void)argc;
  if (h == NULL) {
    return enif_make_badarg(env);
  }
  if (enif_is_identical(argv[1], channel_atoms.write)) {
    queue_close(&h->channel->to_python);
  } else {
    channel_close(h->channel);
  }
  return channel_atoms.ok;
}

static ERL_NIF_TERM
make_limit(ErlNifEnv *env, size_t value)
{
  return value == QUEUE_UNBOUNDED ? channel_atoms.infinity : enif_make_uint64(env, value);
}

/* #{coroutine => N, thread => N, process => N} */
static ERL_NIF_TERM
make_by_kind(ErlNifEnv *env, const size_t *counts)
{
  ERL_NIF_TERM values[QUEUE_KINDS], map;
  for (int i = 0; i < QUEUE_KINDS; i++) {
    values[i] = enif_make_uint64(env, counts[i]);
  }
  enif_make_map_from_arrays(env, channel_atoms.kinds, values, QUEUE_KINDS, &map);
  return map;
}

/* The state of one direction. */
static ERL_NIF_TERM
make_queue_info(ErlNifEnv *env, queue *q)
{
  queue_info info;
  ERL_NIF_TERM map;
  queue_get_info(q, &info);
  const channel_atoms_table *a = &channel_atoms;
  ERL_NIF_TERM pairs[][2] = {
      {a->size, enif_make_uint64(env, info.size)},
      {a->max_size, make_limit(env, info.limits.max_size)},
      {a->closed, info.closed ? a->true_ : a->false_},
      {a->messages, enif_make_uint64(env, info.messages)},
      {a->max_messages, make_limit(env, info.limits.max_messages)},
      {a->total_in, enif_make_uint64(env, info.total_in)},
      {a->total_out, enif_make_uint64(env, info.total_out)},
      {a->busy, enif_make_uint64(env, info.busy)},
      {a->waiters, enif_make_uint64(env, queue_count_kinds(info.waiters))},
      {a->receivers, make_by_kind(env, info.waiters)},
      {a->senders, make_by_kind(env, info.senders)},
  };
  enum { COUNT = sizeof(pairs) / sizeof(pairs[0]) };
  ERL_NIF_TERM keys[COUNT], values[COUNT];
  for (int i = 0; i < COUNT; i++) {
    keys[i] = pairs[i][0];
    values[i] = pairs[i][1];
  }
  enif_make_map_from_arrays(env, keys, values, COUNT, &map);
  return map;
}

ERL_NIF_TERM
nif_channel_info(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{ /* (Channel, Kind) */
  channel_handle *h = channel_nif_get_kind(env, argv[0], argv[1]);
  ERL_NIF_TERM map;
  (void)argc;
  if (h == NULL) {
    return enif_make_badarg(env);
  }
  enif_make_map_put(env, make_queue_info(env, &h->channel->to_python), channel_atoms.to_erlang,
                    make_queue_info(env, &h->channel->to_erlang), &map);
  return map;
}

ERL_NIF_TERM
nif_channel_live(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{ /* () */
  (void)argc, (void)argv;
  return enif_make_tuple2(env, enif_make_uint64(env, channel_live()),
                          enif_make_uint64(env, message_live_blocks()));
}
