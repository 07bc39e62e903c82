%% Calls into Python: values, errors, cancellation, limits.
-module(calls_SUITE).

-include_lib("stdlib/include/assert.hrl").

-export([all/0, suite/0, init_per_suite/1, end_per_suite/1, end_per_testcase/2]).
-export([functions_take_arguments/1, names_may_be_dotted/1, eval_sees_locals/1,
         a_profiled_call_ends/1,
         binaries_are_bytes_unless_asked/1, objects_are_opaque_and_come_back/1,
         objects_are_dropped_with_their_last_reference/1, exceptions_are_errors/1,
         known_exception_names_are_atoms/1, no_exception_ends_the_vm/1,
         an_exception_that_cannot_be_printed_is_still_an_error/1, results_without_a_term_are_errors/1,
         wrong_types_are_badarg/1, long_payloads_arrive/1, calls_do_not_share_context/1]).
-export([a_timeout_ends_the_python_code/1, a_dead_caller_ends_the_python_code/1,
         a_cancellation_hits_only_its_call/1, an_answer_that_comes_late_is_not_left_behind/1,
         a_wait_on_a_channel_is_interrupted/1, a_loop_on_a_worker_is_interrupted/1,
         a_busy_coroutine_on_a_worker_is_interrupted/1,
         a_call_stuck_in_c_is_abandoned/1, a_queued_call_that_timed_out_never_runs/1,
         too_many_calls_are_refused/1, idle_workers_end/1]).

suite() ->
    [{timetrap, {minutes, 1}}].

all() ->
    [functions_take_arguments, names_may_be_dotted, eval_sees_locals, a_profiled_call_ends,
     binaries_are_bytes_unless_asked, objects_are_opaque_and_come_back,
     objects_are_dropped_with_their_last_reference, exceptions_are_errors,
     known_exception_names_are_atoms, no_exception_ends_the_vm,
     an_exception_that_cannot_be_printed_is_still_an_error, results_without_a_term_are_errors,
     wrong_types_are_badarg, long_payloads_arrive, calls_do_not_share_context,
     a_timeout_ends_the_python_code, a_dead_caller_ends_the_python_code,
     a_cancellation_hits_only_its_call, an_answer_that_comes_late_is_not_left_behind,
     a_wait_on_a_channel_is_interrupted, a_loop_on_a_worker_is_interrupted,
     a_busy_coroutine_on_a_worker_is_interrupted,
     a_call_stuck_in_c_is_abandoned, a_queued_call_that_timed_out_never_runs,
     too_many_calls_are_refused, idle_workers_end].

init_per_suite(Config) ->
    {ok, _} = application:ensure_all_started(beamloop),
    Config.

end_per_suite(_Config) ->
    restart([]),
    quiet(),
    application:stop(beamloop).

%% No test leaves a call, a queued job or an object behind.
end_per_testcase(_Case, _Config) ->
    quiet().

%% ---- values and errors ----

