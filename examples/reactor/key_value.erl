%% A key-value store over TCP: connections are accepted here and served by Python (key_value.py).  Clients
%% store the lines of a text, read them back and have them summed; the program ends with status 0 when all
%% answers are right.
%%
%%   ./run pattern key_value [PATH]
-module(key_value).

-behaviour(supervisor).

-export([main/0, init/1, accept/1]).

-define(CLIENTS, 8).
-define(CONNECTIONS, 100).

-spec main() -> no_return().
main() ->
    [Name, Path] = init:get_plain_arguments(),
    case file:read_file(Path) of
        {ok, Text} ->
            {ok, _} = application:ensure_all_started(beamloop),
            ok = py:exec(["import sys\nsys.path.insert(0, '", source_dir(), "')\n"]),
            Lines = binary:split(Text, <<"\n">>, [global]),
            Agreed = run(Name, Lines),
            io:format("~ts~n", [case Agreed of true -> "agreed"; false -> "DIFFERENT" end]),
            halt(case Agreed of true -> 0; false -> 1 end);
        {error, Reason} ->
            io:format(standard_error, "~ts: ~ts~n", [Path, file:format_error(Reason)]),
            halt(2)
    end.

run("key_value", Lines) ->
    {ok, Listener} = gen_tcp:listen(0, [binary, {active, false}, {ip, {127, 0, 0, 1}}]),
    {ok, Port} = inet:port(Listener),
    {ok, Supervisor} = supervisor:start_link(?MODULE, Listener),
    Numbered = lists:enumerate(Lines),
    Shares = [[Line || {N, _} = Line <- Numbered, N rem ?CLIENTS =:= Client]
              || Client <- lists:seq(0, ?CLIENTS - 1)],
    Clients = [spawn_monitor(fun() -> exit({agrees, client(Port, Share)}) end) || Share <- Shares],
    Agreed = [receive {'DOWN', Monitor, process, Pid, Reason} -> Reason end
              || {Pid, Monitor} <- Clients],
    {ok, #{accepted := Accepted, received := In, sent := Out}} = py_reactor:info(key_value),
    io:format("~b lines over ~b connections; ~b bytes came, ~b left~n",
              [length(Lines), Accepted, In, Out]),
    unlink(Supervisor),
    exit(Supervisor, shutdown),
    Agreed =:= [{agrees, true} || _ <- Shares].

%% --- the server: a reactor, and a process that accepts for it ------------------------------------

-spec init(gen_tcp:socket()) -> {ok, {supervisor:sup_flags(), [supervisor:child_spec()]}}.
init(Listener) ->
    Reactor = #{name => key_value, protocol => {key_value, 'KeyValue'},
                max_connections => ?CONNECTIONS},
    {ok, {#{strategy => rest_for_one},
          [#{id => reactor, start => {py_reactor, start_link, [Reactor]}},
           #{id => acceptor, start => {?MODULE, accept, [Listener]}}]}}.

-spec accept(gen_tcp:socket()) -> {ok, pid()}.
accept(Listener) ->
    {ok, spawn_link(fun() -> accept_all(Listener) end)}.

accept_all(Listener) ->
    {ok, Socket} = gen_tcp:accept(Listener),
    case py_reactor:handoff(key_value, Socket, none) of
        ok ->
            ok; % the socket is the reactor's
        {error, Reason} ->
            %% It is still ours.
            _ = gen_tcp:send(Socket, io_lib:format("error ~w~n", [Reason])),
            ok = gen_tcp:close(Socket)
    end,
    accept_all(Listener).

%% --- a client ------------------------------------------------------------------------------------

%% Whether all answers are right.
client(Port, Share) ->
    {ok, Socket} = gen_tcp:connect({127, 0, 0, 1}, Port,
                                   [binary, {active, false}, {packet, line}, {recbuf, 65536}]),
    Keys = [integer_to_binary(N) || {N, _Line} <- Share],
    Sum = erlang:crc32([Line || {_N, Line} <- Share]),
    %% All at once: the answers come in order, those of coroutines too.
    ok = gen_tcp:send(Socket, [["set ", Key, " ", Line, "\n"]
                               || {Key, {_, Line}} <- lists:zip(Keys, Share)]),
    ok = gen_tcp:send(Socket, ["sum ", lists:join(" ", Keys), "\nget nothing\nfrobnicate\n"]),
    Stored = [answer(Socket) || _ <- Share],
    Asked = [answer(Socket) || _ <- [sum, get, other]],
    Read = [begin
                ok = gen_tcp:send(Socket, ["get ", Key, "\n"]),
                answer(Socket)
            end || Key <- Keys],
    ok = gen_tcp:close(Socket),
    Stored =:= [<<"ok">> || _ <- Share]
        andalso Asked =:= [<<"sum ", (integer_to_binary(Sum))/binary>>, <<"none">>,
                           <<"error no such command">>]
        andalso Read =:= [<<"value ", Line/binary>> || {_N, Line} <- Share].

answer(Socket) ->
    {ok, Line} = gen_tcp:recv(Socket, 0, 10000),
    binary:part(Line, 0, byte_size(Line) - 1).

source_dir() ->
    filename:dirname(proplists:get_value(source, module_info(compile))).
