/* The Erlang face of channels: the NIFs behind py_channel, for the table in c_src/vm/nif.c. */
#ifndef BEAMLOOP_CHANNEL_NIF_H
#define BEAMLOOP_CHANNEL_NIF_H

#include <erl_nif.h>

/* From the library's load and upgrade.  Opens the handle's resource type; 0 or -1. */
int channel_nif_load(ErlNifEnv *env);

/* Plain NIFs, all O(1) but for what is said; badarg for arguments of a wrong type. */

/* Where a Kind is asked for, it is `terms', of py_channel, or `bytes', of py_byte_channel; a channel of
 * the other kind is badarg. */

/* nif_channel_new/4 ({MaxSize, MaxMessages, HighWatermark, LowWatermark}, Owner :: pid() | none,
 * bytes | str, Kind): {ok, Channel}, or {error, noproc} when the owner is dead.  The limits are positive
 * integers (LowWatermark may be 0) or infinity. */
ERL_NIF_TERM nif_channel_new(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]);

/* nif_channel_send/3 (Channel, Term, node()): ok | busy | {error, closed | too_large}; declined when the
 * term has to come through nif_channel_send_iovec.
 *
 * nif_channel_send/4 (Channel, Term, node(), Ref): instead of busy, {wait, Sender}; the process gets
 * {Ref, ok | {error, closed}} when its message was sent or refused.  So with Ref below. */
ERL_NIF_TERM nif_channel_send(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]);

/* nif_channel_send_binary/2,3 (Channel, Binary[, Ref]): as above, but never declined; the binary, of
 * more than 64 bytes, is kept by reference. */
ERL_NIF_TERM nif_channel_send_binary(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]);

/* nif_channel_send_iovec/3,4 (Channel, Iovec, Handles[, Ref]): as above, never declined.  Iovec is
 * what term_to_iovec gave; Handles is a list of handles, and of bundles of them, that keeps those in the
 * term.  O(length of both). */
ERL_NIF_TERM nif_channel_send_iovec(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]);

/* nif_channel_send_many/3 (Channel, Terms, node()): {Result, Sent, Rest}: the first Sent terms were sent, Rest
 * was not.  Result is that of the first term of Rest, or more when the call has done enough, or
 * Rest is no list with a head. */
ERL_NIF_TERM nif_channel_send_many(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]);

/* nif_byte_channel_send/2,3 (Channel, Binary[, Ref]) and nif_byte_channel_send_iovec/2,3 (Channel,
 * Binaries[, Ref]): one message to a byte channel, results as above, never declined.  What is large is
 * kept by reference.  O(length of the list). */
ERL_NIF_TERM nif_byte_channel_send(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]);
ERL_NIF_TERM nif_byte_channel_send_iovec(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]);

/* nif_byte_channel_drain/4 (Channel, Above, Mark, Ref): ok, no more than Above bytes wait for Python; or
 * wait: the process gets {Ref, drained} when no more than Mark do, or the channel is closed.
 * {error, system_limit}. */
ERL_NIF_TERM nif_byte_channel_drain(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]);

/* nif_channel_send_cancel/1 (Sender): true, the message was not sent and there will be no answer;  or
 * false, the answer is there or under way. */
ERL_NIF_TERM nif_channel_send_cancel(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]);

/* nif_channel_take/2 (Channel, Kind): the next message from Python, {ok, Term} or {encoded, Binary},
 * which is for binary_to_term; empty; {error, closed | bad_message}. */
ERL_NIF_TERM nif_channel_take(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]);

/* nif_channel_recv_wait/3 (Channel, Kind, Ref): as above, but instead of empty, {wait, Receiver}; the
 * process gets {Ref, handed} when it may claim.  {error, system_limit}. */
ERL_NIF_TERM nif_channel_recv_wait(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]);

/* nif_channel_recv_claim/1 (Receiver): after {Ref, handed}, once: as nif_channel_take. */
ERL_NIF_TERM nif_channel_recv_claim(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]);

/* nif_channel_recv_cancel/1 (Receiver): true, it waits no more and there will be no {Ref, handed}; or
 * false, that is there or under way. */
ERL_NIF_TERM nif_channel_recv_cancel(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]);

/* nif_channel_recv_give_up/1 (Receiver): it waits no more, and what it was handed goes to the next.  true,
 * there will be no {Ref, handed}; or false, that is there or under way. */
ERL_NIF_TERM nif_channel_recv_give_up(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]);

/* nif_channel_subscription/2 (Channel, Kind): the process that delivers to the calling one, or none;
 * nif_channel_subscribe/3 (Channel, Kind, Deliverer): ok, remembers it; nif_channel_unsubscribe/3
 * (Channel, Kind, Subscriber): ok, the calling process delivers no more to that one.  O(log
 * subscribers). */
ERL_NIF_TERM nif_channel_subscription(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]);
ERL_NIF_TERM nif_channel_subscribe(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]);
ERL_NIF_TERM nif_channel_unsubscribe(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]);

/* nif_channel_close/3 (Channel, both | write, Kind): ok. */
ERL_NIF_TERM nif_channel_close(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]);

/* nif_channel_info/2 (Channel, Kind): a map. */
ERL_NIF_TERM nif_channel_info(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]);

/* nif_channel_live/0: {Channels, BlocksOfPayload} alive in the whole VM. */
ERL_NIF_TERM nif_channel_live(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]);

#endif
