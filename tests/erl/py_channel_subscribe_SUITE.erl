%% Messages from Python that a channel delivers to the mailboxes of its subscribers.
-module(py_channel_subscribe_SUITE).

-include_lib("stdlib/include/assert.hrl").

-export([all/0, suite/0, init_per_suite/1, end_per_suite/1, end_per_testcase/2]).
-export([bad_options_are_badarg/1,
         all_messages_come_and_then_closed/1,
         messages_that_were_queued_come_first/1,
         once_gives_one_message/1,
         a_number_is_counted_down_and_told/1,
         numbers_are_added_as_in_gen_tcp/1,
         false_stops_delivery/1,
         closed_is_told_as_a_message_would_be/1,
         unsubscribing_ends_delivery/1,
         a_dead_subscriber_takes_no_more_messages/1,
         subscribing_again_after_the_deliverer_died/1,
         subscribers_and_receivers_share_the_messages/1,
         credits_bound_what_python_sends/1,
         large_terms_are_delivered/1,
         subscribers_that_die_at_random_leave_the_rest/1]).

-define(HELPERS, py_channel_subscribe_SUITE_helpers).

suite() -> [{timetrap, {minutes, 2}}].

all() ->
    [bad_options_are_badarg,
     all_messages_come_and_then_closed,
     messages_that_were_queued_come_first,
     once_gives_one_message,
     a_number_is_counted_down_and_told,
     numbers_are_added_as_in_gen_tcp,
     false_stops_delivery,
     closed_is_told_as_a_message_would_be,
     unsubscribing_ends_delivery,
     a_dead_subscriber_takes_no_more_messages,
     subscribing_again_after_the_deliverer_died,
     subscribers_and_receivers_share_the_messages,
     credits_bound_what_python_sends,
     large_terms_are_delivered,
     subscribers_that_die_at_random_leave_the_rest].

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
    "from erlang.channel import Channel\n"
    "\n"
    "def send_range(ref, first, last):\n"
    "    channel = Channel(ref)\n"
    "    for n in range(first, last + 1):\n"
    "        channel.send(n)\n"
    "\n"
    "def send_large(ref, count):\n"
    "    channel = Channel(ref)\n"
    "    for n in range(count):\n"
    "        channel.send([n, bytes(1000000), dict.fromkeys(range(1000), n)])\n"
    "\n"
    "def close(ref):\n"
    "    Channel(ref).close()\n"
    "\n"
    "m = sys.modules['py_channel_subscribe_SUITE_helpers'] = types.ModuleType('helpers')\n"
    "m.__dict__.update({k: v for k, v in globals().items() if not k.startswith('__')})\n".

