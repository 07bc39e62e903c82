%% The Erlang side of bench/channel: what sends, and the floors (floors.c).  Nanoseconds everywhere.
-module(channel_bench).

-export([load/1, floors/1, send_alone/3, receive_while_sending/4, in_flight/3, one_in_flight/2]).
-export([to_erlang/4, close_crowd/1]).
-export([in_process/1, elapsed/1, mean/1, result/1, receive_all/2]).
-export([nothing/1, pin/1, unpin/0, fresh_memory/0, copy/2, ping_pong/1, send_binaries/3]).

-define(CHUNK, 1000).
%% A bound is a number of messages, in bytes, so that what waking costs is shared by as many.
-define(BOUND, 512).

load(Library) ->
    erlang:load_nif(Library, 0).

nothing(_) -> erlang:nif_error(not_loaded).
pin(_) -> erlang:nif_error(not_loaded).
unpin() -> erlang:nif_error(not_loaded).
fresh_memory() -> erlang:nif_error(not_loaded).
copy(_, _) -> erlang:nif_error(not_loaded).
ping_pong(_) -> erlang:nif_error(not_loaded).
send_binaries(_, _, _) -> erlang:nif_error(not_loaded).

%% --- floors ---------------------------------------------------------------------------------

%% #{Name => Nanoseconds}
floors(Rounds) ->
    Trips = lists:sort(ping_pong(Rounds)),
    {ok, Queue} = py:call(channel_consumers, asyncio_queue, [50000]),
    #{empty => per_call(fun() -> repeat_nothing(100000, term) end, 100000),
      {pin, same, 16384} => pin_alone(same, 16384, 100000),
      {pin, fresh, 16384} => pin_alone(fresh, 16384, 100000),
      {pin, same, 1048576} => pin_alone(same, 1048576, 1000),
      {pin, fresh, 1048576} => pin_alone(fresh, 1048576, 1000),
      fresh_memory => fresh_memory(),
      {copy, 64} => copy(64, 100000),
      {copy, 1024} => copy(1024, 100000),
      {copy, 16384} => copy(16384, 20000),
      {copy, 1048576} => copy(1048576, 500),
      {enif_send, 64} => enif_send(64, 50000),
      {enif_send, 1024} => enif_send(1024, 50000),
      {enif_send, 16384} => enif_send(16384, 20000),
      trip_p50 => percentile(Trips, 50),
      trip_p99 => percentile(Trips, 99),
      asyncio_queue => Queue}.

per_call(Function, Times) ->
    elapsed(Function) / Times.

repeat_nothing(0, _) -> ok;
repeat_nothing(N, Term) -> nothing(Term), repeat_nothing(N - 1, Term).

%% As send_alone, with the floor in the place of send/2.
pin_alone(Kind, Size, Count) ->
    in_process(fun() ->
        Chunk = max(1, min(?CHUNK, 100000000 div Size)),
        Times = [begin
                     Binaries = binaries(Kind, Size, Chunk),
                     elapsed(fun() -> pin_all(Binaries) end)
                 end || _ <- lists:seq(1, Count div Chunk)],
        ok = unpin(),
        mean(Times) / Chunk
    end).

pin_all([]) -> ok;
pin_all([Binary | Rest]) -> pin(Binary), pin_all(Rest).

%% A thread in C sends fresh binaries, this process receives them.
enif_send(Size, Count) ->
    in_process(fun() ->
        ok = send_binaries(self(), Size, Count),
        receive_all(fun() -> receive Binary when is_binary(Binary) -> ok end end, Count)
    end).

%% Nanoseconds a message, from the first to the last one.
receive_all(Receive, Count) ->
    Receive(),
    elapsed(fun() -> repeat(Receive, Count - 1) end) / (Count - 1).

repeat(_, 0) -> ok;
repeat(Function, N) -> Function(), repeat(Function, N - 1).

elapsed(Function) ->
    Start = erlang:monotonic_time(nanosecond),
    _ = Function(),
    erlang:monotonic_time(nanosecond) - Start.

percentile(Sorted, Percent) ->
    lists:nth(max(1, length(Sorted) * Percent div 100), Sorted).

%% --- send/2 alone ---------------------------------------------------------------------------

%% Nobody waits; Count messages are queued.  The mean of a send over the whole and over its last tenth,
%% which tells whether the length matters.
send_alone(Size, Count, Kind) ->
    in_process(fun() ->
        {ok, Channel} = py_channel:new(),
        Chunks = Count div ?CHUNK,
        Times = [begin
                     Binaries = binaries(Kind, Size, ?CHUNK),
                     elapsed(fun() -> send_all(Channel, Binaries) end)
                 end || _ <- lists:seq(1, Chunks)],
        Last = lists:nthtail(Chunks - max(1, Chunks div 10), Times),
        {mean(Times) / ?CHUNK, mean(Last) / ?CHUNK}
    end).

binaries(fresh, Size, Count) -> [binary:copy(<<"x">>, Size) || _ <- lists:seq(1, Count)];
binaries(same, Size, Count) -> lists:duplicate(Count, binary:copy(<<"x">>, Size)).

send_all(_, []) -> ok;
send_all(Channel, [Binary | Rest]) ->
    ok = py_channel:send(Channel, Binary),
    send_all(Channel, Rest).

mean(Numbers) -> lists:sum(Numbers) / length(Numbers).

%% --- receiving while somebody sends ---------------------------------------------------------

