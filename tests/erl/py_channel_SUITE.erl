%% Channels as Erlang sees them, with Python receiving on threads and in coroutines.
-module(py_channel_SUITE).

-include_lib("stdlib/include/assert.hrl").

-import(channel_tests, [result/1, wait_until/1]).

-export([all/0, suite/0, init_per_suite/1, end_per_suite/1, init_per_testcase/2,
         end_per_testcase/2]).
-export([bad_options_are_badarg/1, what_is_no_channel_is_badarg/1,
         a_full_channel_is_busy_and_has_room_again/1, what_never_fits_is_too_large/1,
         sending_after_close_is_refused_and_what_was_queued_is_drained/1, close_is_idempotent/1,
         info_counts/1, every_kind_of_term_arrives/1,
         a_fun_whose_bytes_look_like_a_large_map_arrives/1, large_terms_arrive_whole/1,
         very_many_handles_in_one_message_are_kept/1,
         a_small_part_of_a_large_binary_does_not_keep_it/1, a_channel_travels_through_itself/1,
         a_channel_that_nobody_receives_from_its_own_queue_goes_away/1,
         a_channel_whose_last_handle_is_in_its_own_queue_closes/1,
         dropping_the_last_reference_closes/1, the_owners_death_closes/1,
         a_dead_owner_is_refused/1, many_producers_keep_their_order/1,
         every_message_reaches_one_of_many_consumers/1, coroutines_answer_requests/1,
         a_cancelled_call_gives_its_message_to_the_next/1, sends_racing_close_are_told/1]).

%% The Python module that helpers/0 makes.
-define(HELPERS, py_channel_SUITE_helpers).

suite() -> [{timetrap, {minutes, 2}}].

all() ->
    [bad_options_are_badarg, what_is_no_channel_is_badarg,
     a_full_channel_is_busy_and_has_room_again, what_never_fits_is_too_large,
     sending_after_close_is_refused_and_what_was_queued_is_drained, close_is_idempotent,
     info_counts, every_kind_of_term_arrives,
     a_fun_whose_bytes_look_like_a_large_map_arrives, large_terms_arrive_whole,
     very_many_handles_in_one_message_are_kept,
     a_small_part_of_a_large_binary_does_not_keep_it, a_channel_travels_through_itself,
     a_channel_that_nobody_receives_from_its_own_queue_goes_away,
     a_channel_whose_last_handle_is_in_its_own_queue_closes,
     dropping_the_last_reference_closes, the_owners_death_closes, a_dead_owner_is_refused,
     many_producers_keep_their_order, every_message_reaches_one_of_many_consumers,
     coroutines_answer_requests, a_cancelled_call_gives_its_message_to_the_next,
     sends_racing_close_are_told].

init_per_suite(Config) ->
    {ok, _} = application:ensure_all_started(beamloop),
    ok = py:exec(helpers()),
    Config.

end_per_suite(_Config) ->
    application:stop(beamloop).

init_per_testcase(_Case, Config) ->
    Config.

%% Nothing that a test made may be left.
end_per_testcase(_Case, _Config) ->
    channel_tests:left().

%% The Python side of these tests.
helpers() ->
    "import asyncio, gc, sys, types\n"
    "import erlang\n"
    "from erlang.channel import Channel, reply\n"
    "\n"
    "def drain(ref):\n"
    "    return list(Channel(ref))\n"
    "\n"
    "def take(ref, timeout=None):\n"
    "    return Channel(ref).receive(timeout)\n"
    "\n"
    "kept = []\n"
    "\n"
    "def keep(ref):\n"
    "    kept.append(Channel(ref))\n"
    "\n"
    "def drain_kept():\n"
    "    return list(kept.pop())\n"
    "\n"
    "def drain_kept_kinds():\n"
    "    channel = kept.pop()\n"
    "    firsts = [m if type(m) is erlang.ChannelRef else m[0] for m in channel]\n"
    "    return [(type(f).__name__, Channel(f) == channel) for f in firsts]\n"
    "\n"
    "def echo(ref, pid):\n"
    "    for term in Channel(ref):\n"
    "        reply(pid, [term])\n"
    "\n"
    "def ends(ref):\n"
    "    refs = Channel(ref).receive()\n"
    "    return [len(refs), *(Channel(r).try_receive() for r in (refs[0], refs[-1]))]\n"
    "\n"
    "def sizes(ref):\n"
    "    return [len(m) for m in Channel(ref)]\n"
    "\n"
    "async def serve(ref):\n"
    "    async for _, pid, data in Channel(ref):\n"
    "        reply(pid, ('response', data.upper()))\n"
    "\n"
    "async def serve_all(ref, workers):\n"
    "    await asyncio.gather(*(serve(ref) for _ in range(workers)))\n"
    "\n"
    "def run_serve_all(ref, workers):\n"
    "    erlang.run(serve_all(ref, workers))\n"
    "\n"
    "m = sys.modules['py_channel_SUITE_helpers'] = types.ModuleType('py_channel_SUITE_helpers')\n"
    "m.__dict__.update({k: v for k, v in globals().items() if not k.startswith('__')})\n".

