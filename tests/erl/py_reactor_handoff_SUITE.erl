%% Who has a connection after a handoff: always one of both sides, with all its data.
-module(py_reactor_handoff_SUITE).

-include_lib("stdlib/include/assert.hrl").

-export([all/0, suite/0, init_per_suite/1, end_per_suite/1, init_per_testcase/2,
         end_per_testcase/2]).
-export([the_socket_back_end_gives_what_it_read_ahead/1,
         a_failed_handoff_leaves_the_socket_back_end_alone/1,
         a_caller_killed_in_between_leaves_no_connection/1,
         a_blocked_loop_is_waited_for_no_longer_than_asked/1,
         a_blocked_factory_is_waited_for_no_longer_than_asked/1,
         who_has_it_is_certain_whenever_the_time_ends/1,
         a_half_closed_peer_can_still_be_answered/1, a_copy_is_closed_at_once_after_an_error/1,
         the_emulators_own_socket_is_refused/1, stopping_again_is_ok/1,
         a_reactor_without_its_guard_closes_its_connections/1, wrong_timeouts_are_badarg/1]).

suite() ->
    [{timetrap, {minutes, 1}}].

all() ->
    [the_socket_back_end_gives_what_it_read_ahead,
     a_failed_handoff_leaves_the_socket_back_end_alone,
     a_caller_killed_in_between_leaves_no_connection,
     a_blocked_loop_is_waited_for_no_longer_than_asked,
     a_blocked_factory_is_waited_for_no_longer_than_asked,
     who_has_it_is_certain_whenever_the_time_ends, a_half_closed_peer_can_still_be_answered,
     a_copy_is_closed_at_once_after_an_error, the_emulators_own_socket_is_refused,
     stopping_again_is_ok, a_reactor_without_its_guard_closes_its_connections,
     wrong_timeouts_are_badarg].

init_per_suite(Config) ->
    {ok, _} = application:ensure_all_started(beamloop),
    ok = py:exec("import os, socket, threading\n"
                 "from erlang import reactor\n"
                 "class Echo(reactor.Protocol):\n"
                 "    def connection_made(self, fd, info):\n"
                 "        self.write(b'hello ')\n"
                 "    def data_received(self, data):\n"
                 "        self.write(data)\n"
                 "def failing():\n"
                 "    raise OSError(2, 'no file')\n"
                 "go, waiting = threading.Event(), threading.Event()\n"
                 "async def block():\n"
                 "    wait()\n"
                 "def wait():\n"
                 "    waiting.set()\n"
                 "    go.wait()\n"
                 "def blocked():\n"
                 "    wait()\n"
                 "    return Echo()\n"
                 "def pair():\n"
                 "    ours, theirs = socket.socketpair()\n"
                 "    return ours.detach(), theirs.detach()\n"
                 "def descriptors():\n"
                 "    return len(os.listdir('/proc/self/fd'))\n"
                 "def sockets():\n"
                 "    names = [int(name) for name in os.listdir('/proc/self/fd')]\n"
                 "    return [n for n in names if is_socket(n)]\n"
                 "def is_socket(fd):\n"
                 "    try:\n"
                 "        return os.readlink(f'/proc/self/fd/{fd}').startswith('socket:')\n"
                 "    except OSError:\n"
                 "        return False\n"),
    Config.

end_per_suite(_Config) ->
    application:stop(beamloop).

init_per_testcase(_Case, Config) ->
    ok = py:exec("go.clear(); waiting.clear()"),
    Config.

end_per_testcase(_Case, _Config) ->
    ok = py:exec("go.set()"),
    channel_tests:wait_until(fun() ->
        [garbage_collect(Pid) || Pid <- processes()],
        #{calls := Calls, loops := Loops, descriptors := Waiting, objects := Objects} = py:info(),
        {Calls, Loops, Waiting, Objects} =:= {0, 0, 0, 0}
    end),
    ?assertEqual({ok, 0}, py:eval("len(reactor._loop._adopted)")),
    ?assertEqual({messages, []}, process_info(self(), messages)).

