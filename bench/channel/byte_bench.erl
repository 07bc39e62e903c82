%% The Erlang side of bench/channel for byte channels.  Nanoseconds everywhere.
-module(byte_bench).

-export([measures/1, send_alone/3, receive_while_sending/3, receive_queued/3, to_erlang/2, echo/3]).

-import(channel_bench, [in_process/1, elapsed/1, mean/1, result/1]).

%% A bound is a number of messages, in bytes, so that what waking costs is shared by as many.
-define(BOUND, 512).
%% And never more than this, of large messages.
-define(BOUND_MAX, 67108864).

%% As of main.escript; Count scales a number of messages.
measures(Count) ->
    [{byte_send, ["bytes: send/2 alone, ", text(Size), ", ", atom_to_list(Kind), " binary, ",
                  integer_to_list(Count(N)), " queued"], rate, none,
      case Asked of pin -> {pin, Kind, Size}; _ -> Asked end,
      fun() -> send_alone(Size, Count(N), Kind) end}
     || {Size, N, Asked} <- [{64, 1000000, 3.0}, {1024, 1000, 2.5}, {1024, 1000000, 2.5},
                             {16384, 100000, pin}, {1048576, 1000, pin}],
        Kind <- [same, fresh]] ++
    [{byte_async, ["bytes: async for, sender in send/3, ", text(Size)], rate, none, Asked,
      fun() -> receive_while_sending(drain_async, Size, Count(N)) end}
     || {Size, N, Asked} <- [{64, 300000, 2.0}, {1024, 300000, 1.5}, {16384, 50000, 0.5},
                             {1048576, 2000, {copy, 1048576}}]] ++
    [{byte_view, ["bytes: receive_view of what is queued, ", text(Size)], rate, none, none,
      fun() -> receive_queued(drain_views, Size, Count(50000)) end}
     || Size <- [16384, 1048576]] ++
    [{byte_to_erlang, ["bytes: send_bytes on a thread -> recv/1, ", text(Size)], rate, none, Asked,
      fun() -> to_erlang(Size, Count(N)) end}
     || {Size, N, Asked} <- [{64, 200000, 1.0}, {1024, 200000, 0.8}, {16384, 50000, 0.4}]] ++
    [{byte_echo, ["bytes: echo ", Name, ", 16 under way, ", text(Size)], rate, none, none,
      fun() -> echo(Server, Size, Count(N)) end}
     || {Size, N} <- [{64, 50000}, {1024, 50000}, {16384, 20000}],
        {Server, Name} <- [{echo_iterator, "by async for and async_send_bytes"},
                           {echo_transport, "by a Protocol on a byte channel"},
                           {echo_socket, "by the same Protocol on a TCP connection"}]].

text(Bytes) when Bytes < 1024 -> integer_to_list(Bytes) ++ " B";
text(Bytes) when Bytes < 1048576 -> integer_to_list(Bytes div 1024) ++ " KB";
text(Bytes) -> integer_to_list(Bytes div 1048576) ++ " MB".

%% Nobody waits; Count chunks are queued: the mean of a send over the whole and over its last tenth.
send_alone(Size, Count, Kind) ->
    in_process(fun() ->
        {ok, Channel} = py_byte_channel:new(),
        Chunk = max(1, min(1000, 100000000 div Size)),
        Times = [begin
                     Binaries = binaries(Kind, Size, Chunk),
                     elapsed(fun() -> send_all(Channel, Binaries) end) / Chunk
                 end || _ <- lists:seq(1, Count div Chunk)],
        Last = lists:nthtail(length(Times) - max(1, length(Times) div 10), Times),
        {mean(Times), mean(Last)}
    end).

binaries(fresh, Size, Count) -> [binary:copy(<<"x">>, Size) || _ <- lists:seq(1, Count)];
binaries(same, Size, Count) -> lists:duplicate(Count, binary:copy(<<"x">>, Size)).

send_all(_, []) -> ok;
send_all(Channel, [Binary | Rest]) ->
    ok = py_byte_channel:send(Channel, Binary),
    send_all(Channel, Rest).

