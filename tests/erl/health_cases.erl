%% What costs a scheduler most: the worst cases for scheduler_health_SUITE, and the calls that it repeats.
-module(health_cases).

-export([cases/0, run/2, run_alone/1, repeated/0, prepare/1, repeat/2]).

-define(WAIT, 60000).

%% --- worst cases ------------------------------------------------------------------------------------

%% Names, for run/2.
cases() ->
    [many_terms, nested_terms, large_binaries, large_bytes, references, handles, many_receivers,
     many_senders, many_subscribers, a_million_forgotten, a_million_to_erlang_forgotten,
     large_messages_forgotten, many_channels, many_objects, calls_in_pieces, many_calls_of_one_process,
     large_results].

%% @doc Runs a case in a process of its own, for the first, second, ... time, until all that it made is gone.
run(Case, Time) ->
    {Pid, Monitor} = spawn_monitor(fun() -> case_(Case, Time) end),
    receive {'DOWN', Monitor, process, Pid, normal} -> ok end,
    wait_until_gone(1000).

%% @doc Runs a case in the calling process, beside others that have channels of their own.
run_alone(Case) ->
    _ = case_(Case, 1),
    ok.

wait_until_gone(Tries) ->
    {ok, _} = py:eval("__import__('gc').collect()"),
    [garbage_collect(Pid) || Pid <- processes()],
    case {beamloop_nif:nif_channel_live(), py:info()} of
        {{0, 0}, #{objects := 0, pending_decrefs := 0}} -> ok;
        Left when Tries =:= 0 -> error({left, Left});
        _ -> timer:sleep(10), wait_until_gone(Tries - 1)
    end.

%% What grows with their number is larger each time.
case_(many_channels, Time) ->
    Count = 25000 bsl Time,
    Count = length([begin {ok, C} = py_channel:new(), C end || _ <- lists:seq(1, Count)]);
case_(Case, _) ->
    case_(Case).

case_(many_terms) ->
    {ok, Channel} = py_channel:new(),
    ok = py_channel:send_many(Channel, [{N, <<"term">>} || N <- lists:seq(1, 100000)]),
    {ok, 100000} = py:call(health, drain, [Channel, 100000]);
case_(nested_terms) ->
    {ok, Channel} = py_channel:new(),
    Deep = lists:foldl(fun(N, Inner) -> [N, {Inner}] end, [], lists:seq(1, 100)),
    Wide = [maps:from_list([{N, #{N => [Deep]}} || N <- lists:seq(1, 300)])],
    [ok = py_channel:send(Channel, Term)
     || Term <- [Wide, lists:duplicate(1000000, 0), list_to_tuple(lists:seq(1, 1000000)),
                 1 bsl 2000000, lists:foldl(fun(_, Inner) -> {Inner} end, [], lists:seq(1, 500000))]],
    {ok, _} = py:call(health, drain, [Channel, 4]);
case_(large_binaries) ->
    {ok, Channel} = py_channel:new(),
    ok = py_channel:send(Channel, binary:copy(<<1>>, 100000000)),
    ok = py_channel:send(Channel, {[binary:copy(<<1>>, 50000000)], binary:copy(<<2>>, 50000000)}),
    ok = py_channel:send(Channel, [binary:copy(<<N>>, 5000) || N <- lists:seq(1, 2000)]),
    {ok, 2} = py:call(health, drain, [Channel, 2]);
case_(large_bytes) ->
    {ok, Channel} = py_byte_channel:new(),
    ok = py_byte_channel:send(Channel, binary:copy(<<1>>, 100000000)),
    ok = py_byte_channel:send(Channel, lists:duplicate(1000000, "iodata")),
    {ok, 2} = py:call(health, drain_bytes, [Channel, 2]),
    {ok, none} = py:call(health, send_bytes, [Channel, 100000000]),
    {ok, Bytes} = py_byte_channel:recv(Channel, ?WAIT),
    100000000 = byte_size(Bytes);
case_(references) ->
    {ok, Channel} = py_channel:new(),
    ok = py_channel:send(Channel, [make_ref() || _ <- lists:seq(1, 100000)]),
    {ok, 1} = py:call(health, drain, [Channel, 1]);
case_(handles) ->
    {ok, Channel} = py_channel:new(),
    Handles = [begin {ok, C} = py_channel:new(), C end || _ <- lists:seq(1, 30000)],
    ok = py_channel:send(Channel, Handles),
    {ok, 1} = py:call(health, drain, [Channel, 1]),
    ok = py_channel:send(Channel, Handles);
case_(many_receivers) ->
    {ok, Channel} = py_channel:new(),
    crowd(Channel, 50000, fun() -> {error, closed} = py_channel:recv(Channel) end, receivers,
          fun() -> #{to_erlang := Info} = py_channel:info(Channel), Info end);
case_(many_senders) ->
    {ok, Channel} = py_channel:new(#{max_messages => 1}),
    ok = py_channel:send(Channel, first),
    crowd(Channel, 50000, fun() -> {error, closed} = py_channel:send(Channel, more, ?WAIT) end, senders,
          fun() -> py_channel:info(Channel) end);
case_(many_subscribers) ->
    {ok, Channel} = py_channel:new(),
    Crowd = [spawn_monitor(fun() ->
                 ok = py_channel:subscribe(Channel),
                 receive {py_channel, Channel, closed} -> ok end
             end) || _ <- lists:seq(1, 5000)],
    timer:sleep(100),
    ok = py_channel:close(Channel),
    all_down(Crowd);
case_(a_million_forgotten) ->
    {ok, Channel} = py_channel:new(),
    [ok = py_channel:send_many(Channel, lists:seq(1, 100000)) || _ <- lists:seq(1, 10)],
    #{messages := 1000000} = py_channel:info(Channel);
case_(a_million_to_erlang_forgotten) ->
    {ok, Channel} = py_channel:new(),
    {ok, none} = py:call(health, fill, [Channel, 1000000]),
    #{to_erlang := #{messages := 1000000}} = py_channel:info(Channel);
case_(large_messages_forgotten) ->
    {ok, Few} = py_channel:new(),
    {ok, Many} = py_channel:new(),
    {ok, Bytes} = py_byte_channel:new(),
    ok = py_byte_channel:send(Bytes, binary:copy(<<1>>, 100000000)),
    [ok = py_channel:send(Few, binary:copy(<<N>>, 10000000)) || N <- lists:seq(1, 10)],
    [ok = py_channel:send(Many, {N, binary:copy(<<N>>, 100000)}) || N <- lists:seq(1, 900)];
case_(many_objects) ->
    {ok, Objects} = py:call(health, objects, [100000]),
    {ok, 100000} = py:call(builtins, len, [Objects]);
case_(calls_in_pieces) ->
    Pieces = [binary:copy(<<N:32>>, 100) || N <- lists:seq(1, 100000)],
    {ok, 100000} = py:call(builtins, len, [Pieces]),
    {ok, 100000000} = py:call(builtins, len, [binary:copy(<<1>>, 100000000)]);
case_(many_calls_of_one_process) ->
    Starter = fun() ->
        [{ok, _} = py_event_loop:create_task(asyncio, sleep, [60]) || _ <- lists:seq(1, 20000)]
    end,
    {Pid, Monitor} = spawn_monitor(Starter),
    receive {'DOWN', Monitor, process, Pid, normal} -> ok end;
case_(large_results) ->
    {ok, Whole} = py:call(health, result, [1000000]),
    1000000 = length(Whole),
    {ok, Channel} = py_channel:new(),
    {ok, none} = py:call(health, send_result, [Channel, 1000000]),
    {ok, Whole} = py_channel:recv(Channel, ?WAIT),
    {ok, none} = py:call(health, send_parts, [Channel, 50000000]),
    {ok, [_, _]} = py_channel:recv(Channel, ?WAIT),
    {ok, Bytes} = py:call(builtins, bytes, [100000000]),
    100000000 = byte_size(Bytes).

%% They wait, and are told by the channel's end.
crowd(Channel, Count, Wait, What, Info) ->
    Crowd = [spawn_monitor(Wait) || _ <- lists:seq(1, Count)],
    all_wait(Info, What, Count),
    ok = py_channel:close(Channel),
    all_down(Crowd).

all_wait(Info, What, Count) ->
    case Info() of
        #{What := #{process := Count}} -> ok;
        _ -> timer:sleep(10), all_wait(Info, What, Count)
    end.

all_down(Crowd) ->
    [receive {'DOWN', Monitor, process, Pid, normal} -> ok end || {Pid, Monitor} <- Crowd].

%% --- calls that a process repeats without end ------------------------------------------------------------

%% Names, for prepare/1.
repeated() ->
    [send_small, send_4k, send_integers, send_binary, send_pieces, send_references, send_many, send_bytes,
     take_small, take_4k, take_bytes, info, open_and_drop, spawn_task, call].

%% @doc Repeats a call, from prepare/1, until the time is over, in the calling process.
repeat(Call, Milliseconds) ->
    repeat_until(Call, erlang:monotonic_time(millisecond) + Milliseconds).

repeat_until(Call, End) ->
    some(Call, 20),
    case erlang:monotonic_time(millisecond) < End of
        true -> repeat_until(Call, End);
        false -> ok
    end.

some(_, 0) -> ok;
some(Call, N) -> _ = Call(), some(Call, N - 1).

%% @doc A function that makes the call once.
prepare(send_small) -> sending({1, small, <<"term">>});
prepare(send_4k) -> sending(binary:copy(<<1>>, 4000));
prepare(send_integers) -> sending(lists:seq(1000, 1790));
prepare(send_binary) -> sending(binary:copy(<<1>>, 16384));
prepare(send_pieces) -> sending([binary:copy(<<1>>, 5000) || _ <- lists:seq(1, 500)]);
prepare(send_references) -> sending([make_ref() || _ <- lists:seq(1, 100)]);
prepare(send_many) ->
    {ok, Channel} = py_channel:new(),
    Terms = lists:seq(1, 500),
    fun() -> ok = py_channel:send_many(Channel, Terms) end;
prepare(send_bytes) ->
    {ok, Channel} = py_byte_channel:new(#{max_size => 200000000}),
    Bytes = binary:copy(<<1>>, 4096),
    fun() -> py_byte_channel:send(Channel, Bytes) end;
prepare(take_small) -> taking(fill, [300000]);
prepare(take_4k) -> taking(fill_4k, [30000]);
prepare(take_bytes) ->
    {ok, Channel} = py_byte_channel:new(),
    {ok, none} = py:call(health, fill_bytes, [Channel, 30000]),
    fun() -> py_byte_channel:try_receive(Channel) end;
prepare(info) ->
    {ok, Channel} = py_channel:new(),
    fun() -> py_channel:info(Channel) end;
prepare(open_and_drop) ->
    fun() -> py_channel:new() end;
prepare(spawn_task) ->
    fun() -> py_event_loop:spawn_task(asyncio, sleep, [0]) end;
prepare(call) ->
    fun() -> {ok, 1} = py:call(builtins, len, [[1]]) end.

%% A full channel answers too, and costs as much to be encoded for.
sending(Term) ->
    {ok, Channel} = py_channel:new(#{max_size => 200000000}),
    fun() -> py_channel:send(Channel, Term) end.

taking(Function, Args) ->
    {ok, Channel} = py_channel:new(),
    {ok, none} = py:call(health, Function, [Channel | Args]),
    fun() -> py_channel:try_recv(Channel) end.
