%% Signals and children: what Python may handle, and what a child process inherits.
-module(signals_SUITE).

-include_lib("stdlib/include/assert.hrl").

-export([all/0, suite/0, init_per_suite/1, end_per_suite/1]).
-export([children_can_be_terminated/1, exit_codes_of_children_are_seen/1,
         asyncio_children_can_be_terminated/1, children_block_no_signal/1,
         signals_of_the_vm_are_refused/1, a_signal_that_is_let_go_can_be_handled/1,
         the_vm_still_ends_on_sigterm/1, python_threads_block_all_signals/1,
         a_forked_child_ends_with_its_call/1, multiprocessing_works/1]).

suite() ->
    [{timetrap, {minutes, 1}}].

all() ->
    [children_can_be_terminated, exit_codes_of_children_are_seen,
     asyncio_children_can_be_terminated, children_block_no_signal, signals_of_the_vm_are_refused,
     a_signal_that_is_let_go_can_be_handled, the_vm_still_ends_on_sigterm,
     python_threads_block_all_signals, a_forked_child_ends_with_its_call, multiprocessing_works].

init_per_suite(Config) ->
    {ok, _} = application:ensure_all_started(beamloop),
    ok = py:exec("import asyncio, multiprocessing, os, signal, subprocess, sys, time\n"
                 "BLOCKED = \"import signal; print(len(signal.pthread_sigmask(0, [])))\"\n"
                 "PYTHON = [sys.executable, '-c', BLOCKED]\n"),
    Config.

end_per_suite(_Config) ->
    application:stop(beamloop).

