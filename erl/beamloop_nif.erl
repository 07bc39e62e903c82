%% @private
%% @doc The functions of the NIF library `priv/beamloop.so'. The other modules are their users; each
%% function is described beside its C code, and none takes longer than a send does.
-module(beamloop_nif).

-export([nif_default_python/0, nif_interp_start/7, nif_interp_stop/2, nif_interp_atexit/1, nif_info/0]).
-export([nif_call_submit/7, nif_call_cancel/1, nif_call_take/1, nif_call_taken/1]).
-export([nif_loop_start/1, nif_loop_stop/1]).
-export([nif_descriptor_offer/2, nif_descriptor_withdraw/1]).
-export([nif_channel_new/4, nif_channel_close/3, nif_channel_info/2, nif_channel_live/0]).
-export([nif_channel_send/3, nif_channel_send/4, nif_channel_send_binary/2,
         nif_channel_send_binary/3, nif_channel_send_iovec/3, nif_channel_send_iovec/4,
         nif_channel_send_many/3, nif_channel_send_cancel/1]).
-export([nif_byte_channel_drain/4, nif_byte_channel_send/2, nif_byte_channel_send/3, nif_byte_channel_send_iovec/2,
         nif_byte_channel_send_iovec/3]).
-export([nif_channel_take/2, nif_channel_recv_wait/3, nif_channel_recv_claim/1,
         nif_channel_recv_cancel/1, nif_channel_recv_give_up/1]).
-export([nif_handle_bundle/1]).
-export([nif_channel_subscription/2, nif_channel_subscribe/3, nif_channel_unsubscribe/3]).
-export_type([kind/0]).

-type kind() :: terms | bytes.

-type sent() :: ok | busy | {error, closed | too_large | system_limit}.
-type sent_or_waits() :: ok | {wait, reference()} | {error, closed | too_large | system_limit}.

-on_load(load/0).

-spec load() -> ok | {error, {atom(), string()}}.
load() ->
    erlang:load_nif(filename:join(code:priv_dir(beamloop), "beamloop"), 0).

-spec nif_default_python() -> binary().
nif_default_python() ->
    erlang:nif_error(not_loaded).

-spec nif_interp_start(reference(), binary(), binary(), pos_integer(), non_neg_integer(),
                       non_neg_integer(), non_neg_integer()) -> ok.
nif_interp_start(_Ref, _Executable, _Packages, _MaxWorkers, _MaxQueued, _IdleMs, _MaxNewAtoms) ->
    erlang:nif_error(not_loaded).

-spec nif_interp_stop(reference(), non_neg_integer()) -> ok.
nif_interp_stop(_Ref, _Milliseconds) ->
    erlang:nif_error(not_loaded).

-spec nif_interp_atexit(reference()) -> ok.
nif_interp_atexit(_Ref) ->
    erlang:nif_error(not_loaded).

-spec nif_info() -> #{atom() => atom() | non_neg_integer()}.
nif_info() ->
    erlang:nif_error(not_loaded).

-spec nif_call_submit(reference(), 0..3, iodata(), [reference()], non_neg_integer(),
                      reference() | default, boolean()) ->
          {ok, reference()} | {error, overloaded | not_running | enomem}.
nif_call_submit(_Ref, _Kind, _Payload, _Handles, _Flags, _Loop, _Detached) ->
    erlang:nif_error(not_loaded).

-spec nif_call_take(reference()) -> ok.
nif_call_take(_Call) ->
    erlang:nif_error(not_loaded).

-spec nif_call_taken(reference()) -> boolean().
nif_call_taken(_Call) ->
    erlang:nif_error(not_loaded).

-spec nif_loop_start(reference()) -> ok | {error, not_running | enomem}.
nif_loop_start(_Ref) ->
    erlang:nif_error(not_loaded).

-spec nif_loop_stop(reference()) -> ok.
nif_loop_stop(_Loop) ->
    erlang:nif_error(not_loaded).

-spec nif_descriptor_offer(integer(), copy | same) ->
          {ok, reference(), pos_integer()} | {error, ebadf | emfile | enomem | emulator}.
nif_descriptor_offer(_Fd, _Way) ->
    erlang:nif_error(not_loaded).

-spec nif_descriptor_withdraw(reference()) -> boolean().
nif_descriptor_withdraw(_Descriptor) ->
    erlang:nif_error(not_loaded).

-spec nif_call_cancel(reference()) -> boolean().
nif_call_cancel(_Call) ->
    erlang:nif_error(not_loaded).

-spec nif_channel_new({pos_integer() | infinity, pos_integer() | infinity,
                       pos_integer() | infinity, non_neg_integer() | infinity},
                      pid() | none, bytes | str, kind()) ->
          {ok, reference()} | {error, noproc | system_limit}.
nif_channel_new(_Limits, _Owner, _Binaries, _Kind) ->
    erlang:nif_error(not_loaded).

-spec nif_channel_send(reference(), term(), node()) -> declined | sent().
nif_channel_send(_Channel, _Term, _Node) ->
    erlang:nif_error(not_loaded).

-spec nif_channel_send(reference(), term(), node(), reference()) -> declined | sent_or_waits().
nif_channel_send(_Channel, _Term, _Node, _Ref) ->
    erlang:nif_error(not_loaded).

-spec nif_channel_send_binary(reference(), binary()) -> sent().
nif_channel_send_binary(_Channel, _Binary) ->
    erlang:nif_error(not_loaded).

-spec nif_channel_send_binary(reference(), binary(), reference()) -> sent_or_waits().
nif_channel_send_binary(_Channel, _Binary, _Ref) ->
    erlang:nif_error(not_loaded).

-spec nif_channel_send_iovec(reference(), [binary()], [reference()]) -> sent().
nif_channel_send_iovec(_Channel, _Iovec, _Handles) ->
    erlang:nif_error(not_loaded).

-spec nif_channel_send_iovec(reference(), [binary()], [reference()], reference()) ->
          sent_or_waits().
nif_channel_send_iovec(_Channel, _Iovec, _Handles, _Ref) ->
    erlang:nif_error(not_loaded).

-spec nif_byte_channel_drain(reference(), non_neg_integer(), non_neg_integer(), reference()) ->
          ok | wait | {error, system_limit}.
nif_byte_channel_drain(_Channel, _Above, _Mark, _Ref) ->
    erlang:nif_error(not_loaded).

-spec nif_byte_channel_send(reference(), binary()) -> sent().
nif_byte_channel_send(_Channel, _Binary) ->
    erlang:nif_error(not_loaded).

-spec nif_byte_channel_send(reference(), binary(), reference()) -> sent_or_waits().
nif_byte_channel_send(_Channel, _Binary, _Ref) ->
    erlang:nif_error(not_loaded).

-spec nif_byte_channel_send_iovec(reference(), [binary()]) -> sent().
nif_byte_channel_send_iovec(_Channel, _Binaries) ->
    erlang:nif_error(not_loaded).

-spec nif_byte_channel_send_iovec(reference(), [binary()], reference()) -> sent_or_waits().
nif_byte_channel_send_iovec(_Channel, _Binaries, _Ref) ->
    erlang:nif_error(not_loaded).

-spec nif_handle_bundle([reference()]) -> [reference()].
nif_handle_bundle(_References) ->
    erlang:nif_error(not_loaded).

-spec nif_channel_send_many(reference(), [term()], node()) ->
          {more | declined | sent(), non_neg_integer(), [term()]}.
nif_channel_send_many(_Channel, _Terms, _Node) ->
    erlang:nif_error(not_loaded).

-spec nif_channel_send_cancel(reference()) -> boolean().
nif_channel_send_cancel(_Sender) ->
    erlang:nif_error(not_loaded).

-type received() :: {ok, term()} | {encoded, binary()} | {error, closed | bad_message}.

-spec nif_channel_take(reference(), kind()) -> received() | empty.
nif_channel_take(_Channel, _Kind) ->
    erlang:nif_error(not_loaded).

-spec nif_channel_recv_wait(reference(), kind(), reference()) ->
          {wait, reference()} | received() | {error, system_limit}.
nif_channel_recv_wait(_Channel, _Kind, _Ref) ->
    erlang:nif_error(not_loaded).

-spec nif_channel_recv_claim(reference()) -> received().
nif_channel_recv_claim(_Receiver) ->
    erlang:nif_error(not_loaded).

-spec nif_channel_recv_cancel(reference()) -> boolean().
nif_channel_recv_cancel(_Receiver) ->
    erlang:nif_error(not_loaded).

-spec nif_channel_recv_give_up(reference()) -> boolean().
nif_channel_recv_give_up(_Receiver) ->
    erlang:nif_error(not_loaded).

-spec nif_channel_subscription(reference(), kind()) -> pid() | none.
nif_channel_subscription(_Channel, _Kind) ->
    erlang:nif_error(not_loaded).

-spec nif_channel_subscribe(reference(), kind(), pid()) -> ok | {error, system_limit}.
nif_channel_subscribe(_Channel, _Kind, _Deliverer) ->
    erlang:nif_error(not_loaded).

-spec nif_channel_unsubscribe(reference(), kind(), pid()) -> ok.
nif_channel_unsubscribe(_Channel, _Kind, _Subscriber) ->
    erlang:nif_error(not_loaded).

-spec nif_channel_close(reference(), both | write, kind()) -> ok.
nif_channel_close(_Channel, _Direction, _Kind) ->
    erlang:nif_error(not_loaded).

-spec nif_channel_info(reference(), kind()) -> map().
nif_channel_info(_Channel, _Kind) ->
    erlang:nif_error(not_loaded).

-spec nif_channel_live() -> {non_neg_integer(), non_neg_integer()}.
nif_channel_live() ->
    erlang:nif_error(not_loaded).
