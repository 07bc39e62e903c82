%% Python inside the virtual machine: what it finds, how both end, what survives a crash.
-module(embedding_SUITE).

-include_lib("stdlib/include/assert.hrl").

-export([all/0, suite/0]).
-export([python_is_the_configured_one/1, extension_modules_load/1, the_main_thread_is_pythons/1,
         a_virtual_environment_is_used/1, a_python_home_is_used/1,
         what_is_no_python_is_an_error_of_the_start/1, the_node_stops_with_busy_python/1,
         the_node_halts_with_busy_python/1, atexit_runs_once_when_the_node_stops/1,
         the_nif_module_can_be_purged_and_loaded_again/1, the_crash_of_the_owner_leaves_python_alone/1,
         the_crash_of_the_relay_leaves_python_alone/1, messages_reach_processes/1,
         messages_reach_other_nodes/1]).
-export([hand_over/1]).

suite() ->
    [{timetrap, {minutes, 3}}].

all() ->
    [python_is_the_configured_one, extension_modules_load, the_main_thread_is_pythons,
     a_virtual_environment_is_used, a_python_home_is_used,
     what_is_no_python_is_an_error_of_the_start, the_node_stops_with_busy_python,
     the_node_halts_with_busy_python, atexit_runs_once_when_the_node_stops,
     the_nif_module_can_be_purged_and_loaded_again, the_crash_of_the_owner_leaves_python_alone,
     the_crash_of_the_relay_leaves_python_alone, messages_reach_processes,
     messages_reach_other_nodes].

python_is_the_configured_one(_Config) ->
    {Peer, ok} = vm_node:start([]),
    Python = default_python(),
    ?assertEqual({ok, list_to_binary(Python)},
                 vm_node:call(Peer, py, eval, ["__import__('sys').executable"])),
    %% The prefix and site-packages of that very program.
    ok = vm_node:call(Peer, py, exec, ["import sys, sysconfig"]),
    {ok, Inside} = vm_node:call(Peer, py, eval,
                                ["sys.prefix + ' ' + sysconfig.get_path('purelib')"]),
    Code = "import sys, sysconfig; print(sys.prefix, sysconfig.get_path('purelib'))",
    ?assertEqual(string:trim(os:cmd(Python ++ " -c \"" ++ Code ++ "\"")), binary_to_list(Inside)),
    vm_node:stop(Peer).

