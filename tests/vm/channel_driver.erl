%% The Erlang side of the channel tests that pytest runs inside the VM (channel_driver.py): runs
%% functions for Python and hands back what they returned.
-module(channel_driver).

-export([start/1, produce/3, produce_paced/4, send_all/2, send_and_close/2,
         send_map_with_equal_keys/1, collect/0]).
-export([receive_all/1, receive_all_paced/2, receive_count/2, receive_inner/1,
         receive_itself/1, use/1]).
-export([send_chunks/2, send_chunks_and_close/2, produce_chunks/3, receive_chunks/1]).
-export([echo_chunks/1, relay/2, serve_http/1]).

%% Registers the driver and reports to Python, which has asked for it through rpc.
start(_Options) ->
    Pid = spawn(fun() -> register(?MODULE, self()), deliver(0, ok), loop() end),
    Pid.

loop() ->
    receive
        {call, Token, Module, Function, Args} ->
            spawn(fun() -> deliver(Token, run(Module, Function, Args)) end),
            loop()
    end.

run(Module, Function, Args) ->
    try {value, apply(Module, Function, Args)}
    catch Class:Reason -> {Class, iolist_to_binary(io_lib:format("~0tp", [Reason]))}
    end.

deliver(Token, Result) ->
    {ok, _} = py:call(channel_driver, deliver, [Token, Result]).

%% Sends the integers from First to Last, waiting for room; the number of times there was none.
produce(Channel, First, Last) ->
    produce(Channel, First, Last, 0).

produce(_Channel, N, Last, Busy) when N > Last ->
    Busy;
produce(Channel, N, Last, Busy) ->
    case py_channel:send(Channel, N) of
        ok -> produce(Channel, N + 1, Last, Busy);
        busy -> erlang:yield(), produce(Channel, N, Last, Busy + 1)
    end.

