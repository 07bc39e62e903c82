%% Backpressure as Erlang sees it: senders that wait, watermarks, lists of terms, and what is bounded.
-module(py_channel_send_SUITE).

-include_lib("stdlib/include/assert.hrl").

-import(channel_tests, [result/1, wait_until/1]).

-export([all/0, suite/0, init_per_suite/1, end_per_suite/1, end_per_testcase/2]).
-export([bad_timeouts_are_badarg/1, a_send_that_waits_is_served_when_there_is_room/1,
         a_send_that_times_out_leaves_nothing_behind/1, every_kind_of_term_can_wait/1,
         senders_are_served_in_order/1, send_does_not_overtake_those_who_wait/1,
         close_refuses_all_who_wait/1, what_never_fits_does_not_wait/1,
         a_dead_sender_frees_its_place/1, a_waiting_sender_keeps_the_channel_open/1,
         timeouts_racing_room_are_told_truly/1, watermarks_hold_senders_back/1,
         max_messages_bounds_the_number/1, many_terms_are_sent_in_order_as_far_as_they_fit/1,
         many_terms_of_every_kind_are_sent/1, many_terms_that_are_no_list_are_badarg/1,
         binaries_can_become_str/1, a_slow_receiver_bounds_memory/1,
         many_waiting_producers_lose_nothing/1, sends_racing_close_are_told/1,
         waiting_costs_no_reductions/1, copying_a_large_part_of_a_binary_yields/1,
         sending_many_terms_yields/1]).

-define(HELPERS, py_channel_send_SUITE_helpers).

suite() -> [{timetrap, {minutes, 2}}].

all() ->
    [bad_timeouts_are_badarg, a_send_that_waits_is_served_when_there_is_room,
     a_send_that_times_out_leaves_nothing_behind, every_kind_of_term_can_wait,
     senders_are_served_in_order, send_does_not_overtake_those_who_wait,
     close_refuses_all_who_wait, what_never_fits_does_not_wait, a_dead_sender_frees_its_place,
     a_waiting_sender_keeps_the_channel_open, timeouts_racing_room_are_told_truly,
     watermarks_hold_senders_back, max_messages_bounds_the_number,
     many_terms_are_sent_in_order_as_far_as_they_fit, many_terms_of_every_kind_are_sent,
     many_terms_that_are_no_list_are_badarg, binaries_can_become_str,
     a_slow_receiver_bounds_memory, many_waiting_producers_lose_nothing,
     sends_racing_close_are_told, waiting_costs_no_reductions,
     copying_a_large_part_of_a_binary_yields, sending_many_terms_yields].

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
    "import sys, time, types\n"
    "from erlang.channel import Channel\n"
    "\n"
    "def drain(ref):\n"
    "    return list(Channel(ref))\n"
    "\n"
    "def take(ref, count):\n"
    "    channel = Channel(ref)\n"
    "    return [channel.receive() for _ in range(count)]\n"
    "\n"
    "kept = []\n"
    "\n"
    "def keep(ref):\n"
    "    kept.append(Channel(ref))\n"
    "\n"
    "def drain_kept():\n"
    "    return list(kept.pop())\n"
    "\n"
    "def largest(ref, pause):\n"
    "    channel, most = Channel(ref), 0\n"
    "    for n, _ in enumerate(channel):\n"
    "        if n % 50 == 0:\n"
    "            time.sleep(pause)\n"
    "        most = max(most, len(channel))\n"
    "    return [n + 1, most]\n"
    "\n"
    "def types_of(ref):\n"
    "    return [type(m).__name__ for m in Channel(ref)]\n"
    "\n"
    "m = sys.modules['py_channel_send_SUITE_helpers'] = types.ModuleType('helpers')\n"
    "m.__dict__.update({k: v for k, v in globals().items() if not k.startswith('__')})\n".