%% `sleep' itself, without a shell that would die of the signal in its place.
children_can_be_terminated(_Config) ->
    ?assertEqual(ok, py:exec("p = subprocess.Popen(['sleep', '100'])\n"
                             "p.terminate()\n"
                             "assert p.wait(10) == -signal.SIGTERM, p.returncode\n")).

exit_codes_of_children_are_seen(_Config) ->
    ?assertEqual({ok, 5}, py:eval("subprocess.run(['sh', '-c', 'exit 5']).returncode")),
    ?assertEqual({ok, 5}, py:eval("os.waitstatus_to_exitcode(os.system('exit 5'))")),
    ?assertEqual({ok, <<"out\n">>}, py:eval("subprocess.check_output(['echo', 'out'])")).

asyncio_children_can_be_terminated(_Config) ->
    ok = py:exec("async def terminate_child():\n"
                 "    p = await asyncio.create_subprocess_exec('sleep', '100')\n"
                 "    p.terminate()\n"
                 "    return await p.wait()\n"
                 "async def child_output():\n"
                 "    p = await asyncio.create_subprocess_exec('sh', '-c', 'cat; exit 4',\n"
                 "        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE)\n"
                 "    out, _ = await p.communicate(b'through')\n"
                 "    return (out, p.returncode)\n"),
    ?assertEqual({ok, -15}, py_event_loop:run('__main__', terminate_child, [])),
    ?assertEqual({ok, {<<"through">>, 4}}, py_event_loop:run('__main__', child_output, [])),
    {ok, Loop} = py_event_loop:start_link(),
    ?assertEqual({ok, -15}, py_event_loop:run('__main__', terminate_child, [], #{loop => Loop})),
    ok = py_event_loop:stop(Loop).

%% However it is started, and the mask of our own thread is as before.
children_block_no_signal(_Config) ->
    ?assertEqual({ok, <<"0\n">>}, py:eval("subprocess.check_output(PYTHON)")),
    ?assertEqual({ok, <<"0\n">>},
                 py:eval("subprocess.check_output(PYTHON, preexec_fn=lambda: None)")),
    ?assertEqual(ok, py:exec("def collect(start):\n"
                             "    r, w = os.pipe()\n"
                             "    pid = start(w)\n"
                             "    os.close(w)\n"
                             "    with os.fdopen(r, 'rb') as f:\n"
                             "        out = f.read()\n"
                             "    os.waitpid(pid, 0)\n"
                             "    return out\n"
                             "def by_spawn(w):\n"
                             "    return os.posix_spawn(PYTHON[0], PYTHON, os.environ,\n"
                             "        file_actions=[(os.POSIX_SPAWN_DUP2, w, 1)])\n"
                             "def by_fork(w):\n"
                             "    pid = os.fork()\n"
                             "    if pid == 0:\n"
                             "        os.write(w, b'%d\\n' % len(signal.pthread_sigmask(0, [])))\n"
                             "        os._exit(0)\n"
                             "    return pid\n")),
    ?assertEqual({ok, <<"0\n">>}, py:eval("collect(by_spawn)")),
    ?assertEqual({ok, <<"0\n">>}, py:eval("collect(by_fork)")),
    ?assertEqual({ok, true}, py:eval("signal.SIGTERM in signal.pthread_sigmask(0, [])")).

signals_of_the_vm_are_refused(_Config) ->
    [begin
         {error, {Type, Message, _}} =
             py:call(signal, signal, [Number, 0], #{}, #{}),
         ?assertEqual(<<"SignalNotOurs">>, text(Type)),
         ?assertMatch({_, _}, binary:match(Message, <<"os:set_signal(">>))
     end || Number <- [2, 3, 10, 15]],
    ok = py:exec("async def handle_sigterm():\n"
                 "    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, print)\n"),
    {error, {Type, Message, _}} = py_event_loop:run('__main__', handle_sigterm, []),
    ?assertEqual(<<"SignalNotOurs">>, text(Type)),
    ?assertMatch({_, _}, binary:match(Message, <<"os:set_signal(sigterm, default)">>)).

a_signal_that_is_let_go_can_be_handled(_Config) ->
    ok = py:exec("async def await_signal(number):\n"
                 "    loop = asyncio.get_running_loop()\n"
                 "    seen = asyncio.Event()\n"
                 "    loop.add_signal_handler(number, seen.set)\n"
                 "    try:\n"
                 "        os.kill(os.getpid(), number)\n"
                 "        await asyncio.wait_for(seen.wait(), 5)\n"
                 "    finally:\n"
                 "        loop.remove_signal_handler(number)\n"
                 "    return True\n"),
    ?assertEqual({ok, true}, py_event_loop:run('__main__', await_signal, [12])),
    %% SIGUSR1 is the VM's until it lets go, and then again.
    ?assertMatch({error, _}, py_event_loop:run('__main__', await_signal, [10])),
    ok = os:set_signal(sigusr1, default),
    ?assertEqual({ok, true}, py_event_loop:run('__main__', await_signal, [10])),
    ok = os:set_signal(sigusr1, handle),
    ?assertMatch({error, _}, py_event_loop:run('__main__', await_signal, [10])).

the_vm_still_ends_on_sigterm(_Config) ->
    {Status, _} = vm_node:run("ok = application:start(beamloop),"
                              "{error, _} = py:call(signal, signal, [15, 0]),"
                              "os:cmd(\"kill -TERM \" ++ os:getpid()),"
                              "timer:sleep(20000), halt(9)."),
    ?assertEqual(0, Status).

python_threads_block_all_signals(_Config) ->
    ok = py:exec("def masks():\n"
                 "    found = {}\n"
                 "    for tid in os.listdir('/proc/self/task'):\n"
                 "        with open(f'/proc/self/task/{tid}/status') as f:\n"
                 "            lines = dict(l.split(':', 1) for l in f if ':' in l)\n"
                 "        if lines['Name'].strip().startswith('beamloop_'):\n"
                 "            found[lines['Name'].strip()] = int(lines['SigBlk'], 16)\n"
                 "    return found\n"),
    {ok, Masks} = py:call('__main__', masks, []),
    ?assertMatch(#{<<"beamloop_python">> := _, <<"beamloop_worker">> := _, <<"beamloop_svc">> := _},
                 Masks),
    %% SIGTERM, SIGINT and SIGUSR1, as bits of the mask.
    [?assertEqual(16#4202, Mask band 16#4202) || Mask <- maps:values(Masks)].

%% The child has no Erlang to answer to.
a_forked_child_ends_with_its_call(_Config) ->
    ok = py:exec("def fork_and(end):\n"
                 "    pid = os.fork()\n"
                 "    if pid == 0:\n"
                 "        return end()\n"
                 "    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])\n"
                 "def fail():\n"
                 "    sys.stderr = open(os.devnull, 'w')\n"
                 "    raise ValueError\n"),
    ?assertEqual({ok, 0}, py:eval("fork_and(lambda: 'returned')")),
    ?assertEqual({ok, 1}, py:eval("fork_and(fail)")),
    ?assertEqual({ok, 5}, py:eval("fork_and(lambda: sys.exit(5))")),
    ?assertEqual({messages, []}, process_info(self(), messages)).

%% From a thread that `threading' knows, too.
multiprocessing_works(_Config) ->
    ?assertEqual(ok, py:exec("import threading\n"
                             "name = threading.current_thread().name\n"
                             "def put_square(queue, n): queue.put(n * n)\n"
                             "context = multiprocessing.get_context('fork')\n"
                             "queue = context.Queue()\n"
                             "process = context.Process(target=put_square, args=(queue, 7))\n"
                             "process.start()\n"
                             "assert queue.get(timeout=20) == 49\n"
                             "process.join(20)\n"
                             "assert process.exitcode == 0, process.exitcode\n"
                             "sleeper = context.Process(target=time.sleep, args=(100,))\n"
                             "sleeper.start()\n"
                             "sleeper.terminate()\n"
                             "sleeper.join(20)\n"
                             "assert sleeper.exitcode == -signal.SIGTERM, sleeper.exitcode\n"
                             "assert threading.current_thread().name == name\n")).

text(Name) when is_atom(Name) -> atom_to_binary(Name);
text(Name) -> Name.
