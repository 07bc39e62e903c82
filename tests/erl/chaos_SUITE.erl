%% Everything at once, and everything disturbed: whatever is killed, cancelled, closed, stopped or begun
%% again, nothing is lost that was acknowledged, nothing comes twice, nobody hangs, nothing is left.
%%
%% BEAMLOOP_CHAOS_SEED and BEAMLOOP_CHAOS_SECONDS give other runs than the usual ones.
-module(chaos_SUITE).

-include_lib("stdlib/include/assert.hrl").

-export([all/0, suite/0, init_per_suite/1, end_per_suite/1, init_per_testcase/2,
         end_per_testcase/2]).
-export([traffic_survives_its_actors/1, traffic_survives_restarts/1,
         traffic_survives_a_busy_interpreter/1]).

-import(channel_tests, [wait_until/1]).

-define(LOOPS, [chaos_loop_1, chaos_loop_2]).

suite() ->
    [{timetrap, {seconds, 120 + 10 * seconds(6)}}].

all() ->
    [traffic_survives_its_actors, traffic_survives_restarts, traffic_survives_a_busy_interpreter].

init_per_suite(Config) ->
    Path = filename:dirname(proplists:get_value(source, ?MODULE:module_info(compile))),
    ct:log("seed ~p", [seed()]),
    [{path, Path} | Config].

end_per_suite(_Config) ->
    ok.

init_per_testcase(Case, Config) ->
    _ = rand:seed(exsss, {seed(), erlang:phash2(Case), 0}),
    start(limits(Case)),
    ok = py:exec(["import sys\nsys.path.append('", proplists:get_value(path, Config), "')\n"
                  "import chaos_actors\n"]),
    {ok, none} = py_event_loop:run(chaos_actors, prepare, []),
    {ok, Info} = settled_info(),
    [{before, {Info, length(processes()), descriptors()}} | Config].

limits(traffic_survives_a_busy_interpreter) -> [{max_workers, 8}, {max_queued, 8}];
limits(_) -> [].

%% All counters are at zero, or what they were.
end_per_testcase(_Case, Config) ->
    {Info, Processes, Descriptors} = proplists:get_value(before, Config),
    %% The default loop may be another.
    {ok, none} = py_event_loop:run(chaos_actors, prepare, []),
    Result = try
        wait_until(fun() -> counters() =:= {0, 0, 0, 0, 0} end),
        wait_until(fun() -> settled_info() =:= {ok, Info} end),
        wait_until(fun() -> length(processes()) =< Processes end),
        wait_until(fun() -> descriptors() -- Descriptors =:= [] end),
        ?assertEqual({ok, 0}, py:call(chaos_actors, live_connections, [])),
        channel_tests:left()
    catch
        error:Reason ->
            {fail, {left, Reason, counters(), settled_info(), length(processes()),
                    descriptors() -- Descriptors,
                    proplists:get_value(before, Config)}}
    end,
    stop(),
    Result.

start(Limits) ->
    [application:set_env(beamloop, Key, Value) || {Key, Value} <- Limits],
    {ok, _} = application:ensure_all_started(beamloop).

stop() ->
    _ = application:stop(beamloop),
    [application:unset_env(beamloop, Key) || Key <- [max_workers, max_queued]].

counters() ->
    {ok, _} = py:eval("__import__('gc').collect()"),
    [garbage_collect(Pid) || Pid <- processes()],
    #{calls := Calls, objects := Objects, pending_decrefs := Drops, loops := Loops,
      descriptors := Descriptors} = py:info(),
    {Calls, Objects, Drops, Loops, Descriptors}.

%% What the default loop has before it.
settled_info() ->
    {ok, Info} = py_event_loop:info(),
    {ok, maps:with([ready, timers, pending, watched, sources, tasks], Info)}.

descriptors() ->
    [Target || Name <- filelib:wildcard("/proc/self/fd/*"), {ok, Target} <- [file:read_link(Name)]].

seed() ->
    list_to_integer(os:getenv("BEAMLOOP_CHAOS_SEED", "20261124")).

seconds(Usual) ->
    list_to_integer(os:getenv("BEAMLOOP_CHAOS_SECONDS", integer_to_list(Usual))).

%% ---- all kinds of traffic ----

