%% @private
%% @doc One call into Python: submit, wait, cancel.
-module(beamloop_call).

-export([options/1, name/1, call/5, submit/4, await/2, cancel/1]).
-export_type([pending/0, flags/0]).

-define(BINARIES_STR, 1).

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

%% @doc Submits a call and waits for its answer.
-spec call(0..4, term(), flags(), reference() | default, timeout()) ->
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
-spec submit(0..4, term(), flags(), reference() | default) ->
          {ok, pending()} | {error, overloaded | not_running | enomem}.
submit(Kind, Request, Flags, Loop) ->
    Payload = term_to_iovec(Request),
    Handles = beamloop_handles:collect(Request),
    %% One reference serves as monitor and as name of the answer.
    Ref = monitor(process, beamloop_interpreter),
    case beamloop_nif:nif_call_submit(Ref, Kind, Payload, Handles, Flags, Loop) of
        {ok, Call} ->
            {ok, {beamloop_call, Ref, Call}};
        {error, Reason} ->
            demonitor(Ref, [flush]),
            {error, Reason}
    end.

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
