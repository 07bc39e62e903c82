%% @doc Channels: messages from Erlang processes to Python, without sockets and without polling.
%%
%% A channel is a bounded queue.  Any number of processes send; any number of Python coroutines and
%% threads receive, and each message reaches exactly one of them.  No function here but `send/3' waits
%% for Python, and that in an ordinary receive.  Channels are local to the node.
-module(py_channel).

-export([new/0, new/1, send/2, send/3, send_many/2, close/1, close/2, info/1]).
-export_type([channel/0, options/0, info/0, by_kind/0]).

%% Terms with binaries of this size or more keep them by reference instead of copying them.
-define(BY_REFERENCE, 4096).
%% An encoded term in more pieces than this is only passed on in pieces if they are large.
-define(FEW_PIECES, 8).
-define(MANY_PIECES, 1024).

-opaque channel() :: reference().

-type options() :: #{
    max_size => pos_integer() | infinity,
    max_messages => pos_integer() | infinity,
    high_watermark => pos_integer() | infinity,
    low_watermark => non_neg_integer(),
    owner => pid(),
    binaries => bytes | str
}.
%% `max_size': bytes that may be queued, counted as encoded messages of at least 32 bytes each;
%% `max_messages': how many messages may be queued; without them the channel is unbounded.
%%
%% The watermarks, in bytes, make a channel that was full stay full for a while, so that senders are
%% not woken for each message that a receiver takes.  Once `high_watermark' bytes are queued, or a
%% send met a full channel, there is no room until only `low_watermark' bytes are left.  The message
%% that reaches the high watermark is accepted still, as far as `max_size' allows.  `low_watermark' has
%% to be less than `high_watermark' and `max_size'; where only the high one is given it is half of that,
%% and without both there is room as soon as a message fits.
%%
%% `owner': the channel closes when this local process ends.  `binaries': what Python gets for a binary,
%% `str' where it has to be UTF-8; the default is the application's (`bytes').

-type by_kind() :: #{
    coroutine := non_neg_integer(),
    thread := non_neg_integer(),
    process := non_neg_integer()
}.

-type info() :: #{
    size := non_neg_integer(),
    max_size := pos_integer() | infinity,
    closed := boolean(),
    messages := non_neg_integer(),
    max_messages := pos_integer() | infinity,
    total_in := non_neg_integer(),
    total_out := non_neg_integer(),
    busy := non_neg_integer(),
    waiters := non_neg_integer(),
    receivers := by_kind(),
    senders := by_kind()
}.
%% `size': bytes queued, messages that a receiver was handed and has not taken yet included;
%% `messages': their number; `total_in', `total_out': messages accepted and received so far;
%% `busy': sends that met a full queue; `waiters': receivers that wait, `receivers': by what they are;
%% `senders': those who wait for room.