%% Nanoseconds a chunk, from the first to the last one received.
receive_while_sending(Consumer, Size, Count) ->
    in_process(fun() ->
        Bound = bound(Size),
        {ok, Channel} = py_byte_channel:new(#{max_size => Bound, low_watermark => Bound div 2}),
        Waiting = start(Consumer, [Channel]),
        wait_for_receiver(Channel),
        send_copies(Channel, binary:copy(<<"x">>, Size), Count),
        ok = py_byte_channel:close(Channel),
        {Elapsed, Received} = result(Waiting),
        Received = Count - 1,
        Elapsed / Received
    end).

%% The same with nobody who sends meanwhile: one binary, many times.
receive_queued(Consumer, Size, Count) ->
    in_process(fun() ->
        {ok, Channel} = py_byte_channel:new(),
        send_copies(Channel, binary:copy(<<"x">>, Size), Count),
        ok = py_byte_channel:close(Channel),
        {Elapsed, Received} = result(start(Consumer, [Channel])),
        Received = Count - 1,
        Elapsed / Received
    end).

bound(Size) ->
    min(?BOUND * max(1024, Size), ?BOUND_MAX).

send_copies(_Channel, _Binary, 0) -> ok;
send_copies(Channel, Binary, Left) ->
    ok = py_byte_channel:send(Channel, Binary, infinity),
    send_copies(Channel, Binary, Left - 1).

to_erlang(Size, Count) ->
    in_process(fun() ->
        Bound = bound(Size),
        {ok, Channel} = py_byte_channel:new(#{max_size => Bound, low_watermark => Bound div 2}),
        Sending = start(send_thread, [Channel, Size, Count]),
        Elapsed = channel_bench:receive_all(fun() -> {ok, _} = py_byte_channel:recv(Channel) end,
                                            Count),
        none = result(Sending),
        Elapsed
    end).

%% Nanoseconds from a chunk to its return, of 16 that are under way.
echo(echo_socket, Size, Count) ->
    in_process(fun() ->
        {ok, Listener} = gen_tcp:listen(0, [binary, {active, false}, {nodelay, true},
                                            {ip, {127, 0, 0, 1}}]),
        {ok, Port} = inet:port(Listener),
        Server = start(echo_socket, [Port]),
        {ok, Socket} = gen_tcp:accept(Listener),
        Elapsed = exchange(fun(Chunk) -> gen_tcp:send(Socket, Chunk) end,
                           fun() -> gen_tcp:recv(Socket, Size) end, Size, Count),
        ok = gen_tcp:close(Socket),
        none = result(Server),
        Elapsed
    end);
echo(Function, Size, Count) ->
    in_process(fun() ->
        {ok, Channel} = py_byte_channel:new(),
        Server = start(Function, [Channel]),
        Elapsed = exchange(fun(Chunk) -> py_byte_channel:send(Channel, Chunk) end,
                           fun() -> py_byte_channel:recv(Channel) end, Size, Count),
        ok = py_byte_channel:close(Channel, write),
        none = result(Server),
        Elapsed
    end).

exchange(Send, Receive, Size, Count) ->
    Chunk = binary:copy(<<"x">>, Size),
    Turn = fun() -> {ok, _} = Receive(), ok = Send(Chunk) end,
    [ok = Send(Chunk) || _ <- lists:seq(1, 16)],
    [Turn() || _ <- lists:seq(1, 1000)],
    Elapsed = elapsed(fun() -> repeat(Turn, Count) end),
    [{ok, _} = Receive() || _ <- lists:seq(1, 16)],
    Elapsed / Count.

repeat(_, 0) -> ok;
repeat(Function, N) -> Function(), repeat(Function, N - 1).

start(Function, Args) ->
    spawn_monitor(fun() -> exit({result, py:call(byte_consumers, Function, Args)}) end).

wait_for_receiver(Channel) ->
    case py_byte_channel:info(Channel) of
        #{waiters := 1} -> ok;
        _ -> timer:sleep(1), wait_for_receiver(Channel)
    end.
