%% Erlang accepts the connections, aiohttp serves them: between them is a byte channel for each.
%%
%%   ./run gateway [PORT]
%%
%% The socket stays Erlang's.  One process takes what the client sends to Python, another what Python
%% answers to the client; a client that does not read, or a site that does not, holds up its own
%% connection alone, since the channel is bounded.  The site opens no socket.
-module(gateway).

-export([main/0]).

-define(MAX_SIZE, 65536).

-spec main() -> no_return().
main() ->
    {ok, _} = application:ensure_all_started(beamloop),
    ok = py:exec(["import sys\nsys.path.insert(0, '", source_dir(), "')\n"]),
    {ok, _} = py_event_loop:run(gateway_site, start, []),
    {ok, Listen} = gen_tcp:listen(port(init:get_plain_arguments()),
                                  [binary, {active, false}, {reuseaddr, true}, {ip, {127, 0, 0, 1}}]),
    {ok, Port} = inet:port(Listen),
    io:format("gateway listening on 127.0.0.1:~b~n", [Port]),
    accept(Listen).

port([]) -> 8080;
port([Port]) -> list_to_integer(Port).

accept(Listen) ->
    {ok, Socket} = gen_tcp:accept(Listen),
    Connection = spawn(fun() -> receive go -> connect(Socket) end end),
    ok = gen_tcp:controlling_process(Socket, Connection),
    Connection ! go,
    accept(Listen).

connect(Socket) ->
    {ok, Ch} = py_byte_channel:new(#{max_size => ?MAX_SIZE, owner => self()}),
    {ok, _} = py_event_loop:run(gateway_site, serve, [Ch]),
    _ = spawn_link(fun() -> to_python(Socket, Ch) end),
    to_client(Ch, Socket).

%% A client that has ended its side may still read.
to_python(Socket, Ch) ->
    case gen_tcp:recv(Socket, 0) of
        {ok, Data} -> ok =:= py_byte_channel:send(Ch, Data, infinity) andalso to_python(Socket, Ch);
        {error, _} -> py_byte_channel:close(Ch, write)
    end.

to_client(Ch, Socket) ->
    case py_byte_channel:recv(Ch) of
        {ok, Data} ->
            case gen_tcp:send(Socket, Data) of
                ok -> to_client(Ch, Socket);
                {error, _} -> py_byte_channel:close(Ch)
            end;
        {error, closed} ->
            gen_tcp:close(Socket)
    end.

source_dir() ->
    filename:dirname(proplists:get_value(source, module_info(compile))).
