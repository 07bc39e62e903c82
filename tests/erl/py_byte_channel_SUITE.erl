%% Byte channels as Erlang sees them.
-module(py_byte_channel_SUITE).

-include_lib("stdlib/include/assert.hrl").

-import(channel_tests, [result/1, wait_until/1]).

-export([all/0, suite/0, init_per_suite/1, end_per_suite/1, end_per_testcase/2]).
-export([bad_options_are_badarg/1, what_is_no_iodata_is_badarg/1,
         channels_of_terms_are_badarg_and_the_other_way_round/1,
         chunks_come_back_as_they_are/1, iodata_is_one_chunk/1, directions_never_mix/1,
         try_receive_does_not_wait/1, recv_times_out_and_leaves_nothing_behind/1,
         what_was_queued_outlives_close/1, one_direction_is_closed_alone/1,
         a_full_channel_is_busy/1, a_send_waits_for_room/1, what_never_fits_is_told/1,
         info_counts_bytes/1, large_binaries_are_not_copied/1,
         a_small_part_of_a_large_binary_does_not_keep_it/1,
         what_was_received_is_let_go/1, large_chunks_from_python_are_not_copied/1,
         chunks_are_delivered_to_a_subscriber/1, a_dead_receiver_gives_its_chunk_back/1,
         dropping_the_last_reference_closes/1, the_owners_death_closes/1,
         large_iodata_does_not_hold_a_scheduler/1, files_are_sent_whole_and_in_part/1,
         files_that_cannot_be_read_are_told/1, a_channel_too_small_for_any_chunk_is_told/1,
         a_file_waits_for_its_reader/1,
         a_file_on_a_closed_channel_is_told/1, a_killed_sender_of_a_file_leaves_nothing/1,
         others_send_while_a_file_waits/1]).

-define(HELPERS, py_byte_channel_SUITE_helpers).

suite() -> [{timetrap, {minutes, 2}}].

all() ->
    [bad_options_are_badarg, what_is_no_iodata_is_badarg,
     channels_of_terms_are_badarg_and_the_other_way_round, chunks_come_back_as_they_are,
     iodata_is_one_chunk, directions_never_mix, try_receive_does_not_wait,
     recv_times_out_and_leaves_nothing_behind, what_was_queued_outlives_close,
     one_direction_is_closed_alone, a_full_channel_is_busy, a_send_waits_for_room,
     what_never_fits_is_told, info_counts_bytes, large_binaries_are_not_copied,
     a_small_part_of_a_large_binary_does_not_keep_it, what_was_received_is_let_go, large_chunks_from_python_are_not_copied,
     chunks_are_delivered_to_a_subscriber, a_dead_receiver_gives_its_chunk_back,
     dropping_the_last_reference_closes, the_owners_death_closes,
     large_iodata_does_not_hold_a_scheduler, files_are_sent_whole_and_in_part,
     files_that_cannot_be_read_are_told, a_channel_too_small_for_any_chunk_is_told,
     a_file_waits_for_its_reader,
     a_file_on_a_closed_channel_is_told, a_killed_sender_of_a_file_leaves_nothing,
     others_send_while_a_file_waits].

init_per_suite(Config) ->
    {ok, _} = application:ensure_all_started(beamloop),
    ok = py:exec(helpers()),
    Config.

end_per_suite(_Config) ->
    application:stop(beamloop).

%% Nothing that a test made may be left.
end_per_testcase(_Case, _Config) ->
    channel_tests:left().

