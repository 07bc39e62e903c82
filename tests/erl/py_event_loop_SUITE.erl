%% Coroutines on Python event loops, from Erlang.
-module(py_event_loop_SUITE).

-include_lib("stdlib/include/assert.hrl").

-export([all/0, suite/0, init_per_suite/1, end_per_suite/1, end_per_testcase/2]).
-export([coroutines_run_and_answer/1, what_a_coroutine_raises_is_an_error/1,
         what_is_no_coroutine_is_an_error/1, thousands_wait_at_the_same_time/1,
         a_timeout_cancels_the_task/1, a_dead_caller_cancels_the_task/1, tasks_are_awaited_once/1,
         an_await_may_be_tried_again/1, cancelled_tasks_leave_nothing/1,
         tasks_belong_to_their_process/1, spawned_tasks_outlive_their_process/1,
         further_loops_have_threads_of_their_own/1, loops_may_be_named/1,
         a_loop_stops_with_its_process/1, a_stopped_loop_refuses_calls/1,
         info_tells_what_a_loop_has_before_it/1, wrong_types_are_badarg/1]).

suite() ->
    [{timetrap, {minutes, 1}}].

all() ->
    [coroutines_run_and_answer, what_a_coroutine_raises_is_an_error,
     what_is_no_coroutine_is_an_error, thousands_wait_at_the_same_time,
     a_timeout_cancels_the_task, a_dead_caller_cancels_the_task, tasks_are_awaited_once,
     an_await_may_be_tried_again, cancelled_tasks_leave_nothing, tasks_belong_to_their_process,
     spawned_tasks_outlive_their_process, further_loops_have_threads_of_their_own,
     loops_may_be_named, a_loop_stops_with_its_process, a_stopped_loop_refuses_calls,
     info_tells_what_a_loop_has_before_it, wrong_types_are_badarg].

init_per_suite(Config) ->
    {ok, _} = application:ensure_all_started(beamloop),
    ok = py:exec("import asyncio, threading, time\n"
                 "async def add(a, b=2, delay=0):\n"
                 "    await asyncio.sleep(delay)\n"
                 "    return a + b\n"
                 "async def fail():\n"
                 "    raise ValueError('no')\n"
                 "log = []\n"
                 "async def wait(name):\n"
                 "    log.append(('waits', name))\n"
                 "    try:\n"
                 "        await asyncio.sleep(60)\n"
                 "    except asyncio.CancelledError:\n"
                 "        log.append(('cancelled', name))\n"
                 "        raise\n"
                 "async def thread():\n"
                 "    return threading.get_ident()\n"
                 "async def note(delay, what):\n"
                 "    await asyncio.sleep(delay)\n"
                 "    log.append(what)\n"
                 "async def block():\n"
                 "    asyncio.get_running_loop().call_later(0.001, int)\n"
                 "    time.sleep(0.03)\n"
                 "def plain():\n"
                 "    return 1\n"),
    Config.

end_per_suite(_Config) ->
    application:stop(beamloop).

%% No test leaves a call or a loop behind, nor anything in the mailbox.
end_per_testcase(_Case, _Config) ->
    channel_tests:wait_until(fun() ->
        erlang:garbage_collect(),
        #{calls := Calls, loops := Loops} = py:info(),
        {Calls, Loops} =:= {0, 0}
    end),
    ?assertEqual({messages, []}, process_info(self(), messages)).

-define(RUN(Function, Args), py_event_loop:run('__main__', Function, Args)).
-define(RUN(Function, Args, Options), py_event_loop:run('__main__', Function, Args, Options)).

