%% Ending Python code wherever it is: nothing hangs, and nothing reaches another call.
-module(cancellation_SUITE).

-include_lib("stdlib/include/assert.hrl").

-export([all/0, suite/0, init_per_suite/1, end_per_suite/1]).
-export([a_call_that_waited_for_the_interpreter_is_interrupted/1, a_lost_exception_is_raised_again/1,
         an_exception_lost_under_a_loop_is_raised_again/1, a_loop_run_later_is_ended_too/1,
         a_wait_begun_later_is_ended_too/1, a_clean_up_is_left_to_end/1,
         a_clean_up_on_a_loop_is_left_to_end/1]).
-export([a_loop_that_is_all_c_is_interrupted/1, a_kept_loop_serves_the_next_call/1,
         a_loop_that_lost_its_end_is_stopped/1, an_interrupted_import_can_be_done_again/1,
         a_stop_reaches_every_worker/1, mixed_calls_get_their_own_answers/1]).

suite() ->
    [{timetrap, {minutes, 2}}].

all() ->
    [a_call_that_waited_for_the_interpreter_is_interrupted, a_lost_exception_is_raised_again,
     an_exception_lost_under_a_loop_is_raised_again, a_loop_run_later_is_ended_too,
     a_wait_begun_later_is_ended_too, a_clean_up_is_left_to_end, a_clean_up_on_a_loop_is_left_to_end,
     a_loop_that_is_all_c_is_interrupted, a_kept_loop_serves_the_next_call,
     a_loop_that_lost_its_end_is_stopped, an_interrupted_import_can_be_done_again,
     a_stop_reaches_every_worker, mixed_calls_get_their_own_answers].

init_per_suite(Config) ->
    {ok, _} = application:ensure_all_started(beamloop),
    ok = py:exec(
        "import asyncio, erlang, threading, time\n"
        "def spin(s, tag):\n"
        "    end = time.monotonic() + s\n"
        "    while time.monotonic() < end: pass\n"
        "    return tag\n"
        "def tell(test): erlang.send(test, erlang.Atom('started'))\n"
        "async def nap(s, tag):\n"
        "    await asyncio.sleep(s)\n"
        "    return tag\n"
        "async def turn(n, tag):\n"
        "    for _ in range(n): await asyncio.sleep(0)\n"
        "    return tag\n"
        "def ours(s, tag): return erlang.run(nap(s, tag))\n"
        "def turning(n, tag): return erlang.run(turn(n, tag))\n"
        "def c_loop(s, tag):\n"
        "    import uvloop\n"
        "    return uvloop.run(nap(s, tag))\n"
        "kept = threading.local()\n"
        "def on_kept(s, tag):\n"
        "    if not hasattr(kept, 'loop'): kept.loop = erlang.new_event_loop()\n"
        "    return kept.loop.run_until_complete(nap(s, tag))\n"),
    Config.

end_per_suite(_Config) ->
    application:stop(beamloop).

%% The worker has taken the call and waits for the GIL, which another thread keeps in foreign C.
a_call_that_waited_for_the_interpreter_is_interrupted(_Config) ->
    ok = py:exec("import ctypes\n"
                 "def hold_everything(s): ctypes.PyDLL(None).usleep(int(s * 1000000))\n"),
    [begin
         Holder = spawn_monitor(fun() ->
             {ok, none} = py:call('__main__', hold_everything, [0.1])
         end),
         Pids = [spawn_monitor(fun() ->
                     timer:sleep(10),
                     {error, timeout} = timed(spin, 600, N, 10 + N)
                 end) || N <- lists:seq(1, 6)],
         [receive {'DOWN', Monitor, process, _, Reason} -> ?assertEqual(normal, Reason) end
          || {_, Monitor} <- [Holder | Pids]]
     end || _ <- lists:seq(1, 10)],
    quiet().

%% What a destructor raises goes no further.
a_lost_exception_is_raised_again(_Config) ->
    lost(lose).

an_exception_lost_under_a_loop_is_raised_again(_Config) ->
    ok = py:exec("async def losing(test): lose(test)\n"
                 "def losing_ours(test): erlang.run(losing(test))\n"
                 "def losing_asyncio(test): asyncio.run(losing(test))\n"
                 "def losing_uvloop(test):\n"
                 "    import uvloop\n"
                 "    uvloop.run(losing(test))\n"),
    [lost(F) || F <- [losing_ours, losing_asyncio, losing_uvloop]].

