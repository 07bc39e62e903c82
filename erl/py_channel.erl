%% @doc Channels: messages between Erlang processes and Python, without sockets and without polling.
%%
%% A channel is two bounded queues, one to Python and one to Erlang; what one side sends it never
%% receives itself.  Any number of processes, Python coroutines and threads send and receive at either
%% end, and each message reaches exactly one receiver; those that wait are served in the order in which
%% they came.  Only `send/3' and `recv/1,2' wait for Python, in an ordinary receive.  Channels are
%% local to the node.
-module(py_channel).

-export([new/0, new/1, send/2, send/3, send_many/2, close/1, close/2, info/1]).
-export([recv/1, recv/2, try_recv/1, subscribe/1, subscribe/2, unsubscribe/1]).
-export_type([channel/0, options/0, info/0, direction_info/0, by_kind/0, subscribe_options/0]).

-import(beamloop_channel, [pieces/1, own/1]).

%% Terms with binaries of this size or more keep them by reference instead of copying them.
-define(BY_REFERENCE, 4096).

-opaque channel() :: reference().

-type options() :: #{
    max_size => pos_integer() | infinity,
    max_messages => pos_integer() | infinity,
    high_watermark => pos_integer() | infinity,
    low_watermark => non_neg_integer(),
    owner => pid(),
    binaries => bytes | str
}.
%% `max_size': bytes that may be queued in each direction, counted as encoded messages of at least 32
%% bytes each; `max_messages': how many messages may be queued; without them the channel is unbounded.
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

-type direction_info() :: #{
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
    senders := by_kind(),
    to_erlang := direction_info()
}.
%% The direction to Python, and under `to_erlang' the other one.
%%
%% `size': bytes queued, messages that a receiver was handed and has not taken yet included;
%% `messages': their number; `total_in', `total_out': messages accepted and received so far;
%% `busy': sends that met a full queue; `waiters': receivers that wait, `receivers': by what they are;
%% `senders': those who wait for room.

-type subscribe_options() :: #{active => boolean() | once | -32768..32767}.

%% @doc A new unbounded channel.  It closes by itself when Erlang has dropped every reference to it.
-spec new() -> {ok, channel()} | {error, system_limit}.
new() ->
    new(#{}).

%% @doc A new channel with options; an unknown or bad option is `badarg'.
-spec new(options()) -> {ok, channel()} | {error, noproc | system_limit}.
new(Options) ->
    beamloop_channel:new(Options, terms).

%% @doc Sends a term.  `ok': it is queued, or was handed to a receiver; `busy': no room now, or others
%% wait for room already, it was not queued; `{error, closed}'; `{error, too_large}': it is larger than
%% `max_size' and never fits.
-spec send(channel(), term()) -> ok | busy | {error, closed | too_large | system_limit}.
send(Channel, Term) when is_binary(Term), byte_size(Term) >= ?BY_REFERENCE ->
    beamloop_nif:nif_channel_send_binary(Channel, own(Term));
send(Channel, Term) ->
    case beamloop_nif:nif_channel_send(Channel, Term, node()) of
        declined ->
            {Pieces, Handles} = encode(Channel, Term),
            beamloop_nif:nif_channel_send_iovec(Channel, Pieces, Handles);
        Result ->
            Result
    end.

%% @doc Sends a term and waits for room, for `Timeout' milliseconds or as long as it takes.  Those who
%% wait are served in the order in which they came.  After `{error, timeout}' the term was not and
%% will not be sent; nor is that of a process which dies while it waits.
-spec send(channel(), term(), timeout()) ->
          ok | {error, timeout | closed | too_large | system_limit}.
send(Channel, Term, Timeout) ->
    beamloop_channel:is_timeout(Timeout) orelse error(badarg, [Channel, Term, Timeout]),
    case send(Channel, Term) of
        busy when Timeout =:= 0 -> {error, timeout};
        busy -> send_and_wait(Channel, Term, Timeout);
        Result -> Result
    end.

send_and_wait(Channel, Term, Timeout) ->
    beamloop_channel:wait_for_room(fun(Ref) -> send_or_wait(Channel, Term, Ref) end, Timeout).

send_or_wait(Channel, Term, Ref) when is_binary(Term), byte_size(Term) >= ?BY_REFERENCE ->
    beamloop_nif:nif_channel_send_binary(Channel, own(Term), Ref);
send_or_wait(Channel, Term, Ref) ->
    case beamloop_nif:nif_channel_send(Channel, Term, node(), Ref) of
        declined ->
            {Pieces, Handles} = encode(Channel, Term),
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

%% @doc The next message from Python, as soon as there is one.
-spec recv(channel()) -> {ok, term()} | {error, closed | bad_message | system_limit}.
recv(Channel) ->
    recv(Channel, infinity).

%% @doc The next message from Python; waits for it for `Timeout' milliseconds.  Those who wait are
%% served in the order in which they came.  A message whose receiver dies before it has returned from
%% here goes to the next one.  `{error, closed}': the channel is closed and drained.  `bad_message':
%% the emulator cannot decode it (it would need more atoms than there may be); it is gone.
-spec recv(channel(), timeout()) ->
          {ok, term()} | {error, timeout | closed | bad_message | system_limit}.
