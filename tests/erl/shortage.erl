%% shortage_nif.c: has what may fail in Beamloop's shared objects fail.
-module(shortage).

-export([load/0, install/0, arm/3, disarm/0, held/0]).
-export([walk/1]).

-define(MEMORY, 1).
-define(THREADS, 4).
-define(REPEATS, 6).

%% The library lies beside the module.
load() ->
    ok = erlang:load_nif(filename:rootname(code:which(?MODULE)), 0),
    install().

install() -> erlang:nif_error(not_loaded).
arm(_Nth, _Lasting, _Kinds) -> erlang:nif_error(not_loaded).
disarm() -> erlang:nif_error(not_loaded).
held() -> erlang:nif_error(not_loaded).

%% An operation is a function that gives ok, or {short, What} where it was told that memory is short, and
%% raises whatever is wrong.  It is done with each allocation failing in turn, and again after each: how
%% many there were, and what went wrong: {Nth, Name, What}.
walk(Operation) ->
    [ok = Operation() || _ <- lists:seq(1, 5)],
    settle(),
    walk(Operation, 1, []).

walk(Operation, Nth, Faults) ->
    case once(Operation, Nth) of
        {none, Found} ->
            {Nth - 1, lists:reverse(Found ++ Faults)};
        {Name, Found} ->
            Again = works(Operation, Nth, Name),
            Kept = kept(Operation, Nth, Name),
            walk(Operation, Nth + 1, Kept ++ Again ++ Found ++ Faults)
    end.

once(Operation, Nth) ->
    ok = arm(Nth, 0, ?MEMORY bor ?THREADS),
    Result = try Operation() catch Class:Reason:Stack -> {Class, Reason, Stack} end,
    {_Counted, Failed, Name} = disarm(),
    Found = case Result of
        ok -> [];
        {short, _} when Failed > 0 -> [];
        Wrong -> [{Nth, Name, Wrong}]
    end,
    {case Failed of 0 -> none; _ -> Name end, Found}.

works(Operation, Nth, Name) ->
    try Operation() of
        ok -> [];
        Wrong -> [{Nth, Name, {afterwards, Wrong}}]
    catch
        Class:Reason:Stack -> [{Nth, Name, {afterwards, Class, Reason, Stack}}]
    end.

kept(Operation, Nth, Name) ->
    Growths = [growth(Operation, Nth) || _ <- [1, 2, 3]],
    case lists:all(fun(Growth) -> Growth >= ?REPEATS end, Growths) of
        true -> [{Nth, Name, {keeps, Growths}}];
        false -> []
    end.

growth(Operation, Nth) ->
    settle(),
    Before = held(),
    [once(Operation, Nth) || _ <- lists:seq(1, ?REPEATS)],
    settle(),
    held() - Before.

settle() ->
    {ok, _} = py:eval("__import__('gc').collect()"),
    [garbage_collect(Pid) || Pid <- processes()],
    timer:sleep(20).