%% Whole lines, half a packet, a part of what was asked for, and nothing.
the_socket_back_end_gives_what_it_read_ahead(_Config) ->
    [begin
         Reactor = start('Echo'),
         {Client, Server} = connection(inet, Options),
         ok = gen_tcp:send(Client, Sent),
         {Asked, Expected} = Read,
         ?assertEqual(Expected, gen_tcp:recv(Server, Asked, 100)),
         ok = py_reactor:handoff(Reactor, Server, none),
         ok = gen_tcp:send(Client, <<" end">>),
         Rest = <<"hello ", Left/binary, " end">>,
         ?assertEqual({ok, Rest}, gen_tcp:recv(Client, byte_size(Rest), 5000)),
         ok = gen_tcp:close(Client),
         ok = stop(Reactor)
     end || {Options, Sent, Read, Left} <-
                [{[{packet, line}], <<"first\nsecond\n", 200, "third">>, {0, {ok, <<"first\n">>}},
                  <<"second\n", 200, "third">>},
                 {[{packet, line}, {mode, list}], <<"first\nsecond", 200>>, {0, {ok, "first\n"}},
                  <<"second", 200>>},
                 {[{packet, 4}], <<10:32, "half">>, {0, {error, timeout}}, <<10:32, "half">>},
                 {[], <<"part">>, {10, {error, timeout}}, <<"part">>},
                 {[], <<"part of it">>, {4, {ok, <<"part">>}}, <<" of it">>},
                 {[], <<"all">>, {3, {ok, <<"all">>}}, <<>>}]].

a_failed_handoff_leaves_the_socket_back_end_alone(_Config) ->
    Reactor = start(failing),
    {Client, Server} = connection(inet, [{packet, line}]),
    ok = gen_tcp:send(Client, <<"first\nsecond\nthird\n">>),
    ?assertEqual({ok, <<"first\n">>}, gen_tcp:recv(Server, 0, 5000)),
    ?assertMatch({error, {protocol, _}}, py_reactor:handoff(Reactor, Server, none)),
    ?assertEqual({ok, <<"second\n">>}, gen_tcp:recv(Server, 0, 5000)),
    ?assertMatch({error, {protocol, _}}, py_reactor:handoff(Reactor, Server, none)),
    ?assertEqual({ok, <<"third\n">>}, gen_tcp:recv(Server, 0, 5000)),
    [ok = gen_tcp:close(Socket) || Socket <- [Client, Server]],
    ok = stop(Reactor).