%% The Python side of these tests.
helpers() ->
    "import sys, types\n"
    "from erlang import ByteChannel\n"
    "\n"
    "def echo(ref):\n"
    "    channel = ByteChannel(ref)\n"
    "    for chunk in channel:\n"
    "        channel.send_bytes(chunk)\n"
    "    channel.close_write()\n"
    "\n"
    "def drain(ref):\n"
    "    return list(ByteChannel(ref))\n"
    "\n"
    "def take(ref, count):\n"
    "    channel = ByteChannel(ref)\n"
    "    return [channel.receive_bytes() for _ in range(count)]\n"
    "\n"
    "def send_all(ref, chunks):\n"
    "    channel = ByteChannel(ref)\n"
    "    for chunk in chunks:\n"
    "        channel.send_bytes(chunk)\n"
    "\n"
    "def measure(ref, count):\n"
    "    channel, size, most = ByteChannel(ref), 0, 0\n"
    "    while size < count:\n"
    "        most = max(most, int(repr(channel).split(', ')[1].split(' ')[0]))\n"
    "        size += len(channel.receive_bytes())\n"
    "    return size, most\n"
    "\n"
    "def keep_view(ref):\n"
    "    kept.append(ByteChannel(ref).receive_view())\n"
    "\n"
    "def sizes(ref, count):\n"
    "    channel = ByteChannel(ref)\n"
    "    return [len(channel.receive_bytes()) for _ in range(count)]\n"
    "\n"
    "def forget():\n"
    "    kept.clear()\n"
    "\n"
    "kept = []\n"
    "\n"
    "def keep(ref):\n"
    "    kept.append(ByteChannel(ref))\n"
    "\n"
    "def drain_kept():\n"
    "    return list(kept.pop())\n"
    "\n"
    "m = sys.modules['py_byte_channel_SUITE_helpers'] = types.ModuleType('helpers')\n"
    "m.__dict__.update({k: v for k, v in globals().items() if not k.startswith('__')})\n".

%% One for each way that a chunk may take.
chunks() ->
    [<<>>, <<"x">>, <<>>, list_to_binary(lists:seq(0, 255)), binary:copy(<<"y">>, 4096),
     binary:copy(<<"z">>, 4097), binary:copy(<<"w">>, 300000),
     binary:part(binary:copy(<<"abc">>, 30000), 1, 80000), <<>>].