bad_options_are_badarg(_Config) ->
    {ok, Channel} = py_channel:new(),
    [?assertError(badarg, py_channel:subscribe(Channel, Options))
     || Options <- [[], true, #{active => often}, #{active => 1.5}, #{active => 32768},
                    #{active => -32769}, #{other => 1}]],
    [?assertError(badarg, py_channel:subscribe(Bad)) || Bad <- [make_ref(), self(), channel]],
    [?assertError(badarg, py_channel:unsubscribe(Bad)) || Bad <- [make_ref(), self(), channel]],
    ok = py_channel:unsubscribe(Channel).

all_messages_come_and_then_closed(_Config) ->
    {ok, Channel} = py_channel:new(),
    ok = py_channel:subscribe(Channel),
    {ok, none} = call(send_range, [Channel, 1, 1000]),
    {ok, none} = call(close, [Channel]),
    ?assertEqual(lists:seq(1, 1000), data(Channel, 1000)),
    receive {py_channel, Channel, closed} -> ok end,
    nothing_more().

messages_that_were_queued_come_first(_Config) ->
    {ok, Channel} = py_channel:new(),
    {ok, none} = call(send_range, [Channel, 1, 500]),
    ok = py_channel:subscribe(Channel, #{}),
    {ok, none} = call(send_range, [Channel, 501, 1000]),
    ?assertEqual(lists:seq(1, 1000), data(Channel, 1000)),
    ok = py_channel:close(Channel),
    receive {py_channel, Channel, closed} -> ok end.

once_gives_one_message(_Config) ->
    {ok, Channel} = py_channel:new(),
    {ok, none} = call(send_range, [Channel, 1, 3]),
    [begin
         ok = py_channel:subscribe(Channel, #{active => once}),
         ?assertEqual([N], data(Channel, 1)),
         nothing_more()
     end || N <- [1, 2, 3]],
    ok = py_channel:subscribe(Channel, #{active => once}),
    nothing_more(),
    {ok, none} = call(send_range, [Channel, 4, 5]),
    ?assertEqual([4], data(Channel, 1)),
    nothing_more(),
    {ok, 5} = py_channel:recv(Channel),
    ok = py_channel:unsubscribe(Channel).

a_number_is_counted_down_and_told(_Config) ->
    {ok, Channel} = py_channel:new(),
    ok = py_channel:subscribe(Channel, #{active => 3}),
    {ok, none} = call(send_range, [Channel, 1, 5]),
    ?assertEqual([1, 2, 3], data(Channel, 3)),
    receive {py_channel, Channel, passive} -> ok end,
    nothing_more(),
    ok = py_channel:subscribe(Channel, #{active => 2}),
    ?assertEqual([4, 5], data(Channel, 2)),
    receive {py_channel, Channel, passive} -> ok end,
    ok = py_channel:unsubscribe(Channel).

numbers_are_added_as_in_gen_tcp(_Config) ->
    {ok, Channel} = py_channel:new(),
    ok = py_channel:subscribe(Channel, #{active => 2}),
    ok = py_channel:subscribe(Channel, #{active => 3}),
    ok = py_channel:subscribe(Channel, #{active => -1}),
    {ok, none} = call(send_range, [Channel, 1, 5]),
    ?assertEqual([1, 2, 3, 4], data(Channel, 4)),
    receive {py_channel, Channel, passive} -> ok end,
    nothing_more(),
    ok = py_channel:subscribe(Channel, #{active => 0}),
    receive {py_channel, Channel, passive} -> ok end,
    ok = py_channel:subscribe(Channel, #{active => 30000}),
    ?assertEqual([5], data(Channel, 1)),
    ?assertError(badarg, py_channel:subscribe(Channel, #{active => 30000})),
    ok = py_channel:subscribe(Channel, #{active => -30000}),
    receive {py_channel, Channel, passive} -> ok end,
    nothing_more(),
    ok = py_channel:unsubscribe(Channel).

false_stops_delivery(_Config) ->
    {ok, Channel} = py_channel:new(),
    ok = py_channel:subscribe(Channel, #{active => true}),
    {ok, none} = call(send_range, [Channel, 1, 1]),
    ?assertEqual([1], data(Channel, 1)),
    ok = py_channel:subscribe(Channel, #{active => false}),
    {ok, none} = call(send_range, [Channel, 2, 3]),
    nothing_more(),
    {ok, 2} = py_channel:recv(Channel),
    ok = py_channel:subscribe(Channel, #{active => true}),
    ?assertEqual([3], data(Channel, 1)),
    ok = py_channel:unsubscribe(Channel).

%% Not while nothing is wanted.
closed_is_told_as_a_message_would_be(_Config) ->
    {ok, Channel} = py_channel:new(),
    ok = py_channel:subscribe(Channel, #{active => false}),
    {ok, none} = call(send_range, [Channel, 1, 1]),
    {ok, none} = call(close, [Channel]),
    nothing_more(),
    ok = py_channel:subscribe(Channel, #{active => once}),
    ?assertEqual([1], data(Channel, 1)),
    nothing_more(),
    ok = py_channel:subscribe(Channel, #{active => once}),
    receive {py_channel, Channel, closed} -> ok end,
    ok = py_channel:subscribe(Channel),
    receive {py_channel, Channel, closed} -> ok end,
    nothing_more().

unsubscribing_ends_delivery(_Config) ->
    {ok, Channel} = py_channel:new(),
    ok = py_channel:subscribe(Channel),
    wait_until(fun() -> waiting(Channel) =:= 1 end),
    ok = py_channel:unsubscribe(Channel),
    ?assertEqual(0, waiting(Channel)),
    ok = py_channel:unsubscribe(Channel),
    {ok, none} = call(send_range, [Channel, 1, 2]),
    nothing_more(),
    {ok, 1} = py_channel:recv(Channel),
    {ok, 2} = py_channel:recv(Channel),
    ?assertEqual({monitors, []}, process_info(self(), monitors)).

a_dead_subscriber_takes_no_more_messages(_Config) ->
    {ok, Channel} = py_channel:new(),
    Subscriber = spawn(fun() -> ok = py_channel:subscribe(Channel), receive stop -> ok end end),
    wait_until(fun() -> waiting(Channel) =:= 1 end),
    exit(Subscriber, kill),
    wait_until(fun() -> waiting(Channel) =:= 0 end),
    {ok, none} = call(send_range, [Channel, 1, 2]),
    {ok, 1} = py_channel:recv(Channel),
    {ok, 2} = py_channel:recv(Channel).

subscribing_again_after_the_deliverer_died(_Config) ->
    {ok, Channel} = py_channel:new(),
    ok = py_channel:subscribe(Channel),
    exit(beamloop_nif:nif_channel_subscription(Channel, terms), kill),
    wait_until(fun() -> waiting(Channel) =:= 0 end),
    ok = py_channel:subscribe(Channel),
    {ok, none} = call(send_range, [Channel, 1, 2]),
    ?assertEqual([1, 2], data(Channel, 2)),
    ok = py_channel:unsubscribe(Channel).

subscribers_and_receivers_share_the_messages(_Config) ->
    {ok, Channel} = py_channel:new(#{max_messages => 20}),
    Subscribers = [start(fun() -> subscribe_all(Channel, Active) end)
                   || Active <- [true, once, 7]],
    Receivers = [start(fun() -> receive_all(Channel, []) end) || _ <- [1, 2]],
    Senders = [start(fun() -> call(send_range, [Channel, First, First + 2999]) end)
               || First <- [1, 3001, 6001]],
    [{ok, none} = result(S) || S <- Senders],
    ok = py_channel:close(Channel),
    Received = lists:append([result(R) || R <- Subscribers ++ Receivers]),
    ?assertEqual(lists:seq(1, 9000), lists:sort(Received)).

subscribe_all(Channel, Active) ->
    ok = py_channel:subscribe(Channel, #{active => Active}),
    subscribe_all(Channel, Active, []).

subscribe_all(Channel, Active, Received) ->
    receive
        {py_channel, Channel, {data, N}} ->
            Active =:= once andalso (ok = py_channel:subscribe(Channel, #{active => once})),
            subscribe_all(Channel, Active, [N | Received]);
        {py_channel, Channel, passive} ->
            ok = py_channel:subscribe(Channel, #{active => Active}),
            subscribe_all(Channel, Active, Received);
        {py_channel, Channel, closed} ->
            Received
    end.

receive_all(Channel, Received) ->
    case py_channel:recv(Channel) of
        {ok, N} -> receive_all(Channel, [N | Received]);
        {error, closed} -> Received
    end.

%% Backpressure reaches Python: without credits its queue fills up.
credits_bound_what_python_sends(_Config) ->
    {ok, Channel} = py_channel:new(#{max_messages => 10}),
    ok = py_channel:subscribe(Channel, #{active => 5}),
    Sending = start(fun() -> call(send_range, [Channel, 1, 100]) end),
    ?assertEqual(lists:seq(1, 5), data(Channel, 5)),
    receive {py_channel, Channel, passive} -> ok end,
    wait_until(fun() ->
        #{to_erlang := #{messages := 10, senders := #{thread := 1}}} = py_channel:info(Channel),
        true
    end),
    nothing_more(),
    ok = py_channel:subscribe(Channel, #{active => true}),
    ?assertEqual(lists:seq(6, 100), data(Channel, 95)),
    {ok, none} = result(Sending),
    ok = py_channel:unsubscribe(Channel).

large_terms_are_delivered(_Config) ->
    {ok, Channel} = py_channel:new(),
    ok = py_channel:subscribe(Channel),
    {ok, none} = call(send_large, [Channel, 10]),
    [?assertMatch([N, <<0:8000000>>, #{999 := N}], Term)
     || {N, Term} <- lists:zip(lists:seq(0, 9), data(Channel, 10))],
    ok = py_channel:unsubscribe(Channel).

%% Nothing that was not in a mailbox is lost, and nothing comes twice.
subscribers_that_die_at_random_leave_the_rest(_Config) ->
    {ok, Channel} = py_channel:new(#{max_messages => 20}),
    Sending = start(fun() -> call(send_range, [Channel, 1, 20000]) end),
    Early = lists:append([doomed(Channel) || _ <- lists:seq(1, 50)]),
    Rest = start(fun() -> subscribe_all(Channel, true) end),
    {ok, none} = result(Sending),
    ok = py_channel:close(Channel),
    Received = Early ++ result(Rest),
    ?assertEqual(lists:seq(1, 20000), lists:sort(Received)).

%% It takes some messages, with credits for one at a time, and dies without any in its mailbox.
doomed(Channel) ->
    Pid = start(fun() ->
        [begin
             ok = py_channel:subscribe(Channel, #{active => once}),
             receive {py_channel, Channel, {data, N}} -> N end
         end || _ <- lists:seq(1, rand:uniform(20))]
    end),
    result(Pid).

%% --- helpers --------------------------------------------------------------------------------

data(Channel, Count) ->
    [receive {py_channel, Channel, {data, Term}} -> Term after 10000 -> error(no_message) end
     || _ <- lists:seq(1, Count)].

%% A deliverer that had something would have sent it by now.
nothing_more() ->
    receive Message -> error({unexpected, Message}) after 30 -> ok end.

waiting(Channel) ->
    #{to_erlang := #{waiters := Waiters}} = py_channel:info(Channel),
    Waiters.

call(Function, Args) ->
    py:call(?HELPERS, Function, Args).

start(Fun) ->
    spawn_monitor(fun() -> exit({result, Fun()}) end).

result({Pid, Monitor}) ->
    receive
        {'DOWN', Monitor, process, Pid, {result, Result}} -> Result;
        {'DOWN', Monitor, process, Pid, Reason} -> error(Reason)
    after 60000 -> error(no_result)
    end.

wait_until(Condition) ->
    wait_until(Condition, 500).

wait_until(Condition, 0) ->
    ?assert(Condition());
wait_until(Condition, Left) ->
    case catch Condition() of
        true -> ok;
        _ -> timer:sleep(10), wait_until(Condition, Left - 1)
    end.
