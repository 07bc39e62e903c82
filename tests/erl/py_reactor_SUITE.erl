%% Connections handed over to Python.
-module(py_reactor_SUITE).

-include_lib("stdlib/include/assert.hrl").

-export([all/0, suite/0, init_per_suite/1, end_per_suite/1, init_per_testcase/2,
         end_per_testcase/2]).
-export([gen_tcp_sockets_are_served/1, sockets_of_the_socket_back_end_are_served/1,
         sockets_of_socket_are_served/1, unix_sockets_are_served/1, descriptors_are_served/1,
         protocols_are_given_the_info/1, factories_are_given_arguments/1,
         what_was_read_ahead_comes_first/1, the_peer_notices_nothing/1, half_a_packet_is_not_lost/1,
         a_peer_that_has_ended_is_handed_over/1,
         sockets_that_cannot_be_handed_over_stay/1, a_failed_handoff_loses_nothing/1,
         descriptors_that_cannot_be_handed_over_stay/1, a_descriptor_is_handed_over_once/1,
         failing_factories_are_told/1, exceptions_end_their_connection_alone/1,
         there_are_no_more_connections_than_allowed/1, info_counts/1, stop_lets_answers_leave/1,
         stop_ends_after_its_time/1, a_stopped_reactor_refuses/1,
         a_killed_reactor_closes_its_connections/1, a_supervisor_starts_it_anew/1,
         a_loop_that_stops_closes_the_connections/1, a_killed_caller_leaves_no_descriptor/1,
         a_thousand_connections_echo/1, descriptors_do_not_leak/1, wrong_types_are_badarg/1]).
-export([init/1]).

suite() ->
    [{timetrap, {minutes, 1}}].

all() ->
    [gen_tcp_sockets_are_served, sockets_of_the_socket_back_end_are_served,
     sockets_of_socket_are_served, unix_sockets_are_served, descriptors_are_served,
     protocols_are_given_the_info, factories_are_given_arguments, what_was_read_ahead_comes_first,
     the_peer_notices_nothing, half_a_packet_is_not_lost, a_peer_that_has_ended_is_handed_over,
     sockets_that_cannot_be_handed_over_stay, a_failed_handoff_loses_nothing,
     descriptors_that_cannot_be_handed_over_stay, a_descriptor_is_handed_over_once,
     failing_factories_are_told, exceptions_end_their_connection_alone,
     there_are_no_more_connections_than_allowed, info_counts,
     stop_lets_answers_leave, stop_ends_after_its_time, a_stopped_reactor_refuses,
     a_killed_reactor_closes_its_connections, a_supervisor_starts_it_anew,
     a_loop_that_stops_closes_the_connections, a_killed_caller_leaves_no_descriptor,
     a_thousand_connections_echo, descriptors_do_not_leak, wrong_types_are_badarg].

init_per_suite(Config) ->
    {ok, _} = application:ensure_all_started(beamloop),
    ok = py:exec("import asyncio, erlang, os, socket\n"
                 "from erlang import reactor\n"
                 "log = []\n"
                 "class Echo(reactor.Protocol):\n"
                 "    def __init__(self, prefix=b''):\n"
                 "        self.prefix = prefix\n"
                 "    def connection_made(self, fd, info):\n"
                 "        self.info = info\n"
                 "        log.append(('made', info))\n"
                 "    def data_received(self, data):\n"
                 "        self.write(self.prefix)\n"
                 "        self.write(data)\n"
                 "        return reactor.CONTINUE\n"
                 "    def connection_lost(self, exc):\n"
                 "        log.append(('lost', type(exc).__name__))\n"
                 "class Slow(Echo):\n"
                 "    def data_received(self, data):\n"
                 "        delay = float(bytes(data))\n"
                 "        self.task = asyncio.get_running_loop().create_task(self.answer(delay))\n"
                 "        return reactor.ASYNC_PENDING\n"
                 "    async def answer(self, delay):\n"
                 "        await asyncio.sleep(delay)\n"
                 "        self.write(b'done')\n"
                 "        self.resume_reading()\n"
                 "class Raises(Echo):\n"
                 "    def data_received(self, data):\n"
                 "        if bytes(data) == b'raise':\n"
                 "            raise ValueError('no')\n"
                 "        return super().data_received(data)\n"
                 "def failing():\n"
                 "    raise OSError(2, 'no file')\n"
                 "def nothing():\n"
                 "    return 17\n"
                 "def descriptors():\n"
                 "    return len(os.listdir('/proc/self/fd'))\n"
                 "def pair():\n"
                 "    ours, theirs = socket.socketpair()\n"
                 "    ours.settimeout(5)\n"
                 "    pairs[theirs.fileno()] = ours\n"
                 "    return theirs.detach()\n"
                 "pairs = {}\n"
                 "def say(fd, data):\n"
                 "    pairs[fd].sendall(data)\n"
                 "    return pairs[fd].recv(100)\n"
                 "def drop(fd):\n"
                 "    pairs.pop(fd).close()\n"
                 "def quiet(loop, context):\n"
                 "    log.append(('reported', type(context['exception']).__name__))\n"
                 "async def be_quiet():\n"
                 "    asyncio.get_running_loop().set_exception_handler(quiet)\n"),
    {ok, Listener} = gen_tcp:listen(0, [binary, {active, false}, {ip, {127, 0, 0, 1}}]),
    [{listener, Listener}, {owner, keep(Listener)} | Config].