%% Nanoseconds a message, from the first to the last one received.  The sender waits for room in
%% send/3 until half of the bound is free, or calls send/2 again when it was busy.
receive_while_sending(Consumer, Way, Size, Count) ->
    in_process(fun() ->
        Bound = ?BOUND * max(1024, Size),
        {ok, Channel} = py_channel:new(case Way of
            wait -> #{max_size => Bound, low_watermark => Bound div 2};
            retry -> #{max_size => Bound}
        end),
        Waiting = start(Consumer, [Channel]),
        wait_for_receiver(Channel),
        send_copies(Way, Channel, binary:copy(<<"x">>, Size), Count),
        ok = py_channel:close(Channel),
        {Elapsed, Received} = result(Waiting),
        Received = Count - 1,
        Elapsed / Received
    end).

send_copies(_Way, _Channel, _Binary, 0) -> ok;
send_copies(wait, Channel, Binary, Left) ->
    ok = py_channel:send(Channel, Binary, infinity),
    send_copies(wait, Channel, Binary, Left - 1);
send_copies(retry, Channel, Binary, Left) ->
    case py_channel:send(Channel, Binary) of
        ok -> send_copies(retry, Channel, Binary, Left - 1);
        busy -> erlang:yield(), send_copies(retry, Channel, Binary, Left)
    end.

%% --- request and response -------------------------------------------------------------------

%% Nanoseconds a round trip with Window requests under way.
in_flight(Size, Count, Window) ->
    with_server(fun(Channel) ->
        Binary = binary:copy(<<"x">>, Size),
        Elapsed = elapsed(fun() ->
            [request(Channel, Binary) || _ <- lists:seq(1, Window)],
            exchange(Channel, Binary, Count - Window),
            [response() || _ <- lists:seq(1, Window)]
        end),
        Elapsed / Count
    end).

exchange(_Channel, _Binary, 0) -> ok;
exchange(Channel, Binary, Left) ->
    response(),
    request(Channel, Binary),
    exchange(Channel, Binary, Left - 1).

request(Channel, Binary) ->
    ok = py_channel:send(Channel, {request, self(), Binary}).

response() ->
    receive {response, _} -> ok end.

%% {P50, P99} of Count round trips, one after the other.
one_in_flight(Size, Count) ->
    with_server(fun(Channel) ->
        Binary = binary:copy(<<"x">>, Size),
        Times = [elapsed(fun() -> request(Channel, Binary), response() end)
                 || _ <- lists:seq(1, Count)],
        Sorted = lists:sort(Times),
        {percentile(Sorted, 50), percentile(Sorted, 99)}
    end).

with_server(Function) ->
    in_process(fun() ->
        {ok, Channel} = py_channel:new(),
        Server = start(serve, [Channel]),
        wait_for_receiver(Channel),
        [begin request(Channel, <<"warm">>), response() end || _ <- lists:seq(1, 1000)],
        Result = Function(Channel),
        ok = py_channel:close(Channel),
        none = result(Server),
        Result
    end).

%% --- the direction to Erlang ----------------------------------------------------------------

%% Nanoseconds a message, from the first to the last one received.  The sender waits for room until half
%% of the bound is free, or tries again.
to_erlang(Sender, How, Size, Count) ->
    in_process(fun() ->
        Bound = ?BOUND * max(1024, Size),
        {ok, Channel} = py_channel:new(#{max_size => Bound, low_watermark => Bound div 2}),
        Sending = start(Sender, [Channel, Size, Count]),
        Elapsed = receive_all(receiver(How, Channel), Count),
        none = result(Sending),
        Elapsed
    end).

receiver(recv, Channel) ->
    fun() -> {ok, _} = py_channel:recv(Channel) end;
receiver(subscribe, Channel) ->
    ok = py_channel:subscribe(Channel, #{active => ?BOUND}),
    fun() -> next_delivered(Channel) end.

next_delivered(Channel) ->
    receive
        {py_channel, Channel, {data, _}} ->
            ok;
        {py_channel, Channel, passive} ->
            ok = py_channel:subscribe(Channel, #{active => ?BOUND}),
            next_delivered(Channel)
    end.

%% --- closing --------------------------------------------------------------------------------

%% {Nanoseconds of close/1, until all have been told} with so many processes that wait for a message.
close_crowd(Count) ->
    in_process(fun() ->
        process_flag(priority, high),
        {ok, Channel} = py_channel:new(),
        [spawn_monitor(fun() -> {error, closed} = py_channel:recv(Channel) end)
         || _ <- lists:seq(1, Count)],
        wait_for_receivers(Channel, Count),
        Start = erlang:monotonic_time(nanosecond),
        ok = py_channel:close(Channel),
        Closed = erlang:monotonic_time(nanosecond),
        %% In any order: to look for each in turn through all that came would take most of the time.
        [receive {'DOWN', _, process, _, normal} -> ok end || _ <- lists:seq(1, Count)],
        {Closed - Start, erlang:monotonic_time(nanosecond) - Start}
    end).

wait_for_receivers(Channel, Count) ->
    case py_channel:info(Channel) of
        #{to_erlang := #{waiters := Count}} -> ok;
        _ -> timer:sleep(10), wait_for_receivers(Channel, Count)
    end.

%% --- helpers --------------------------------------------------------------------------------

%% In a process of its own, so that nothing stays on a heap that others collect.
in_process(Function) ->
    {Pid, Monitor} = spawn_opt(fun() -> exit({result, Function()}) end, [monitor]),
    receive
        {'DOWN', Monitor, process, Pid, {result, Result}} -> Result;
        {'DOWN', Monitor, process, Pid, Reason} -> error(Reason)
    end.

start(Function, Args) ->
    spawn_monitor(fun() -> exit({result, py:call(channel_consumers, Function, Args)}) end).

result({Pid, Monitor}) ->
    receive {'DOWN', Monitor, process, Pid, {result, {ok, Result}}} -> Result end.

wait_for_receiver(Channel) ->
    case py_channel:info(Channel) of
        #{waiters := 1} -> ok;
        _ -> timer:sleep(1), wait_for_receiver(Channel)
    end.
