%% Stop and start again: the same Python, nothing left running, nobody left waiting.
-module(restart_SUITE).

-include_lib("stdlib/include/assert.hrl").

-export([all/0, suite/0, init_per_testcase/2, end_per_testcase/2]).
-export([python_is_as_it_was_left/1, twenty_restarts_leave_nothing/1, waiting_callers_are_told/1,
         busy_python_is_ended/1, a_busy_default_loop_is_ended/1,
         python_stuck_in_c_is_abandoned_under_a_deadline/1, tasks_are_cancelled/1,
         a_stop_of_the_default_loop_by_python_is_no_stop/1, what_was_dropped_meanwhile_is_freed/1]).

suite() ->
    [{timetrap, {minutes, 1}}].

all() ->
    [python_is_as_it_was_left, twenty_restarts_leave_nothing, waiting_callers_are_told,
     busy_python_is_ended, a_busy_default_loop_is_ended,
     python_stuck_in_c_is_abandoned_under_a_deadline, tasks_are_cancelled,
     a_stop_of_the_default_loop_by_python_is_no_stop, what_was_dropped_meanwhile_is_freed].

init_per_testcase(_Case, Config) ->
    {ok, _} = application:ensure_all_started(beamloop),
    Config.

end_per_testcase(_Case, _Config) ->
    _ = application:stop(beamloop),
    ok.

python_is_as_it_was_left(_Config) ->
    ok = py:exec("import threading\n"
                 "left = [threading.main_thread().ident]\n"
                 "async def where(): return threading.get_ident()\n"),
    {ok, Main} = py_event_loop:run('__main__', where, []),
    restart(),
    ?assertEqual({ok, [Main]}, py:eval("left")),
    ?assertEqual({ok, Main}, py_event_loop:run('__main__', where, [])).

twenty_restarts_leave_nothing(_Config) ->
    Threads = fun() -> length(filelib:wildcard("/proc/self/task/*")) end,
    Fds = fun() -> length(filelib:wildcard("/proc/self/fd/*")) end,
    Use = fun() ->
        ok = py:exec("async def one(): return 1"),
        ?assertEqual({ok, 1}, py_event_loop:run('__main__', one, [])),
        restart()
    end,
    Use(),
    Before = {Threads(), Fds()},
    [Use() || _ <- lists:seq(1, 20)],
    {ThreadsAfter, FdsAfter} = {Threads(), Fds()},
    ?assert(ThreadsAfter =< element(1, Before)),
    ?assert(FdsAfter =< element(2, Before)).

%% An object that Erlang lets go of while Python is stopped is freed by the next start.
what_was_dropped_meanwhile_is_freed(_Config) ->
    {ok, Object} = py:eval("object()"),
    put(object, Object),
    application:stop(beamloop),
    erase(object),
    channel_tests:wait_until(fun() ->
        garbage_collect(),
        maps:get(pending_decrefs, py:info()) =:= 1
    end),
    ok = application:start(beamloop),
    channel_tests:wait_until(fun() -> maps:get(pending_decrefs, py:info()) =:= 0 end).

