%% @doc Byte channels: raw bytes between Erlang processes and Python, as they are.
%%
%% A byte channel is to `py_channel' what a socket is to a mailbox: the same two bounded queues, the same
%% waiting, backpressure and closing, but its messages are chunks of bytes that nobody encodes or decodes.
%% The boundaries of chunks are kept, and empty chunks are chunks.  A byte channel is no argument for
%% `py_channel' and the other way round: that is `badarg'.
-module(py_byte_channel).

-export([new/0, new/1, send/2, send/3, send_file/2, send_file/3, close/1, close/2, info/1]).
-export([recv/1, recv/2, try_receive/1, subscribe/1, subscribe/2, unsubscribe/1]).

-export_type([channel/0, options/0, file_options/0]).

%% What send_file reads at once, and what it lets wait for Python.
-define(FILE_CHUNK, 65536).
-define(FILE_WINDOW, 262144).

-opaque channel() :: reference().

-type options() :: #{
    max_size => pos_integer() | infinity,
    max_messages => pos_integer() | infinity,
    high_watermark => pos_integer() | infinity,
    low_watermark => non_neg_integer(),
    owner => pid()
}.
%% As for `py_channel:new/1'.  A chunk counts its bytes, and 32 at least.

-type file_options() :: #{
    offset => non_neg_integer(),
    length => non_neg_integer() | infinity
}.
%% Where in the file to begin, and how many bytes to send at most; without them all of it.

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

%% @doc As `send_file(Channel, Path, #{})'.
-spec send_file(channel(), file:name_all()) -> {ok, non_neg_integer()} | {error, Reason}
              when Reason :: closed | too_large | system_limit | file:posix().
send_file(Channel, Path) ->
    send_file(Channel, Path, #{}).

%% @doc Sends a file, or a part of it, in chunks of 64 KB, and waits for Python meanwhile: no more than
%% 256 KB of it are in memory, in an unbounded channel too.  How many bytes were sent: fewer than `length'
%% when the file ends before.  `{error, closed}': the channel was closed before all of it was sent;
%% `{error, too_large}': its `max_size' is less than the 32 bytes that any chunk counts; `einval' is for an
%% offset that no file has, and else what the system says of the file.
-spec send_file(channel(), file:name_all(), file_options()) ->
          {ok, non_neg_integer()} | {error, Reason}
              when Reason :: closed | too_large | system_limit | file:posix().
send_file(Channel, Path, Options) when is_map(Options) ->
    Offset = maps:get(offset, Options, 0),
    Length = maps:get(length, Options, infinity),
    (map_size(maps:without([offset, length], Options)) =:= 0 andalso
     is_integer(Offset) andalso Offset >= 0 andalso
     (Length =:= infinity orelse (is_integer(Length) andalso Length >= 0))) orelse
        error(badarg, [Channel, Path, Options]),
    #{max_size := MaxSize} = info(Channel),
    case file:open(Path, [read, raw, binary]) of
        {ok, File} ->
            try position(File, Offset) of
                ok -> send_rest(Channel, File, min(?FILE_CHUNK, MaxSize), Length, 0);
                Error -> Error
            after
                file:close(File)
            end;
        {error, badarg} ->
            error(badarg, [Channel, Path, Options]);
        Error ->
            Error
    end;
send_file(Channel, Path, Options) ->
    error(badarg, [Channel, Path, Options]).

%% What is no regular file has a beginning at least.
position(_File, 0) -> ok;
position(File, Offset) ->
    case file:position(File, Offset) of
        {ok, _} -> ok;
        {error, badarg} -> {error, einval}; % more than the system has a number for
        Error -> Error
    end.

%% Atoms are greater than numbers.
send_rest(Channel, File, Chunk, Left, Sent) ->
    case read(File, min(Chunk, Left)) of
        eof ->
            {ok, Sent};
        {ok, Data} ->
            case send_next(Channel, Data) of
                ok -> send_rest(Channel, File, Chunk, left(Left, Data), Sent + byte_size(Data));
                Error -> Error
            end;
        Error ->
            Error
    end.

read(_File, 0) -> eof;
read(File, Size) -> file:read(File, Size).

left(infinity, _Data) -> infinity;
left(Left, Data) -> Left - byte_size(Data).

send_next(Channel, Data) ->
    Ref = make_ref(),
    case beamloop_nif:nif_byte_channel_drain(Channel, ?FILE_WINDOW - ?FILE_CHUNK,
                                             ?FILE_WINDOW div 2, Ref) of
        wait -> receive {Ref, drained} -> send(Channel, Data, infinity) end;
        ok -> send(Channel, Data, infinity);
        Error -> Error
    end.

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