end_per_suite(Config) ->
    exit(proplists:get_value(owner, Config), kill),
    application:stop(beamloop).

init_per_testcase(_Case, Config) ->
    {ok, none} = py_event_loop:run('__main__', be_quiet, []),
    ok = py:exec("log.clear()"),
    Config.

%% No test leaves a call, a loop, a descriptor of Python's, nor anything in the mailbox.
end_per_testcase(_Case, _Config) ->
    channel_tests:wait_until(fun() ->
        [garbage_collect(Pid) || Pid <- processes()],
        #{calls := Calls, loops := Loops, descriptors := Waiting, objects := Objects} = py:info(),
        {Calls, Loops, Waiting, Objects} =:= {0, 0, 0, 0}
    end),
    ?assertEqual({ok, 0}, py:eval("len(reactor._loop._adopted)")),
    ?assertEqual({messages, []}, process_info(self(), messages)).

%% ---- what is handed over ----

gen_tcp_sockets_are_served(Config) ->
    Reactor = start(#{protocol => {'__main__', 'Echo'}}),
    {Client, Server} = connection(Config),
    ?assertEqual(ok, py_reactor:handoff(Reactor, Server, none)),
    ?assertEqual(undefined, erlang:port_info(Server)),
    ?assertEqual(<<"hello">>, ask(Client, <<"hello">>)),
    ?assertEqual(<<"again">>, ask(Client, <<"again">>)),
    ok = gen_tcp:close(Client),
    ok = stop(Reactor).

sockets_of_the_socket_back_end_are_served(_Config) ->
    Options = [{inet_backend, socket}, binary, {active, false}],
    {ok, Listener} = gen_tcp:listen(0, Options),
    {ok, Port} = inet:port(Listener),
    {ok, Client} = gen_tcp:connect("localhost", Port, Options),
    {ok, Server} = gen_tcp:accept(Listener),
    Reactor = start(#{protocol => {'__main__', 'Echo'}}),
    Handoff = fun() -> py_reactor:handoff(Reactor, Server, none) end,
    ?assertEqual({error, not_owner}, elsewhere(Handoff)),
    ?assertEqual(ok, Handoff()),
    ?assertEqual(<<"hello">>, ask(Client, <<"hello">>)),
    ?assertMatch({error, _}, gen_tcp:send(Server, <<"x">>)),
    [ok = gen_tcp:close(Socket) || Socket <- [Client, Listener]],
    ok = stop(Reactor).

sockets_of_socket_are_served(_Config) ->
    {ok, Listener} = socket:open(inet, stream, tcp),
    ok = socket:bind(Listener, #{family => inet, addr => loopback, port => 0}),
    ok = socket:listen(Listener),
    {ok, Address} = socket:sockname(Listener),
    {ok, Client} = socket:open(inet, stream, tcp),
    ok = socket:connect(Client, Address),
    {ok, Server} = socket:accept(Listener),
    Reactor = start(#{protocol => {'__main__', 'Echo'}}),
    ?assertEqual({error, listening}, py_reactor:handoff(Reactor, Listener, none)),
    ?assertEqual(ok, py_reactor:handoff(Reactor, Server, none)),
    ?assertEqual({error, closed}, py_reactor:handoff(Reactor, Server, none)),
    ok = socket:send(Client, <<"hello">>),
    ?assertEqual({ok, <<"hello">>}, socket:recv(Client, 5, 5000)),
    [ok = socket:close(Socket) || Socket <- [Client, Listener]],
    ok = stop(Reactor).

unix_sockets_are_served(_Config) ->
    %% A name that is no file's, as those may be too long.
    Path = [0, "beamloop_reactor_" | os:getpid()],
    {ok, Listener} = gen_tcp:listen(0, [binary, {active, false}, {ifaddr, {local, Path}}]),
    {ok, Client} = gen_tcp:connect({local, Path}, 0, [binary, {active, false}]),
    {ok, Server} = gen_tcp:accept(Listener),
    Reactor = start(#{protocol => {'__main__', 'Echo'}}),
    ?assertEqual(ok, py_reactor:handoff(Reactor, Server, none)),
    ?assertEqual(<<"hello">>, ask(Client, <<"hello">>)),
    [ok = gen_tcp:close(Socket) || Socket <- [Client, Listener]],
    ok = stop(Reactor).

descriptors_are_served(_Config) ->
    Reactor = start(#{protocol => {'__main__', 'Echo'}}),
    {ok, Fd} = py:call('__main__', pair, []),
    ?assertEqual(ok, py_reactor:handoff(Reactor, Fd, none)),
    ?assertEqual({ok, <<"hello">>}, py:call('__main__', say, [Fd, <<"hello">>])),
    {ok, none} = py:call('__main__', drop, [Fd]),
    ok = stop(Reactor).

protocols_are_given_the_info(Config) ->
    Reactor = start(#{protocol => {<<"__main__">>, "Echo"}, binaries => str}),
    {Client, Server} = connection(Config),
    Info = #{peer => <<"text">>, pid => self(), list => [1, 2.5, {ok, <<"x">>}]},
    ok = py_reactor:handoff(Reactor, Server, Info),
    ok = gen_tcp:close(Client),
    channel_tests:wait_until(fun() -> length(logged()) =:= 2 end),
    ?assertEqual({ok, Info}, py:eval("log[0][1]", #{}, #{binaries => str})),
    ok = stop(Reactor).

factories_are_given_arguments(Config) ->
    Reactor = start(#{protocol => {'__main__', 'Echo'}, args => [<<"> ">>], name => a_reactor}),
    {Client, Server} = connection(Config),
    ?assertEqual(Reactor, whereis(a_reactor)),
    ok = py_reactor:handoff(a_reactor, Server, none),
    ?assertEqual(<<"> hello">>, ask(Client, <<"hello">>)),
    ok = gen_tcp:close(Client),
    ok = py_reactor:stop(a_reactor).

%% What was there before all is served by the new owner, in order.
what_was_read_ahead_comes_first(Config) ->
    [begin
         Reactor = start(#{protocol => {'__main__', 'Echo'}, binaries => Binaries}),
         {Client, Server} = connection(Config),
         ok = inet:setopts(Server, [{packet, line}]),
         ok = gen_tcp:send(Client, <<"first\nsecond\n", 200, "third">>),
         ?assertEqual({ok, <<"first\n">>}, gen_tcp:recv(Server, 0, 5000)),
         ok = py_reactor:handoff(Reactor, Server, none),
         ok = gen_tcp:send(Client, <<" fourth">>),
         Rest = <<"second\n", 200, "third fourth">>,
         ?assertEqual({ok, Rest}, gen_tcp:recv(Client, byte_size(Rest), 5000)),
         ok = gen_tcp:close(Client),
         ok = stop(Reactor)
     end || Binaries <- [bytes, str]].

%% Handed over in the midst of a stream: nothing is lost, doubled or reset.
the_peer_notices_nothing(Config) ->
    Reactor = start(#{protocol => {'__main__', 'Echo'}}),
    {Client, Server} = connection(Config),
    Data = binary:copy(<<"0123456789abcdef">>, 65536),
    Self = self(),
    Sender = spawn_link(fun() -> Self ! {self(), gen_tcp:send(Client, Data)} end),
    ok = py_reactor:handoff(Reactor, Server, none),
    ?assertEqual({ok, Data}, gen_tcp:recv(Client, byte_size(Data), 20000)),
    receive {Sender, Sent} -> ?assertEqual(ok, Sent) end,
    ok = gen_tcp:shutdown(Client, write),
    ?assertEqual({error, closed}, gen_tcp:recv(Client, 0, 5000)),
    ok = gen_tcp:close(Client),
    ok = stop(Reactor).

half_a_packet_is_not_lost(Config) ->
    Reactor = start(#{protocol => {'__main__', 'Echo'}}),
    {Client, Server} = connection(Config),
    ok = inet:setopts(Server, [{packet, 4}]),
    ok = gen_tcp:send(Client, <<10:32, "half">>),
    ?assertEqual({error, timeout}, gen_tcp:recv(Server, 0, 50)),
    ok = py_reactor:handoff(Reactor, Server, none),
    ?assertEqual({ok, <<10:32, "half">>}, gen_tcp:recv(Client, 8, 5000)),
    ok = gen_tcp:close(Client),
    ok = stop(Reactor).

%% It has ended its side, with or without having said something.
a_peer_that_has_ended_is_handed_over(Config) ->
    [begin
         Reactor = start(#{protocol => {'__main__', 'Echo'}}),
         {Client, Server} = connection(Config),
         ok = gen_tcp:send(Client, Said),
         ok = gen_tcp:shutdown(Client, write),
         timer:sleep(20),
         ok = py_reactor:handoff(Reactor, Server, none),
         ?assertEqual(Said, all_of(Client)),
         ?assertEqual([{made, none}, {lost, <<"NoneType">>}], logged()),
         ok = gen_tcp:close(Client),
         ok = stop(Reactor),
         ok = py:exec("log.clear()")
     end || Said <- [<<>>, <<"said">>]].

%% ---- errors ----

sockets_that_cannot_be_handed_over_stay(Config) ->
    Reactor = start(#{protocol => {'__main__', 'Echo'}}),
    {Client, Server} = connection(Config),
    Handoff = fun() -> py_reactor:handoff(Reactor, Server, none) end,
    ok = inet:setopts(Server, [{active, once}]),
    ?assertEqual({error, not_passive}, Handoff()),
    ok = inet:setopts(Server, [{active, false}]),
    ?assertEqual({error, not_owner}, elsewhere(Handoff)),
    ?assertEqual({error, listening},
                 elsewhere(fun() ->
                     {ok, Listener} = gen_tcp:listen(0, [{active, false}]),
                     py_reactor:handoff(Reactor, Listener, none)
                 end)),
    {ok, Datagrams} = gen_udp:open(0, [{active, false}]),
    ?assertEqual({error, not_a_stream}, py_reactor:handoff(Reactor, Datagrams, none)),
    ok = gen_udp:close(Datagrams),
    %% It is served by Erlang as before.
    ok = gen_tcp:send(Client, <<"to erlang">>),
    ?assertEqual({ok, <<"to erlang">>}, gen_tcp:recv(Server, 0, 5000)),
    ok = gen_tcp:send(Server, <<"from erlang">>),
    ?assertEqual({ok, <<"from erlang">>}, gen_tcp:recv(Client, 0, 5000)),
    ok = gen_tcp:close(Server),
    ?assertEqual({error, closed}, Handoff()),
    ok = gen_tcp:close(Client),
    ok = stop(Reactor).

a_failed_handoff_loses_nothing(Config) ->
    Reactor = start(#{protocol => {'__main__', failing}}),
    {Client, Server} = connection(Config),
    ok = inet:setopts(Server, [{packet, line}]),
    ok = gen_tcp:send(Client, <<"first\nsecond\nthird\n">>),
    ?assertEqual({ok, <<"first\n">>}, gen_tcp:recv(Server, 0, 5000)),
    ?assertMatch({error, {protocol, _}}, py_reactor:handoff(Reactor, Server, none)),
    ?assertEqual({ok, <<"second\n">>}, gen_tcp:recv(Server, 0, 5000)),
    ?assertMatch({error, {protocol, _}}, py_reactor:handoff(Reactor, Server, none)),
    ?assertEqual({ok, <<"third\n">>}, gen_tcp:recv(Server, 0, 5000)),
    [ok = gen_tcp:close(Socket) || Socket <- [Client, Server]],
    ok = stop(Reactor).

descriptors_that_cannot_be_handed_over_stay(Config) ->
    Reactor = start(#{protocol => {'__main__', 'Echo'}}),
    Handoff = fun(Fd) -> py_reactor:handoff(Reactor, Fd, none) end,
    [?assertEqual({error, ebadf}, Handoff(Fd)) || Fd <- [-1, 100000, 1 bsl 40]],
    {ok, File} = py:eval("os.open('/dev/null', os.O_RDONLY)"),
    ?assertEqual({error, enotsock}, Handoff(File)),
    {ok, none} = py:call(os, close, [File]),
    {Client, Server} = connection(Config),
    {ok, Fd} = inet:getfd(Server),
    ?assertEqual({error, {owned, Server}}, Handoff(Fd)),
    ?assertMatch({ok, [_]}, inet:getopts(Server, [active])),
    {ok, Unconnected} = socket:open(inet, stream, tcp),
    {ok, Number} = socket:getopt(Unconnected, {otp, fd}),
    ?assertEqual({error, {owned, Unconnected}}, Handoff(Number)),
    ?assertEqual({error, enotconn}, Handoff(Unconnected)),
    ok = socket:close(Unconnected),
    [ok = gen_tcp:close(Socket) || Socket <- [Client, Server]],
    ok = stop(Reactor).

a_descriptor_is_handed_over_once(_Config) ->
    Reactor = start(#{protocol => {'__main__', 'Echo'}}),
    {ok, Loop} = py_event_loop:start_link(),
    Other = start(#{protocol => {'__main__', 'Echo'}, loop => Loop}),
    {ok, Fd} = py:call('__main__', pair, []),
    ?assertEqual(ok, py_reactor:handoff(Reactor, Fd, none)),
    ?assertEqual({error, in_use}, py_reactor:handoff(Reactor, Fd, none)),
    ?assertEqual({error, in_use}, py_reactor:handoff(Other, Fd, none)),
    ?assertEqual({ok, <<"served">>}, py:call('__main__', say, [Fd, <<"served">>])),
    {ok, none} = py:call('__main__', drop, [Fd]),
    [ok = stop(R) || R <- [Reactor, Other]],
    ok = py_event_loop:stop(Loop).

failing_factories_are_told(Config) ->
    process_flag(trap_exit, true),
    Missing = py_reactor:start_link(#{protocol => {'__main__', no_such}}),
    ?assertMatch({error, {_, _, _}}, Missing),
    ?assertMatch({error, {_, _, _}}, py_reactor:start_link(#{protocol => {no_module, x}})),
    ?assertMatch({error, {_, _, _}}, py_reactor:start_link(#{protocol => {'__main__', log}})),
    ?assertEqual({error, not_running},
                 py_reactor:start_link(#{protocol => {'__main__', 'Echo'}, loop => no_loop})),
    [receive {'EXIT', _, _} -> ok end || _ <- lists:seq(1, 4)],
    process_flag(trap_exit, false),
    {Client, Server} = connection(Config),
    [begin
         Reactor = start(#{protocol => {'__main__', Factory}}),
         {error, {protocol, {Name, Message, [_ | _]}}} =
             py_reactor:handoff(Reactor, Server, none),
         ?assertEqual({Factory, Expected}, {Factory, channel_tests:exception(Name)}),
         ?assertNotEqual(nomatch, string:find(Message, Says)),
         ok = stop(Reactor)
     end || {Factory, Expected, Says} <- [{failing, <<"FileNotFoundError">>, "no file"},
                                          {nothing, <<"TypeError">>, "no erlang.reactor.Protocol"}]],
    [ok = gen_tcp:close(Socket) || Socket <- [Client, Server]].

exceptions_end_their_connection_alone(Config) ->
    Reactor = start(#{protocol => {'__main__', 'Raises'}}),
    {Bad, Server1} = connection(Config),
    {Good, Server2} = connection(Config),
    [ok = py_reactor:handoff(Reactor, Server, none) || Server <- [Server1, Server2]],
    ok = gen_tcp:send(Bad, <<"raise">>),
    ?assertMatch({error, _}, gen_tcp:recv(Bad, 0, 5000)),
    ?assertEqual(<<"hello">>, ask(Good, <<"hello">>)),
    ?assertEqual([{made, none}, {made, none}, {reported, <<"ValueError">>}, {lost, <<"ValueError">>}],
                 logged()),
    {ok, Info} = py_reactor:info(Reactor),
    ?assertMatch(#{errors := 1, closed := 1, connections := 1}, Info),
    [ok = gen_tcp:close(Socket) || Socket <- [Bad, Good]],
    ok = stop(Reactor).

there_are_no_more_connections_than_allowed(Config) ->
    Reactor = start(#{protocol => {'__main__', 'Echo'}, max_connections => 1}),
    {Client1, Server1} = connection(Config),
    {Client2, Server2} = connection(Config),
    ok = py_reactor:handoff(Reactor, Server1, none),
    ?assertEqual({error, max_connections}, py_reactor:handoff(Reactor, Server2, none)),
    ok = gen_tcp:close(Client1),
    channel_tests:wait_until(fun() -> py_reactor:handoff(Reactor, Server2, none) =:= ok end),
    ?assertEqual(<<"hello">>, ask(Client2, <<"hello">>)),
    ok = gen_tcp:close(Client2),
    ok = stop(Reactor).

info_counts(Config) ->
    Reactor = start(#{protocol => {'__main__', 'Echo'}, read_size => 1000, write_limit => 2000}),
    {Client, Server} = connection(Config),
    ok = py_reactor:handoff(Reactor, Server, none),
    <<"hello">> = ask(Client, <<"hello">>),
    ?assertEqual({ok, #{connections => 1, accepted => 1, closed => 0, errors => 0, received => 5,
                        sent => 5, max_connections => infinity, read_size => 1000,
                        write_limit => 2000, stopping => false}},
                 py_reactor:info(Reactor)),
    ok = gen_tcp:close(Client),
    channel_tests:wait_until(fun() ->
        {ok, #{connections := Left, closed := Closed}} = py_reactor:info(Reactor),
        {Left, Closed} =:= {0, 1}
    end),
    ok = stop(Reactor),
    ?assertEqual({error, not_running}, py_reactor:info(Reactor)).

%% ---- the end ----

stop_lets_answers_leave(Config) ->
    Reactor = start(#{protocol => {'__main__', 'Slow'}}),
    {Busy, Server1} = connection(Config),
    {Idle, Server2} = connection(Config),
    [ok = py_reactor:handoff(Reactor, Server, none) || Server <- [Server1, Server2]],
    ok = gen_tcp:send(Busy, <<"0.3">>),
    ok = stop(Reactor),
    ?assertEqual({ok, <<"done">>}, gen_tcp:recv(Busy, 0, 5000)),
    ?assertEqual({error, closed}, gen_tcp:recv(Busy, 0, 5000)),
    ?assertEqual({error, closed}, gen_tcp:recv(Idle, 0, 5000)),
    ?assertEqual([<<"NoneType">>, <<"NoneType">>], [Why || {lost, Why} <- logged()]),
    [ok = gen_tcp:close(Socket) || Socket <- [Busy, Idle]].

stop_ends_after_its_time(Config) ->
    Reactor = start(#{protocol => {'__main__', 'Slow'}}),
    {Client, Server} = connection(Config),
    ok = py_reactor:handoff(Reactor, Server, none),
    ok = gen_tcp:send(Client, <<"3600">>),
    ok = py_reactor:stop(Reactor, 50),
    ?assertMatch({error, _}, gen_tcp:recv(Client, 0, 5000)),
    ?assertEqual([<<"ConnectionAbortedError">>], [Why || {lost, Why} <- logged()]),
    {ok, none} = py_event_loop:run('__main__', be_quiet, []),
    ok = gen_tcp:close(Client).

a_stopped_reactor_refuses(Config) ->
    Reactor = start(#{protocol => {'__main__', 'Echo'}}),
    {Client, Server} = connection(Config),
    ok = stop(Reactor),
    ?assertEqual({error, not_running}, py_reactor:handoff(Reactor, Server, none)),
    ?assertEqual({error, not_running}, py_reactor:handoff(no_reactor, Server, none)),
    ok = gen_tcp:send(Client, <<"still erlang's">>),
    ?assertEqual({ok, <<"still erlang's">>}, gen_tcp:recv(Server, 0, 5000)),
    [ok = gen_tcp:close(Socket) || Socket <- [Client, Server]].

a_killed_reactor_closes_its_connections(Config) ->
    process_flag(trap_exit, true),
    Reactor = start(#{protocol => {'__main__', 'Echo'}}),
    {Client, Server} = connection(Config),
    ok = py_reactor:handoff(Reactor, Server, none),
    exit(Reactor, kill),
    receive {'EXIT', Reactor, killed} -> ok end,
    process_flag(trap_exit, false),
    ?assertMatch({error, _}, gen_tcp:recv(Client, 0, 5000)),
    ?assertEqual([<<"ConnectionAbortedError">>], [Why || {lost, Why} <- logged()]),
    ok = gen_tcp:close(Client).

a_supervisor_starts_it_anew(Config) ->
    Child = #{id => reactor, start => {py_reactor, start_link,
                                       [#{protocol => {'__main__', 'Echo'}, name => supervised}]}},
    {Supervisor, Monitor} = spawn_monitor(fun() ->
        {ok, _} = supervisor:start_link({local, reactor_sup}, ?MODULE, Child),
        receive stop -> exit(shutdown) end
    end),
    channel_tests:wait_until(fun() -> whereis(supervised) =/= undefined end),
    First = whereis(supervised),
    exit(First, kill),
    channel_tests:wait_until(fun() -> not lists:member(whereis(supervised), [undefined, First]) end),
    {Client, Server} = connection(Config),
    channel_tests:wait_until(fun() -> py_reactor:info(supervised) =/= {error, not_running} end),
    ok = py_reactor:handoff(supervised, Server, none),
    ?assertEqual(<<"hello">>, ask(Client, <<"hello">>)),
    Supervisor ! stop,
    receive {'DOWN', Monitor, process, Supervisor, _} -> ok end,
    ?assertEqual({error, closed}, gen_tcp:recv(Client, 0, 5000)),
    ok = gen_tcp:close(Client).

init(Child) ->
    {ok, {#{}, [Child]}}.

a_loop_that_stops_closes_the_connections(Config) ->
    process_flag(trap_exit, true),
    {ok, Loop} = py_event_loop:start_link(),
    Reactor = start(#{protocol => {'__main__', 'Echo'}, loop => Loop}),
    {Client, Server} = connection(Config),
    ok = py_reactor:handoff(Reactor, Server, none),
    <<"hello">> = ask(Client, <<"hello">>),
    ok = py_event_loop:stop(Loop),
    receive {'EXIT', Reactor, Reason} -> ?assertEqual({shutdown, not_running}, Reason) end,
    receive {'EXIT', Loop, normal} -> ok end,
    process_flag(trap_exit, false),
    ?assertMatch({error, _}, gen_tcp:recv(Client, 0, 5000)),
    ?assertEqual([<<"ConnectionAbortedError">>], [Why || {lost, Why} <- logged()]),
    ok = gen_tcp:close(Client).

%% The loop is busy while the callers die: the copies are closed, or served and then closed.
a_killed_caller_leaves_no_descriptor(Config) ->
    Reactor = start(#{protocol => {'__main__', 'Echo'}}),
    Before = descriptors(),
    [begin
         {Client, Server} = connection(Config),
         Caller = spawn(fun() ->
             receive go -> py_reactor:handoff(Reactor, Server, none) end
         end),
         ok = gen_tcp:controlling_process(Server, Caller),
         Caller ! go,
         erlang:yield(),
         N rem 3 =:= 0 andalso timer:sleep(1),
         exit(Caller, kill),
         ok = gen_tcp:close(Client)
     end || N <- lists:seq(1, 60)],
    channel_tests:wait_until(fun() ->
        {ok, #{connections := Left}} = py_reactor:info(Reactor),
        Left =:= 0 andalso descriptors() =< Before
    end),
    ok = stop(Reactor).

a_thousand_connections_echo(Config) ->
    Reactor = start(#{protocol => {'__main__', 'Echo'}}),
    Clients = [begin
                   {Client, Server} = connection(Config),
                   ok = py_reactor:handoff(Reactor, Server, none),
                   Client
               end || _ <- lists:seq(1, 1000)],
    [begin
         [ok = gen_tcp:send(Client, <<N:32, Round>>) || {N, Client} <- lists:enumerate(Clients)],
         [?assertEqual({ok, <<N:32, Round>>}, gen_tcp:recv(Client, 5, 5000))
          || {N, Client} <- lists:enumerate(Clients)]
     end || Round <- lists:seq(1, 3)],
    ?assertMatch({ok, #{connections := 1000}}, py_reactor:info(Reactor)),
    [ok = gen_tcp:close(Client) || Client <- Clients],
    channel_tests:wait_until(fun() -> {ok, #{connections := Left}} = py_reactor:info(Reactor), Left =:= 0 end),
    ok = stop(Reactor).

descriptors_do_not_leak(Config) ->
    Turn = fun() ->
        Reactor = start(#{protocol => {'__main__', 'Raises'}, max_connections => 2}),
        [{C1, S1}, {C2, S2}, {C3, S3}] = [connection(Config) || _ <- [1, 2, 3]],
        [ok = py_reactor:handoff(Reactor, S, none) || S <- [S1, S2]],
        {error, max_connections} = py_reactor:handoff(Reactor, S3, none),
        ok = gen_tcp:send(C1, <<"raise">>),
        {error, _} = gen_tcp:recv(C1, 0, 5000),
        <<"hello">> = ask(C2, <<"hello">>),
        ok = stop(Reactor),
        [ok = gen_tcp:close(C) || C <- [C1, C2, C3, S3]]
    end,
    Turn(),
    Before = descriptors(),
    [Turn() || _ <- lists:seq(1, 50)],
    channel_tests:wait_until(fun() -> descriptors() =< Before end).

wrong_types_are_badarg(_Config) ->
    [?assertError(badarg, F())
     || F <- [fun() -> py_reactor:start_link(17) end,
              fun() -> py_reactor:start_link(#{}) end,
              fun() -> py_reactor:start_link(#{protocol => 'Echo'}) end,
              fun() -> py_reactor:start_link(#{protocol => {a, b}, no_such_option => 1}) end,
              fun() -> py_reactor:start_link(#{protocol => {a, b}, max_connections => 0}) end,
              fun() -> py_reactor:start_link(#{protocol => {a, b}, loop => "text"}) end,
              fun() -> py_reactor:handoff(self(), "text", none) end,
              fun() -> py_reactor:handoff("text", 1, none) end,
              fun() -> py_reactor:stop(self(), -1) end]].

%% ---- help ----

start(Options) ->
    {ok, Reactor} = py_reactor:start_link(Options),
    Reactor.

stop(Reactor) ->
    py_reactor:stop(Reactor).

%% Both ends of a TCP connection, owned by the calling process.
connection(Config) ->
    Listener = proplists:get_value(listener, Config),
    {ok, Port} = inet:port(Listener),
    {ok, Client} = gen_tcp:connect({127, 0, 0, 1}, Port, [binary, {active, false}]),
    {ok, Server} = gen_tcp:accept(Listener),
    {Client, Server}.

%% The process of the suite's beginning ends, and with it what it owns.
keep(Listener) ->
    Keeper = spawn(fun() -> receive never -> ok end end),
    ok = gen_tcp:controlling_process(Listener, Keeper),
    Keeper.

ask(Socket, Data) ->
    ok = gen_tcp:send(Socket, Data),
    {ok, Answer} = gen_tcp:recv(Socket, 0, 5000),
    Answer.

%% What is received until the peer's end.
all_of(Socket) ->
    case gen_tcp:recv(Socket, 0, 5000) of
        {ok, Data} -> <<Data/binary, (all_of(Socket))/binary>>;
        {error, closed} -> <<>>
    end.

elsewhere(Fun) ->
    {Pid, Monitor} = spawn_monitor(fun() -> exit({result, Fun()}) end),
    receive {'DOWN', Monitor, process, Pid, {result, Result}} -> Result end.

%% What the protocols and the exception handler saw, oldest first.
logged() ->
    {ok, Seen} = py:eval("[(erlang.Atom(what), why) for what, why in log]", #{}),
    Seen.

descriptors() ->
    erlang:garbage_collect(),
    {ok, Count} = py:call('__main__', descriptors, []),
    Count.