waiting_callers_are_told(_Config) ->
    application:stop(beamloop),
    application:set_env(beamloop, max_workers, 1),
    ok = application:start(beamloop),
    Running = spawn_monitor(fun() -> exit(py:exec("while True: pass")) end),
    until(fun() -> maps:get(workers, py:info()) =:= 1 end),
    Queued = [spawn_monitor(fun() -> exit(py:eval("1")) end) || _ <- lists:seq(1, 5)],
    until(fun() -> maps:get(queued, py:info()) =:= 5 end),
    ok = application:stop(beamloop),
    application:unset_env(beamloop, max_workers),
    [receive {'DOWN', M, process, P, Reason} -> ?assertEqual({error, not_running}, Reason) end
     || {P, M} <- [Running | Queued]],
    ?assertEqual({error, not_running}, py:eval("1")),
    ?assertMatch(#{state := stopped, workers := 0, queued := 0}, py:info()).

%% (The loop has a function of its own: CPython looks for what to raise where a loop starts over, and
%% may count that to what stands before the loop, outside of the `try'.)
busy_python_is_ended(_Config) ->
    ok = py:exec("ended = []\n"
                 "def spin_on():\n"
                 "    while True: pass\n"
                 "def spin():\n"
                 "    try:\n"
                 "        spin_on()\n"
                 "    finally:\n"
                 "        ended.append(1)\n"
                 "def wait(ref):\n"
                 "    from erlang.channel import Channel\n"
                 "    try:\n"
                 "        Channel(ref).receive()\n"
                 "    finally:\n"
                 "        ended.append(1)\n"),
    {ok, Ch} = py_channel:new(),
    [spawn(fun() -> py:call('__main__', spin, []) end) || _ <- [1, 2]],
    spawn(fun() -> py:call('__main__', wait, [Ch]) end),
    timer:sleep(300),
    {Time, ok} = timer:tc(fun() -> application:stop(beamloop) end),
    ?assert(Time < 4000000),
    ?assertMatch(#{workers := 0, abandoned_workers := 0}, py:info()),
    ok = application:start(beamloop),
    ?assertEqual({ok, [1, 1, 1]}, py:eval("ended")).

a_busy_default_loop_is_ended(_Config) ->
    ok = py:exec("async def spin_on_the_loop():\n    while True: pass\n"),
    ok = py_event_loop:spawn_task('__main__', spin_on_the_loop, []),
    timer:sleep(100),
    ok = application:stop(beamloop),
    ?assertMatch(#{state := stopped}, py:info()),
    ok = application:start(beamloop),
    ok = py:exec("async def one(): return 1"),
    ?assertEqual({ok, 1}, py_event_loop:run('__main__', one, [])).

python_stuck_in_c_is_abandoned_under_a_deadline(_Config) ->
    Caller = spawn_monitor(fun() -> exit(py:call(time, sleep, [8])) end),
    until(fun() -> #{workers := W, idle_workers := I} = py:info(), W - I =:= 1 end),
    {Time, ok} = timer:tc(fun() -> application:stop(beamloop) end),
    ?assert(Time < 7000000),
    {Pid, Monitor} = Caller,
    receive {'DOWN', Monitor, process, Pid, Reason} -> ?assertEqual({error, not_running}, Reason) end,
    ok = application:start(beamloop),
    ?assertMatch(#{abandoned_workers := 1}, py:info()),
    ?assertEqual({ok, 2}, py:eval("1 + 1")),
    %% Its thread ends when the C code returns.
    until(fun() -> maps:get(abandoned_workers, py:info()) =:= 0 end, 1000).

tasks_are_cancelled(_Config) ->
    ok = py:exec("import asyncio\n"
                 "cancelled = []\n"
                 "async def wait_for_ever():\n"
                 "    try:\n"
                 "        await asyncio.Event().wait()\n"
                 "    except asyncio.CancelledError:\n"
                 "        cancelled.append(1)\n"
                 "        raise\n"),
    Waiting = spawn_monitor(fun() -> exit(py_event_loop:run('__main__', wait_for_ever, [])) end),
    {Owner, OwnerMonitor} = spawn_monitor(fun() ->
        {ok, Loop} = py_event_loop:start_link(),
        ok = py_event_loop:spawn_task('__main__', wait_for_ever, [], #{loop => Loop}),
        timer:sleep(infinity)
    end),
    timer:sleep(100),
    ok = application:stop(beamloop),
    {Pid, Monitor} = Waiting,
    receive
        {'DOWN', Monitor, process, Pid, {error, _}} -> ok
    end,
    %% The owner of the other loop is linked to its process, which ends with the interpreter.
    receive {'DOWN', OwnerMonitor, process, Owner, {shutdown, not_running}} -> ok end,
    until(fun() -> maps:get(loops, py:info()) =:= 0 end),
    ok = application:start(beamloop),
    ?assertEqual({ok, [1, 1]}, py:eval("cancelled")).

a_stop_of_the_default_loop_by_python_is_no_stop(_Config) ->
    ok = py:exec("import asyncio\n"
                 "async def stop_it(): asyncio.get_running_loop().stop()\n"
                 "async def exit_it(): raise SystemExit(1)\n"
                 "async def one(): return 1\n"),
    ?assertEqual({ok, none}, py_event_loop:run('__main__', stop_it, [])),
    ?assertMatch({error, {_, <<"1">>, _}}, py_event_loop:run('__main__', exit_it, [])),
    ?assertEqual({ok, 1}, py_event_loop:run('__main__', one, [])).

restart() ->
    ok = application:stop(beamloop),
    ok = application:start(beamloop).

until(Condition) ->
    until(Condition, 500).

until(Condition, 0) ->
    ct:fail({never, Condition, py:info()});
until(Condition, N) ->
    case Condition() of
        true -> ok;
        false -> timer:sleep(10), until(Condition, N - 1)
    end.
