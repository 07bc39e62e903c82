/* The NIF library of beamloop: its table, its load and upgrade. */
#include <erl_nif.h>

#include "../channel/channel_nif.h"
#include "../term/handle_bundle_nif.h"
#include "atoms_nif.h"
#include "call_nif.h"
#include "descriptor_nif.h"
#include "emulator_sockets.h"
#include "hosted_nif.h"
#include "interp_nif.h"
#include "object_nif.h"
#include "runtime.h"
#include "thread.h"

#if ERL_NIF_MAJOR_VERSION > 2 || ERL_NIF_MINOR_VERSION >= 17
#define HALT_MS 2000

static void
on_halt(void *priv_data)
{
  (void)priv_data;
  runtime_halt(HALT_MS);
}

/* From OTP 26 on a halt can be heard of. */
static int
hear_of_halt(ErlNifEnv *env)
{
  return enif_set_option(env, ERL_NIF_OPT_ON_HALT, on_halt) == 0 ? 0 : -1;
}
#else
static int
hear_of_halt(ErlNifEnv *env)
{
  (void)env;
  return 0;
}
#endif

static int
open_types(ErlNifEnv *env)
{
  ErlNifResourceFlags flags = ERL_NIF_RT_CREATE | ERL_NIF_RT_TAKEOVER;
  atoms_nif_load(env);
  if (call_nif_load(env, flags) != 0 || object_nif_load(env, flags) != 0 ||
      hosted_nif_load(env, flags) != 0 || descriptor_nif_load(env, flags) != 0) {
    return -1;
  }
  if (handle_bundle_nif_load(env, flags) != 0 || channel_nif_load(env) != 0) {
    return -1;
  }
  return hear_of_halt(env);
}

static int
load(ErlNifEnv *env, void **priv_data, ERL_NIF_TERM load_info)
{
  (void)priv_data;
  (void)load_info;
  thread_remember_signal_mask();
  emulator_sockets_note();
  return open_types(env);
}

/* The library stays mapped (-z nodelete) and its threads run on: a new version of the module gets the
 * same code and the same interpreter. */
static int
upgrade(ErlNifEnv *env, void **priv_data, void **old_priv_data, ERL_NIF_TERM load_info)
{
  (void)priv_data;
  (void)old_priv_data;
  (void)load_info;
  return open_types(env);
}

static ErlNifFunc functions[] = {
    {"nif_default_python", 0, nif_default_python, 0},
    {"nif_interp_start", 7, nif_interp_start, 0},
    {"nif_interp_stop", 2, nif_interp_stop, 0},
    {"nif_interp_atexit", 1, nif_interp_atexit, 0},
    {"nif_info", 0, nif_info, 0},
    {"nif_call_submit", 7, nif_call_submit, 0},
    {"nif_call_cancel", 1, nif_call_cancel, 0},
    {"nif_call_take", 1, nif_call_take, 0},
    {"nif_call_taken", 1, nif_call_taken, 0},
    {"nif_loop_start", 1, nif_loop_start, 0},
    {"nif_loop_stop", 1, nif_loop_stop, 0},
    {"nif_descriptor_offer", 2, nif_descriptor_offer, 0},
    {"nif_descriptor_withdraw", 1, nif_descriptor_withdraw, 0},
    {"nif_channel_new", 4, nif_channel_new, 0},
    {"nif_channel_send", 3, nif_channel_send, 0},
    {"nif_channel_send", 4, nif_channel_send, 0},
    {"nif_channel_send_binary", 2, nif_channel_send_binary, 0},
    {"nif_channel_send_binary", 3, nif_channel_send_binary, 0},
    {"nif_channel_send_iovec", 3, nif_channel_send_iovec, 0},
    {"nif_channel_send_iovec", 4, nif_channel_send_iovec, 0},
    {"nif_handle_bundle", 1, nif_handle_bundle, 0},
    {"nif_byte_channel_send", 2, nif_byte_channel_send, 0},
    {"nif_byte_channel_send", 3, nif_byte_channel_send, 0},
    {"nif_byte_channel_send_iovec", 2, nif_byte_channel_send_iovec, 0},
    {"nif_byte_channel_send_iovec", 3, nif_byte_channel_send_iovec, 0},
    {"nif_byte_channel_drain", 4, nif_byte_channel_drain, 0},
    {"nif_channel_send_many", 3, nif_channel_send_many, 0},
    {"nif_channel_send_cancel", 1, nif_channel_send_cancel, 0},
    {"nif_channel_take", 2, nif_channel_take, 0},
    {"nif_channel_recv_wait", 3, nif_channel_recv_wait, 0},
    {"nif_channel_recv_claim", 1, nif_channel_recv_claim, 0},
    {"nif_channel_recv_cancel", 1, nif_channel_recv_cancel, 0},
    {"nif_channel_recv_give_up", 1, nif_channel_recv_give_up, 0},
    {"nif_channel_subscription", 2, nif_channel_subscription, 0},
    {"nif_channel_subscribe", 3, nif_channel_subscribe, 0},
    {"nif_channel_unsubscribe", 3, nif_channel_unsubscribe, 0},
    {"nif_channel_close", 3, nif_channel_close, 0},
    {"nif_channel_info", 2, nif_channel_info, 0},
    {"nif_channel_live", 0, nif_channel_live, 0},
};

ERL_NIF_INIT(beamloop_nif, functions, load, NULL, upgrade, NULL)