%% @doc A new unbounded channel.  It closes by itself when Erlang has dropped every reference to it.
-spec new() -> {ok, channel()} | {error, system_limit}.
new() ->
    new(#{}).

%% @doc A new channel with options; an unknown or bad option is `badarg'.
-spec new(options()) -> {ok, channel()} | {error, noproc | system_limit}.
new(Options) when is_map(Options) ->
    Known = [max_size, max_messages, high_watermark, low_watermark, owner, binaries],
    Unknown = maps:without(Known, Options),
    map_size(Unknown) =:= 0 orelse error(badarg, [Options]),
    beamloop_nif:nif_channel_new(limits(Options), owner(Options), binaries(Options));
new(Options) ->
    error(badarg, [Options]).

limits(Options) ->
    MaxSize = maps:get(max_size, Options, infinity),
    MaxMessages = maps:get(max_messages, Options, infinity),
    {High, Low} = watermarks(Options),
    %% Atoms are greater than numbers.
    (Low =:= infinity orelse (Low < High andalso Low < MaxSize)) orelse error(badarg, [Options]),
    {MaxSize, MaxMessages, High, Low}.

watermarks(#{low_watermark := Low} = Options) when is_integer(Low), Low >= 0 ->
    {maps:get(high_watermark, Options, infinity), Low};
watermarks(#{low_watermark := _} = Options) ->
    error(badarg, [Options]);
watermarks(#{high_watermark := High}) when is_integer(High) ->
    {High, High div 2};
watermarks(#{high_watermark := infinity}) ->
    {infinity, infinity};
watermarks(#{high_watermark := _} = Options) ->
    error(badarg, [Options]);
watermarks(#{}) ->
    {infinity, infinity}.

%% `none' stands for no owner inside only.
owner(#{owner := none} = Options) -> error(badarg, [Options]);
owner(#{owner := Owner}) -> Owner;
owner(#{}) -> none.

binaries(#{binaries := Type}) -> Type;
binaries(#{}) -> application:get_env(beamloop, binaries, bytes).

%% @doc Sends a term.  `ok': it is queued, or was handed to a receiver; `busy': no room now, or others
%% wait for room already, it was not queued; `{error, closed}'; `{error, too_large}': it is larger than
%% `max_size' and never fits.
-spec send(channel(), term()) -> ok | busy | {error, closed | too_large | system_limit}.
send(Channel, Term) when is_binary(Term), byte_size(Term) >= ?BY_REFERENCE ->
    beamloop_nif:nif_channel_send_binary(Channel, own(Term));
send(Channel, Term) ->
    case beamloop_nif:nif_channel_send(Channel, Term, node()) of
        declined ->
            {Pieces, Handles} = encode(Term),
            beamloop_nif:nif_channel_send_iovec(Channel, Pieces, Handles);
        Result ->
            Result
    end.

%% @doc Sends a term and waits for room, for `Timeout' milliseconds or as long as it takes.  Those who
%% wait are served in the order in which they came.  After `{error, timeout}' the term was not and
%% will not be sent; nor is that of a process which dies while it waits.
-spec send(channel(), term(), timeout()) ->
          ok | {error, timeout | closed | too_large | system_limit}.
send(Channel, Term, Timeout)
  when Timeout =:= infinity; is_integer(Timeout), Timeout >= 0, Timeout =< 16#ffffffff ->
    case send(Channel, Term) of
        busy when Timeout =:= 0 -> {error, timeout};
        busy -> send_and_wait(Channel, Term, Timeout);
        Result -> Result
    end;
send(Channel, Term, Timeout) ->
    error(badarg, [Channel, Term, Timeout]).

%% The reference is made here so that the receive looks only at messages that came after it.
send_and_wait(Channel, Term, Timeout) ->
    Ref = make_ref(),
    case send_or_wait(Channel, Term, Ref) of
        {wait, Sender} ->
            receive
                {Ref, Result} -> Result
            after Timeout ->
                case beamloop_nif:nif_channel_send_cancel(Sender) of
                    true -> {error, timeout};
                    false -> receive {Ref, Result} -> Result end
                end
            end;
        Result ->
            Result
    end.

send_or_wait(Channel, Term, Ref) when is_binary(Term), byte_size(Term) >= ?BY_REFERENCE ->
    beamloop_nif:nif_channel_send_binary(Channel, own(Term), Ref);
send_or_wait(Channel, Term, Ref) ->
    case beamloop_nif:nif_channel_send(Channel, Term, node(), Ref) of
        declined ->
            {Pieces, Handles} = encode(Term),
            beamloop_nif:nif_channel_send_iovec(Channel, Pieces, Handles, Ref);
        Result ->
            Result
    end.

%% @doc Sends the terms of a list, in order, as far as there is room.  `ok': all of them; else how many
%% were sent, the first ones of the list, and why the next one was not: as `send/2' would say.  Other
%% senders' terms may come between them.
-spec send_many(channel(), [term()]) ->
          ok | {busy, Sent :: non_neg_integer()} |
          {error, {closed | too_large | system_limit, Sent :: non_neg_integer()}}.
send_many(Channel, Terms) when is_list(Terms), length(Terms) >= 0 ->
    send_many(Channel, Terms, 0);
send_many(Channel, Terms) ->
    error(badarg, [Channel, Terms]).

send_many(Channel, Terms, Before) ->
    {Result, Count, Rest} = beamloop_nif:nif_channel_send_many(Channel, Terms, node()),
    Sent = Before + Count,
    case Result of
        more when Rest =:= [] -> ok;
        more -> send_many(Channel, Rest, Sent);
        declined -> send_declined(Channel, Rest, Sent);
        _ -> sent_some(Result, Sent)
    end.

send_declined(Channel, [Term | Rest], Sent) ->
    case send(Channel, Term) of
        ok -> send_many(Channel, Rest, Sent + 1);
        Result -> sent_some(Result, Sent)
    end.

sent_some(busy, Sent) -> {busy, Sent};
sent_some({error, Reason}, Sent) -> {error, {Reason, Sent}}.

%% @doc Closes the channel.  Senders get `{error, closed}' at once; what is queued can still be received.
%% Closing again does nothing.
-spec close(channel()) -> ok.
close(Channel) ->
    beamloop_nif:nif_channel_close(Channel, both).

%% @doc Closes the direction that Erlang writes to.
-spec close(channel(), write) -> ok.
close(Channel, write) ->
    beamloop_nif:nif_channel_close(Channel, write);
close(Channel, What) ->
    error(badarg, [Channel, What]).

%% @doc The state of the direction to Python.
-spec info(channel()) -> info().
info(Channel) ->
    beamloop_nif:nif_channel_info(Channel).

%% The emulator's own encoder yields, knows every term, and leaves large binaries where they are.
encode(Term) ->
    {pieces(erlang:term_to_iovec(Term)), beamloop_handles:collect(Term)}.

%% Passing on pieces costs the NIF something for each; it stays short if there are few or they are large.
pieces(Iovec) ->
    Count = length(Iovec),
    case Count =< ?FEW_PIECES orelse
         (Count =< ?MANY_PIECES andalso iolist_size(Iovec) div Count >= ?BY_REFERENCE) of
        true -> [own(Piece) || Piece <- Iovec];
        false -> [iolist_to_binary(Iovec)]
    end.

%% A small part of a large binary must not keep the whole of it.
own(Piece) ->
    case binary:referenced_byte_size(Piece) > 2 * byte_size(Piece) of
        true -> binary:copy(Piece);
        false -> Piece
    end.
