/* What the files of the Erlang face of channels share. */
#ifndef BEAMLOOP_CHANNEL_NIF_INTERNAL_H
#define BEAMLOOP_CHANNEL_NIF_INTERNAL_H

#include <erl_nif.h>

#include "channel_core.h"
#include "channel_subscriptions.h"

/* Set at load, constant afterwards. */
typedef struct channel_atoms_table {
  ERL_NIF_TERM ok, busy, error, closed, too_large, system_limit, declined, more, wait;
  ERL_NIF_TERM handed, encoded, empty, bad_message, to_erlang;
  ERL_NIF_TERM true_, false_, infinity, none, noproc, bytes, str, write;
  ERL_NIF_TERM size, max_size, messages, max_messages, waiters, receivers, senders;
  ERL_NIF_TERM total_in, total_out;
  ERL_NIF_TERM kinds[QUEUE_KINDS];
} channel_atoms_table;

extern channel_atoms_table channel_atoms;

/* channel_nif.c */

/* {error, Reason} */
ERL_NIF_TERM channel_make_error(ErlNifEnv *env, ERL_NIF_TERM reason);

/* The resource behind a term, borrowed from it; NULL when it is no channel. */
channel_handle *channel_nif_get(ErlNifEnv *env, ERL_NIF_TERM term);

/* Of a handle. */
subscriptions *channel_nif_subscriptions(channel_handle *h);

/* channel_recv_nif.c, channel_payload_nif.c */

/* From channel_nif_load: open the resource types.  0 or -1. */
int channel_recv_nif_load(ErlNifEnv *env);
int channel_payload_nif_load(ErlNifEnv *env);

/* What Erlang gets for a message from Python, which is consumed:  {ok, Term}, {encoded, Binary} for
 * binary_to_term, or {error, bad_message}. */
ERL_NIF_TERM channel_make_received(ErlNifEnv *env, message *m);

/* channel_send_nif.c */

#define CHANNEL_SCRATCH_SIZE 4096

/* What Erlang is told of a queue_result other than QUEUE_EMPTY. */
ERL_NIF_TERM channel_make_result(ErlNifEnv *env, int result);

/* channel_send_wait_nif.c */

/* From channel_nif_load: opens the resource type.  0 or -1. */
int channel_send_nif_load(ErlNifEnv *env);

/* Sends the payload of attachment (taken over), size bytes in all, or waits for room:  {wait, Sender},
 * or the result.  When a sender that waits is served, its process gets {ref, Result}. */
ERL_NIF_TERM channel_send_or_wait(ErlNifEnv *env, channel_handle *handle, ERL_NIF_TERM ref,
                                  size_t size, message_attachment *attachment);

#endif
