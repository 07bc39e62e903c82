/* The Erlang face of channels: the NIFs behind py_channel, for the table in c_src/vm/nif.c. */
#ifndef BEAMLOOP_CHANNEL_NIF_H
#define BEAMLOOP_CHANNEL_NIF_H

#include <erl_nif.h>

/* From the library's load and upgrade.  Opens the handle's resource type; 0 or -1. */
int channel_nif_load(ErlNifEnv *env);

/* Plain NIFs, all O(1) but for what is said; badarg for arguments of a wrong type. */

/* nif_channel_new/2 (MaxSize :: pos_integer() | infinity, Owner :: pid() | none): {ok, Channel}, or
 * {error, noproc} when the owner is dead. */
ERL_NIF_TERM nif_channel_new(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]);

/* nif_channel_send/2 (Channel, Term): ok | busy | {error, closed | too_large}; declined when the
 * term has to come through nif_channel_send_iovec. */
ERL_NIF_TERM nif_channel_send(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]);

/* nif_channel_send_iovec/3 (Channel, Iovec, Handles): as above, but never declined.  Iovec is what
 * term_to_iovec gave; Handles is the list of the handles in the term.  O(length of both). */
ERL_NIF_TERM nif_channel_send_iovec(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]);

/* nif_channel_close/2 (Channel, both | write): ok. */
ERL_NIF_TERM nif_channel_close(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]);

/* nif_channel_info/1 (Channel): a map. */
ERL_NIF_TERM nif_channel_info(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]);

/* nif_channel_live/0: {Channels, BlocksOfPayload} alive in the whole VM. */
ERL_NIF_TERM nif_channel_live(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]);

#endif