module(Name) ->
    {ok, Module} = py:call(importlib, import_module, [list_to_binary(Name)], #{},
                           #{binaries => str}),
    Module.

extension_modules_load(_Config) ->
    with_app(fun() ->
        ?assertEqual(ok, py:exec("import _ctypes, _decimal, _ssl, _sqlite3, _json, _asyncio"))
    end).

the_main_thread_is_pythons(_Config) ->
    with_app(fun() ->
        ok = py:exec("import threading\n"
                     "async def on_main():\n"
                     "    return threading.current_thread() is threading.main_thread()\n"),
        ?assertEqual({ok, true}, py_event_loop:run('__main__', on_main, [])),
        ?assertEqual({ok, false},
                     py:eval("t.current_thread() is t.main_thread()", #{t => module("threading")}))
    end).

a_virtual_environment_is_used(Config) ->
    Venv = filename:join(proplists:get_value(priv_dir, Config), "venv"),
    [] = os:cmd(default_python() ++ " -m venv --without-pip " ++ Venv),
    {Peer, ok} = vm_node:start([{venv, Venv}]),
    {ok, {Prefix, Executable, InVenv}} =
        vm_node:call(Peer, py, eval, ["(lambda s: (s.prefix, s.executable, s.prefix != s.base_prefix))"
                                      "(__import__('sys'))"]),
    ?assertEqual(list_to_binary(Venv), Prefix),
    ?assertEqual(list_to_binary(filename:join(Venv, "bin/python3")), Executable),
    ?assert(InVenv),
    vm_node:stop(Peer).

a_python_home_is_used(_Config) ->
    Home = filename:dirname(filename:dirname(default_python())),
    {Peer, ok} = vm_node:start([{python_home, Home}]),
    ?assertEqual({ok, list_to_binary(filename:join(Home, "bin/python3"))},
                 vm_node:call(Peer, py, eval, ["__import__('sys').executable"])),
    vm_node:stop(Peer).

what_is_no_python_is_an_error_of_the_start(_Config) ->
    {Peer, {error, Reason}} = vm_node:start([{venv, "/no/such/venv"}]),
    ?assertMatch({{python, {no_virtual_environment, "/no/such/venv"}}, _}, Reason),
    ?assertEqual({error, not_running}, vm_node:call(Peer, py, eval, ["1"])),
    ok = vm_node:call(Peer, application, unset_env, [beamloop, venv]),
    ok = vm_node:call(Peer, application, set_env, [beamloop, python_home, "/no/such/home"]),
    ?assertMatch({error, {{python, {no_python, "/no/such/home/bin/python3"}}, _}},
                 vm_node:call(Peer, application, start, [beamloop])),
    %% The same machine starts once the environment is right.
    ok = vm_node:call(Peer, application, unset_env, [beamloop, python_home]),
    ?assertEqual(ok, vm_node:call(Peer, application, start, [beamloop])),
    ?assertEqual({ok, 2}, vm_node:call(Peer, py, eval, ["1 + 1"])),
    vm_node:stop(Peer).

-define(BUSY,
        "ok = application:start(beamloop),"
        "ok = py:exec(\"import time\\nasync def nap(): time.sleep(0.3)\"),"
        "[spawn(fun() -> py:exec(\"while True: pass\") end) || _ <- [1, 2]],"
        "spawn(fun() -> py:call(time, sleep, [100]) end),"
        "spawn(fun() -> {ok, C} = py_channel:new(), "
        "               py:call('erlang.channel', 'Channel.receive', [C]) end),"
        "py_event_loop:spawn_task('__main__', nap, []),"
        "timer:sleep(200),").

the_node_stops_with_busy_python(_Config) ->
    [?assertEqual({3, <<>>}, quiet(vm_node:run(?BUSY "init:stop(3).")))
     || _ <- lists:seq(1, 5)].

the_node_halts_with_busy_python(_Config) ->
    [?assertEqual({7, <<>>}, vm_node:run(?BUSY "halt(7)."))
     || _ <- lists:seq(1, 10)].

%% What the logger says of an abandoned call is no part of what is tested.
quiet({Status, _Output}) ->
    {Status, <<>>}.

atexit_runs_once_when_the_node_stops(_Config) ->
    {Status, Output} = vm_node:run(
        "ok = application:start(beamloop),"
        "ok = py:exec(\"import atexit; atexit.register(print, 'at', 'exit')\"),"
        "ok = application:stop(beamloop),"
        "ok = application:start(beamloop),"
        "io:put_chars(\"restarted\\n\"),"
        "init:stop()."),
    ?assertEqual(0, Status),
    Lines = [L || L <- binary:split(Output, <<"\n">>, [global]),
                  L =:= <<"at exit">> orelse L =:= <<"restarted">>],
    ?assertEqual([<<"restarted">>, <<"at exit">>], Lines).

the_nif_module_can_be_purged_and_loaded_again(_Config) ->
    {Peer, ok} = vm_node:start([]),
    Evaluate = fun() -> vm_node:call(Peer, py, eval, ["1 + 1"]) end,
    ?assertEqual({ok, 2}, Evaluate()),
    [begin
         {module, beamloop_nif} = vm_node:call(Peer, code, load_file, [beamloop_nif]),
         _ = vm_node:call(Peer, code, purge, [beamloop_nif]),
         ?assertEqual({ok, 2}, Evaluate())
     end || _ <- lists:seq(1, 3)],
    ok = vm_node:call(Peer, application, stop, [beamloop]),
    _ = vm_node:call(Peer, code, delete, [beamloop_nif]),
    _ = vm_node:call(Peer, code, purge, [beamloop_nif]),
    ok = vm_node:call(Peer, application, start, [beamloop]),
    ?assertEqual({ok, 2}, Evaluate()),
    vm_node:stop(Peer).

the_crash_of_the_owner_leaves_python_alone(_Config) ->
    with_app(fun() ->
        ok = py:exec("kept = 'yes'"),
        {Pid, Monitor} = spawn_monitor(fun() -> exit(py:call(time, sleep, [1])) end),
        timer:sleep(50),
        Owner = whereis(beamloop_interpreter),
        exit(Owner, kill),
        %% Who waits is told.
        receive {'DOWN', Monitor, process, Pid, Reason} ->
            ?assertEqual({error, not_running}, Reason)
        end,
        until(fun() -> not lists:member(whereis(beamloop_interpreter), [undefined, Owner]) end),
        ?assertEqual({ok, <<"yes">>}, py:eval("kept"))
    end).

the_crash_of_the_relay_leaves_python_alone(_Config) ->
    with_app(fun() ->
        Interpreter = whereis(beamloop_interpreter),
        exit(whereis(beamloop_relay), kill),
        ?assertEqual({ok, 2}, py:eval("1 + 1")),
        ?assertEqual(Interpreter, whereis(beamloop_interpreter))
    end).

messages_reach_processes(_Config) ->
    with_app(fun() ->
        ok = py:exec("import erlang"),
        Send = fun(To, Term) ->
            py:call(erlang, send, [To, Term], #{}, #{binaries => str})
        end,
        ?assertEqual({ok, none}, Send(self(), {response, [1, <<"two">>]})),
        receive One -> ?assertEqual({response, [1, <<"two">>]}, One) end,
        %% A str at the head that names an atom becomes it; elsewhere it stays text.
        ok = py:exec("def answer(pid): erlang.reply(pid, ('response', 'response'))"),
        {ok, none} = py:call('__main__', answer, [self()]),
        receive Two -> ?assertEqual({response, <<"response">>}, Two) end,
        register(?MODULE, self()),
        ?assertEqual({ok, none}, Send(?MODULE, named)),
        receive Three -> ?assertEqual(named, Three) end,
        ?assertEqual({ok, none}, Send(atom_to_binary(?MODULE), named_by_text)),
        unregister(?MODULE),
        ?assertMatch({error, {_, _, _}}, Send(?MODULE, lost)),
        ?assertMatch({error, {_, _, _}}, Send(17, lost)),
        Dead = spawn(fun() -> ok end),
        ?assertEqual({ok, none}, Send(Dead, dropped)),
        ?assertMatch({error, {_, _, _}},
                     py:eval("erlang.send(pid, object())", #{pid => self()}))
    end).

messages_reach_other_nodes(_Config) ->
    Named = fun() -> #{name => peer:random_name()} end,
    {Here, ok} = vm_node:start([], Named()),
    {ok, There, ThereNode} =
        peer:start_link((Named())#{connection => standard_io,
                                   args => ["-pa", filename:dirname(code:which(?MODULE))]}),
    pong = vm_node:call(Here, net_adm, ping, [ThereNode]),
    Remote = vm_node:call(There, erlang, spawn, [?MODULE, hand_over, [self_there]]),
    ?assertEqual({ok, none}, vm_node:call(Here, py, call, [erlang, send, [Remote, {hello, 1}]])),
    until(fun() ->
        vm_node:call(There, persistent_term, get, [self_there, none]) =:= {hello, 1}
    end),
    vm_node:stop(Here),
    peer:stop(There).

%% On the other node: keeps the first message where the test can see it.
hand_over(Key) ->
    receive Message -> persistent_term:put(Key, Message) end.

%% ---- help ----

%% The program that the library was built for.
default_python() ->
    {module, beamloop_nif} = code:ensure_loaded(beamloop_nif),
    binary_to_list(beamloop_nif:nif_default_python()).

with_app(Fun) ->
    {ok, _} = application:ensure_all_started(beamloop),
    try
        Fun()
    after
        ok = application:stop(beamloop)
    end.

until(Condition) ->
    until(Condition, 500).

until(Condition, 0) ->
    ct:fail({never, Condition});
until(Condition, N) ->
    case Condition() of
        true -> ok;
        false -> timer:sleep(10), until(Condition, N - 1)
    end.