bad_timeouts_are_badarg(_Config) ->
    {ok, Channel} = py_channel:new(),
    [?assertError(badarg, py_channel:send(Channel, 1, Timeout))
     || Timeout <- [-1, 1.5, soon, 1 bsl 32, <<"1">>]],
    ok = py_channel:send(Channel, 1, 16#ffffffff),
    ok = py_channel:send(Channel, 1, infinity),
    #{messages := 2} = py_channel:info(Channel).

a_send_that_waits_is_served_when_there_is_room(_Config) ->
    {ok, Channel} = py_channel:new(#{max_messages => 1}),
    ok = py_channel:send(Channel, 1, infinity),
    Sender = start_send(Channel, 2, infinity),
    wait_for_senders(Channel, 1),
    #{senders := #{process := 1}, messages := 1, total_in := 1} = py_channel:info(Channel),
    {ok, [1]} = call(take, [Channel, 1]),
    ok = sent(Sender),
    {ok, [2]} = call(take, [Channel, 1]),
    #{senders := #{process := 0}, busy := Busy, total_in := 2} = py_channel:info(Channel),
    ?assert(Busy > 0).

a_send_that_times_out_leaves_nothing_behind(_Config) ->
    {ok, Channel} = py_channel:new(#{max_messages => 1}),
    ok = py_channel:send(Channel, 1),
    {error, timeout} = py_channel:send(Channel, 2, 0),
    {error, timeout} = py_channel:send(Channel, 3, 10),
    {error, timeout} = py_channel:send(Channel, <<0:100000>>, 10),
    #{senders := #{process := 0}} = py_channel:info(Channel),
    ok = py_channel:close(Channel),
    {ok, [1]} = call(drain, [Channel]),
    {messages, []} = process_info(self(), messages).

every_kind_of_term_can_wait(_Config) ->
    {ok, Channel} = py_channel:new(#{max_messages => 1}),
    Big = binary:copy(<<"abcdefgh">>, 20000),
    Terms = [none, <<>>, {}, Big, [Big, Big], lists:seq(1, 5000), 1 bsl 5000, Channel, {Channel, Big},
             binary:part(Big, 1, 5000)],
    ok = py_channel:send(Channel, first),
    Self = self(),
    spawn_link(fun() ->
        [ok = py_channel:send(Channel, Term, infinity) || Term <- Terms],
        ok = py_channel:close(Channel),
        Self ! done
    end),
    wait_for_senders(Channel, 1),
    {ok, [first | Received]} = call(drain, [Channel]),
    receive done -> ok end,
    ?assertEqual(Terms, Received).

senders_are_served_in_order(_Config) ->
    {ok, Channel} = py_channel:new(#{max_messages => 2}),
    ok = py_channel:send(Channel, 0),
    ok = py_channel:send(Channel, 0),
    Senders = [begin
                   Sender = start_send(Channel, N, infinity),
                   wait_for_senders(Channel, N),
                   Sender
               end || N <- lists:seq(1, 20)],
    {ok, Received} = call(take, [Channel, 22]),
    ?assertEqual([0, 0 | lists:seq(1, 20)], Received),
    [ok = sent(Sender) || Sender <- Senders].

send_does_not_overtake_those_who_wait(_Config) ->
    {ok, Channel} = py_channel:new(#{max_size => 1000}),
    ok = py_channel:send(Channel, <<0:(8 * 800)>>),
    Sender = start_send(Channel, <<0:(8 * 500)>>, infinity),
    wait_for_senders(Channel, 1),
    busy = py_channel:send(Channel, small),
    {busy, 0} = py_channel:send_many(Channel, [small]),
    {ok, [_]} = call(take, [Channel, 1]),
    ok = sent(Sender),
    ok = py_channel:send(Channel, small).

close_refuses_all_who_wait(_Config) ->
    {ok, Channel} = py_channel:new(#{max_messages => 1}),
    ok = py_channel:send(Channel, 1),
    Senders = [start_send(Channel, N, infinity) || N <- lists:seq(1, 50)],
    wait_for_senders(Channel, 50),
    ok = py_channel:close(Channel, write),
    [{error, closed} = sent(Sender) || Sender <- Senders],
    {error, closed} = py_channel:send(Channel, 2, infinity),
    {ok, [1]} = call(drain, [Channel]).

what_never_fits_does_not_wait(_Config) ->
    {ok, Channel} = py_channel:new(#{max_size => 1000}),
    ok = py_channel:send(Channel, <<0:(8 * 900)>>),
    {error, too_large} = py_channel:send(Channel, <<0:(8 * 1001)>>, infinity),
    {error, too_large} = py_channel:send(Channel, <<0:(8 * 100000)>>, infinity),
    {error, too_large} = py_channel:send(Channel, lists:seq(1, 100000), infinity).

a_dead_sender_frees_its_place(_Config) ->
    {ok, Channel} = py_channel:new(#{max_messages => 1}),
    ok = py_channel:send(Channel, 1),
    Doomed = [spawn(fun() -> py_channel:send(Channel, {doomed, N}, infinity) end)
              || N <- lists:seq(1, 10)],
    wait_for_senders(Channel, 10),
    Alive = start_send(Channel, 2, infinity),
    wait_for_senders(Channel, 11),
    [exit(Pid, kill) || Pid <- Doomed],
    wait_for_senders(Channel, 1),
    {ok, [1, 2]} = call(take, [Channel, 2]),
    ok = sent(Alive).

%% Its own reference is no longer needed while it waits, and a garbage collection may drop it.
a_waiting_sender_keeps_the_channel_open(_Config) ->
    Self = self(),
    Sender = spawn_link(fun() ->
        {ok, Channel} = py_channel:new(#{max_messages => 1}),
        {ok, none} = call(keep, [Channel]),
        ok = py_channel:send(Channel, 1),
        Self ! waits,
        Self ! {result, py_channel:send(Channel, 2, infinity)}
    end),
    receive waits -> ok end,
    wait_until(fun() -> process_info(Sender, status) =:= {status, waiting} end),
    [begin garbage_collect(Sender), timer:sleep(1) end || _ <- lists:seq(1, 10)],
    {ok, [1, 2]} = call(drain_kept, []),
    receive {result, Result} -> ?assertEqual(ok, Result) end.

%% ok: it is received; {error, timeout}: it is not.
timeouts_racing_room_are_told_truly(_Config) ->
    {ok, Channel} = py_channel:new(#{max_messages => 2}),
    Drain = start_call(drain, [Channel]),
    Self = self(),
    Senders = [spawn_monitor(fun() -> Self ! {self(), race(Channel, {P, 1}, 3000, [])} end)
               || P <- lists:seq(1, 4)],
    Sent = lists:append([receive {Pid, Terms} -> Terms end || {Pid, _} <- Senders]),
    await(Senders),
    ok = py_channel:close(Channel),
    {ok, Received} = result(Drain),
    ?assertEqual(lists:sort(Sent), lists:sort(Received)).

race(_Channel, {_, N}, Last, Sent) when N > Last ->
    {messages, []} = process_info(self(), messages),
    Sent;
race(Channel, {P, N}, Last, Sent) ->
    case py_channel:send(Channel, {P, N}, N rem 2) of
        ok -> race(Channel, {P, N + 1}, Last, [{P, N} | Sent]);
        {error, timeout} -> race(Channel, {P, N + 1}, Last, Sent)
    end.

watermarks_hold_senders_back(_Config) ->
    {ok, Channel} = py_channel:new(#{high_watermark => 96, low_watermark => 32}),
    [ok = py_channel:send(Channel, N) || N <- [1, 2, 3]],
    busy = py_channel:send(Channel, 4),
    Sender = start_send(Channel, 4, infinity),
    wait_for_senders(Channel, 1),
    {ok, [1]} = call(take, [Channel, 1]),
    #{senders := #{process := 1}, size := 64} = py_channel:info(Channel),
    {ok, [2]} = call(take, [Channel, 1]),
    ok = sent(Sender),
    #{size := 64} = py_channel:info(Channel),
    ok = py_channel:send(Channel, 5).

max_messages_bounds_the_number(_Config) ->
    {ok, Channel} = py_channel:new(#{max_messages => 3}),
    {busy, 3} = py_channel:send_many(Channel, [<<0:8000>> || _ <- lists:seq(1, 5)]),
    busy = py_channel:send(Channel, 1),
    #{messages := 3, max_messages := 3, max_size := infinity, busy := 2} =
        py_channel:info(Channel).

many_terms_are_sent_in_order_as_far_as_they_fit(_Config) ->
    {ok, Channel} = py_channel:new(#{max_size => 32 * 5000}),
    ok = py_channel:send_many(Channel, []),
    ok = py_channel:send_many(Channel, lists:seq(1, 3000)),
    {busy, 2000} = py_channel:send_many(Channel, lists:seq(3001, 6000)),
    {busy, 0} = py_channel:send_many(Channel, [1]),
    ok = py_channel:close(Channel),
    {error, {closed, 0}} = py_channel:send_many(Channel, [1]),
    {ok, Received} = call(drain, [Channel]),
    ?assertEqual(lists:seq(1, 5000), Received).

many_terms_of_every_kind_are_sent(_Config) ->
    {ok, Channel} = py_channel:new(#{max_size => 1000000}),
    Big = binary:copy(<<"x">>, 10000),
    Terms = [1, Big, [Big], none, lists:seq(1, 5000), Channel, {Channel, Channel}, <<>>],
    ok = py_channel:send_many(Channel, Terms),
    {error, {too_large, 2}} = py_channel:send_many(Channel, [1, 2, <<0:(8 * 1000001)>>, 3]),
    ok = py_channel:close(Channel),
    {ok, Received} = call(drain, [Channel]),
    ?assertEqual(Terms ++ [1, 2], Received).

many_terms_that_are_no_list_are_badarg(_Config) ->
    {ok, Channel} = py_channel:new(),
    [?assertError(badarg, py_channel:send_many(Channel, Bad)) || Bad <- [1, {}, [1 | 2], <<>>]],
    #{messages := 0} = py_channel:info(Channel).

binaries_can_become_str(_Config) ->
    {ok, Channel} = py_channel:new(#{binaries => str}),
    Long = unicode:characters_to_binary(lists:duplicate(5000, $\x{e9})),
    ok = py_channel:send_many(Channel, [<<"abc">>, Long, <<>>]),
    ok = py_channel:send(Channel, Long),
    ok = py_channel:close(Channel),
    {ok, Types} = call(types_of, [Channel]),
    ?assertEqual([<<"str">>, <<"str">>, <<"str">>, <<"str">>], Types),
    [begin
         {ok, Other} = py_channel:new(#{binaries => str}),
         ok = py_channel:send_many(Other, [Bad, <<"good">>]),
         {error, {<<"TermError">>, _, _}} = call(take, [Other, 1]),
         {ok, [<<"good">>]} = call(take, [Other, 1])
     end || Bad <- [<<255>>, binary:copy(<<255>>, 5000)]].

%% What is queued stays under the limit, and so does what the emulator holds for it.
a_slow_receiver_bounds_memory(_Config) ->
    {ok, Channel} = py_channel:new(#{max_size => 1000000, low_watermark => 500000}),
    Receiver = start_call(largest, [Channel, 0.001]),
    garbage_collect(),
    Before = erlang:memory(binary),
    Most = lists:max([begin
        ok = py_channel:send(Channel, binary:copy(<<N>>, 20000), infinity),
        #{size := Size} = py_channel:info(Channel),
        ?assert(Size =< 1000000),
        erlang:memory(binary)
    end || N <- lists:seq(1, 2000)]),
    ok = py_channel:close(Channel),
    {ok, [2000, Messages]} = result(Receiver),
    ?assert(Messages =< 50),
    %% 40 MB have passed; the garbage of this process is in the figure too.
    ?assert(Most - Before < 20000000).

many_waiting_producers_lose_nothing(_Config) ->
    [begin
         {ok, Channel} = py_channel:new(Options),
         Drains = [start_call(drain, [Channel]) || _ <- [1, 2]],
         Producers = [spawn_monitor(fun() ->
             [ok = py_channel:send(Channel, {P, N}, infinity) || N <- lists:seq(1, 2000)]
         end) || P <- lists:seq(1, 6)],
         await(Producers),
         ok = py_channel:close(Channel),
         Received = lists:append([begin {ok, R} = result(D), R end || D <- Drains]),
         ?assertEqual([{P, N} || P <- lists:seq(1, 6), N <- lists:seq(1, 2000)],
                      lists:sort(Received))
     end || Options <- [#{max_messages => 1}, #{max_messages => 50},
                        #{max_size => 3200, low_watermark => 1600}]].

%% Every send is either received or refused.
sends_racing_close_are_told(_Config) ->
    [begin
         {ok, Channel} = py_channel:new(#{max_messages => 5}),
         Drain = start_call(drain, [Channel]),
         Self = self(),
         Senders = [spawn_monitor(fun() -> Self ! {accepted, send_until_closed(Channel, 0)} end)
                    || _ <- lists:seq(1, 5)],
         timer:sleep(Round rem 3),
         ok = py_channel:close(Channel),
         await(Senders),
         Accepted = lists:sum([receive {accepted, N} -> N end || _ <- Senders]),
         {ok, Received} = result(Drain),
         ?assertEqual(Accepted, length(Received))
     end || Round <- lists:seq(1, 30)].

send_until_closed(Channel, N) ->
    case py_channel:send(Channel, N, infinity) of
        ok -> send_until_closed(Channel, N + 1);
        {error, closed} -> N
    end.

%% A sender that waits is not scheduled until it is served.
waiting_costs_no_reductions(_Config) ->
    {ok, Channel} = py_channel:new(#{max_messages => 1}),
    ok = py_channel:send(Channel, 1),
    {Pid, _} = Sender = start_send(Channel, 2, infinity),
    wait_for_senders(Channel, 1),
    wait_until(fun() -> process_info(Pid, status) =:= {status, waiting} end),
    Before = process_info(Pid, reductions),
    timer:sleep(100),
    ?assertEqual(Before, process_info(Pid, reductions)),
    {ok, [1, 2]} = call(take, [Channel, 2]),
    ok = sent(Sender).

%% --- helpers --------------------------------------------------------------------------------

start_send(Channel, Term, Timeout) ->
    spawn_monitor(fun() -> exit({result, py_channel:send(Channel, Term, Timeout)}) end).

sent({Pid, Monitor}) ->
    receive {'DOWN', Monitor, process, Pid, {result, Result}} -> Result
    after 60000 -> error(not_served)
    end.

wait_for_senders(Channel, Count) ->
    wait_until(fun() ->
        #{senders := #{process := Waiting}} = py_channel:info(Channel),
        Waiting =:= Count
    end).

await(Processes) ->
    [receive {'DOWN', Monitor, process, Pid, Reason} -> ?assertEqual(normal, Reason) end
     || {Pid, Monitor} <- Processes].

call(Function, Args) ->
    py:call(?HELPERS, Function, Args).

start_call(Function, Args) ->
    spawn_monitor(fun() -> exit({result, call(Function, Args)}) end).


%% Such a part is copied, so that it does not keep the whole.
copying_a_large_part_of_a_binary_yields(_Config) ->
    {ok, Channel} = py_channel:new(),
    Part = binary:part(binary:copy(<<7>>, 50000000), 1, 20000000),
    ?assert(yields(fun() -> ok = py_channel:send(Channel, Part) end) > 10).

sending_many_terms_yields(_Config) ->
    {ok, Channel} = py_channel:new(),
    Terms = lists:seq(1, 200000),
    ?assert(yields(fun() -> ok = py_channel:send_many(Channel, Terms) end) > 10).

%% How often a process that does this lets others run.
yields(Do) ->
    {Process, Monitor} = spawn_monitor(fun() -> receive go -> Do() end end),
    erlang:trace(Process, true, [running]),
    Process ! go,
    receive {'DOWN', Monitor, process, Process, Reason} -> ?assertEqual(normal, Reason) end,
    Delivered = erlang:trace_delivered(Process),
    receive {trace_delivered, Process, Delivered} -> ok end,
    count_yields(Process, 0).

count_yields(Process, Count) ->
    receive
        {trace, Process, out, _} -> count_yields(Process, Count + 1);
        {trace, Process, in, _} -> count_yields(Process, Count)
    after 0 -> Count
    end.