traffic_survives_its_actors(Config) ->
    End = erlang:monotonic_time(millisecond) + 1000 * seconds(6),
    Workers = [work(fun() -> restart_loop(Loop, End) end) || Loop <- ?LOOPS] ++
              [work(fun() -> flows(N, [thread, default | ?LOOPS], End) end) || N <- lists:seq(1, 6)] ++
              [work(fun() -> callers(N, End) end) || N <- lists:seq(1, 2)] ++
              [work(fun() -> connections(Config, End) end)],
    Results = [result(Worker) || Worker <- Workers],
    {Flows, Sent, Received, Refused, Unknown} =
        lists:foldl(fun({flows, N, {S, R, F, U}}, {N0, S0, R0, F0, U0}) ->
                            {N0 + N, S0 + S, R0 + R, F0 + F, U0 + U};
                       (_, Sum) -> Sum
                    end, {0, 0, 0, 0, 0}, Results),
    Comment = io_lib:format("~b flows, ~b sent, ~b received, ~b refused, ~b unknown; ~p",
                            [Flows, Sent, Received, Refused, Unknown,
                             [R || R <- Results, element(1, R) =/= flows]]),
    ct:log("~ts", [Comment]),
    ?assert(Sent > 100),
    {comment, lists:flatten(Comment)}.

work(Function) ->
    Seed = rand:uniform(1 bsl 32),
    spawn_monitor(fun() ->
        _ = rand:seed(exsss, Seed),
        exit({result, Function()})
    end).

result({Pid, Monitor}) ->
    receive
        {'DOWN', Monitor, process, Pid, {result, Result}} -> Result;
        {'DOWN', Monitor, process, Pid, Reason} -> ct:fail(Reason)
    end.

is_over(End) ->
    erlang:monotonic_time(millisecond) >= End.

flows(Worker, Ways, End) ->
    flows(Worker, 0, Ways, End, {0, 0, 0, 0}).

flows(Worker, Number, Ways, End, Sum) ->
    case is_over(End) of
        true ->
            {flows, Number, Sum};
        false ->
            Id = Worker * 100000 + Number,
            Flow = spawn_monitor(fun() -> exit({result, chaos_flow:run(seed(), Id, Ways)}) end),
            flows(Worker, Number + 1, Ways, End, add(flow_result(Flow, Id), Sum))
    end.

flow_result({Pid, Monitor}, Id) ->
    receive
        {'DOWN', Monitor, process, Pid, {result, Counts}} -> Counts;
        {'DOWN', Monitor, process, Pid, Reason} -> exit({flow, Id, Reason})
    end.

add({A, B, C, D}, {E, F, G, H}) ->
    {A + E, B + F, C + G, D + H}.

%% A loop under this name, over and over.
restart_loop(Name, End) ->
    process_flag(trap_exit, true),
    restart_loop(Name, End, 0).

