%% Kinds of load: calls, tasks, exceptions, cancellations, loops.
-module(soak_calls).

-export([kinds/0]).

-define(WAIT, 30000).

kinds() ->
    [#{name => Name, start => fun() -> 0 end, turn => fun(N) -> {Turn(N), N + 1} end, pause => Pause}
     || {Name, Turn, Pause} <-
            [{calls, fun calls/1, 10}, {raises, fun raises/1, 30}, {cancels, fun cancels/1, 50},
             {killed, fun killed/1, 50}, {objects, fun objects/1, 20}, {tasks, fun tasks/1, 10},
             {timers, fun timers/1, 50}, {loops, fun loops/1, 500},
             {subprocess, fun subprocess/1, 2000}]].

calls(N) ->
    Terms = [N, <<"bytes">>, {a, [tuple]}, #{N => N}, 1 bsl 100, [{I, I * 0.5} || I <- lists:seq(1, 50)]],
    [{ok, Term} = py:call(soak_actors, same, [Term]) || Term <- Terms],
    {ok, Sum} = py:eval("a + b", #{a => N, b => 1}),
    Sum = N + 1,
    length(Terms) + 1.

raises(_N) ->
    {error, {'ZeroDivisionError', _, [_ | _]}} = py:eval("1 / 0"),
    {error, {_, <<"of a coroutine">>, [_ | _]}} = py_event_loop:run(soak_actors, raising, []),
    {error, {_, _, _}} = py:call(no_such_module, f, []),
    3.

%% A wait in our code, one in foreign code, Python code that runs, and a coroutine.
cancels(_N) ->
    {ok, Channel} = py_channel:new(),
    [{error, timeout} = py:call(soak_actors, Function, Args, #{}, #{timeout => 5})
     || {Function, Args} <- [{wait, [Channel]}, {spin, []}]],
    %% Which ends by itself, on a busy machine before this process looks at its time.
    case py:call(soak_actors, sleep, [], #{}, #{timeout => 5}) of
        {error, timeout} -> ok;
        {ok, none} -> ok
    end,
    {error, timeout} = py_event_loop:run(asyncio, sleep, [60], #{timeout => 5}),
    4.

%% Processes die while they wait for Python.
killed(_N) ->
    {ok, Channel} = py_channel:new(),
    Waiting = [spawn_monitor(Wait)
               || Wait <- [fun() -> py:call(soak_actors, wait, [Channel]) end,
                           fun() -> py_event_loop:run(soak_actors, count, [Channel]) end,
                           fun() -> py_event_loop:create_task(asyncio, sleep, [60]),
                                    receive never -> ok end
                           end]],
    timer:sleep(3),
    [exit(Pid, kill) || {Pid, _} <- Waiting],
    [receive {'DOWN', Monitor, process, Pid, killed} -> ok end || {Pid, Monitor} <- Waiting],
    length(Waiting).

objects(N) ->
    {ok, Object} = py:call(soak_actors, 'Counter', [N]),
    Next = N + 1,
    {ok, Next} = py:call(Object, add, [1]),
    {ok, [Same, _Same]} = py:call(soak_actors, same, [[Object, Object]]),
    {ok, Next} = py:call(Same, add, [0]),
    3.

tasks(N) ->
    {ok, N} = py_event_loop:run(soak_actors, async_same, [N]),
    {ok, Task} = py_event_loop:create_task(soak_actors, async_same, [{task, N}]),
    {ok, Cancelled} = py_event_loop:create_task(asyncio, sleep, [60]),
    ok = py_event_loop:spawn_task(soak_actors, answer, [self(), N]),
    ok = py_event_loop:cancel(Cancelled),
    {ok, {task, N}} = py_event_loop:await(Task, ?WAIT),
    receive {answer, N} -> 4 after ?WAIT -> error(no_answer) end.

timers(_N) ->
    {ok, {true, 0}} = py_event_loop:run(soak_actors, timers, [200], #{timeout => ?WAIT}),
    200.

%% A loop of its own, with a task that is under way when it stops.
loops(N) ->
    {ok, Loop} = py_event_loop:start_link(),
    {ok, N} = py_event_loop:run(soak_actors, async_same, [N], #{loop => Loop}),
    {ok, Task} = py_event_loop:create_task(asyncio, sleep, [60], #{loop => Loop}),
    ok = py_event_loop:stop(Loop),
    {error, _} = py_event_loop:await(Task, ?WAIT),
    1.

subprocess(N) ->
    Text = integer_to_binary(N),
    {ok, {0, Text}} = py_event_loop:run(soak_actors, subprocess, [Text], #{timeout => ?WAIT}),
    1.
