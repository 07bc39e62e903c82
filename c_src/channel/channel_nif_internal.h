/* What the files of the Erlang face of channels share. */
#ifndef BEAMLOOP_CHANNEL_NIF_INTERNAL_H
#define BEAMLOOP_CHANNEL_NIF_INTERNAL_H

#include <erl_nif.h>

#include "channel_core.h"
#include "channel_subscriptions.h"

/* Set at load, constant afterwards. */
typedef struct channel_atoms_table {
  ERL_NIF_TERM ok, busy, error, closed, too_large, system_limit, declined, more, wait;
  ERL_NIF_TERM handed, drained, encoded, empty, bad_message, to_erlang;
  ERL_NIF_TERM true_, false_, infinity, none, noproc, bytes, str, terms, write;
  ERL_NIF_TERM size, max_size, messages, max_messages, waiters, receivers, senders;
  ERL_NIF_TERM total_in, total_out;
  ERL_NIF_TERM kinds[QUEUE_KINDS];
} channel_atoms_table;

extern channel_atoms_table channel_atoms;

/* channel_nif.c */

/* {error, Reason} */
ERL_NIF_TERM channel_make_error(ErlNifEnv *env, ERL_NIF_TERM reason);

/* The resource behind a term, borrowed from it; NULL when it is no channel of terms, no channel of
 * bytes, or none of the kind `terms | bytes'. */
channel_handle *channel_nif_get(ErlNifEnv *env, ERL_NIF_TERM term);
channel_handle *channel_nif_get_bytes(ErlNifEnv *env, ERL_NIF_TERM term);
channel_handle *channel_nif_get_kind(ErlNifEnv *env, ERL_NIF_TERM term, ERL_NIF_TERM kind);

/* Of a handle. */
subscriptions *channel_nif_subscriptions(channel_handle *h);

/* channel_recv_nif.c, channel_payload_nif.c, byte_drain_nif.c */

/* From channel_nif_load: open the resource types.  0 or -1. */
int channel_recv_nif_load(ErlNifEnv *env);
int channel_payload_nif_load(ErlNifEnv *env);
int byte_drain_nif_load(ErlNifEnv *env);

/* What Erlang gets for a message from Python, which is consumed:  {ok, Term}, {encoded, Binary} for
 * binary_to_term, or {error, bad_message}; of a byte channel {ok, Binary}. */
ERL_NIF_TERM channel_make_received(ErlNifEnv *env, message *m);
ERL_NIF_TERM channel_make_received_bytes(ErlNifEnv *env, message *m);

/* channel_send_nif.c */

#define CHANNEL_SCRATCH_SIZE 4096

/* What Erlang is told of a queue_result other than QUEUE_EMPTY. */
ERL_NIF_TERM channel_make_result(ErlNifEnv *env, int result);

/* Sends a payload to Python and makes Erlang's answer; waits for room when ref (or NULL) says for whom.
 * The attachment (or NULL) is taken over. */
ERL_NIF_TERM channel_send_for(ErlNifEnv *env, channel_handle *h, const uint8_t *data, size_t size,
                              message_attachment *attachment, const ERL_NIF_TERM *ref);

/* As channel_send_for, of what term_to_iovec gave and the list of the handles in it; badarg when h is
 * NULL or they are something else. */
ERL_NIF_TERM channel_send_iovec(ErlNifEnv *env, channel_handle *h, ERL_NIF_TERM iovec,
                                ERL_NIF_TERM handles, const ERL_NIF_TERM *ref);

/* channel_send_wait_nif.c */

/* From channel_nif_load: opens the resource type.  0 or -1. */
int channel_send_nif_load(ErlNifEnv *env);

/* Sends the payload of attachment (taken over), size bytes in all, or waits for room:  {wait, Sender},
 * or the result.  When a sender that waits is served, its process gets {ref, Result}. */
ERL_NIF_TERM channel_send_or_wait(ErlNifEnv *env, channel_handle *handle, ERL_NIF_TERM ref,
                                  size_t size, message_attachment *attachment);

#endif