restart_loop(Name, End, Count) ->
    {ok, Loop} = py_event_loop:start_link(#{name => Name}),
    timer:sleep(20 + rand:uniform(300)),
    case rand:uniform(3) of
        1 -> exit(Loop, kill);
        _ -> ok = py_event_loop:stop(Loop)
    end,
    receive {'EXIT', Loop, _} -> ok after 30000 -> exit({loop_hangs, Name}) end,
    case is_over(End) of
        true -> {restarts, Count};
        false -> restart_loop(Name, End, Count + 1)
    end.

%% ---- calls ----

%% Callers that are killed and begun again; each answer is that of its own call.  What was spawned runs once.
callers(N, End) ->
    Table = ets:new(calls, [public, bag]),
    Callers = [start_caller(N, Table) || _ <- lists:seq(1, 4)],
    Last = kill_callers(Callers, N, Table, End),
    [end_caller(Caller) || Caller <- Last],
    wait_until(fun() ->
        {ok, Ran} = py:call(chaos_actors, take_ran, [N]),
        ets:insert(Table, [{ran, Id, Seq} || {Seq, Id} <- lists:zip(lists:seq(1, length(Ran)), Ran)]),
        Spawned = [Id || {spawned, Id} <- ets:lookup(Table, spawned)],
        Spawned -- [Id || {ran, Id, _} <- ets:lookup(Table, ran)] =:= []
    end),
    Ran = [Id || {ran, Id, _} <- ets:lookup(Table, ran)],
    ?assertEqual(length(Ran), length(lists:usort(Ran))),
    {calls, length(ets:lookup(Table, answered)), spawned, length(Ran)}.

start_caller(N, Table) ->
    Seed = rand:uniform(1 bsl 32),
    spawn_monitor(fun() ->
        _ = rand:seed(exsss, Seed),
        call_on(N, Table)
    end).

kill_callers(Callers, N, Table, End) ->
    timer:sleep(rand:uniform(30)),
    case is_over(End) of
        true ->
            Callers;
        false ->
            Victim = lists:nth(rand:uniform(length(Callers)), Callers),
            exit(element(1, Victim), kill),
            end_caller(Victim),
            kill_callers([start_caller(N, Table) | lists:delete(Victim, Callers)], N, Table, End)
    end.

end_caller({Pid, Monitor}) ->
    Pid ! stop,
    receive
        {'DOWN', Monitor, process, Pid, Reason} when Reason =:= normal; Reason =:= killed -> ok;
        {'DOWN', Monitor, process, Pid, Reason} -> exit(Reason)
    after 30000 ->
        exit({caller_hangs, process_info(Pid, current_stacktrace)})
    end.

call_on(N, Table) ->
    Id = erlang:unique_integer([positive]),
    Time = rand:uniform(5) / 1000,
    Timeout = lists:nth(rand:uniform(3), [infinity, rand:uniform(6) - 1, 50]),
    Answer = case rand:uniform(4) of
        1 -> py:call(chaos_actors, echo, [Time, Id], #{}, #{timeout => Timeout});
        2 -> py_event_loop:run(chaos_actors, async_echo, [Time, Id], #{timeout => Timeout});
        3 -> task(Time, Id);
        4 -> spawn_task(N, Id, Table)
    end,
    case Answer of
        {ok, Id} -> ok;
        {error, timeout} when Timeout =/= infinity -> ok
    end,
    ets:insert(Table, {answered, Id}),
    receive
        stop -> ok;
        Stray -> exit({stray, Stray})
    after 0 ->
        call_on(N, Table)
    end.

task(Time, Id) ->
    {ok, Task} = py_event_loop:create_task(chaos_actors, async_echo, [Time, Id]),
    case rand:uniform(2) of
        1 -> py_event_loop:await(Task);
        2 -> py_event_loop:cancel(Task), {ok, Id}
    end.

spawn_task(N, Id, Table) ->
    ok = py_event_loop:spawn_task(chaos_actors, run_once, [N, Id]),
    ets:insert(Table, {spawned, Id}),
    {ok, Id}.

%% ---- connections ----

%% Clients of a reactor, whose answers come whole and in order until one of the two ends.
connections(_Config, End) ->
    process_flag(trap_exit, true),
    {ok, Listener} = gen_tcp:listen(0, [binary, {active, false}, {ip, {127, 0, 0, 1}},
                                        {packet, line}, {backlog, 100}]),
    connections(Listener, End, {0, 0}).

connections(Listener, End, {Reactors, Lines}) ->
    {ok, Reactor} = py_reactor:start_link(#{protocol => {chaos_actors, 'Lines'}}),
    Until = erlang:monotonic_time(millisecond) + 100 + rand:uniform(500),
    Seeds = [rand:uniform(1 bsl 32) || _ <- lists:seq(1, 8)],
    Clients = [work(fun() ->
                   _ = rand:seed(exsss, Seed),
                   clients(Listener, Reactor, Until, 0)
               end) || Seed <- Seeds],
    timer:sleep(rand:uniform(500)),
    case rand:uniform(3) of
        1 -> exit(Reactor, kill);
        2 -> py_reactor:stop(Reactor, 0);
        3 -> py_reactor:stop(Reactor)
    end,
    receive {'EXIT', Reactor, _} -> ok after 30000 -> exit(reactor_hangs) end,
    All = Lines + lists:sum([client_result(Client) || Client <- Clients]),
    case is_over(End) of
        true ->
            gen_tcp:close(Listener),
            {connections, Reactors + 1, lines, All};
        false ->
            connections(Listener, End, {Reactors + 1, All})
    end.

client_result({Pid, Monitor}) ->
    receive {'DOWN', Monitor, process, Pid, {result, Lines}} -> Lines;
            {'DOWN', Monitor, process, Pid, Reason} -> exit(Reason)
    after 60000 -> exit({client_hangs, process_info(Pid, current_stacktrace)})
    end.

clients(Listener, Reactor, Until, Lines) ->
    {ok, Port} = inet:port(Listener),
    {ok, Client} = gen_tcp:connect({127, 0, 0, 1}, Port, [binary, {active, false}, {packet, line}]),
    {ok, Server} = gen_tcp:accept(Listener),
    More = case py_reactor:handoff(Reactor, Server, none) of
        ok ->
            %% Each takes a connection of any client's; both ends are let go of in the end.
            converse(Client, rand:uniform(20), 0);
        {error, Reason} ->
            ?assert(lists:member(Reason, [not_running, stopping]) orelse is_tuple(Reason)),
            ok = gen_tcp:close(Server),
            0
    end,
    gen_tcp:close(Client),
    case is_over(Until) of
        true -> Lines + More;
        false -> clients(Listener, Reactor, Until, Lines + More)
    end.

converse(_Client, 0, Lines) ->
    Lines;
converse(Client, Left, Lines) ->
    Text = case rand:uniform(40) of
        1 -> <<"boom">>;
        2 -> <<"close">>;
        3 -> <<"later">>;
        N -> binary:copy(integer_to_binary(Left), 1 bsl (N rem 14))
    end,
    case gen_tcp:send(Client, [Text, $\n]) of
        ok -> answer(gen_tcp:recv(Client, 0, 20000), Text, Client, Left, Lines);
        {error, closed} -> Lines;
        {error, econnreset} -> Lines;
        {error, epipe} -> Lines
    end.

answer({ok, Answer}, Text, Client, Left, Lines) ->
    %% A line that is longer than the buffer comes in pieces.
    case byte_size(Answer) < byte_size(Text) + 1 of
        true ->
            Size = byte_size(Answer),
            <<Answer:Size/binary, Rest/binary>> = Text,
            answer(gen_tcp:recv(Client, 0, 20000), Rest, Client, Left, Lines);
        false ->
            ?assertEqual(<<Text/binary, $\n>>, Answer),
            converse(Client, Left - 1, Lines + 1)
    end;
answer({error, Reason}, _Text, _Client, _Left, Lines) ->
    ?assert(lists:member(Reason, [closed, econnreset])),
    Lines.

%% ---- restarts ----

%% Callers are told, a channel keeps what it has, and everything works afterwards.
traffic_survives_restarts(_Config) ->
    %% Loops that are not begun while Python is gone report a crash each.
    #{level := Level} = logger:get_primary_config(),
    ok = logger:set_primary_config(level, critical),
    Result = traffic_through_restarts(),
    ok = logger:set_primary_config(level, Level),
    Result.

traffic_through_restarts() ->
    {ok, Ch} = py_channel:new(#{max_messages => 50}),
    Table = ets:new(restarts, [public, duplicate_bag]),
    Callers = [work(fun() -> call_through(N, Ch, Table, {0, 0}) end) || N <- lists:seq(1, 8)],
    Consumers = [work(fun() -> consume_through(N, Ch) end) || N <- lists:seq(1, 3)],
    Producers = [work(fun() -> produce_through(N, 0, Ch, Table) end) || N <- lists:seq(1, 3)],
    [begin
         timer:sleep(rand:uniform(300)),
         ok = application:stop(beamloop),
         timer:sleep(rand:uniform(2) * 10 - 10),
         ok = application:start(beamloop),
         ?assertEqual({ok, N}, py:call(chaos_actors, echo, [0, N]))
     end || N <- lists:seq(1, 2 * seconds(6))],
    [Pid ! stop || {Pid, _} <- Producers ++ Callers],
    [bounded(Producer) || Producer <- Producers],
    {Ok, Told} = lists:unzip([bounded(Caller) || Caller <- Callers]),
    py_channel:close(Ch),
    [Pid ! stop || {Pid, _} <- Consumers],
    [bounded(Consumer) || Consumer <- Consumers],
    Drained = fun() ->
        {ok, _} = py:call(chaos_actors, drain, [<<"terms">>, Ch, 1], #{}, #{binaries => str}),
        maps:get(messages, py_channel:info(Ch)) =:= 0
    end,
    wait_until(Drained),
    {ok, {[], [], Received}} =
        py:call(chaos_actors, take, [<<"terms">>, 1], #{}, #{binaries => str}),
    Sent = lists:sort([{P, N} || {sent, P, N} <- ets:lookup(Table, sent)]),
    ?assertEqual(Sent, lists:sort(lists:append(Received))),
    Comment = io_lib:format("~b calls answered, ~b told, ~b messages",
                            [lists:sum(Ok), lists:sum(Told), length(Sent)]),
    ?assert(lists:sum(Ok) > 0),
    {comment, lists:flatten(Comment)}.

bounded({Pid, Monitor}) ->
    receive
        {'DOWN', Monitor, process, Pid, {result, Result}} -> Result;
        {'DOWN', Monitor, process, Pid, Reason} -> ct:fail(Reason)
    after 30000 ->
        ct:fail({hangs, process_info(Pid, current_stacktrace)})
    end.

call_through(N, Ch, Table, {Ok, Told}) ->
    Id = erlang:unique_integer([positive]),
    Answer = case rand:uniform(4) of
        1 -> py:call(chaos_actors, echo, [0.001, Id]);
        2 -> py_event_loop:run(chaos_actors, async_echo, [0.001, Id]);
        3 -> in_task(Id);
        4 -> on_a_loop(Id)
    end,
    Counts = case Answer of
        {ok, Id} -> {Ok + 1, Told};
        {error, not_running} -> timer:sleep(1), {Ok, Told + 1};
        _ ->
            ?assert(is_cancelled(Answer), Answer),
            {Ok, Told + 1}
    end,
    receive
        stop -> Counts;
        Stray -> exit({stray, Stray})
    after 0 ->
        call_through(N, Ch, Table, Counts)
    end.

is_cancelled({error, {Name, _, _}}) ->
    lists:member(channel_tests:exception(Name), [<<"CancelledError">>, <<"CallCancelled">>]);
is_cancelled(_) ->
    false.

in_task(Id) ->
    case py_event_loop:create_task(chaos_actors, async_echo, [0.001, Id]) of
        {ok, Task} -> py_event_loop:await(Task);
        Error -> Error
    end.

%% A loop of its own, which may end under the call.
on_a_loop(Id) ->
    {Pid, Monitor} = spawn_monitor(fun() ->
        process_flag(trap_exit, true),
        case py_event_loop:start_link() of
            {ok, Loop} ->
                Answer = py_event_loop:run(chaos_actors, async_echo, [0.001, Id], #{loop => Loop}),
                catch py_event_loop:stop(Loop),
                exit({answer, Answer});
            {error, _Reason} ->
                exit({answer, {error, not_running}})
        end
    end),
    receive {'DOWN', Monitor, process, Pid, {answer, Answer}} -> Answer end.

produce_through(P, Number, Ch, Table) ->
    Message = {1, P, Number, binary:copy(<<Number>>, Number * 37 rem 300)},
    Next = case Number rem 16 of
        15 -> Number + 1;
        _ ->
            case py_channel:send(Ch, Message, 20) of
                ok -> ets:insert(Table, {sent, P, Number});
                {error, timeout} -> refused
            end,
            Number + 1
    end,
    receive stop -> ok after rand:uniform(2) - 1 -> produce_through(P, Next, Ch, Table) end.

%% Again whenever it was told that Python is gone.
consume_through(N, Ch) ->
    Way = case N of 1 -> thread; _ -> coroutine end,
    Arguments = [<<"terms">>, Ch, 1, rand:uniform(1 bsl 32)],
    Result = case Way of
        thread ->
            py:call(chaos_actors, consume_on_thread, Arguments, #{}, #{binaries => str});
        coroutine ->
            py_event_loop:run(chaos_actors, consume, Arguments, #{binaries => str})
    end,
    ?assert(lists:member(Result, [{ok, none}, {error, not_running}]) orelse is_cancelled(Result)),
    receive stop -> ok after 5 -> consume_through(N, Ch) end.

%% ---- pressure ----

%% Everybody gets the right answer or is told that there are too many.
traffic_survives_a_busy_interpreter(_Config) ->
    Seconds = max(1, seconds(6) div 2),
    End = erlang:monotonic_time(millisecond) + 1000 * Seconds,
    Presser = work(fun() -> py:call(chaos_actors, press, [0.00001, Seconds]) end),
    Callers = [work(fun() -> call_under_pressure(End, {0, 0}) end) || _ <- lists:seq(1, 30)],
    Flows = [work(fun() -> flows(N, [default], End) end) || N <- [11, 12]],
    _ = [result(Flow) || Flow <- Flows],
    {Answered, Overloaded} = lists:unzip([result(Caller) || Caller <- Callers]),
    ?assertEqual({ok, none}, result(Presser)),
    ?assert(lists:sum(Answered) > 0),
    ?assert(lists:sum(Overloaded) > 0),
    {comment, lists:flatten(io_lib:format("~b calls answered, ~b overloaded",
                                          [lists:sum(Answered), lists:sum(Overloaded)]))}.

call_under_pressure(End, {Answered, Overloaded} = Counts) ->
    Id = erlang:unique_integer([positive]),
    Timeout = lists:nth(rand:uniform(2), [infinity, 20]),
    Next = case py:call(chaos_actors, echo, [0.002, Id], #{}, #{timeout => Timeout}) of
        {ok, Id} -> {Answered + 1, Overloaded};
        {error, overloaded} -> timer:sleep(5), {Answered, Overloaded + 1};
        {error, timeout} when Timeout =/= infinity -> Counts
    end,
    case is_over(End) of
        true -> Next;
        false -> call_under_pressure(End, Next)
    end.
