%% Where memory, threads or descriptors are short: everybody is told, nothing crashes or is kept, and
%% everything works when there is some again.  In nodes of their own.
-module(shortage_SUITE).

-include_lib("stdlib/include/assert.hrl").

-export([all/0, suite/0, init_per_testcase/2, end_per_testcase/2]).
-export([channels_are_short_of_memory/1, calls_are_short_of_memory/1,
         everything_is_short_of_descriptors/1, a_stopped_process_loses_no_timer/1]).
-export([operation/1, walk_all/1, descriptors/0, timers/0]).

suite() ->
    [{timetrap, {minutes, 5}}].

all() ->
    [channels_are_short_of_memory, calls_are_short_of_memory, everything_is_short_of_descriptors,
     a_stopped_process_loses_no_timer].

init_per_testcase(_Case, Config) ->
    {Peer, ok} = vm_node:start([]),
    Path = filename:dirname(proplists:get_value(source, ?MODULE:module_info(compile))),
    ok = vm_node:call(Peer, py, exec, [["import sys\nsys.path.append('", Path, "')\n"
                                        "import shortage_actors\n"]]),
    [{peer, Peer} | Config].

end_per_testcase(_Case, Config) ->
    vm_node:stop(proplists:get_value(peer, Config)).

%% ---- memory ----

channels_are_short_of_memory(Config) ->
    walked(Config, [new, send, send_many, send_and_wait, receive_and_wait, subscribe, bytes,
                    to_a_coroutine, to_a_thread, back]).

calls_are_short_of_memory(Config) ->
    walked(Config, [call, task, spawned, loop]).

walked(Config, Names) ->
    Results = peer:call(proplists:get_value(peer, Config), ?MODULE, walk_all, [Names], 240000),
    ct:log("~p", [Results]),
    Wrong = [{Name, Faults} || {Name, _, Faults} <- Results, Faults =/= []],
    ?assertEqual([], Wrong),
    Places = lists:sum([Count || {_, Count, _} <- Results]),
    ?assert(Places > length(Names)),
    {comment, integer_to_list(Places) ++ " places"}.

%% On the node.
walk_all(Names) ->
    true = shortage:load() > 0,
    [begin
         {Places, Faults} = shortage:walk(fun() -> operation(Name) end),
         {Name, Places, Faults ++ left(Name)}
     end || Name <- Names].

left(Name) ->
    _ = py:eval("__import__('gc').collect()"),
    left(Name, 100).

left(Name, Tries) ->
    [garbage_collect(Pid) || Pid <- processes()],
    #{calls := Calls, loops := Loops, objects := Objects} = py:info(),
    case {beamloop_nif:nif_channel_live(), Calls, Loops, Objects} of
        {{0, 0}, 0, 0, 0} -> [];
        Left when Tries =:= 0 -> [{left, Name, Left}];
        _ -> timer:sleep(10), left(Name, Tries - 1)
    end.

