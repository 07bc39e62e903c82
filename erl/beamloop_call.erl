%% @private
%% @doc One call into Python: submit, wait, cancel.
-module(beamloop_call).

-export([options/1, name/1, named/1, function/4, call/5, submit/4, spawn/4, await/2]).
-export([await_task/2, cancel_task/1]).
-export_type([pending/0, flags/0]).

-define(BINARIES_STR, 1).
-define(PIECES_MAX, 512).

-opaque pending() :: {beamloop_call, reference(), reference()}.
-type flags() :: non_neg_integer().

%% @doc The timeout and the decode flags that options ask for.
-spec options(py:options()) -> {timeout(), flags()}.
options(Options) ->
    maps:foreach(fun check/2, Options),
    Timeout = maps:get(timeout, Options, infinity),
    Default = application:get_env(beamloop, binaries, bytes),
    {Timeout, case maps:get(binaries, Options, Default) of
                  str -> ?BINARIES_STR;
                  bytes -> 0
              end}.

-spec check(term(), term()) -> ok.
check(timeout, infinity) ->
    ok;
check(timeout, Milliseconds) when is_integer(Milliseconds), Milliseconds >= 0 ->
    ok;
check(binaries, Type) when Type =:= bytes; Type =:= str ->
    ok;
check(_Key, _Value) ->
    erlang:error(badarg).

%% @doc A name or a text as UTF-8.
-spec name(py:name()) -> binary().
name(Name) when is_binary(Name) ->
    Name;
name(Name) when is_atom(Name) ->
    atom_to_binary(Name, utf8);
name(Name) when is_list(Name) ->
    case unicode:characters_to_binary(Name) of
        Text when is_binary(Text) -> Text;
        _Incomplete -> erlang:error(badarg)
    end;
name(_Other) ->
    erlang:error(badarg).

%% @doc A map whose keys are names, each as UTF-8 (two keys of one name are badarg).
-spec named(py:kwargs()) -> #{binary() => term()}.
named(Map) ->
    Named = maps:fold(fun(Key, Value, Acc) -> Acc#{name(Key) => Value} end, #{}, Map),
    map_size(Named) =:= map_size(Map) orelse erlang:error(badarg),
    Named.

%% @doc The request of a function or method call.
-spec function(py:target(), py:name(), [term()], py:kwargs()) -> term().
function(Target, Function, Args, Kwargs) when is_list(Args), is_map(Kwargs) ->
    _ = length(Args), % badarg where the list is improper
    {target(Target), name(Function), Args, named(Kwargs)};
function(_Target, _Function, _Args, _Kwargs) ->
    erlang:error(badarg).

-spec target(py:target()) -> binary() | reference().
target(Object) when is_reference(Object) ->
    Object;
target(Name) ->
    name(Name).

%% @doc Submits a call and waits for its answer.
-spec call(0..3, term(), flags(), reference() | default, timeout()) ->
          ok | {ok, term()} | {error, py:error()}.
call(Kind, Request, Flags, Loop, Timeout) ->
    case submit(Kind, Request, Flags, Loop) of
        {ok, Pending} ->
            await(Pending, Timeout);
        {error, Reason} ->
            {error, Reason}
    end.

%% @doc Starts a call. The process that submits is the one that awaits; when it dies the call is
%% cancelled.
-spec submit(0..3, term(), flags(), reference() | default) ->
          {ok, pending()} | {error, overloaded | not_running | enomem}.
submit(Kind, Request, Flags, Loop) ->
    %% One reference serves as monitor and as name of the answer.
    Ref = monitor(process, beamloop_interpreter),
    case hand_over(Ref, Kind, Request, Flags, Loop, false) of
        {ok, Call} ->
            {ok, {beamloop_call, Ref, Call}};
        {error, Reason} ->
            demonitor(Ref, [flush]),
            {error, Reason}
    end.

%% @doc Starts a call that nobody waits for and that outlives the calling process.
-spec spawn(0..3, term(), flags(), reference() | default) ->
          ok | {error, overloaded | not_running | enomem}.
spawn(Kind, Request, Flags, Loop) ->
    case hand_over(make_ref(), Kind, Request, Flags, Loop, true) of
        {ok, _Call} -> ok;
        {error, Reason} -> {error, Reason}
    end.

-spec hand_over(reference(), 0..3, term(), flags(), reference() | default, boolean()) ->
          {ok, reference()} | {error, overloaded | not_running | enomem}.
hand_over(Ref, Kind, Request, Flags, Loop, Detached) ->
    beamloop_nif:nif_call_submit(Ref, Kind, pieces(term_to_iovec(Request)),
                                 beamloop_handles:collect(Request), Flags, Loop, Detached).

%% What the NIF does for each piece adds up; to join them yields.
-spec pieces([binary()]) -> [binary()].
pieces(Iovec) when length(Iovec) > ?PIECES_MAX -> [iolist_to_binary(Iovec)];
pieces(Iovec) -> Iovec.

%% @doc Waits for the answer; after the timeout the call is cancelled.
-spec await(pending(), timeout()) -> ok | {ok, term()} | {error, py:error()}.
await({beamloop_call, Ref, Call} = Pending, Timeout) ->
    receive
        {beamloop, Ref, Answer} ->
            demonitor(Ref, [flush]),
            Answer;
        {'DOWN', Ref, process, _Owner, _Reason} ->
            owner_down(Ref, Call)
    after Timeout ->
        case cancel(Pending) of
            ok -> {error, timeout};
            Answer -> Answer
        end
    end.

%% @doc As await, but after the timeout the call goes on.
-spec await_task(pending(), timeout()) -> {ok, term()} | {error, py:error() | already_awaited}.
await_task({beamloop_call, Ref, Call}, Timeout) ->
    case beamloop_nif:nif_call_taken(Call) of
        true ->
            {error, already_awaited};
        false ->
            receive
                {beamloop, Ref, Answer} ->
                    taken(Ref, Call, Answer);
                {'DOWN', Ref, process, _Owner, _Reason} ->
                    taken(Ref, Call, owner_down(Ref, Call))
            after Timeout ->
                {error, timeout}
            end
    end.

%% @doc Cancels a call unless its answer was taken.
-spec cancel_task(pending()) -> ok.
cancel_task({beamloop_call, Ref, Call} = Pending) ->
    case beamloop_nif:nif_call_taken(Call) of
        true ->
            ok;
        false ->
            _ = cancel(Pending),
            taken(Ref, Call, ok)
    end.

-spec taken(reference(), reference(), Answer) -> Answer.
taken(Ref, Call, Answer) ->
    demonitor(Ref, [flush]),
    ok = beamloop_nif:nif_call_take(Call),
    Answer.

%% @doc Gives up a call: `ok', or the answer when that was quicker. Nothing is left in the mailbox.
-spec cancel(pending()) -> ok | {ok, term()} | {error, py:error()}.
cancel({beamloop_call, Ref, Call}) ->
    Cancelled = beamloop_nif:nif_call_cancel(Call),
    demonitor(Ref, [flush]),
    case Cancelled of
        true -> ok;
        false -> answer(Ref)
    end.

-spec owner_down(reference(), reference()) -> ok | {ok, term()} | {error, py:error()}.
owner_down(Ref, Call) ->
    case beamloop_nif:nif_call_cancel(Call) of
        true -> {error, not_running};
        false -> answer(Ref)
    end.

%% The answer has been sent and is on its way.
-spec answer(reference()) -> ok | {ok, term()} | {error, py:error()}.
answer(Ref) ->
    receive
        {beamloop, Ref, Answer} -> Answer
    end.