%% The exception that ends a call is lost, and told as what Python ignored.
lost(Function) ->
    ok = py:exec("import sys\n"
                 "ignored = []\n"
                 "def on_ignored(what): ignored.append(what.exc_type.__name__)\n"
                 "class Loser:\n"
                 "    def __init__(self, test): self.test = test\n"
                 "    def __del__(self):\n"
                 "        tell(self.test)\n"
                 "        spin(600, 0)\n"
                 "def lose(test):\n"
                 "    Loser(test)\n"
                 "    spin(600, 0)\n"
                 "hook, sys.unraisablehook = sys.unraisablehook, on_ignored\n"),
    cancelled_when_told(Function),
    ?assertEqual({ok, [<<"CallCancelled">>]}, py:eval("ignored")),
    ok = py:exec("sys.unraisablehook = hook").

%% The tasks of each run are cancelled.
a_loop_run_later_is_ended_too(_Config) ->
    ok = py:exec("def run_twice(run):\n"
                 "    try: run(nap(600, 0))\n"
                 "    except asyncio.CancelledError: pass\n"
                 "    run(nap(600, 0))\n"
                 "def twice_ours(): run_twice(erlang.run)\n"
                 "def twice_asyncio(): run_twice(asyncio.run)\n"),
    [?assertEqual({error, timeout}, timed(F, [], 50)) || F <- [twice_ours, twice_asyncio]],
    quiet().

a_wait_begun_later_is_ended_too(_Config) ->
    ok = py:exec("def receive_twice():\n"
                 "    from erlang.channel import Channel\n"
                 "    channel = Channel()\n"
                 "    try: channel.receive()\n"
                 "    except erlang.CallCancelled: pass\n"
                 "    channel.receive()\n"),
    ?assertEqual({error, timeout}, timed(receive_twice, [], 50)),
    quiet().

a_clean_up_is_left_to_end(_Config) ->
    ok = py:exec("import contextlib\n"
                 "cleaned = []\n"
                 "def clean(what):\n"
                 "    try: spin(0.5, 0); [][0]\n"
                 "    except IndexError: spin(0.2, 0)\n"
                 "    cleaned.append(what)\n"
                 "@contextlib.contextmanager\n"
                 "def cleaning():\n"
                 "    try: yield\n"
                 "    finally: clean('with')\n"
                 "def careful(test):\n"
                 "    try:\n"
                 "        try:\n"
                 "            with cleaning():\n"
                 "                tell(test)\n"
                 "                spin(600, 0)\n"
                 "        finally: clean('finally')\n"
                 "    except erlang.CallCancelled:\n"
                 "        clean('except')\n"),
    cancelled_when_told(careful),
    ?assertEqual({ok, [<<"with">>, <<"finally">>, <<"except">>]}, py:eval("cleaned")).

a_clean_up_on_a_loop_is_left_to_end(_Config) ->
    ok = py:exec("async def careful_nap(test):\n"
                 "    try:\n"
                 "        tell(test)\n"
                 "        await asyncio.sleep(600)\n"
                 "    except asyncio.CancelledError as e:\n"
                 "        await asyncio.sleep(0.5)\n"
                 "        cleaned.append('except')\n"
                 "        raise\n"
                 "    finally:\n"
                 "        await asyncio.sleep(0.2)\n"
                 "        spin(0.5, 0)\n"
                 "        cleaned.append('finally')\n"
                 "def careful_ours(test): erlang.run(careful_nap(test))\n"
                 "def careful_asyncio(test): asyncio.run(careful_nap(test))\n"
                 "def careful_uvloop(test):\n"
                 "    import uvloop\n"
                 "    uvloop.run(careful_nap(test))\n"),
    [begin
         ok = py:exec("cleaned = []"),
         cancelled_when_told(F),
         ?assertEqual({ok, [<<"except">>, <<"finally">>]}, py:eval("cleaned"))
     end || F <- [careful_ours, careful_asyncio, careful_uvloop]].

a_loop_that_is_all_c_is_interrupted(_Config) ->
    ?assertEqual({ok, 1}, py:call('__main__', c_loop, [0, 1])),
    ?assertEqual([], [N || N <- lists:seq(1, 40),
                           timed(c_loop, 60, N, 1 + N rem 10) =/= {error, timeout}]),
    quiet().

%% One worker: its loop runs one call after the other.
a_kept_loop_serves_the_next_call(_Config) ->
    restart([{max_workers, 1}]),
    [begin
         _ = timed(on_kept, 0.003, N, N rem 5),
         ?assertEqual({ok, N}, py:call('__main__', on_kept, [0.001, N]))
     end || N <- lists:seq(1, 200)],
    restart([]).

