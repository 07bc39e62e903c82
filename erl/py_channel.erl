%% @doc Channels: messages from Erlang processes to Python, without sockets and without polling.
%%
%% A channel is a bounded queue.  Any number of processes send; any number of Python coroutines and
%% threads receive, and each message reaches exactly one of them.  No function here ever waits for
%% Python.  Channels are local to the node.
-module(py_channel).

-export([new/0, new/1, send/2, close/1, close/2, info/1]).
-export_type([channel/0, options/0, info/0]).

%% Terms with binaries of this size or more keep them by reference instead of copying them.
-define(BY_REFERENCE, 4096).
%% An encoded term in more pieces than this is only passed on in pieces if they are large.
-define(FEW_PIECES, 8).
-define(MANY_PIECES, 1024).

-opaque channel() :: reference().

-type options() :: #{max_size => pos_integer() | infinity, owner => pid()}.
%% `max_size': bytes that may be queued, counted as encoded messages of at least 32 bytes each; without
%% it the channel is unbounded.  `owner': the channel closes when this local process ends.

-type info() :: #{
    size := non_neg_integer(),
    max_size := pos_integer() | infinity,
    closed := boolean(),
    messages := non_neg_integer(),
    total_in := non_neg_integer(),
    total_out := non_neg_integer(),
    busy := non_neg_integer(),
    waiters := non_neg_integer()
}.
%% `size': bytes queued, messages that a receiver was handed and has not taken yet included;
%% `messages': their number; `total_in', `total_out': messages accepted and received so far;
%% `busy': sends that met a full queue; `waiters': receivers that wait.

%% @doc A new unbounded channel.  It closes by itself when Erlang has dropped every reference to it.
-spec new() -> {ok, channel()} | {error, system_limit}.
new() ->
    beamloop_nif:nif_channel_new(infinity, none).

%% @doc A new channel with options; an unknown or bad option is `badarg'.
-spec new(options()) -> {ok, channel()} | {error, noproc | system_limit}.
new(Options) when is_map(Options) ->
    case maps:without([max_size, owner], Options) of
        None when map_size(None) =:= 0 ->
            beamloop_nif:nif_channel_new(option(max_size, Options, infinity),
                                         owner(option(owner, Options, none), Options));
        _ ->
            error(badarg, [Options])
    end;
new(Options) ->
    error(badarg, [Options]).

option(Key, Options, Default) ->
    case Options of
        #{Key := Value} -> Value;
        #{} -> Default
    end.

%% `none' stands for no owner inside only.
owner(none, Options) when is_map_key(owner, Options) -> error(badarg, [Options]);
owner(Owner, _Options) -> Owner.

%% @doc Sends a term.  `ok': it is queued, or was handed to a receiver; `busy': no room now, it was not
%% queued; `{error, closed}'; `{error, too_large}': it is larger than `max_size' and never fits.
-spec send(channel(), term()) -> ok | busy | {error, closed | too_large | system_limit}.
send(Channel, Term) when is_binary(Term), byte_size(Term) >= ?BY_REFERENCE ->
    send_large(Channel, Term, []);
send(Channel, Term) ->
    case beamloop_nif:nif_channel_send(Channel, Term) of
        declined -> send_large(Channel, Term, beamloop_handles:collect(Term));
        Result -> Result
    end.

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
send_large(Channel, Term, Handles) ->
    Pieces = pieces(erlang:term_to_iovec(Term)),
    beamloop_nif:nif_channel_send_iovec(Channel, Pieces, Handles).

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