bad_options_are_badarg(_Config) ->
    [?assertError(badarg, py_channel:new(Options))
     || Options <- [[], #{size => 1}, #{max_size => 0}, #{max_size => -1}, #{max_size => 1.5},
                    #{max_size => none}, #{max_size => <<"10">>}, #{owner => me},
                    #{owner => none}, #{max_size => 10, other => 1}, #{max_messages => 0},
                    #{max_messages => -1}, #{max_messages => many}, #{high_watermark => 0},
                    #{high_watermark => <<"1">>}, #{low_watermark => -1}, #{low_watermark => 0.5},
                    #{low_watermark => infinity}, #{low_watermark => 10, high_watermark => 10},
                    #{low_watermark => 10, max_size => 10}, #{low_watermark => none},
                    #{binaries => list}, #{binaries => <<"str">>}]],
    {ok, _} = py_channel:new(#{max_messages => infinity, high_watermark => infinity}),
    {ok, _} = py_channel:new(#{max_size => 100, high_watermark => 50, low_watermark => 0,
                               max_messages => 1 bsl 40, binaries => bytes}),
    {ok, _} = py_channel:new(#{max_size => infinity}),
    {ok, _} = py_channel:new(#{max_size => 1 bsl 63, owner => self()}),
    {ok, _} = py_channel:new(#{}),
    ok.

what_is_no_channel_is_badarg(_Config) ->
    [begin
         ?assertError(badarg, py_channel:send(Bad, 1)),
         ?assertError(badarg, py_channel:send(Bad, <<0:100000>>)),
         ?assertError(badarg, py_channel:send(Bad, 1, 10)),
         ?assertError(badarg, py_channel:send_many(Bad, [1])),
         ?assertError(badarg, py_channel:close(Bad)),
         ?assertError(badarg, py_channel:close(Bad, write)),
         ?assertError(badarg, py_channel:info(Bad))
     end || Bad <- [make_ref(), self(), 1, <<>>, channel]],
    {ok, Channel} = py_channel:new(),
    ?assertError(badarg, py_channel:close(Channel, read)).

a_full_channel_is_busy_and_has_room_again(_Config) ->
    {ok, Channel} = py_channel:new(#{max_size => 100}),
    Sent = fill(Channel, 0),
    ?assertEqual(3, Sent),
    #{size := 96, busy := 1, messages := 3} = py_channel:info(Channel),
    {ok, 0} = call(take, [Channel]),
    ok = py_channel:send(Channel, 9),
    busy = py_channel:send(Channel, 9),
    ok = py_channel:close(Channel),
    {ok, [1, 2, 9]} = call(drain, [Channel]).

fill(Channel, N) ->
    case py_channel:send(Channel, N) of
        ok -> fill(Channel, N + 1);
        busy -> N
    end.

what_never_fits_is_too_large(_Config) ->
    {ok, Channel} = py_channel:new(#{max_size => 1000}),
    {error, too_large} = py_channel:send(Channel, <<0:(8 * 1001)>>),
    {error, too_large} = py_channel:send(Channel, <<0:(8 * 100000)>>),
    {error, too_large} = py_channel:send(Channel, lists:seq(1, 100000)),
    #{size := 0, messages := 0} = py_channel:info(Channel),
    ok = py_channel:send(Channel, <<0:(8 * 900)>>).

sending_after_close_is_refused_and_what_was_queued_is_drained(_Config) ->
    {ok, Channel} = py_channel:new(),
    Terms = [none, <<>>, {}, undefined, nil, [], #{}, false],
    [ok = py_channel:send(Channel, Term) || Term <- Terms],
    ok = py_channel:close(Channel, write),
    {error, closed} = py_channel:send(Channel, late),
    {error, closed} = py_channel:send(Channel, <<0:100000>>),
    #{closed := true, messages := 8} = py_channel:info(Channel),
    {ok, [none, <<>>, {}, none, none, [], #{}, false]} = call(drain, [Channel]),
    {error, {<<"ChannelClosed">>, _, _}} = call(take, [Channel]).

close_is_idempotent(_Config) ->
    {ok, Channel} = py_channel:new(),
    ok = py_channel:close(Channel),
    ok = py_channel:close(Channel),
    ok = py_channel:close(Channel, write),
    {ok, []} = call(drain, [Channel]).

info_counts(_Config) ->
    {ok, Channel} = py_channel:new(),
    Nobody = #{coroutine => 0, thread => 0, process => 0},
    Direction = #{size => 0, max_size => infinity, closed => false, messages => 0,
                  max_messages => infinity, total_in => 0, total_out => 0, busy => 0, waiters => 0,
                  receivers => Nobody, senders => Nobody},
    ?assertEqual(Direction#{to_erlang => Direction}, py_channel:info(Channel)),
    ok = py_channel:send(Channel, a),
    ok = py_channel:send(Channel, <<0:(8 * 100)>>),
    #{size := Size, messages := 2, total_in := 2, total_out := 0} = py_channel:info(Channel),
    ?assertEqual(32 + 106, Size),
    {ok, a} = call(take, [Channel]),
    #{messages := 1, total_in := 2, total_out := 1} = py_channel:info(Channel),
    {ok, _} = call(take, [Channel]),
    Waiting = start_call(take, [Channel]),
    wait_until(fun() -> maps:get(waiters, py_channel:info(Channel)) =:= 1 end),
    #{receivers := #{thread := 1, coroutine := 0, process := 0}} = py_channel:info(Channel),
    ok = py_channel:send(Channel, 5),
    {ok, 5} = result(Waiting),
    #{waiters := 0, size := 0, total_out := 3} = py_channel:info(Channel).

%% What comes back from Python is what was sent, whichever way it was encoded.
every_kind_of_term_arrives(_Config) ->
    {ok, Channel} = py_channel:new(),
    Echo = start_call(echo, [Channel, self()]),
    Big = binary:copy(<<"abcdefgh">>, 20000),
    Terms = [1, -1, 0, 255, 256, 1 bsl 31, 1 bsl 63, 1 bsl 64, -(1 bsl 70), 1 bsl 5000,
             0.0, -1.5, 1.0e308, true, false, none, <<>>, <<"x">>, Big, <<1:3>>, <<Big/binary, 1:1>>,
             [], [1], [1 | 2], lists:seq(1, 5000), "text", [Big, Big], {}, {1}, {Big, <<"s">>, Big},
             list_to_tuple(lists:seq(1, 300)), #{}, #{1 => 2, <<"k">> => [Big]},
             maps:from_list([{I, I} || I <- lists:seq(1, 100)]), self(), make_ref(),
             fun lists:map/2, fun() -> Big end, hd(erlang:ports()), Channel, {Channel, [Channel]},
             [Channel || _ <- lists:seq(1, 20)],
             lists:foldl(fun(I, Acc) -> {I, [Acc]} end, deep, lists:seq(1, 100))],
    [begin
         ok = py_channel:send(Channel, [Term]),
         receive
             [[Back]] -> ?assertEqual(Term, Back)
         after 10000 -> error({no_answer, Term})
         end
     end || Term <- Terms],
    ok = py_channel:close(Channel),
    {ok, none} = result(Echo).

%% Such as the number of the process that made it, behind a node's name that ends in t.
a_fun_whose_bytes_look_like_a_large_map_arrives(_Config) ->
    {ok, Channel} = py_channel:new(),
    Echo = start_call(echo, [Channel, self()]),
    Alike = <<"t", 200:32>>,
    Padding = binary:copy(<<"x">>, 2000),
    Inner = fun() -> {Alike, self(), make_ref(), 1 bsl 70, -1, 1.5, [a | b], #{k => Padding}} end,
    Map = maps:from_list([{I, Alike} || I <- lists:seq(1, 128)]),
    Funs = [fun() -> Alike end, fun() -> [Inner, fun lists:map/2, <<5:3>>, Map, "text"] end],
    ok = py_channel:send(Channel, {Funs, Padding}),
    receive [Back] -> ?assertEqual({Funs, Padding}, Back) end,
    ok = py_channel:close(Channel),
    {ok, none} = result(Echo).

%% No NIF goes through all of them: they are kept in bundles.
very_many_handles_in_one_message_are_kept(_Config) ->
    {ok, Outer} = py_channel:new(),
    Count = 20000,
    {Pid, Monitor} = spawn_monitor(fun() ->
        Inner = [begin {ok, C} = py_channel:new(), C end || _ <- lists:seq(1, Count)],
        ?assert(length(beamloop_handles:collect(Inner)) =< Count div 500 + 1),
        ok = py_channel:send(Outer, Inner),
        [ok = py_channel:send(C, 7) || C <- [hd(Inner), lists:last(Inner)]]
    end),
    await([{Pid, Monitor}]),
    {Live, _} = beamloop_nif:nif_channel_live(),
    ?assertEqual(Count + 1, Live),
    ?assertEqual({ok, [Count, 7, 7]}, call(ends, [Outer])).

large_terms_arrive_whole(_Config) ->
    {ok, Channel} = py_channel:new(),
    Sizes = [4090, 4095, 4096, 4097, 8192, 65535, 65536, 65537, 1000000, 20000000],
    [ok = py_channel:send(Channel, binary:copy(<<7>>, Size)) || Size <- Sizes],
    ok = py_channel:send(Channel, lists:seq(1, 1000000)),
    ok = py_channel:send(Channel, [<<I:800>> || I <- lists:seq(1, 20000)]),
    ok = py_channel:close(Channel),
    {ok, Received} = call(sizes, [Channel]),
    ?assertEqual(Sizes ++ [1000000, 20000], Received).

a_small_part_of_a_large_binary_does_not_keep_it(_Config) ->
    {ok, Channel} = py_channel:new(),
    garbage_collect(),
    Before = erlang:memory(binary),
    [begin
         Large = binary:copy(<<1>>, 10000000),
         ok = py_channel:send(Channel, binary:part(Large, 5, 5000))
     end || _ <- lists:seq(1, 20)],
    garbage_collect(),
    ?assert(erlang:memory(binary) - Before < 10000000),
    ok = py_channel:close(Channel),
    {ok, Received} = call(sizes, [Channel]),
    ?assertEqual(lists:duplicate(20, 5000), Received).

a_channel_travels_through_itself(_Config) ->
    {ok, Outer} = py_channel:new(),
    {ok, Inner} = py_channel:new(),
    ok = py_channel:send(Outer, {Inner, Inner}),
    {ok, {Back, Back}} = call(take, [Outer]),
    ?assertEqual(Inner, Back),
    ok = py_channel:send(Back, 1),
    {ok, 1} = call(take, [Inner]).

%% end_per_testcase sees whether it is gone.
a_channel_that_nobody_receives_from_its_own_queue_goes_away(_Config) ->
    {ok, Channel} = py_channel:new(),
    {ok, Other} = py_channel:new(),
    ok = send_itself(Channel, Other).

%% It is received as a channel all the same.
a_channel_whose_last_handle_is_in_its_own_queue_closes(_Config) ->
    {Pid, Monitor} = spawn_monitor(fun() ->
        {ok, Channel} = py_channel:new(),
        {ok, Other} = py_channel:new(),
        {ok, none} = call(keep, [Channel]),
        ok = send_itself(Channel, Other)
    end),
    await([{Pid, Monitor}]),
    {ok, Kinds} = call(drain_kept_kinds, []),
    ?assertEqual(lists:duplicate(5, {<<"ChannelRef">>, true}), Kinds).

%% In each of the ways that a message can take.
send_itself(Channel, Other) ->
    Large = binary:copy(<<1>>, 9000),
    ok = py_channel:send(Channel, Channel),
    ok = py_channel:send(Channel, [Channel, Other]),
    ok = py_channel:send(Channel, [Channel, Large]),
    ok = py_channel:send(Channel, [Channel | [make_ref() || _ <- lists:seq(1, 1000)]]),
    ok = py_channel:send_many(Channel, [{Channel, Other}]).

%% A Channel in Python only receives: with the last reference nobody can send any more.
dropping_the_last_reference_closes(_Config) ->
    {Pid, Monitor} = spawn_monitor(fun() ->
        {ok, Channel} = py_channel:new(),
        {ok, none} = call(keep, [Channel]),
        ok = py_channel:send(Channel, 1)
    end),
    await([{Pid, Monitor}]),
    {ok, [1]} = call(drain_kept, []).

the_owners_death_closes(_Config) ->
    Owner = spawn(fun() -> receive stop -> ok end end),
    {ok, Channel} = py_channel:new(#{owner => Owner}),
    Drain = start_call(drain, [Channel]),
    ok = py_channel:send(Channel, 1),
    Owner ! stop,
    {ok, [1]} = result(Drain),
    {error, closed} = py_channel:send(Channel, 2).

a_dead_owner_is_refused(_Config) ->
    {Owner, Monitor} = spawn_monitor(fun() -> ok end),
    receive {'DOWN', Monitor, process, Owner, _} -> ok end,
    {error, noproc} = py_channel:new(#{owner => Owner}).

many_producers_keep_their_order(_Config) ->
    {ok, Channel} = py_channel:new(#{max_size => 10000}),
    Drain = start_call(drain, [Channel]),
    Producers = [spawn_monitor(fun() -> produce(Channel, P, 1, 5000) end)
                 || P <- lists:seq(1, 8)],
    await(Producers),
    ok = py_channel:close(Channel),
    {ok, Received} = result(Drain),
    [?assertEqual(lists:seq(1, 5000), [N || {P, N} <- Received, P =:= Producer])
     || Producer <- lists:seq(1, 8)],
    ?assertEqual(8 * 5000, length(Received)).

every_message_reaches_one_of_many_consumers(_Config) ->
    {ok, Channel} = py_channel:new(#{max_size => 3200}),
    Drains = [start_call(drain, [Channel]) || _ <- lists:seq(1, 4)],
    wait_until(fun() -> maps:get(waiters, py_channel:info(Channel)) =:= 4 end),
    produce(Channel, 0, 1, 20000),
    ok = py_channel:close(Channel),
    Received = lists:append([begin {ok, R} = result(D), R end || D <- Drains]),
    ?assertEqual(lists:seq(1, 20000), lists:sort([N || {0, N} <- Received])).

coroutines_answer_requests(_Config) ->
    {ok, Channel} = py_channel:new(),
    Serve = start_call(run_serve_all, [Channel, 3]),
    [begin
         ok = py_channel:send(Channel, {request, self(), integer_to_binary(I, 16)}),
         Expected = string:uppercase(integer_to_binary(I, 16)),
         receive {response, Expected} -> ok after 10000 -> error({no_response, I}) end
     end || I <- lists:seq(1, 2000)],
    ok = py_channel:close(Channel),
    {ok, none} = result(Serve).

%% Callers that die while they wait in receive() leave the channel to the next one.
a_cancelled_call_gives_its_message_to_the_next(_Config) ->
    {ok, Channel} = py_channel:new(),
    Doomed = [spawn(fun() -> call(take, [Channel]) end) || _ <- lists:seq(1, 5)],
    wait_until(fun() -> maps:get(waiters, py_channel:info(Channel)) =:= 5 end),
    [exit(Pid, kill) || Pid <- Doomed],
    wait_until(fun() -> maps:get(waiters, py_channel:info(Channel)) =:= 0 end),
    ok = py_channel:send(Channel, 42),
    {ok, 42} = call(take, [Channel]),
    {error, {<<"TimeoutError">>, _, _}} = call(take, [Channel, 0.01]).

%% Every send is either received or refused.
sends_racing_close_are_told(_Config) ->
    [begin
         {ok, Channel} = py_channel:new(),
         Drain = start_call(drain, [Channel]),
         Self = self(),
         Senders = [spawn_monitor(fun() -> Self ! {accepted, send_until_closed(Channel, 0)} end)
                    || _ <- lists:seq(1, 3)],
         timer:sleep(Round rem 3),
         ok = py_channel:close(Channel),
         await(Senders),
         Accepted = lists:sum([receive {accepted, N} -> N end || _ <- Senders]),
         {ok, Received} = result(Drain),
         ?assertEqual(Accepted, length(Received))
     end || Round <- lists:seq(1, 30)].

send_until_closed(Channel, N) ->
    case py_channel:send(Channel, N) of
        ok -> send_until_closed(Channel, N + 1);
        {error, closed} -> N
    end.

%% --- helpers --------------------------------------------------------------------------------

produce(_Channel, _Producer, N, Last) when N > Last -> ok;
produce(Channel, Producer, N, Last) ->
    case py_channel:send(Channel, {Producer, N}) of
        ok -> produce(Channel, Producer, N + 1, Last);
        busy -> erlang:yield(), produce(Channel, Producer, N, Last)
    end.

await(Processes) ->
    [receive {'DOWN', Monitor, process, Pid, Reason} -> ?assertEqual(normal, Reason) end
     || {Pid, Monitor} <- Processes].

call(Function, Args) ->
    py:call(?HELPERS, Function, Args).

start_call(Function, Args) ->
    spawn_monitor(fun() -> exit({result, call(Function, Args)}) end).