functions_take_arguments(_Config) ->
    ok = py:exec("def f(a, b=2, *, c=3): return [a, b, c]"),
    ?assertEqual({ok, [1, 2, 3]}, py:call('__main__', f, [1])),
    ?assertEqual({ok, [1, 5, 6]}, py:call('__main__', f, [1, 5], #{c => 6})),
    ?assertEqual({ok, [1, 5, 6]}, py:call(<<"__main__">>, "f", [1], #{<<"b">> => 5, "c" => 6})),
    ?assertEqual({ok, none}, py:call(time, sleep, [0])).

%% On a thread that has run a call before, too.
a_profiled_call_ends(_Config) ->
    [ok = py:exec("import asyncio, cProfile\n"
                  "profile = cProfile.Profile()\n"
                  "profile.enable()\n"
                  "asyncio.run(asyncio.sleep(0))\n"
                  "profile.disable()\n") || _ <- lists:seq(1, 3)].

names_may_be_dotted(_Config) ->
    ?assertEqual({ok, <<"a/b">>}, py:call('os.path', join, [<<"a">>, <<"b">>])),
    ?assertEqual({ok, <<"a/b">>}, py:call(os, 'path.join', [<<"a">>, <<"b">>])).

eval_sees_locals(_Config) ->
    ok = py:exec("shared = 40"),
    ?assertEqual({ok, 42}, py:eval("shared + x", #{x => 2})),
    ?assertMatch({error, {_, <<"name 'x' is not defined">>, _}}, py:eval("shared + x")).

binaries_are_bytes_unless_asked(_Config) ->
    Name = fun(Options) -> py:eval("type(x).__name__", #{x => <<"text">>}, Options) end,
    ?assertEqual({ok, <<"bytes">>}, Name(#{})),
    ?assertEqual({ok, <<"str">>}, Name(#{binaries => str})),
    ok = application:set_env(beamloop, binaries, str),
    ?assertEqual({ok, <<"str">>}, Name(#{})),
    ?assertEqual({ok, <<"bytes">>}, Name(#{binaries => bytes})),
    ok = application:unset_env(beamloop, binaries).

objects_are_opaque_and_come_back(_Config) ->
    ok = py:exec("class Counter:\n"
                 "    n = 0\n"
                 "    def add(self, by=1):\n"
                 "        self.n += by\n"
                 "        return self\n"),
    {ok, Counter} = py:call('__main__', 'Counter', []),
    ?assert(is_reference(Counter)),
    {ok, Same} = py:call(Counter, add, [], #{by => 5}),
    ?assertEqual({ok, true}, py:eval("a is b and b.n == 5", #{a => Counter, b => Same})),
    {ok, [{In, 1}]} = py:eval("[(a, 1)]", #{a => Counter}),
    ?assertEqual({ok, 5}, py:eval("a.n", #{a => In})).

objects_are_dropped_with_their_last_reference(_Config) ->
    ok = py:exec("import weakref\n"
                 "class Thing: pass\n"
                 "live = weakref.WeakSet()\n"
                 "def thing():\n"
                 "    t = Thing()\n"
                 "    live.add(t)\n"
                 "    return t\n"),
    {Pid, Monitor} = spawn_monitor(fun() ->
        Things = [element(2, py:call('__main__', thing, [])) || _ <- lists:seq(1, 100)],
        exit({made, length(Things), py:eval("len(live)")})
    end),
    receive {'DOWN', Monitor, process, Pid, Reason} ->
        ?assertEqual({made, 100, {ok, 100}}, Reason)
    end,
    quiet(),
    ?assertEqual({ok, 0}, py:eval("len(live)")).

exceptions_are_errors(_Config) ->
    ok = py:exec("def fail(): raise ValueError('no')"),
    {error, {Name, Message, Traceback}} = py:call('__main__', fail, []),
    ?assertEqual(<<"ValueError">>, text(Name)),
    ?assertEqual(<<"no">>, Message),
    ?assertEqual(<<"Traceback (most recent call last):">>, hd(Traceback)),
    ?assertEqual(<<"ValueError: no">>, lists:last(Traceback)),
    ?assertMatch({error, {_, <<"No module named 'no_such'">>, _}}, py:call(no_such, f, [])),
    ?assertMatch({error, {_, <<"module 'math' has no attribute 'no_such'">>, _}},
                 py:call(math, no_such, [])),
    ?assertMatch({error, {_, _, [_ | _]}}, py:eval("1 +")).

known_exception_names_are_atoms(_Config) ->
    ok = py:exec("class Quite_Unknown_To_Erlang(Exception): pass\n"
                 "class Known_To_Erlang(Exception): pass\n"),
    ?assertMatch({error, {<<"Quite_Unknown_", _/binary>>, _, _}},
                 py:exec("raise " ++ "Quite_Unknown_" ++ "To_Erlang")),
    ?assertMatch({error, {'Known_To_Erlang', _, _}}, py:exec("raise Known_To_Erlang")).

no_exception_ends_the_vm(_Config) ->
    Raises = [{"SystemExit", "import sys; sys.exit(3)"},
              {"KeyboardInterrupt", "raise KeyboardInterrupt"},
              {"GeneratorExit", "raise GeneratorExit"},
              {"RecursionError", "def deep(): return deep() + 1\ndeep()"},
              {"MemoryError", "'x' * (1 << 62)"},
              {"CancelledError", "import asyncio; raise asyncio.CancelledError"},
              {"CallCancelled", "import erlang; raise erlang.CallCancelled"},
              {"BaseException", "raise BaseException"}],
    [begin
         {error, {Raised, _, _}} = py:exec(Code),
         ?assertEqual(Name, binary_to_list(text(Raised)))
     end || {Name, Code} <- Raises],
    ?assertEqual({ok, 2}, py:eval("1 + 1")).

an_exception_that_cannot_be_printed_is_still_an_error(_Config) ->
    ?assertMatch({error, {_, <<>>, []}},
                 py:exec("class Mute(Exception):\n"
                         "    def __str__(self): raise RuntimeError\n"
                         "raise Mute")),
    ?assertMatch({error, {_, <<"\\ud800">>, _}}, py:exec("raise ValueError('\\ud800')")).

results_without_a_term_are_errors(_Config) ->
    ?assertMatch({error, {_, _, _}}, py:eval("float('nan')")),
    ?assertMatch({error, {_, _, _}}, py:eval("[1, float('inf')]")),
    ?assertMatch({error, {_, _, _}}, py:eval("'\\ud800'")).

wrong_types_are_badarg(_Config) ->
    Wrong = [fun() -> py:call(math, sqrt, 4) end,
             fun() -> py:call(math, sqrt, [4 | 5]) end,
             fun() -> py:call(math, 17, [4]) end,
             fun() -> py:call({math}, sqrt, [4]) end,
             fun() -> py:call(math, sqrt, [4], []) end,
             fun() -> py:call(math, sqrt, [4], #{}, #{timeout => -1}) end,
             fun() -> py:call(math, sqrt, [4], #{}, #{no_such_option => 1}) end,
             fun() -> py:eval(17) end,
             fun() -> py:eval("1", []) end,
             fun() -> py:exec(#{}) end,
             fun() -> py:exec("1", #{binaries => text}) end],
    [?assertError(badarg, F()) || F <- Wrong].

long_payloads_arrive(_Config) ->
    Bytes = binary:copy(<<"0123456789">>, 1000000),
    ?assertEqual({ok, byte_size(Bytes)}, py:call(builtins, len, [Bytes])),
    ?assertEqual({ok, Bytes}, py:eval("x", #{x => Bytes})),
    Numbers = lists:seq(1, 100000),
    ?assertEqual({ok, lists:sum(Numbers)}, py:call(builtins, sum, [Numbers])).

calls_do_not_share_context(_Config) ->
    ok = py:exec("import contextvars\nvar = contextvars.ContextVar('var', default=0)\n"
                 "def bump():\n    var.set(var.get() + 1)\n    return var.get()\n"),
    ?assertEqual([{ok, 1}, {ok, 1}, {ok, 1}],
                 [py:call('__main__', bump, []) || _ <- lists:seq(1, 3)]).

%% ---- cancellation ----

a_timeout_ends_the_python_code(_Config) ->
    ok = py:exec("seen = []\n"
                 "def spin_on():\n"
                 "    while True: pass\n"
                 "def spin():\n"
                 "    try:\n"
                 "        seen.append('started')\n"
                 "        spin_on()\n"
                 "    except BaseException as e:\n"
                 "        seen.append(type(e).__name__)\n"
                 "        raise\n"),
    ?assertEqual({error, timeout}, py:call('__main__', spin, [], #{}, #{timeout => 300})),
    quiet(),
    ?assertEqual({ok, [<<"started">>, <<"CallCancelled">>]}, py:eval("seen")).

a_dead_caller_ends_the_python_code(_Config) ->
    ok = py:exec("entered = False\n"
                 "def spin_on():\n"
                 "    global entered\n"
                 "    entered = True\n"
                 "    while True: pass\n"),
    Pid = spawn(fun() -> py:call('__main__', spin_on, []) end),
    until(fun() -> py:eval("entered") =:= {ok, true} end),
    exit(Pid, kill),
    quiet().

%% One worker: what follows a cancelled call runs on the same thread.
a_cancellation_hits_only_its_call(_Config) ->
    restart([{max_workers, 1}]),
    ok = py:exec("import time\n"
                 "def nap(s):\n    end = time.monotonic() + s\n"
                 "    while time.monotonic() < end: pass\n"),
    [begin
         _ = py:call('__main__', nap, [0.001 * (N rem 4)], #{}, #{timeout => N rem 3}),
         ?assertEqual({ok, N}, py:call(builtins, abs, [-N]))
     end || N <- lists:seq(1, 300)],
    restart([]).

an_answer_that_comes_late_is_not_left_behind(_Config) ->
    Results = [py:call(time, sleep, [0.002], #{}, #{timeout => N rem 5}) || N <- lists:seq(1, 300)],
    ?assertEqual([], [R || R <- Results, R =/= {ok, none}, R =/= {error, timeout}]),
    quiet(),
    ?assertEqual({messages, []}, process_info(self(), messages)).

a_wait_on_a_channel_is_interrupted(_Config) ->
    ok = py:exec("from erlang.channel import Channel\n"
                 "def receive_one(ref): return Channel(ref).receive()\n"),
    {ok, Ch} = py_channel:new(),
    ?assertEqual({error, timeout},
                 py:call('__main__', receive_one, [Ch], #{}, #{timeout => 50})),
    until(fun() -> maps:get(calls, settled_info()) =:= 0 end),
    ok = py_channel:send(Ch, kept),
    ?assertEqual({ok, kept}, py:call('__main__', receive_one, [Ch])).

a_loop_on_a_worker_is_interrupted(_Config) ->
    ok = py:exec("import asyncio, erlang\n"
                 "ended = []\n"
                 "async def wait_long(name):\n"
                 "    try:\n"
                 "        await asyncio.sleep(60)\n"
                 "    except asyncio.CancelledError:\n"
                 "        ended.append(name)\n"
                 "        raise\n"
                 "def ours(): erlang.run(wait_long('ours'))\n"
                 "def asyncios(): asyncio.run(wait_long('asyncio'))\n"),
    [?assertEqual({error, timeout}, py:call('__main__', F, [], #{}, #{timeout => 50}))
     || F <- [ours, asyncios]],
    quiet(),
    {ok, Ended} = py:eval("sorted(ended)"),
    ?assertEqual([<<"asyncio">>, <<"ours">>], Ended).

a_busy_coroutine_on_a_worker_is_interrupted(_Config) ->
    ok = py:exec("import erlang\n"
                 "async def spin_for_ever():\n    while True: pass\n"
                 "def run_spin(): erlang.run(spin_for_ever())\n"),
    ?assertEqual({error, timeout}, py:call('__main__', run_spin, [], #{}, #{timeout => 50})),
    quiet().

a_call_stuck_in_c_is_abandoned(_Config) ->
    {Time, Result} = timer:tc(fun() -> py:call(time, sleep, [1.5], #{}, #{timeout => 50}) end),
    ?assertEqual({error, timeout}, Result),
    ?assert(Time < 1000000),
    ?assertEqual({ok, 2}, py:eval("1 + 1")),
    quiet().

%% ---- limits ----

a_queued_call_that_timed_out_never_runs(_Config) ->
    restart([{max_workers, 1}]),
    ok = py:exec("ran = []"),
    quiet(),
    Sleeper = spawn_monitor(fun() -> {ok, none} = py:call(time, sleep, [0.3]) end),
    until(fun() -> maps:get(idle_workers, py:info()) =:= 0 end),
    ?assertEqual({error, timeout}, py:exec("ran.append(1)", #{timeout => 20})),
    ?assertEqual(0, maps:get(queued, py:info())),
    await_down(Sleeper),
    ?assertEqual({ok, []}, py:eval("ran")),
    restart([]).

too_many_calls_are_refused(_Config) ->
    restart([{max_workers, 2}, {max_queued, 3}]),
    Callers = [spawn_monitor(fun() -> exit(py:call(time, sleep, [0.5])) end)
               || _ <- lists:seq(1, 5)],
    until(fun() -> maps:get(queued, py:info()) =:= 3 end),
    ?assertEqual({error, overloaded}, py:eval("1")),
    [receive {'DOWN', M, process, P, Result} -> ?assertEqual({ok, none}, Result) end
     || {P, M} <- Callers],
    ?assertEqual({ok, 1}, py:eval("1")),
    restart([]).

idle_workers_end(_Config) ->
    restart([{idle_timeout, 100}]),
    [await_down(C) || C <- [spawn_monitor(fun() -> {ok, none} = py:call(time, sleep, [0.1]) end)
                            || _ <- lists:seq(1, 10)]],
    ?assert(maps:get(workers, py:info()) > 0),
    until(fun() -> maps:get(workers, py:info()) =:= 0 end),
    ?assertEqual({ok, 1}, py:eval("1")),
    restart([]).

%% ---- help ----

text(Name) when is_atom(Name) -> atom_to_binary(Name);
text(Name) -> Name.

restart(Env) ->
    _ = application:stop(beamloop),
    [application:unset_env(beamloop, Key) || Key <- [max_workers, max_queued, idle_timeout]],
    [application:set_env(beamloop, Key, Value) || {Key, Value} <- Env],
    ok = application:start(beamloop).

await_down({Pid, Monitor}) ->
    receive {'DOWN', Monitor, process, Pid, Reason} -> ?assertEqual(normal, Reason) end.

settled_info() ->
    erlang:garbage_collect(),
    py:info().

quiet() ->
    until(fun() ->
        #{calls := Calls, queued := Queued, objects := Objects, pending_decrefs := Pending,
          workers := Workers, idle_workers := Idle} = settled_info(),
        {Calls, Queued, Objects, Pending, Workers - Idle} =:= {0, 0, 0, 0, 0}
    end).

until(Condition) ->
    until(Condition, 500).

until(Condition, 0) ->
    ct:fail({never, Condition, py:info()});
until(Condition, N) ->
    case Condition() of
        true ->
            ok;
        false ->
            timer:sleep(10),
            until(Condition, N - 1)
    end.