operation(new) ->
    with_channel(py_channel, #{owner => self()}, fun(_) -> ok end);
operation(send) ->
    with_channel(py_channel, #{}, fun(Ch) ->
        Terms = [{a, "list", #{k => 1.5}}, binary:copy(<<1>>, 100000), binary:copy(<<2>>, 3000),
                 [self(), make_ref(), lists:seq(1, 3000)], {Ch, [Ch]}],
        Results = [py_channel:send(Ch, Term) || Term <- Terms],
        #{messages := Count} = py_channel:info(Ch),
        ?assertEqual(length([1 || ok <- Results]), Count),
        told([R || R <- Results, R =/= ok])
    end);
operation(send_many) ->
    with_channel(py_channel, #{}, fun(Ch) ->
        Result = py_channel:send_many(Ch, [{N, binary:copy(<<N>>, 200)} || N <- lists:seq(1, 100)]),
        #{messages := Count} = py_channel:info(Ch),
        case Result of
            ok -> ?assertEqual(100, Count), ok;
            {error, {system_limit, Sent}} -> ?assertEqual(Sent, Count), {short, Sent}
        end
    end);
operation(send_and_wait) ->
    with_channel(py_channel, #{max_messages => 1}, fun(Ch) ->
        case py_channel:send(Ch, 1) of
            ok -> told([R || R <- [py_channel:send(Ch, Term, 1) || Term <- [2, <<0:50000>>]],
                             R =/= {error, timeout}]);
            Short -> told([Short])
        end
    end);
operation(receive_and_wait) ->
    with_channel(py_channel, #{}, fun(Ch) ->
        told([R || R <- [py_channel:recv(Ch, 1)], R =/= {error, timeout}])
    end);
operation(subscribe) ->
    with_channel(py_channel, #{}, fun(Ch) ->
        Result = py_channel:subscribe(Ch),
        ok = py_channel:unsubscribe(Ch),
        told([Result || Result =/= ok])
    end);
operation(bytes) ->
    with_channel(py_byte_channel, #{}, fun(Ch) ->
        Chunks = [<<"small">>, binary:copy(<<1>>, 100000), ["a", <<"list">>, binary:copy(<<2>>, 9000)]],
        Results = [py_byte_channel:send(Ch, Chunk) || Chunk <- Chunks],
        #{messages := Count} = py_byte_channel:info(Ch),
        ?assertEqual(length([1 || ok <- Results]), Count),
        told([R || R <- Results, R =/= ok])
    end);
operation(to_a_coroutine) ->
    with_channel(py_channel, #{}, fun(Ch) ->
        Start = fun() -> py_event_loop:create_task(shortage_actors, receive_one, [Ch]) end,
        delivered(Ch, Start, fun(Task) -> py_event_loop:await(Task, 5000) end)
    end);
operation(to_a_thread) ->
    with_channel(py_channel, #{}, fun(Ch) ->
        Start = fun() ->
            {ok, spawn_monitor(fun() ->
                exit({result, py:call(shortage_actors, receive_on_thread, [Ch])})
            end)}
        end,
        delivered(Ch, Start, fun({Pid, Monitor}) ->
            receive {'DOWN', Monitor, process, Pid, {result, Result}} -> Result
            after 5000 -> {error, timeout}
            end
        end)
    end);
operation(back) ->
    with_channel(py_channel, #{}, fun(Ch) ->
        Message = binary:copy(<<7>>, 300),
        case py:call(shortage_actors, send_back, [Ch, Message]) of
            {ok, none} ->
                case py_channel:recv(Ch, 5000) of
                    {ok, {_, Message}} -> ok;
                    Short -> told([Short])
                end;
            Short ->
                told([Short])
        end
    end);
operation(call) ->
    Payload = [lists:seq(1, 500), binary:copy(<<1>>, 5000), #{a => {1.5, <<"b">>}}],
    case py:call(shortage_actors, same, [Payload], #{}, #{timeout => 5000}) of
        {ok, Payload} -> ok;
        Short -> told([Short])
    end;
operation(task) ->
    case py_event_loop:create_task(shortage_actors, async_same, [17]) of
        {ok, Task} ->
            case py_event_loop:await(Task, 5000) of
                {ok, 17} -> ok;
                Short -> told([Short])
            end;
        Short ->
            told([Short])
    end;
operation(spawned) ->
    Self = self(),
    Ref = make_ref(),
    case py_event_loop:spawn_task(shortage_actors, tell, [Self, Ref]) of
        ok -> receive Ref -> ok after 1000 -> {short, not_told} end;
        Short -> told([Short])
    end;
operation(loop) ->
    process_flag(trap_exit, true),
    case py_event_loop:start_link() of
        {ok, Loop} ->
            Result = py_event_loop:run(shortage_actors, async_same, [18],
                                       #{loop => Loop, timeout => 5000}),
            ok = py_event_loop:stop(Loop),
            receive {'EXIT', Loop, _} -> ok end,
            told([Result || Result =/= {ok, 18}]);
        {error, Reason} ->
            receive {'EXIT', _, _} -> ok after 0 -> ok end,
            told([{error, Reason}])
    end.

with_channel(Module, Options, Use) ->
    case Module:new(Options) of
        {ok, Channel} ->
            try Use(Channel) after Module:close(Channel) end;
        Short ->
            told([Short])
    end.

%% A message that was sent comes to who waits for it, who else is told.
delivered(Ch, Start, Await) ->
    case Start() of
        {ok, Started} ->
            wait_for_receiver(Ch, 100),
            case py_channel:send(Ch, 42) of
                ok -> ok;
                Short -> py_channel:close(Ch), _ = told([Short])
            end,
            case Await(Started) of
                {ok, 42} -> ok;
                Other -> told([Other])
            end;
        Short ->
            told([Short])
    end.

%% It may have been told that memory is short instead.
wait_for_receiver(_Ch, 0) ->
    ok;
wait_for_receiver(Ch, Tries) ->
    case py_channel:info(Ch) of
        #{waiters := 0} -> timer:sleep(1), wait_for_receiver(Ch, Tries - 1);
        _ -> ok
    end.

told([]) -> ok;
told([{error, Reason} | Others]) when Reason =:= system_limit; Reason =:= enomem; Reason =:= overloaded ->
    _ = told(Others),
    {short, Reason};
told([{error, {Name, Message, _}} | Others]) ->
    Known = [<<"MemoryError">>, <<"ChannelClosed">>, <<"OSError">>, <<"RuntimeError">>],
    ?assert(lists:member(channel_tests:exception(Name), Known), {Name, Message}),
    _ = told(Others),
    {short, Name};
told([{error, {python, Reason}} | Others]) ->
    _ = told(Others),
    {short, Reason}.

%% ---- descriptors ----

%% Every operation, with more and more descriptors to spare.
everything_is_short_of_descriptors(Config) ->
    Results = peer:call(proplists:get_value(peer, Config), ?MODULE, descriptors, [], 240000),
    ct:log("~p", [Results]),
    [begin
         ?assertEqual([], [Wrong || {_, {wrong, Wrong}} <- Tries]),
         %% It fails without any, and works with enough.
         ?assertMatch({0, {short, _}}, hd(Tries)),
         ?assertMatch({_, ok}, lists:last(Tries))
     end || {_Name, Tries} <- Results].

descriptors() ->
    process_flag(trap_exit, true),
    %% There may be no descriptor left to load it with.
    {module, _} = code:ensure_loaded(channel_tests),
    {ok, Listener} = gen_tcp:listen(0, [binary, {active, false}, {ip, {127, 0, 0, 1}}]),
    {ok, Reactor} = py_reactor:start_link(#{protocol => {shortage_actors, 'Echo'}}),
    Operations =
        [{Name, fun() -> in_python(Name) end}
         || Name <- [run_loop, serve, connect, run_child, datagram]] ++
        [{handoff, fun() -> handoff(Listener, Reactor) end}],
    [ok = Operation() || {_, Operation} <- Operations],
    [{Name, spare(Operation, 0)} || {Name, Operation} <- Operations].

spare(Operation, 40) ->
    [{40, Operation()}];
spare(Operation, Spare) ->
    %% A connection is there before, where one is needed.
    {ok, Before} = py:call(shortage_actors, count_descriptors, []),
    {ok, none} = py:call(shortage_actors, fill, [Spare]),
    Result = try Operation() catch Class:Reason:Stack -> {wrong, {Class, Reason, Stack}} end,
    {ok, none} = py:call(shortage_actors, release, []),
    Kept = kept(Before, 200),
    case {Result, Operation()} of
        _ when Kept =/= 0 -> [{Spare, {wrong, {kept, Kept}}}];
        {ok, ok} -> [{Spare, ok}];
        {_, ok} -> [{Spare, Result} | spare(Operation, Spare + 1)];
        {_, Broken} -> [{Spare, {wrong, {afterwards, Broken}}}]
    end.

kept(Before, Tries) ->
    case py:call(shortage_actors, count_descriptors, []) of
        {ok, Now} when Now =< Before; Tries =:= 0 -> max(0, Now - Before);
        _ -> timer:sleep(10), kept(Before, Tries - 1)
    end.

in_python(Name) ->
    case py:call(shortage_actors, Name, [], #{}, #{timeout => 20000}) of
        {ok, none} -> ok;
        {error, {Error, Message, _}} = Wrong ->
            case channel_tests:exception(Error) of
                <<"OSError">> -> {short, Message};
                _ -> {wrong, Wrong}
            end;
        Wrong -> {wrong, Wrong}
    end.

%% Erlang's own sockets are short of descriptors too.
handoff(Listener, Reactor) ->
    {ok, Port} = inet:port(Listener),
    case gen_tcp:connect({127, 0, 0, 1}, Port, [binary, {active, false}], 5000) of
        {ok, Client} ->
            Result = case gen_tcp:accept(Listener, 5000) of
                {ok, Server} -> hand_over(Reactor, Client, Server);
                {error, Short} -> {short, Short}
            end,
            ok = gen_tcp:close(Client),
            drop_others(Listener),
            Result;
        {error, Short} ->
            {short, Short}
    end.

hand_over(Reactor, Client, Server) ->
    case py_reactor:handoff(Reactor, Server, none) of
        ok ->
            ok = gen_tcp:send(Client, <<"hello">>),
            {ok, <<"hello">>} = gen_tcp:recv(Client, 5, 5000),
            ok;
        {error, emfile} ->
            %% It is still the caller's.
            ok = gen_tcp:send(Server, <<"mine">>),
            {ok, <<"mine">>} = gen_tcp:recv(Client, 4, 5000),
            ok = gen_tcp:close(Server),
            {short, emfile}
    end.

drop_others(Listener) ->
    case gen_tcp:accept(Listener, 0) of
        {ok, Socket} -> gen_tcp:close(Socket), drop_others(Listener);
        {error, _} -> ok
    end.

%% ---- the clock ----

%% While it is stopped, everything comes due; none fires before its time, none is lost.
a_stopped_process_loses_no_timer(Config) ->
    Peer = proplists:get_value(peer, Config),
    Pid = peer:call(Peer, os, getpid, []),
    Self = self(),
    {Waiter, Monitor} = spawn_monitor(fun() ->
        Self ! going,
        exit({result, peer:call(Peer, ?MODULE, timers, [], 60000)})
    end),
    receive going -> timer:sleep(300) end,
    [begin
         "" = os:cmd("kill -STOP " ++ Pid),
         timer:sleep(700),
         "" = os:cmd("kill -CONT " ++ Pid),
         timer:sleep(200)
     end || _ <- [1, 2]],
    receive
        {'DOWN', Monitor, process, Waiter, {result, Result}} -> ?assertEqual({ok, none}, Result);
        {'DOWN', Monitor, process, Waiter, Reason} -> ct:fail(Reason)
    end.

timers() ->
    {Time, {error, timeout}} = timer:tc(fun() ->
        py:call(time, sleep, [1.5], #{}, #{timeout => 500})
    end),
    true = Time >= 500000,
    py_event_loop:run(shortage_actors, timers, [], #{timeout => 30000}).