%% At any time: the connection is served, or the peer sees its end.
a_caller_killed_in_between_leaves_no_connection(_Config) ->
    Reactor = start('Echo'),
    Before = descriptors(),
    [begin
         {Client, Server} = connection(inet, []),
         Caller = spawn(fun() -> receive go -> py_reactor:handoff(Reactor, Server, none) end end),
         ok = gen_tcp:controlling_process(Server, Caller),
         Caller ! go,
         [erlang:yield() || _ <- lists:seq(1, N)],
         exit(Caller, kill),
         case gen_tcp:recv(Client, 0, 5000) of
             {ok, <<"hello ">>} -> ok;
             {error, closed} -> ok
         end,
         ok = gen_tcp:close(Client)
     end || N <- lists:seq(1, 100)],
    channel_tests:wait_until(fun() ->
        {ok, #{connections := Left}} = py_reactor:info(Reactor),
        Left =:= 0 andalso descriptors() =< Before
    end),
    ok = stop(Reactor).

%% ---- time ----

a_blocked_loop_is_waited_for_no_longer_than_asked(_Config) ->
    Reactor = start('Echo'),
    ok = py_event_loop:spawn_task('__main__', block, []),
    while_blocked(Reactor),
    ok = stop(Reactor).

%% Python has the descriptor already, and gives it back.
a_blocked_factory_is_waited_for_no_longer_than_asked(_Config) ->
    Reactor = start(blocked),
    {Client, Server} = connection(port, []),
    ?assertEqual({error, timeout}, py_reactor:handoff(Reactor, Server, none, 50)),
    while_blocked(Reactor),
    ok = gen_tcp:send(Server, <<"erlang">>),
    ok = gen_tcp:close(Server),
    ?assertEqual(<<"erlang">>, all_of(Client)),
    ok = gen_tcp:close(Client),
    ok = stop(Reactor).

%% Hands one of each kind over while the loop stands still: all stay, and can be handed over afterwards.
while_blocked(Reactor) ->
    Sockets = [connection(Kind, []) || Kind <- [port, inet]] ++ [plain_connection()],
    {ok, {Ours, Theirs}} = py:call('__main__', pair, []),
    {ok, true} = py:eval("waiting.wait(10)"),
    Before = descriptors(),
    [?assertEqual({error, timeout}, py_reactor:handoff(Reactor, Handed, none, Time))
     || Handed <- [Theirs | [Server || {_, Server} <- Sockets]], Time <- [0, 20]],
    ?assertEqual(Before, descriptors()),
    [begin
         ok = send(Client, <<"to erlang">>),
         ?assertEqual({ok, <<"to erlang">>}, recv(Server, 9)),
         ok = send(Server, <<"from erlang">>),
         ?assertEqual({ok, <<"from erlang">>}, recv(Client, 11))
     end || {Client, Server} <- Sockets],
    ok = py:exec("go.set()"),
    [begin
         ok = py_reactor:handoff(Reactor, Server, none, 10000),
         ok = send(Client, <<"again">>),
         ?assertEqual({ok, <<"hello again">>}, recv(Client, 11)),
         ok = close(Client)
     end || {Client, Server} <- Sockets],
    ok = py_reactor:handoff(Reactor, Theirs, none),
    ok = py:exec(["os.close(", integer_to_list(Ours), ")"]),
    channel_tests:wait_until(fun() ->
        {ok, #{connections := Connections, accepted := Accepted}} = py_reactor:info(Reactor),
        {Connections, Accepted} =:= {0, 4}
    end).

%% Whatever is first: `ok' and Python says hello, or `timeout' and it never does.
who_has_it_is_certain_whenever_the_time_ends(_Config) ->
    Reactor = start('Echo'),
    Before = descriptors(),
    Outcomes = [begin
         {Client, Server} = connection(Kind, []),
         %% The loop has other things to do.
         [ok = py_event_loop:spawn_task(asyncio, sleep, [0]) || _ <- lists:seq(1, N rem 40)],
         Answer = py_reactor:handoff(Reactor, Server, none, N rem 3),
         case Answer of
             ok ->
                 ?assertEqual({ok, <<"hello ">>}, gen_tcp:recv(Client, 6, 5000));
             {error, timeout} ->
                 ok = gen_tcp:send(Server, <<"erlang">>),
                 ?assertEqual({ok, <<"erlang">>}, gen_tcp:recv(Client, 6, 5000)),
                 ok = gen_tcp:close(Server),
                 ?assertEqual({error, closed}, gen_tcp:recv(Client, 0, 5000))
         end,
         ok = gen_tcp:close(Client),
         Answer
     end || N <- lists:seq(1, 150), Kind <- [port, inet]],
    ?assertEqual([ok, {error, timeout}], lists:usort(Outcomes)),
    channel_tests:wait_until(fun() -> descriptors() =< Before end),
    ok = stop(Reactor).

wrong_timeouts_are_badarg(_Config) ->
    [?assertError(badarg, py_reactor:handoff(self(), 0, none, Timeout))
     || Timeout <- [-1, 1.0, never]].

%% ---- what a handoff leaves ----

a_half_closed_peer_can_still_be_answered(_Config) ->
    Reactor = start(failing),
    [begin
         {Client, Server} = connection(Kind, []),
         ok = gen_tcp:send(Client, Said),
         ok = gen_tcp:shutdown(Client, write),
         timer:sleep(20),
         ?assertMatch({error, {protocol, _}}, py_reactor:handoff(Reactor, Server, none)),
         ok = gen_tcp:send(Server, <<"no">>),
         ?assertEqual({ok, <<"no">>}, gen_tcp:recv(Client, 2, 5000)),
         case Said of
             <<>> -> ok;
             _ -> ?assertEqual({ok, Said}, gen_tcp:recv(Server, 0, 5000))
         end,
         ?assertEqual({error, closed}, gen_tcp:recv(Server, 0, 5000)),
         ok = gen_tcp:close(Server),
         ok = gen_tcp:close(Client)
     end || Kind <- [port, inet], Said <- [<<>>, <<"said">>]],
    ok = stop(Reactor).

%% Python could not even be asked: the peer sees the end when Erlang closes its socket.
a_copy_is_closed_at_once_after_an_error(_Config) ->
    Reactor = start('Echo'),
    [begin
         {Client, Server} = connection(Kind, []),
         %% Keys that are the same one in Python.
         ?assertMatch({error, {_, _, _}}, py_reactor:handoff(Reactor, Server, #{1 => a, 1.0 => b})),
         ?assertMatch(#{descriptors := 0}, py:info()),
         ok = gen_tcp:close(Server),
         ?assertEqual({error, closed}, gen_tcp:recv(Client, 0, 5000)),
         ok = gen_tcp:close(Client)
     end || Kind <- [port, inet]],
    ok = stop(Reactor).

%% Whoever closed it would end the node.
the_emulators_own_socket_is_refused(_Config) ->
    Reactor = start('Echo'),
    [Forker] = [Port || Port <- erlang:ports(), erlang:port_info(Port, name) =:= {name, "forker"}],
    {ok, Numbers} = py:call('__main__', sockets, []),
    Answers = [py_reactor:handoff(Reactor, Number, none) || Number <- Numbers, Number > 2],
    ?assert(lists:member({error, {owned, Forker}}, Answers)),
    ok = stop(Reactor),
    ?assertEqual("alive\n", os:cmd("echo alive")).

stopping_again_is_ok(_Config) ->
    Reactor = start('Echo'),
    {Client, Server} = connection(port, []),
    ok = py_reactor:handoff(Reactor, Server, none),
    Stoppers = [spawn_monitor(fun() -> exit({result, py_reactor:stop(Reactor, Time)}) end)
                || Time <- [10, 5, 0]],
    [receive {'DOWN', Monitor, process, Pid, Reason} -> ?assertEqual({result, ok}, Reason) end
     || {Pid, Monitor} <- Stoppers],
    ?assertNot(is_process_alive(Reactor)),
    [?assertEqual(ok, Stop()) || Stop <- [fun() -> py_reactor:stop(Reactor) end,
                                          fun() -> py_reactor:stop(Reactor, 100) end,
                                          fun() -> py_reactor:stop(no_reactor) end]],
    ok = gen_tcp:close(Client).

a_reactor_without_its_guard_closes_its_connections(_Config) ->
    process_flag(trap_exit, true),
    Reactor = start('Echo'),
    {Client, Server} = connection(port, []),
    ok = py_reactor:handoff(Reactor, Server, none),
    {links, Linked} = process_info(Reactor, links),
    [Guard] = Linked -- [self()],
    exit(Guard, kill),
    receive {'EXIT', Reactor, killed} -> ok end,
    process_flag(trap_exit, false),
    ?assertEqual(<<"hello ">>, all_of(Client)),
    ?assertEqual({error, not_running}, py_reactor:info(Reactor)),
    ok = gen_tcp:close(Client).

%% ---- help ----

start(Factory) ->
    {ok, Reactor} = py_reactor:start_link(#{protocol => {'__main__', Factory}}),
    Reactor.

stop(Reactor) ->
    py_reactor:stop(Reactor, 0).

%% Both ends of a TCP connection, the second of that kind and with such options.
connection(Kind, Options) ->
    Backend = case Kind of
        port -> [];
        inet -> [{inet_backend, socket}]
    end,
    {ok, Listener} = gen_tcp:listen(0, Backend ++ [binary, {active, false}, {ip, {127, 0, 0, 1}}]),
    {ok, Port} = inet:port(Listener),
    {ok, Client} = gen_tcp:connect({127, 0, 0, 1}, Port, [binary, {active, false}]),
    {ok, Server} = gen_tcp:accept(Listener),
    ok = inet:setopts(Server, Options),
    ok = gen_tcp:close(Listener),
    {Client, Server}.

plain_connection() ->
    {ok, Listener} = socket:open(inet, stream, tcp),
    ok = socket:bind(Listener, #{family => inet, addr => loopback, port => 0}),
    ok = socket:listen(Listener),
    {ok, Address} = socket:sockname(Listener),
    {ok, Client} = socket:open(inet, stream, tcp),
    ok = socket:connect(Client, Address),
    {ok, Server} = socket:accept(Listener),
    ok = socket:close(Listener),
    {Client, Server}.

send({'$socket', _} = Socket, Data) -> socket:send(Socket, Data);
send(Socket, Data) -> gen_tcp:send(Socket, Data).

recv({'$socket', _} = Socket, Size) -> socket:recv(Socket, Size, 5000);
recv(Socket, Size) -> gen_tcp:recv(Socket, Size, 5000).

close({'$socket', _} = Socket) -> socket:close(Socket);
close(Socket) -> gen_tcp:close(Socket).

%% What is received until the peer's end.
all_of(Socket) ->
    case gen_tcp:recv(Socket, 0, 5000) of
        {ok, Data} -> <<Data/binary, (all_of(Socket))/binary>>;
        {error, closed} -> <<>>
    end.

descriptors() ->
    {ok, Count} = py:call('__main__', descriptors, []),
    Count.
