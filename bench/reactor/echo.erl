%% Echo servers in Erlang, which print their port: one that hands over to the reactor, one with a process
%% for each connection and active once.
-module(echo).

-export([reactor/1, gen_tcp/0]).

%% The buffer is what one receive of gen_tcp's takes; the small one that is the default costs many.
-define(OPTIONS, [binary, {active, false}, {ip, {127, 0, 0, 1}}, {backlog, 1024}, {nodelay, true},
                  {buffer, 256 * 1024}]).

%% The folder is that of servers.py, whose protocol serves what is accepted here.
-spec reactor(string()) -> no_return().
reactor(Folder) ->
    {ok, _} = application:ensure_all_started(beamloop),
    ok = py:exec(["import sys\nsys.path.insert(0, '", Folder, "')\ndel [bytes(1 << 20)][0]\n"]),
    {ok, Reactor} = py_reactor:start_link(#{protocol => {servers, 'Echo'}}),
    accept(listen(), fun(Socket) -> ok = py_reactor:handoff(Reactor, Socket, none) end).

-spec gen_tcp() -> no_return().
gen_tcp() ->
    accept(listen(), fun(Socket) ->
        Pid = spawn(fun() -> receive go -> echo(Socket) end end),
        ok = gen_tcp:controlling_process(Socket, Pid),
        Pid ! go
    end).

listen() ->
    {ok, Listener} = gen_tcp:listen(0, ?OPTIONS),
    {ok, Port} = inet:port(Listener),
    io:format("~b~n", [Port]),
    Listener.

accept(Listener, Serve) ->
    {ok, Socket} = gen_tcp:accept(Listener),
    Serve(Socket),
    accept(Listener, Serve).

echo(Socket) ->
    ok = inet:setopts(Socket, [{active, once}]),
    receive
        {tcp, Socket, Data} -> _ = gen_tcp:send(Socket, Data), echo(Socket);
        {tcp_closed, Socket} -> ok;
        {tcp_error, Socket, _Reason} -> ok
    end.