%% As produce, in bursts of random length with pauses of up to Max milliseconds, and `end' behind them.
produce_paced(Channel, First, Last, _Max) when First > Last ->
    send_when_there_is_room(Channel, <<"end">>);
produce_paced(Channel, First, Last, Max) ->
    Until = min(Last, First + rand:uniform(40) - 1),
    produce(Channel, First, Until),
    timer:sleep(rand:uniform(Max + 1) - 1),
    produce_paced(Channel, Until + 1, Last, Max).

send_when_there_is_room(Channel, Term) ->
    case py_channel:send(Channel, Term) of
        ok -> ok;
        busy -> erlang:yield(), send_when_there_is_room(Channel, Term)
    end.

send_all(Channel, Terms) ->
    [py_channel:send(Channel, Term) || Term <- Terms].

send_and_close(Channel, Terms) ->
    Results = send_all(Channel, Terms),
    ok = py_channel:close(Channel),
    Results.

%% 1 and 1.0 are one key in Python.
send_map_with_equal_keys(Channel) ->
    py_channel:send(Channel, #{1 => a, 1.0 => b}).

%% Drops the handles that are garbage in processes which have nothing to do.
collect() ->
    [garbage_collect(Pid) || Pid <- processes()],
    ok.

%% All that Python sends, in order, until the channel is closed.
receive_all(Channel) ->
    receive_all_paced(Channel, infinity).

%% As receive_all, with a pause after about each Often messages.
receive_all_paced(Channel, Often) ->
    receive_all(Channel, Often, []).

receive_all(Channel, Often, Received) ->
    is_integer(Often) andalso rand:uniform(Often) =:= 1 andalso timer:sleep(1),
    case py_channel:recv(Channel) of
        {ok, Term} -> receive_all(Channel, Often, [Term | Received]);
        {error, closed} -> lists:reverse(Received)
    end.

receive_count(Channel, Count) ->
    [begin {ok, Term} = py_channel:recv(Channel, 10000), Term end || _ <- lists:seq(1, Count)].

%% A map with a channel in it comes through the channel: what the inner one holds.
receive_inner(Outer) ->
    {ok, #{<<"inner">> := Inner, <<"list">> := [Inner, Inner]}} = py_channel:recv(Outer, 10000),
    py_channel:recv(Inner, 10000).

%% The channel comes through itself, twice.
receive_itself(Channel) ->
    {ok, Channel} = py_channel:recv(Channel, 10000),
    {ok, [Channel | _]} = py_channel:recv(Channel, 10000),
    true.

%% Receives one and sends one.
use(Channel) ->
    ok = py_channel:send(Channel, <<"from erlang">>),
    py_channel:recv(Channel, 10000).

%% --- byte channels --------------------------------------------------------------------------

send_chunks(Channel, Chunks) ->
    [py_byte_channel:send(Channel, Chunk, infinity) || Chunk <- Chunks].

send_chunks_and_close(Channel, Chunks) ->
    Results = send_chunks(Channel, Chunks),
    ok = py_byte_channel:close(Channel),
    Results.

%% The numbers from First to Last as text, waiting for room.
produce_chunks(Channel, First, Last) ->
    send_chunks(Channel, [integer_to_binary(N) || N <- lists:seq(First, Last)]),
    ok.

%% All that Python sends, in order, until the channel is closed.
receive_chunks(Channel) ->
    case py_byte_channel:recv(Channel, 10000) of
        {ok, Chunk} -> [Chunk | receive_chunks(Channel)];
        {error, closed} -> []
    end.

echo_chunks(Channel) ->
    case py_byte_channel:recv(Channel, 10000) of
        {ok, Chunk} ->
            ok = py_byte_channel:send(Channel, Chunk, infinity),
            echo_chunks(Channel);
        {error, closed} ->
            py_byte_channel:close(Channel, write)
    end.

%% What Python sends to one comes to it from the other, both ways, until both have ended.
relay(A, B) ->
    Other = spawn_monitor(fun() -> pass_on(B, A) end),
    pass_on(A, B),
    {Pid, Monitor} = Other,
    receive {'DOWN', Monitor, process, Pid, normal} -> ok end.

pass_on(From, To) ->
    case py_byte_channel:recv(From, 60000) of
        {ok, Chunk} ->
            _ = py_byte_channel:send(To, Chunk, infinity),
            pass_on(From, To);
        {error, closed} ->
            py_byte_channel:close(To, write)
    end.

%% Accepts one TCP connection after the other, and has Python serve each over a byte channel; the
%% port.  Serve is asked by `channel_site:serve(Channel)'.
serve_http(Count) ->
    {ok, Listen} = gen_tcp:listen(0, [binary, {active, false}, {ip, {127, 0, 0, 1}}]),
    {ok, Port} = inet:port(Listen),
    Acceptor = spawn(fun() -> receive go -> accept(Listen, Count) end end),
    ok = gen_tcp:controlling_process(Listen, Acceptor),
    Acceptor ! go,
    Port.

accept(Listen, 0) ->
    gen_tcp:close(Listen);
accept(Listen, Count) ->
    {ok, Socket} = gen_tcp:accept(Listen),
    {ok, Channel} = py_byte_channel:new(#{max_size => 65536}),
    Connection = spawn(fun() -> receive go -> connection(Socket, Channel) end end),
    ok = gen_tcp:controlling_process(Socket, Connection),
    Connection ! go,
    accept(Listen, Count - 1).

connection(Socket, Channel) ->
    {ok, _} = py:call(channel_site, serve, [Channel]),
    spawn_link(fun() -> to_python(Socket, Channel) end),
    to_socket(Channel, Socket).

to_python(Socket, Channel) ->
    case gen_tcp:recv(Socket, 0) of
        {ok, Data} ->
            case py_byte_channel:send(Channel, Data, infinity) of
                ok -> to_python(Socket, Channel);
                {error, closed} -> ok
            end;
        {error, _} ->
            py_byte_channel:close(Channel, write)
    end.

to_socket(Channel, Socket) ->
    case py_byte_channel:recv(Channel) of
        {ok, Data} ->
            case gen_tcp:send(Socket, Data) of
                ok -> to_socket(Channel, Socket);
                {error, _} -> py_byte_channel:close(Channel)
            end;
        {error, closed} ->
            gen_tcp:close(Socket)
    end.