recv(Channel, Timeout) ->
    beamloop_channel:recv(Channel, terms, Timeout).

%% @doc The next message from Python if there is one.
-spec try_recv(channel()) -> {ok, term()} | {error, empty | closed | bad_message}.
try_recv(Channel) ->
    beamloop_channel:try_recv(Channel, terms).

%% @doc As `subscribe(Channel, #{active => true})'.
-spec subscribe(channel()) -> ok | {error, system_limit}.
subscribe(Channel) ->
    subscribe(Channel, #{}).

%% @doc Has the messages from Python sent to the calling process, as
%% ```
%% {py_channel, Channel, {data, Term}}
%% {py_channel, Channel, closed}'''
%% and, for a message that cannot be decoded, `{py_channel, Channel, {error, bad_message}}'.
%%
%% How many comes with `active', as in `gen_tcp': `true', all of them (the default); `once', the next
%% one; an integer is added to the number of those that may still come, and when it is used up (or
%% is not positive any more) the process gets `{py_channel, Channel, passive}'; `false', none for now.
%% Calling again changes it.  `closed' is sent as a message would be, when the channel is closed and
%% drained, and ends the subscription; so do `unsubscribe/1' and the death of the process.
%%
%% Messages are taken from the channel as those of any receiver, one at a time; several subscribers and
%% receivers share them.  What has been sent to the mailbox of a process that dies is lost with it.
-spec subscribe(channel(), subscribe_options()) -> ok | {error, system_limit}.
subscribe(Channel, Options) ->
    beamloop_channel:subscribe(Channel, terms, Options).

%% @doc Ends the subscription of the calling process, if it has one.  Nothing more is sent to it
%% afterwards; what is in its mailbox already stays there.
-spec unsubscribe(channel()) -> ok.
unsubscribe(Channel) ->
    beamloop_subscription:stop(Channel, terms).

%% @doc Closes both directions.  Senders get `{error, closed}' at once; what is queued can still be
%% received.  Closing again does nothing.
-spec close(channel()) -> ok.
close(Channel) ->
    beamloop_nif:nif_channel_close(Channel, both, terms).

%% @doc Closes the direction that Erlang writes to.
-spec close(channel(), write) -> ok.
close(Channel, write) ->
    beamloop_nif:nif_channel_close(Channel, write, terms);
close(Channel, What) ->
    error(badarg, [Channel, What]).

%% @doc The state of the channel.
-spec info(channel()) -> info().
info(Channel) ->
    beamloop_nif:nif_channel_info(Channel, terms).

%% The emulator's own encoder yields, knows every term, and leaves large binaries where they are.
%% A message does not keep the channel that it is in.
encode(Channel, Term) ->
    {pieces(erlang:term_to_iovec(Term)), beamloop_handles:collect(Term, Channel)}.