%% What ended the task never reached the callback that stops the loop.
a_loop_that_lost_its_end_is_stopped(_Config) ->
    ok = py:exec("def endless():\n"
                 "    loop = erlang.new_event_loop()\n"
                 "    task = loop.create_task(nap(60, 0))\n"
                 "    try: loop.run_forever()\n"
                 "    finally: loop.close()\n"),
    ?assertEqual({error, timeout}, py:call('__main__', endless, [], #{}, #{timeout => 50})),
    quiet().

%% The locks of the import system are not left locked.
an_interrupted_import_can_be_done_again(_Config) ->
    ok = py:exec("import sys, importlib\n"
                 "names = ['xml.dom.minidom', 'email.mime.text', 'decimal', 'html.parser', 'mailbox']\n"
                 "def import_again():\n"
                 "    for name in names:\n"
                 "        sys.modules.pop(name, None)\n"
                 "        importlib.import_module(name)\n"),
    Parent = self(),
    Pids = [spawn_monitor(fun() ->
                [timed(import_again, [], N rem 7) || N <- lists:seq(1, 60)],
                Parent ! done
            end) || _ <- lists:seq(1, 4)],
    [receive {'DOWN', Monitor, process, _, Reason} -> normal = Reason end || {_, Monitor} <- Pids],
    [receive done -> ok end || _ <- Pids],
    quiet(),
    ?assertEqual({ok, none}, py:call('__main__', import_again, [], #{}, #{timeout => 20000})).

%% Also calls that were handed to a worker and had not begun.
a_stop_reaches_every_worker(_Config) ->
    [begin
         Pids = [spawn_monitor(fun() ->
                     {error, _} = py:call('__main__', F, [60, N])
                 end) || N <- lists:seq(1, 6), F <- [spin, ours]],
         timer:sleep(N0 rem 8),
         ok = application:stop(beamloop),
         [receive {'DOWN', Monitor, process, _, Reason} -> normal = Reason end
          || {_, Monitor} <- Pids],
         ok = application:start(beamloop)
     end || N0 <- lists:seq(1, 20)],
    until(fun() -> maps:get(abandoned_workers, py:info()) =:= 0 end, 100).

mixed_calls_get_their_own_answers(_Config) ->
    Kinds = [{spin, 0.002}, {ours, 0.002}, {turning, 50}, {c_loop, 0.002}, {nap_on_loop, 0.002}],
    Pids = [spawn_monitor(fun() -> mixed(P, Kinds) end) || P <- lists:seq(1, 10)],
    [receive {'DOWN', Monitor, process, _, Reason} -> ?assertEqual(normal, Reason) end
     || {_, Monitor} <- Pids],
    quiet().

mixed(P, Kinds) ->
    rand:seed(exsss, {P, P, P}),
    [begin
         {Kind, Time} = lists:nth(rand:uniform(length(Kinds)), Kinds),
         Timeout = lists:nth(rand:uniform(3), [infinity, rand:uniform(4) - 1, rand:uniform(20)]),
         Tag = {P, N},
         case one(Kind, Time, Tag, Timeout) of
             {ok, Tag} -> ok;
             {error, timeout} when Timeout =/= infinity -> ok
         end,
         receive Stray -> exit({stray, Kind, Stray}) after 0 -> ok end
     end || N <- lists:seq(1, 100)].

one(nap_on_loop, Time, Tag, Timeout) ->
    py_event_loop:run('__main__', nap, [Time, Tag], #{timeout => Timeout});
one(Kind, Time, Tag, Timeout) ->
    timed(Kind, Time, Tag, Timeout).

%% A call whose caller dies once the function has told this test that it is where it is to be cancelled.
cancelled_when_told(Function) ->
    Self = self(),
    {Caller, Monitor} = spawn_monitor(fun() -> exit(py:call('__main__', Function, [Self])) end),
    receive
        started -> exit(Caller, kill);
        {'DOWN', Monitor, process, Caller, Reason} -> ct:fail(Reason)
    end,
    receive {'DOWN', Monitor, process, Caller, killed} -> ok end,
    quiet().

timed(Function, Args, Timeout) ->
    py:call('__main__', Function, Args, #{}, #{timeout => Timeout}).

timed(Function, Time, Tag, Timeout) ->
    timed(Function, [Time, Tag], Timeout).

restart(Env) ->
    application:stop(beamloop),
    [application:unset_env(beamloop, Key) || Key <- [max_workers, max_queued, idle_timeout]],
    [application:set_env(beamloop, Key, Value) || {Key, Value} <- Env],
    ok = application:start(beamloop).

%% No call is left: no worker hangs.
quiet() ->
    until(fun() -> erlang:garbage_collect(), maps:get(calls, py:info()) =:= 0 end, 200).

until(Condition, 0) ->
    ct:fail({never, Condition, py:info()});
until(Condition, Tries) ->
    case Condition() of
        true -> ok;
        false -> timer:sleep(50), until(Condition, Tries - 1)
    end.