coroutines_run_and_answer(_Config) ->
    ?assertEqual({ok, 3}, ?RUN(add, [1])),
    ?assertEqual({ok, 6}, ?RUN(add, [1], #{kwargs => #{b => 5}})),
    ?assertEqual({ok, 3}, ?RUN(add, [1, 2, 0.01])).

what_a_coroutine_raises_is_an_error(_Config) ->
    {error, {Name, Message, Traceback}} = ?RUN(fail, []),
    ?assertEqual({<<"ValueError">>, <<"no">>}, {channel_tests:exception(Name), Message}),
    ?assertEqual(<<"ValueError: no">>, lists:last(Traceback)).

what_is_no_coroutine_is_an_error(_Config) ->
    {error, {Name, _, _}} = ?RUN(plain, []),
    ?assertEqual(<<"TypeError">>, channel_tests:exception(Name)).

%% Each waits 0.2 s; one after the other would take minutes.
thousands_wait_at_the_same_time(_Config) ->
    {Time, ok} = timer:tc(fun() ->
        Tasks = [begin
                     {ok, Task} = py_event_loop:create_task('__main__', add, [N, 1, 0.2]),
                     {N, Task}
                 end || N <- lists:seq(1, 3000)],
        [?assertEqual({ok, N + 1}, py_event_loop:await(Task)) || {N, Task} <- Tasks],
        ok
    end),
    ?assert(Time < 20000000).

a_timeout_cancels_the_task(_Config) ->
    ?assertEqual({error, timeout}, ?RUN(wait, [timed], #{timeout => 50})),
    channel_tests:wait_until(fun() -> logged(timed) =:= {true, true} end).

a_dead_caller_cancels_the_task(_Config) ->
    Pid = spawn(fun() -> ?RUN(wait, [orphan]) end),
    channel_tests:wait_until(fun() -> logged(orphan) =:= {true, false} end),
    exit(Pid, kill),
    channel_tests:wait_until(fun() -> logged(orphan) =:= {true, true} end).

tasks_are_awaited_once(_Config) ->
    {ok, Task} = py_event_loop:create_task('__main__', add, [1]),
    ?assertEqual({ok, 3}, py_event_loop:await(Task)),
    ?assertEqual({error, already_awaited}, py_event_loop:await(Task)),
    ?assertEqual(ok, py_event_loop:cancel(Task)).

an_await_may_be_tried_again(_Config) ->
    {ok, Task} = py_event_loop:create_task('__main__', add, [1, 2, 0.1]),
    ?assertEqual({error, timeout}, py_event_loop:await(Task, 1)),
    ?assertEqual({ok, 3}, py_event_loop:await(Task, 5000)).

cancelled_tasks_leave_nothing(_Config) ->
    {ok, Task} = py_event_loop:create_task('__main__', wait, [given_up]),
    channel_tests:wait_until(fun() -> logged(given_up) =:= {true, false} end),
    ?assertEqual(ok, py_event_loop:cancel(Task)),
    ?assertEqual(ok, py_event_loop:cancel(Task)),
    ?assertEqual({error, already_awaited}, py_event_loop:await(Task)),
    channel_tests:wait_until(fun() -> logged(given_up) =:= {true, true} end),
    %% Cancelled at the moment that it ends, or after.
    [begin
         {ok, Quick} = py_event_loop:create_task('__main__', add, [N]),
         timer:sleep(N rem 2),
         ?assertEqual(ok, py_event_loop:cancel(Quick))
     end || N <- lists:seq(1, 200)].

tasks_belong_to_their_process(_Config) ->
    {ok, Task} = py_event_loop:create_task('__main__', add, [1]),
    {Pid, Monitor} = spawn_monitor(fun() ->
        ?assertError(badarg, py_event_loop:await(Task)),
        ?assertError(badarg, py_event_loop:cancel(Task))
    end),
    receive {'DOWN', Monitor, process, Pid, Reason} -> ?assertEqual(normal, Reason) end,
    ?assertEqual({ok, 3}, py_event_loop:await(Task)).

spawned_tasks_outlive_their_process(_Config) ->
    {Pid, Monitor} = spawn_monitor(fun() ->
        ok = py_event_loop:spawn_task('__main__', note, [0.1, outlived])
    end),
    receive {'DOWN', Monitor, process, Pid, normal} -> ok end,
    channel_tests:wait_until(fun() -> py:eval("'outlived' in log") =:= {ok, true} end).

further_loops_have_threads_of_their_own(_Config) ->
    Loops = [element(2, py_event_loop:start_link()) || _ <- lists:seq(1, 3)],
    Threads = [element(2, ?RUN(thread, [], #{loop => Loop})) || Loop <- [default | Loops]],
    ?assertEqual(4, length(lists:usort(Threads))),
    ?assertEqual(#{loops => 3}, maps:with([loops], py:info())),
    [ok = py_event_loop:stop(Loop) || Loop <- Loops].

loops_may_be_named(_Config) ->
    {ok, Pid} = py_event_loop:start_link(#{name => a_loop}),
    ?assertEqual(Pid, whereis(a_loop)),
    ?assertEqual({ok, 3}, ?RUN(add, [1], #{loop => a_loop})),
    ok = py_event_loop:stop(a_loop),
    ?assertEqual({error, not_running}, ?RUN(add, [1], #{loop => a_loop})).

a_loop_stops_with_its_process(_Config) ->
    process_flag(trap_exit, true),
    {ok, Loop} = py_event_loop:start_link(),
    ok = py_event_loop:spawn_task('__main__', wait, [on_a_loop], #{loop => Loop}),
    channel_tests:wait_until(fun() -> logged(on_a_loop) =:= {true, false} end),
    exit(Loop, kill),
    receive {'EXIT', Loop, killed} -> ok end,
    process_flag(trap_exit, false),
    channel_tests:wait_until(fun() -> maps:get(loops, py:info()) =:= 0 end),
    ?assertEqual({true, true}, logged(on_a_loop)).

a_stopped_loop_refuses_calls(_Config) ->
    {ok, Loop} = py_event_loop:start_link(),
    {Pid, Monitor} = spawn_monitor(fun() ->
        exit(?RUN(wait, [stopped], #{loop => Loop}))
    end),
    channel_tests:wait_until(fun() -> logged(stopped) =:= {true, false} end),
    ok = py_event_loop:stop(Loop),
    receive
        {'DOWN', Monitor, process, Pid, {error, {Name, _, _}}} ->
            ?assertEqual(<<"CancelledError">>, channel_tests:exception(Name))
    end,
    ?assertEqual({error, not_running}, ?RUN(add, [1], #{loop => Loop})).

info_tells_what_a_loop_has_before_it(_Config) ->
    {ok, Loop} = py_event_loop:start_link(),
    [ok = py_event_loop:spawn_task('__main__', wait, [counted], #{loop => Loop}) || _ <- [1, 2, 3]],
    channel_tests:wait_until(fun() -> logged(counted) =:= {true, false} end),
    {ok, Info} = py_event_loop:info(Loop),
    ?assertMatch(#{tasks := 3, timers := 3, ready := Ready} when Ready >= 0, Info),
    #{callbacks := Callbacks, iterations := Iterations, pending := _, watched := _, sources := _,
      last_iteration := Took, max_lag := Lag} = Info,
    ?assert(Callbacks >= 3),
    ?assert(Iterations >= 1),
    ?assert(Took >= 0.0 andalso Lag >= 0.0),
    {ok, none} = py_event_loop:run('__main__', block, [], #{loop => Loop}),
    {ok, #{max_lag := Late}} = py_event_loop:info(Loop),
    ?assert(Late >= 0.02),
    ok = py_event_loop:stop(Loop).

wrong_types_are_badarg(_Config) ->
    [?assertError(badarg, F())
     || F <- [fun() -> ?RUN(add, 1) end,
              fun() -> ?RUN(add, [1], []) end,
              fun() -> ?RUN(add, [1], #{kwargs => []}) end,
              fun() -> ?RUN(add, [1], #{no_such_option => 1}) end,
              fun() -> ?RUN(17, [1]) end,
              fun() -> py_event_loop:start_link(17) end,
              fun() -> py_event_loop:start_link(#{name => "text"}) end,
              fun() -> py_event_loop:start_link(#{no_such_option => 1}) end]].

%% ---- help ----

%% Whether the coroutine `wait' of this name has begun, and whether it was cancelled.
logged(Name) ->
    {ok, Seen} = py:eval("[(w, name) in log for w in ('waits', 'cancelled')]", #{name => Name}),
    list_to_tuple(Seen).
