%% A load of many kinds at once: each kind is a process that takes one turn after another, checks in it
%% that everything came back as it was sent and once only, and pauses.
%%
%% What a turn raises is an error, which is counted and kept; the kind starts again from nothing.
-module(soak_load).

-export([start/2, stop/1, names/1, turns/1, errors/1, kinds/0]).
-export_type([kind/0, load/0]).

-type kind() :: #{
    name := atom(),
    start := fun(() -> State),
    %% How much a turn has done, in messages, calls or connections.
    turn := fun((State) -> {non_neg_integer(), State}),
    stop => fun((State) -> term()),
    %% Milliseconds between turns.
    pause := non_neg_integer()
}.

-opaque load() :: #{kinds := [kind()], counters := counters:counters_ref(), errors := ets:tid(),
                    workers := [{pid(), reference()}]}.

-define(ERRORS_KEPT, 20).
-define(STOP_TIMEOUT, 60000).

%% @doc All kinds that there are.
-spec kinds() -> [kind()].
kinds() ->
    soak_channels:kinds() ++ soak_bytes:kinds() ++ soak_calls:kinds() ++ soak_sockets:kinds().

%% @doc Starts the kinds; pauses are multiplied by the factor.
-spec start([kind()], number()) -> load().
start(Kinds, Factor) ->
    Folder = filename:dirname(proplists:get_value(source, ?MODULE:module_info(compile))),
    ok = py:exec(["import sys; '", Folder, "' in sys.path or sys.path.insert(0, '", Folder, "')"]),
    Counters = counters:new(length(Kinds), [write_concurrency]),
    Errors = ets:new(?MODULE, [public, ordered_set, {write_concurrency, true}]),
    Numbered = lists:zip(lists:seq(1, length(Kinds)), Kinds),
    Workers = [spawn_monitor(fun() -> work(Kind, Factor, {Counters, N}, Errors) end)
               || {N, Kind} <- Numbered],
    #{kinds => Kinds, counters => Counters, errors => Errors, workers => Workers}.

%% @doc Has every kind end its turn and let go of what it made.
-spec stop(load()) -> ok.
stop(#{workers := Workers, errors := Errors}) ->
    [Pid ! stop || {Pid, _} <- Workers],
    [receive
         {'DOWN', Monitor, process, Pid, normal} -> ok;
         {'DOWN', Monitor, process, Pid, Reason} -> keep_error(Errors, worker, Reason)
     after ?STOP_TIMEOUT ->
         exit(Pid, kill),
         keep_error(Errors, worker, never_ended)
     end || {Pid, Monitor} <- Workers],
    ok.

-spec names(load()) -> [atom()].
names(#{kinds := Kinds}) ->
    [Name || #{name := Name} <- Kinds].

%% @doc What each kind has done so far, in the order of names/1.
-spec turns(load()) -> [non_neg_integer()].
turns(#{kinds := Kinds, counters := Counters}) ->
    [counters:get(Counters, N) || N <- lists:seq(1, length(Kinds))].

%% @doc How many errors there were, and the first of them.
-spec errors(load()) -> {non_neg_integer(), [{atom(), term()}]}.
errors(#{errors := Errors}) ->
    {ets:info(Errors, size), [Error || {_, Error} <- ets:tab2list(Errors), Error =/= none]}.

%% --- one kind ---------------------------------------------------------------------------------

work(#{name := Name} = Kind, Factor, Counter, Errors) ->
    try
        State = (maps:get(start, Kind))(),
        turns(Kind, State, Factor, Counter)
    catch
        Class:Reason:Stack ->
            keep_error(Errors, Name, {Class, Reason, Stack}),
            receive stop -> ok after 100 -> work(Kind, Factor, Counter, Errors) end
    end.

turns(#{turn := Turn, pause := Pause} = Kind, State, Factor, {Counters, N}) ->
    {Done, Next} = Turn(State),
    counters:add(Counters, N, Done),
    receive
        stop -> (maps:get(stop, Kind, fun(_) -> ok end))(Next)
    after round(Pause * Factor) ->
        turns(Kind, Next, Factor, {Counters, N})
    end.

keep_error(Errors, Name, Reason) ->
    Error = case ets:info(Errors, size) < ?ERRORS_KEPT of
        true -> {Name, Reason};
        false -> none
    end,
    ets:insert(Errors, {erlang:unique_integer([monotonic]), Error}).
