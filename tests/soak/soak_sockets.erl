%% Kinds of load: servers and clients on a loop of ours, and connections that Erlang hands over.
-module(soak_sockets).

-export([kinds/0]).

-define(WAIT, 30000).

kinds() ->
    [#{name => Name, start => fun() -> start(Name) end, turn => fun turn/1, stop => fun stop/1,
       pause => Pause}
     || {Name, Pause} <- [{tcp, 20}, {unix, 20}, {tls, 50}, {udp, 20}, {streams, 20}]] ++
    [#{name => reactor, start => fun start_reactor/0, turn => fun reactor/1, stop => fun stop_reactor/1,
       pause => 20}].

%% --- servers in Python, each on a loop of its own with its clients ---------------------------------

start(Name) ->
    {ok, Loop} = py_event_loop:start_link(),
    {ok, Server} = py_event_loop:run(soak_servers, start, [Name], #{loop => Loop, binaries => str}),
    {Loop, Server, 0}.

turn({Loop, Server, Turn}) ->
    {ok, Done} = py_event_loop:run(Server, turn, [Turn], #{loop => Loop, timeout => ?WAIT}),
    {Done, {Loop, Server, Turn + 1}}.

stop({Loop, Server, _}) ->
    {ok, none} = py_event_loop:run(Server, close, [], #{loop => Loop, timeout => ?WAIT}),
    py_event_loop:stop(Loop).

%% --- a reactor ------------------------------------------------------------------------------------

start_reactor() ->
    {ok, Listener} = gen_tcp:listen(0, [binary, {active, false}, {ip, {127, 0, 0, 1}}]),
    {ok, Reactor} = py_reactor:start_link(#{protocol => {soak_servers, 'Echo'}}),
    {Listener, Reactor, 0}.

reactor({Listener, Reactor, Turn}) ->
    {ok, Port} = inet:port(Listener),
    {ok, Client} = gen_tcp:connect({127, 0, 0, 1}, Port, [binary, {active, false}]),
    {ok, Socket} = gen_tcp:accept(Listener, ?WAIT),
    ok = py_reactor:handoff(Reactor, Socket, Turn),
    [begin
         Bytes = binary:copy(<<Turn:32>>, Count),
         ok = gen_tcp:send(Client, Bytes),
         {ok, Bytes} = gen_tcp:recv(Client, byte_size(Bytes), ?WAIT)
     end || Count <- [1, 100, 10000]],
    ok = gen_tcp:close(Client),
    {1, {Listener, Reactor, Turn + 1}}.

stop_reactor({Listener, Reactor, _}) ->
    ok = py_reactor:stop(Reactor),
    gen_tcp:close(Listener).
