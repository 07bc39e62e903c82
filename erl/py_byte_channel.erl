%% @doc Byte channels: raw bytes between Erlang processes and Python, as they are.
%%
%% A byte channel is to `py_channel' what a socket is to a mailbox: the same two bounded queues, the same
%% waiting, backpressure and closing, but its messages are chunks of bytes that nobody encodes or decodes.
%% The boundaries of chunks are kept, and empty chunks are chunks.  A byte channel is no argument for
%% `py_channel' and the other way round: that is `badarg'.
-module(py_byte_channel).

-export([new/0, new/1, send/2, send/3, close/1, close/2, info/1]).
-export([recv/1, recv/2, try_receive/1, subscribe/1, subscribe/2, unsubscribe/1]).

-export_type([channel/0, options/0]).

-opaque channel() :: reference().

-type options() :: #{
    max_size => pos_integer() | infinity,
    max_messages => pos_integer() | infinity,
    high_watermark => pos_integer() | infinity,
    low_watermark => non_neg_integer(),
    owner => pid()
}.
%% As for `py_channel:new/1'.  A chunk counts its bytes, and 32 at least.

%% @doc A new unbounded byte channel.  It closes by itself when Erlang has dropped every reference to it.
-spec new() -> {ok, channel()} | {error, system_limit}.
new() ->
    new(#{}).

%% @doc A new byte channel with options; an unknown or bad option is `badarg'.
-spec new(options()) -> {ok, channel()} | {error, noproc | system_limit}.
new(Options) ->
    beamloop_channel:new(Options, bytes).

%% @doc Sends one chunk.  Large binaries are not copied.  `ok': it is queued, or was handed to a
%% receiver; `busy': no room now, or others wait for room already, it was not queued; `{error, closed}';
%% `{error, too_large}': it is larger than `max_size' and never fits.  What is no iodata is `badarg'.
-spec send(channel(), iodata()) -> ok | busy | {error, closed | too_large | system_limit}.
send(Channel, Data) when is_binary(Data) ->
    beamloop_nif:nif_byte_channel_send(Channel, whole(Data));
send(Channel, Data) ->
    beamloop_nif:nif_byte_channel_send_iovec(Channel, iovec(Data)).

%% @doc Sends one chunk and waits for room, for `Timeout' milliseconds or as long as it takes.  Those who
%% wait are served in the order in which they came.  After `{error, timeout}' the chunk was not and
%% will not be sent; nor is that of a process which dies while it waits.
-spec send(channel(), iodata(), timeout()) ->
          ok | {error, timeout | closed | too_large | system_limit}.
send(Channel, Data, Timeout) ->
    beamloop_channel:is_timeout(Timeout) orelse error(badarg, [Channel, Data, Timeout]),
    case send(Channel, Data) of
        busy when Timeout =:= 0 ->
            {error, timeout};
        busy ->
            beamloop_channel:wait_for_room(fun(Ref) -> send_or_wait(Channel, Data, Ref) end, Timeout);
        Result ->
            Result
    end.

send_or_wait(Channel, Data, Ref) when is_binary(Data) ->
    beamloop_nif:nif_byte_channel_send(Channel, whole(Data), Ref);
send_or_wait(Channel, Data, Ref) ->
    beamloop_nif:nif_byte_channel_send_iovec(Channel, iovec(Data), Ref).

%% Small ones are copied into the channel in any case.
whole(Binary) when byte_size(Binary) =< 4096 -> Binary;
whole(Binary) -> beamloop_channel:own(Binary).

iovec(Data) ->
    beamloop_channel:pieces(erlang:iolist_to_iovec(Data)).

%% @doc The next chunk from Python, as soon as there is one.
-spec recv(channel()) -> {ok, binary()} | {error, closed | system_limit}.
recv(Channel) ->
    recv(Channel, infinity).

%% @doc The next chunk from Python; waits for it for `Timeout' milliseconds.  Those who wait are served in
%% the order in which they came.  A chunk whose receiver dies before it has returned from here goes to
%% the next one.  `{error, closed}': the channel is closed and drained.
-spec recv(channel(), timeout()) -> {ok, binary()} | {error, timeout | closed | system_limit}.
recv(Channel, Timeout) ->
    beamloop_channel:recv(Channel, bytes, Timeout).

%% @doc The next chunk from Python if there is one.
-spec try_receive(channel()) -> {ok, binary()} | {error, empty | closed}.
try_receive(Channel) ->
    beamloop_channel:try_recv(Channel, bytes).

%% @doc As `subscribe(Channel, #{active => true})'.
-spec subscribe(channel()) -> ok | {error, system_limit}.
subscribe(Channel) ->
    subscribe(Channel, #{}).

%% @doc Has the chunks from Python sent to the calling process, as
%% ```
%% {py_byte_channel, Channel, {data, Binary}}
%% {py_byte_channel, Channel, closed}'''
%% How many comes with `active', and the rest is as for `py_channel:subscribe/2'.
-spec subscribe(channel(), py_channel:subscribe_options()) -> ok | {error, system_limit}.
subscribe(Channel, Options) ->
    beamloop_channel:subscribe(Channel, bytes, Options).

%% @doc Ends the subscription of the calling process, if it has one.  Nothing more is sent to it
%% afterwards; what is in its mailbox already stays there.
-spec unsubscribe(channel()) -> ok.
unsubscribe(Channel) ->
    beamloop_subscription:stop(Channel, bytes).

%% @doc Closes both directions.  Senders get `{error, closed}' at once; what is queued can still be
%% received.  Closing again does nothing.
-spec close(channel()) -> ok.
close(Channel) ->
    beamloop_nif:nif_channel_close(Channel, both, bytes).

%% @doc Closes the direction that Erlang writes to.
-spec close(channel(), write) -> ok.
close(Channel, write) ->
    beamloop_nif:nif_channel_close(Channel, write, bytes);
close(Channel, What) ->
    error(badarg, [Channel, What]).

%% @doc The state of the channel.
-spec info(channel()) -> py_channel:info().
info(Channel) ->
    beamloop_nif:nif_channel_info(Channel, bytes).
