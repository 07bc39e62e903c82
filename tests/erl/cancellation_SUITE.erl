%% Ending Python code wherever it is: nothing hangs, and nothing reaches another call.
-module(cancellation_SUITE).

-include_lib("stdlib/include/assert.hrl").

-export([all/0, suite/0, init_per_suite/1, end_per_suite/1]).
-export([a_loop_that_is_all_c_is_interrupted/1, a_kept_loop_serves_the_next_call/1,
         a_loop_that_lost_its_end_is_stopped/1, an_interrupted_import_can_be_done_again/1,
         a_stop_reaches_every_worker/1, mixed_calls_get_their_own_answers/1]).

suite() ->
    [{timetrap, {minutes, 2}}].

all() ->
    [a_loop_that_is_all_c_is_interrupted, a_kept_loop_serves_the_next_call,
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
                [timed(import_again, N rem 7) || N <- lists:seq(1, 60)],
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

timed(Function, Timeout) ->
    py:call('__main__', Function, [], #{}, #{timeout => Timeout}).

timed(Function, Time, Tag, Timeout) ->
    py:call('__main__', Function, [Time, Tag], #{}, #{timeout => Timeout}).

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