bad_options_are_badarg(_Config) ->
    [?assertError(badarg, py_byte_channel:new(Options))
     || Options <- [[], 1, #{max_size => 0}, #{max_size => -1}, #{max_size => <<"1">>},
                    #{max_messages => 0}, #{other => 1}, #{binaries => bytes}, #{owner => none},
                    #{owner => me}, #{low_watermark => 10, max_size => 10},
                    #{high_watermark => 0}]],
    {ok, Channel} = py_byte_channel:new(#{max_size => 100, high_watermark => 50}),
    ?assertError(badarg, py_byte_channel:close(Channel, read)),
    [?assertError(badarg, py_byte_channel:subscribe(Channel, Bad))
     || Bad <- [[], #{active => often}, #{other => 1}]].

what_is_no_iodata_is_badarg(_Config) ->
    {ok, Channel} = py_byte_channel:new(#{max_messages => 1}),
    Bad = [text, 1, 1.5, <<1:3>>, [256], [a], [<<1:1>>], {}, #{}, self(), [<<"x">> | text],
           [lists:duplicate(10000, 1), -1]],
    [begin
         ?assertError(badarg, py_byte_channel:send(Channel, Data)),
         ?assertError(badarg, py_byte_channel:send(Channel, Data, 10))
     end || Data <- Bad],
    [?assertError(badarg, py_byte_channel:send(Channel, <<>>, Timeout))
     || Timeout <- [-1, 1.5, soon, 1 bsl 32]],
    #{messages := 0, total_in := 0} = py_byte_channel:info(Channel).

channels_of_terms_are_badarg_and_the_other_way_round(_Config) ->
    {ok, Terms} = py_channel:new(),
    {ok, Bytes} = py_byte_channel:new(),
    Large = binary:copy(<<1>>, 10000),
    [begin
         [?assertError(badarg, Module:send(Bad, Data)) || Data <- [<<>>, Large, [Large, Large]]],
         [?assertError(badarg, Module:Function(Bad)) || Function <- [recv, subscribe, unsubscribe,
                                                                    info, close]],
         ?assertError(badarg, Module:recv(Bad, 0)),
         ?assertError(badarg, Module:close(Bad, write))
     end || {Module, Bads} <- [{py_channel, [Bytes]},
                               {py_byte_channel, [Terms, make_ref(), self(), channel, <<>>]}],
            Bad <- Bads],
    ?assertError(badarg, py_byte_channel:try_receive(Terms)),
    ?assertError(badarg, py_channel:try_recv(Bytes)),
    ?assertError(badarg, py_channel:send_many(Bytes, [1])),
    [#{closed := false, total_in := 0} = Info
     || Info <- [py_channel:info(Terms), py_byte_channel:info(Bytes)]].

chunks_come_back_as_they_are(_Config) ->
    {ok, Channel} = py_byte_channel:new(),
    Echo = start(echo, [Channel]),
    [begin
         ok = py_byte_channel:send(Channel, Chunk),
         ?assertEqual({ok, Chunk}, py_byte_channel:recv(Channel))
     end || Chunk <- chunks()],
    [ok = py_byte_channel:send(Channel, Chunk) || Chunk <- chunks()],
    ?assertEqual(chunks(), [begin {ok, C} = py_byte_channel:recv(Channel, 10000), C end
                            || _ <- chunks()]),
    ok = py_byte_channel:close(Channel, write),
    {error, closed} = py_byte_channel:recv(Channel),
    {ok, none} = result(Echo).

iodata_is_one_chunk(_Config) ->
    {ok, Channel} = py_byte_channel:new(),
    Large = binary:copy(<<"l">>, 70000),
    Lists = [[], [[], <<>>], "text", [1, [2 | <<3>>] | <<4>>], [Large, Large], [Large | <<"tail">>],
             lists:duplicate(3000, [<<"small ">>, $x]), lists:duplicate(20, Large),
             [binary:part(Large, 10, 20), Large, binary:part(Large, 1, 30000)]],
    [ok = py_byte_channel:send(Channel, List) || List <- Lists],
    {ok, Received} = call(take, [Channel, length(Lists)]),
    ?assertEqual([iolist_to_binary(List) || List <- Lists], Received).

directions_never_mix(_Config) ->
    {ok, Channel} = py_byte_channel:new(),
    ok = py_byte_channel:send(Channel, <<"to python">>),
    {error, empty} = py_byte_channel:try_receive(Channel),
    {ok, none} = call(send_all, [Channel, [<<"to erlang">>]]),
    {ok, [<<"to python">>]} = call(take, [Channel, 1]),
    {ok, <<"to erlang">>} = py_byte_channel:recv(Channel).

try_receive_does_not_wait(_Config) ->
    {ok, Channel} = py_byte_channel:new(),
    {error, empty} = py_byte_channel:try_receive(Channel),
    {ok, none} = call(send_all, [Channel, [<<>>]]),
    {ok, <<>>} = py_byte_channel:try_receive(Channel),
    {error, empty} = py_byte_channel:try_receive(Channel),
    ok = py_byte_channel:close(Channel),
    {error, closed} = py_byte_channel:try_receive(Channel).

recv_times_out_and_leaves_nothing_behind(_Config) ->
    {ok, Channel} = py_byte_channel:new(),
    {error, timeout} = py_byte_channel:recv(Channel, 0),
    {error, timeout} = py_byte_channel:recv(Channel, 20),
    [?assertError(badarg, py_byte_channel:recv(Channel, Bad)) || Bad <- [-1, 1.5, soon]],
    #{to_erlang := #{waiters := 0}} = py_byte_channel:info(Channel),
    ?assertEqual({messages, []}, process_info(self(), messages)).

what_was_queued_outlives_close(_Config) ->
    {ok, Channel} = py_byte_channel:new(),
    {ok, none} = call(send_all, [Channel, chunks()]),
    [ok = py_byte_channel:send(Channel, Chunk) || Chunk <- chunks()],
    ok = py_byte_channel:close(Channel),
    ok = py_byte_channel:close(Channel),
    {error, closed} = py_byte_channel:send(Channel, <<>>),
    {error, closed} = py_byte_channel:send(Channel, hd(tl(lists:reverse(chunks()))), infinity),
    ?assertEqual({ok, chunks()}, call(drain, [Channel])),
    [{ok, Chunk} = py_byte_channel:recv(Channel) || Chunk <- chunks()],
    {error, closed} = py_byte_channel:recv(Channel).

one_direction_is_closed_alone(_Config) ->
    {ok, Channel} = py_byte_channel:new(),
    ok = py_byte_channel:close(Channel, write),
    {error, closed} = py_byte_channel:send(Channel, <<"x">>),
    {ok, none} = call(send_all, [Channel, [<<"y">>]]),
    {ok, <<"y">>} = py_byte_channel:recv(Channel).

a_full_channel_is_busy(_Config) ->
    {ok, Channel} = py_byte_channel:new(#{max_size => 10000}),
    Chunk = binary:copy(<<7>>, 6000),
    ok = py_byte_channel:send(Channel, Chunk),
    busy = py_byte_channel:send(Channel, Chunk),
    busy = py_byte_channel:send(Channel, [Chunk]),
    {error, timeout} = py_byte_channel:send(Channel, Chunk, 0),
    {error, timeout} = py_byte_channel:send(Channel, [Chunk], 10),
    ok = py_byte_channel:send(Channel, binary:part(Chunk, 0, 4000)),
    busy = py_byte_channel:send(Channel, <<>>),
    #{size := 10000, messages := 2} = py_byte_channel:info(Channel).

a_send_waits_for_room(_Config) ->
    {ok, Channel} = py_byte_channel:new(#{max_messages => 1}),
    Echo = start(echo, [Channel]),
    Self = self(),
    spawn_link(fun() ->
        [ok = py_byte_channel:send(Channel, Chunk, infinity) || Chunk <- chunks(), _ <- [1, 2]],
        [ok = py_byte_channel:send(Channel, [Chunk, Chunk], infinity) || Chunk <- chunks()],
        ok = py_byte_channel:close(Channel, write),
        Self ! done
    end),
    Expected = [C || C <- chunks(), _ <- [1, 2]] ++ [<<C/binary, C/binary>> || C <- chunks()],
    [begin
         erlang:yield(),
         ?assertEqual({ok, C}, py_byte_channel:recv(Channel, 10000))
     end || C <- Expected],
    {error, closed} = py_byte_channel:recv(Channel),
    receive done -> ok end,
    {ok, none} = result(Echo).

what_never_fits_is_told(_Config) ->
    {ok, Channel} = py_byte_channel:new(#{max_size => 5000}),
    {error, too_large} = py_byte_channel:send(Channel, <<0:(8 * 5001)>>),
    {error, too_large} = py_byte_channel:send(Channel, [<<0:(8 * 5001)>>], infinity),
    ok = py_byte_channel:send(Channel, <<0:(8 * 5000)>>).

info_counts_bytes(_Config) ->
    {ok, Channel} = py_byte_channel:new(#{max_size => 10000}),
    [ok = py_byte_channel:send(Channel, Chunk) || Chunk <- [<<>>, <<0:(8 * 100)>>, <<0:(8 * 5000)>>]],
    #{size := 5132, messages := 3, max_size := 10000, closed := false} =
        py_byte_channel:info(Channel),
    {ok, [<<>>, _]} = call(take, [Channel, 2]),
    #{size := 5000, messages := 1, total_in := 3, total_out := 2} = py_byte_channel:info(Channel).

large_binaries_are_not_copied(_Config) ->
    {ok, Channel} = py_byte_channel:new(),
    Large = binary:copy(<<"z">>, 50000000),
    Before = erlang:memory(total),
    Resident = resident(),
    [ok = py_byte_channel:send(Channel, Data) || Data <- [Large, [Large], [Large, Large]]],
    #{size := 200000000} = py_byte_channel:info(Channel),
    ?assert(erlang:memory(total) - Before < 10000000),
    ?assert(resident() - Resident < 50000000).

%% Of the whole process, bytes.
resident() ->
    {ok, Text} = file:read_file("/proc/self/statm"),
    [_, Pages | _] = binary:split(Text, <<" ">>, [global]),
    4096 * binary_to_integer(Pages).

a_small_part_of_a_large_binary_does_not_keep_it(_Config) ->
    {ok, Channel} = py_byte_channel:new(),
    Sender = spawn_monitor(fun() ->
        Large = binary:copy(<<"q">>, 50000000),
        [ok = py_byte_channel:send(Channel, Data)
         || Part <- [binary:part(Large, 7, 100), binary:part(Large, 7, 50000)], Data <- [Part, [Part]]],
        exit({result, ok})
    end),
    ok = result(Sender),
    wait_until(fun() -> erlang:memory(binary) < 40000000 end),
    #{messages := 4} = py_byte_channel:info(Channel).

%% Neither the channel keeps it nor a smaller chunk that came before and is still there.
what_was_received_is_let_go(_Config) ->
    {ok, Channel} = py_byte_channel:new(),
    Sender = spawn_monitor(fun() ->
        [ok = py_byte_channel:send(Channel, binary:copy(<<"l">>, Size))
         || Size <- [5000, 50000000, 5000, 50000000]],
        exit({result, ok})
    end),
    ok = result(Sender),
    {ok, none} = call(keep_view, [Channel]),
    {ok, [50000000, 5000, 50000000]} = call(sizes, [Channel, 3]),
    wait_until(fun() -> erlang:memory(binary) < 40000000 end),
    {ok, none} = call(forget, []),
    #{messages := 0, closed := false} = py_byte_channel:info(Channel).

large_chunks_from_python_are_not_copied(_Config) ->
    {ok, Channel} = py_byte_channel:new(),
    Large = binary:copy(<<"p">>, 50000000),
    {ok, none} = call(send_all, [Channel, [Large]]),
    Before = erlang:memory(binary),
    {ok, Received} = py_byte_channel:recv(Channel),
    ?assert(erlang:memory(binary) - Before < 1000000),
    ?assertEqual(Large, Received).

chunks_are_delivered_to_a_subscriber(_Config) ->
    {ok, Channel} = py_byte_channel:new(),
    ok = py_byte_channel:subscribe(Channel, #{active => 2}),
    {ok, none} = call(send_all, [Channel, [<<"a">>, <<>>, <<"c">>]]),
    receive {py_byte_channel, Channel, {data, <<"a">>}} -> ok end,
    receive {py_byte_channel, Channel, {data, <<>>}} -> ok end,
    receive {py_byte_channel, Channel, passive} -> ok end,
    receive {py_byte_channel, Channel, _} = M -> ct:fail(M) after 20 -> ok end,
    ok = py_byte_channel:close(Channel),
    ok = py_byte_channel:subscribe(Channel),
    receive {py_byte_channel, Channel, {data, <<"c">>}} -> ok end,
    receive {py_byte_channel, Channel, closed} -> ok end,
    ok = py_byte_channel:unsubscribe(Channel).

a_dead_receiver_gives_its_chunk_back(_Config) ->
    {ok, Channel} = py_byte_channel:new(),
    Doomed = spawn(fun() ->
        {wait, Receiver} = beamloop_nif:nif_channel_recv_wait(Channel, bytes, make_ref()),
        receive never -> Receiver end
    end),
    Waiting = fun() ->
        #{to_erlang := #{waiters := Waiters}} = py_byte_channel:info(Channel),
        Waiters =:= 1
    end,
    wait_until(Waiting),
    {ok, none} = call(send_all, [Channel, [<<"1">>]]),
    Next = spawn_monitor(fun() -> exit({result, py_byte_channel:recv(Channel)}) end),
    wait_until(Waiting),
    exit(Doomed, kill),
    ?assertEqual({ok, <<"1">>}, result(Next)).

dropping_the_last_reference_closes(_Config) ->
    Maker = spawn_monitor(fun() ->
        {ok, Channel} = py_byte_channel:new(),
        {ok, none} = call(keep, [Channel]),
        ok = py_byte_channel:send(Channel, <<"last">>),
        exit({result, ok})
    end),
    ok = result(Maker),
    {ok, [<<"last">>]} = call(drain_kept, []).

the_owners_death_closes(_Config) ->
    Owner = spawn(fun() -> receive stop -> ok end end),
    {ok, Channel} = py_byte_channel:new(#{owner => Owner}),
    Receiver = spawn_monitor(fun() -> exit({result, py_byte_channel:recv(Channel)}) end),
    Owner ! stop,
    ?assertEqual({error, closed}, result(Receiver)),
    {error, noproc} = py_byte_channel:new(#{owner => Owner}).

%% 40 MB in a million pieces.
large_iodata_does_not_hold_a_scheduler(_Config) ->
    {ok, Channel} = py_byte_channel:new(),
    Data = lists:duplicate(1000000, <<"0123456789012345678901234567890123456789">>),
    erlang:system_monitor(self(), [{long_schedule, 50}]),
    ok = py_byte_channel:send(Channel, Data),
    erlang:system_monitor(undefined),
    Held = fun Collect() ->
        receive
            {monitor, Pid, long_schedule, Info} when Pid =:= self() -> [Info | Collect()];
            {monitor, _, long_schedule, _} -> Collect()
        after 0 -> []
        end
    end,
    %% Collecting garbage and the emulator's own functions are not ours.
    ?assertEqual([], [Info || Info <- Held(), is_ours(Info)]),
    {ok, [Received]} = call(take, [Channel, 1]),
    ?assertEqual(40000000, byte_size(Received)).

is_ours(Info) ->
    case proplists:get_value(in, Info) of
        {Module, _, _} -> lists:member(Module, [beamloop_nif, beamloop_channel, py_byte_channel]);
        undefined -> false
    end.

files_are_sent_whole_and_in_part(Config) ->
    Content = crypto:strong_rand_bytes(200000),
    Path = file(Config, Content),
    [begin
         {ok, Channel} = py_byte_channel:new(Limits),
         Python = start(drain, [Channel]),
         Expected = binary:part(Content, Offset, min(Length, 200000 - Offset)),
         {ok, Sent} = py_byte_channel:send_file(Channel, Path, #{offset => Offset, length => Length}),
         ?assertEqual(byte_size(Expected), Sent),
         ok = py_byte_channel:close(Channel, write),
         {ok, Chunks} = result(Python),
         ?assertEqual(Expected, iolist_to_binary(Chunks))
     end || Limits <- [#{}, #{max_size => 70000}, #{max_size => 1000}, #{max_messages => 1}],
            {Offset, Length} <- [{0, 200000}, {0, infinity}, {1, 65536}, {100000, 1}, {199999, 5},
                                 {200000, 5}, {0, 0}]],
    {ok, Whole} = py_byte_channel:new(),
    {ok, 200000} = py_byte_channel:send_file(Whole, Path),
    {ok, 0} = py_byte_channel:send_file(Whole, Path, #{offset => 300000}),
    ok = py_byte_channel:close(Whole),
    {ok, Chunks} = call(drain, [Whole]),
    ?assertEqual(Content, iolist_to_binary(Chunks)).

file(Config, Content) ->
    Path = filename:join(proplists:get_value(priv_dir, Config), "file"),
    ok = file:write_file(Path, Content),
    Path.

files_that_cannot_be_read_are_told(Config) ->
    {ok, Channel} = py_byte_channel:new(),
    Folder = proplists:get_value(priv_dir, Config),
    {error, enoent} = py_byte_channel:send_file(Channel, filename:join(Folder, "nothing")),
    {error, eisdir} = py_byte_channel:send_file(Channel, Folder),
    Path = file(Config, <<"x">>),
    [?assertEqual({error, einval}, py_byte_channel:send_file(Channel, Path, #{offset => Offset}))
     || Offset <- [(1 bsl 63) - 1, 1 bsl 63, 1 bsl 100]],
    [?assertError(badarg, py_byte_channel:send_file(Channel, Path, Options))
     || Options <- [[], #{offset => -1}, #{offset => 1.0}, #{length => -1}, #{length => all},
                    #{other => 1}]],
    [?assertError(badarg, py_byte_channel:send_file(Channel, Bad)) || Bad <- [1, {}]],
    {ok, Terms} = py_channel:new(),
    ?assertError(badarg, py_byte_channel:send_file(Terms, Path)),
    {error, empty} = py_channel:try_recv(Terms),
    #{total_in := 0} = py_byte_channel:info(Channel).

a_channel_too_small_for_any_chunk_is_told(Config) ->
    Path = file(Config, <<"x">>),
    {ok, Channel} = py_byte_channel:new(#{max_size => 31}),
    {error, too_large} = py_byte_channel:send_file(Channel, Path),
    {ok, 0} = py_byte_channel:send_file(Channel, Path, #{offset => 1}),
    {ok, Enough} = py_byte_channel:new(#{max_size => 32}),
    {ok, 1} = py_byte_channel:send_file(Enough, Path).

%% Nobody reads: the sender waits, and the channel holds little.
a_file_waits_for_its_reader(Config) ->
    Path = file(Config, binary:copy(<<"0123456789">>, 2000000)),
    {ok, Channel} = py_byte_channel:new(),
    Sender = spawn_monitor(fun() -> exit({result, py_byte_channel:send_file(Channel, Path)}) end),
    Size = fun() -> maps:get(size, py_byte_channel:info(Channel)) end,
    wait_until(fun() -> Size() > 190000 end),
    timer:sleep(50),
    ?assert(Size() =< 262144),
    {ok, {20000000, Most}} = call(measure, [Channel, 20000000]),
    ?assert(Most =< 262144),
    {ok, 20000000} = result(Sender).

a_file_on_a_closed_channel_is_told(Config) ->
    Path = file(Config, binary:copy(<<"0123456789">>, 200000)),
    {ok, Channel} = py_byte_channel:new(),
    Sender = spawn_monitor(fun() -> exit({result, py_byte_channel:send_file(Channel, Path)}) end),
    wait_until(fun() -> maps:get(size, py_byte_channel:info(Channel)) > 190000 end),
    ok = py_byte_channel:close(Channel),
    {error, closed} = result(Sender),
    {error, closed} = py_byte_channel:send_file(Channel, Path).

a_killed_sender_of_a_file_leaves_nothing(Config) ->
    Path = file(Config, binary:copy(<<"0123456789">>, 200000)),
    {ok, Channel} = py_byte_channel:new(),
    {Sender, Monitor} = spawn_monitor(fun() -> py_byte_channel:send_file(Channel, Path) end),
    wait_until(fun() ->
        process_info(Sender, [current_function, status]) =:=
            [{current_function, {py_byte_channel, send_next, 2}}, {status, waiting}]
    end),
    exit(Sender, kill),
    receive {'DOWN', Monitor, process, Sender, killed} -> ok end,
    ok = py_byte_channel:close(Channel),
    {ok, [_ | _]} = call(drain, [Channel]).

others_send_while_a_file_waits(Config) ->
    Path = file(Config, binary:copy(<<"0123456789">>, 200000)),
    {ok, Channel} = py_byte_channel:new(),
    Sender = spawn_monitor(fun() -> exit({result, py_byte_channel:send_file(Channel, Path)}) end),
    wait_until(fun() -> maps:get(size, py_byte_channel:info(Channel)) > 190000 end),
    ok = py_byte_channel:send(Channel, <<"between">>),
    {ok, {2000007, _}} = call(measure, [Channel, 2000007]),
    {ok, 2000000} = result(Sender).

%% --- helpers --------------------------------------------------------------------------------

call(Function, Args) ->
    py:call(?HELPERS, Function, Args).

start(Function, Args) ->
    spawn_monitor(fun() -> exit({result, call(Function, Args)}) end).
