%% The direction from Python to Erlang: receiving in processes, one by one and many at a time.
-module(py_channel_recv_SUITE).

-include_lib("stdlib/include/assert.hrl").

-import(channel_tests, [wait_until/1]).

-export([all/0, suite/0, init_per_suite/1, end_per_suite/1, end_per_testcase/2]).
-export([bad_arguments_are_badarg/1,
         recv_gives_messages_in_order_and_then_closed/1,
         try_recv_does_not_wait/1,
         recv_times_out_and_leaves_nothing_behind/1,
         every_kind_of_term_arrives/1,
         large_binaries_are_not_copied/1,
         large_terms_do_not_hold_a_scheduler/1,
         processes_are_served_in_the_order_in_which_they_wait/1,
         a_dead_receiver_frees_its_place/1,
         a_dead_receiver_gives_its_message_back/1,
         killed_receivers_lose_nothing/1,
         timeouts_racing_sends_lose_nothing/1,
         every_message_reaches_one_of_many_processes/1,
         both_directions_at_once/1,
         close_wakes_all_who_wait/1,
         close_wakes_a_crowd/1,
         the_owners_death_wakes_a_crowd/1,
         what_was_queued_outlives_close/1,
         one_direction_is_closed_alone/1,
         sends_racing_close_are_told/1,
         a_waiting_receiver_keeps_the_channel_open/1,
         dropping_the_last_reference_refuses_python/1,
         the_owners_death_closes_both_directions/1,
         info_tells_of_both_directions/1,
         a_blocked_python_thread_is_woken_when_there_is_room/1,
         a_cancelled_call_sends_nothing/1,
         what_never_fits_is_told/1,
         live_handles_arrive_alive/1,
         a_channel_in_its_own_queue_does_not_keep_itself/1]).

-define(HELPERS, py_channel_recv_SUITE_helpers).

suite() -> [{timetrap, {minutes, 2}}].

all() ->
    [bad_arguments_are_badarg,
     recv_gives_messages_in_order_and_then_closed,
     try_recv_does_not_wait,
     recv_times_out_and_leaves_nothing_behind,
     every_kind_of_term_arrives,
     large_binaries_are_not_copied,
     large_terms_do_not_hold_a_scheduler,
     processes_are_served_in_the_order_in_which_they_wait,
     a_dead_receiver_frees_its_place,
     a_dead_receiver_gives_its_message_back,
     killed_receivers_lose_nothing,
     timeouts_racing_sends_lose_nothing,
     every_message_reaches_one_of_many_processes,
     both_directions_at_once,
     close_wakes_all_who_wait,
     close_wakes_a_crowd,
     the_owners_death_wakes_a_crowd,
     what_was_queued_outlives_close,
     one_direction_is_closed_alone,
     sends_racing_close_are_told,
     a_waiting_receiver_keeps_the_channel_open,
     dropping_the_last_reference_refuses_python,
     the_owners_death_closes_both_directions,
     info_tells_of_both_directions,
     a_blocked_python_thread_is_woken_when_there_is_room,
     a_cancelled_call_sends_nothing,
     what_never_fits_is_told,
     live_handles_arrive_alive,
     a_channel_in_its_own_queue_does_not_keep_itself].

init_per_suite(Config) ->
    {ok, _} = application:ensure_all_started(beamloop),
    ok = py:exec(helpers()),
    Config.

end_per_suite(_Config) ->
    application:stop(beamloop).

%% Nothing that a test made may be left, in the mailbox neither.
end_per_testcase(_Case, _Config) ->
    channel_tests:left().

%% The Python side of these tests.
helpers() ->
    "import asyncio, sys, types\n"
    "import erlang\n"
    "from erlang.channel import Channel, ChannelClosed\n"
    "\n"
    "def send_all(ref, terms):\n"
    "    channel = Channel(ref)\n"
    "    for term in terms:\n"
    "        channel.send(term)\n"
    "\n"
    "def send_range(ref, first, last):\n"
    "    channel = Channel(ref)\n"
    "    for n in range(first, last + 1):\n"
    "        channel.send(n)\n"
    "\n"
    "async def async_send_range(ref, first, last):\n"
    "    channel = Channel(ref)\n"
    "    for n in range(first, last + 1):\n"
    "        await channel.async_send(n)\n"
    "\n"
    "def async_run(ref, *range_):\n"
    "    first, last = range_ if len(range_) == 2 else (1, *range_)\n"
    "    erlang.run(async_send_range(ref, first, last))\n"
    "\n"
    "def send_until_closed(ref):\n"
    "    channel, sent = Channel(ref), 0\n"
    "    try:\n"
    "        while True:\n"
    "            channel.send(sent)\n"
    "            sent += 1\n"
    "    except ChannelClosed:\n"
    "        return sent\n"
    "\n"
    "def echo(ref):\n"
    "    channel = Channel(ref)\n"
    "    for term in channel:\n"
    "        channel.send(term)\n"
    "    channel.close_write()\n"
    "\n"
    "def echo_shared(ref):\n"
    "    channel = Channel(ref)\n"
    "    for term in channel:\n"
    "        channel.send(term)\n"
    "\n"
    "def close(ref):\n"
    "    Channel(ref).close()\n"
    "\n"
    "def close_write(ref):\n"
    "    Channel(ref).close_write()\n"
    "\n"
    "def take(ref):\n"
    "    return Channel(ref).receive()\n"
    "\n"
    "def send_list(ref, length):\n"
    "    Channel(ref).send([b'x' * 100] * length)\n"
    "\n"
    "kept = []\n"
    "\n"
    "def keep(ref):\n"
    "    kept.append(Channel(ref))\n"
    "\n"
    "def drop_kept():\n"
    "    kept.clear()\n"
    "\n"
    "def send_kept(term):\n"
    "    kept[-1].send(term)\n"
    "\n"
    "m = sys.modules['py_channel_recv_SUITE_helpers'] = types.ModuleType('helpers')\n"
    "m.__dict__.update({k: v for k, v in globals().items() if not k.startswith('__')})\n".

bad_arguments_are_badarg(_Config) ->
    {ok, Channel} = py_channel:new(),
    [begin
         ?assertError(badarg, py_channel:recv(Bad)),
         ?assertError(badarg, py_channel:recv(Bad, 0)),
         ?assertError(badarg, py_channel:try_recv(Bad))
     end || Bad <- [make_ref(), self(), 1, <<>>, channel]],
    [?assertError(badarg, py_channel:recv(Channel, Bad)) || Bad <- [-1, 1.5, soon, 1 bsl 32]],
    ok.

recv_gives_messages_in_order_and_then_closed(_Config) ->
    {ok, Channel} = py_channel:new(),
    Terms = [1, none, <<>>, {}, [], #{}, false, <<"text">>],
    {ok, none} = call(send_all, [Channel, Terms]),
    {ok, none} = call(close, [Channel]),
    ?assertEqual(Terms, [begin {ok, Term} = py_channel:recv(Channel), Term end || _ <- Terms]),
    {error, closed} = py_channel:recv(Channel),
    {error, closed} = py_channel:recv(Channel, 0),
    {error, closed} = py_channel:try_recv(Channel).

try_recv_does_not_wait(_Config) ->
    {ok, Channel} = py_channel:new(),
    {error, empty} = py_channel:try_recv(Channel),
    {ok, none} = call(send_all, [Channel, [none]]),
    {ok, none} = py_channel:try_recv(Channel),
    {error, empty} = py_channel:try_recv(Channel),
    {error, timeout} = py_channel:recv(Channel, 0).

recv_times_out_and_leaves_nothing_behind(_Config) ->
    {ok, Channel} = py_channel:new(),
    {error, timeout} = py_channel:recv(Channel, 20),
    ?assertEqual(0, waiting(Channel)),
    {ok, none} = call(send_all, [Channel, [7]]),
    {ok, 7} = py_channel:recv(Channel, 20),
    ?assertEqual({messages, []}, process_info(self(), messages)),
    ?assertEqual({monitors, []}, process_info(self(), monitors)).

every_kind_of_term_arrives(_Config) ->
    {ok, Channel} = py_channel:new(),
    Echo = start_call(echo, [Channel]),
    Big = binary:copy(<<"abcdefgh">>, 20000),
    {ok, Other} = py_channel:new(),
    Terms = [1, -1, 1 bsl 64, -(1 bsl 70), 1 bsl 5000, 0.0, -1.5, true, none, <<>>, Big, <<1:3>>,
             [], [1 | 2], lists:seq(1, 5000), [Big, Big], {}, {Big, <<"s">>, Big}, #{},
             maps:from_list([{I, I} || I <- lists:seq(1, 5000)]), self(), make_ref(),
             fun lists:map/2, fun() -> Big end, hd(erlang:ports()), Other, {Other, [Other, Big]},
             Channel, [Channel, Channel],
             lists:foldl(fun(I, Acc) -> {I, [Acc]} end, deep, lists:seq(1, 100))],
    [begin
         ok = py_channel:send(Channel, Term),
         ?assertEqual({ok, Term}, py_channel:recv(Channel, 10000))
     end || Term <- Terms],
    ok = py_channel:close(Channel, write),
    {error, closed} = py_channel:recv(Channel),
    {ok, none} = result(Echo).

%% Whichever way they come, what arrives is what was sent.
large_binaries_are_not_copied(_Config) ->
    {ok, Channel} = py_channel:new(),
    Sizes = [0, 1, 4089, 4090, 4091, 4096, 65536, 50000000],
    Binaries = [binary:copy(<<"z">>, Size) || Size <- Sizes],
    {ok, none} = call(send_all, [Channel, Binaries ++ [[B] || B <- Binaries]]),
    [?assertEqual({ok, B}, py_channel:recv(Channel)) || B <- lists:droplast(Binaries)],
    Before = erlang:memory(binary),
    {ok, Large} = py_channel:recv(Channel),
    ?assertEqual(lists:last(Binaries), Large),
    ?assert(erlang:memory(binary) - Before < 1000000),
    [?assertEqual({ok, [B]}, py_channel:recv(Channel)) || B <- Binaries].

%% A term of 500,000 elements, which takes several milliseconds to decode: who receives it gives the
%% scheduler up again and again, as after any bounded work.
large_terms_do_not_hold_a_scheduler(_Config) ->
    {ok, Channel} = py_channel:new(),
    {ok, none} = call(send_list, [Channel, 500000]),
    {ok, none} = call(send_list, [Channel, 10]),
    Many = times_scheduled_out(fun() -> {ok, T} = py_channel:recv(Channel), length(T) end, 500000),
    Few = times_scheduled_out(fun() -> {ok, T} = py_channel:recv(Channel), length(T) end, 10),
    ?assert(Many > Few + 20, {Many, Few}).

%% How often a process that calls the function, which gives Result, is taken off its scheduler.
times_scheduled_out(Function, Result) ->
    {Pid, Monitor} = spawn_monitor(fun() -> receive go -> exit({result, Function()}) end end),
    1 = erlang:trace(Pid, true, [running]),
    Pid ! go,
    ?assertEqual(Result, result({Pid, Monitor})),
    Delivered = erlang:trace_delivered(Pid),
    receive {trace_delivered, Pid, Delivered} -> ok end,
    count_out(Pid, 0).

count_out(Pid, Count) ->
    receive
        {trace, Pid, out, _} -> count_out(Pid, Count + 1);
        {trace, Pid, _, _} -> count_out(Pid, Count)
    after 0 -> Count
    end.

processes_are_served_in_the_order_in_which_they_wait(_Config) ->
    {ok, Channel} = py_channel:new(),
    Self = self(),
    Receivers = [begin
        Started = spawn_monitor(fun() -> Self ! {N, py_channel:recv(Channel)} end),
        wait_until(fun() -> waiting(Channel) =:= N end),
        Started
    end || N <- lists:seq(1, 5)],
    {ok, none} = call(send_range, [Channel, 1, 5]),
    [receive {N, Got} -> ?assertEqual({ok, N}, Got) end || N <- lists:seq(1, 5)],
    await(Receivers).

a_dead_receiver_frees_its_place(_Config) ->
    {ok, Channel} = py_channel:new(),
    Doomed = [spawn(fun() -> py_channel:recv(Channel) end) || _ <- lists:seq(1, 3)],
    wait_until(fun() -> waiting(Channel) =:= 3 end),
    [exit(Pid, kill) || Pid <- Doomed],
    wait_until(fun() -> waiting(Channel) =:= 0 end),
    {ok, none} = call(send_all, [Channel, [42]]),
    {ok, 42} = py_channel:recv(Channel).

%% It has been handed the message, and never takes it out of its mailbox.
a_dead_receiver_gives_its_message_back(_Config) ->
    {ok, Channel} = py_channel:new(),
    Doomed = spawn(fun() ->
        {wait, Receiver} = beamloop_nif:nif_channel_recv_wait(Channel, terms, make_ref()),
        receive never -> Receiver end
    end),
    wait_until(fun() -> waiting(Channel) =:= 1 end),
    {ok, none} = call(send_range, [Channel, 1, 1]),
    #{to_erlang := #{messages := 1, total_out := 0, waiters := 0}} = py_channel:info(Channel),
    Next = start_receiver(fun() -> py_channel:recv(Channel) end),
    wait_until(fun() -> waiting(Channel) =:= 1 end),
    exit(Doomed, kill),
    ?assertEqual({ok, 1}, result(Next)).

%% Processes receive one message each and tell of it by their exit; they are killed at random.
killed_receivers_lose_nothing(_Config) ->
    {ok, Channel} = py_channel:new(#{max_messages => 50}),
    Count = 5000,
    Sending = start_call(send_range, [Channel, 1, Count]),
    Received = receive_under_kills(Channel, Count, [], []),
    ?assertEqual(lists:seq(1, Count), lists:sort(Received)),
    {ok, none} = result(Sending),
    {error, empty} = py_channel:try_recv(Channel),
    ?assertEqual(0, waiting(Channel)).

%% A process that was killed in its last instants has received nothing, or has told of it: what it has
%% got it puts into a table before it can be killed again.
receive_under_kills(Channel, Count, [], []) ->
    Table = ets:new(received, [public, duplicate_bag]),
    Workers = [spawn_receiver(Channel, Table) || _ <- lists:seq(1, 8)],
    kill_until(fun() -> ets:info(Table, size) >= Count end, Channel, Table, Workers),
    [N || {N} <- ets:tab2list(Table)].

spawn_receiver(Channel, Table) ->
    spawn(fun() -> receive_into(Channel, Table) end).

%% The claim and the insertion happen in one go: a kill can only fall before or after both.
receive_into(Channel, Table) ->
    Ref = make_ref(),
    case beamloop_nif:nif_channel_recv_wait(Channel, terms, Ref) of
        {wait, Receiver} ->
            receive {Ref, handed} -> ok end,
            insert(Table, beamloop_nif:nif_channel_recv_claim(Receiver));
        Result ->
            insert(Table, Result)
    end,
    receive_into(Channel, Table).

insert(Table, {ok, N}) -> ets:insert(Table, {N});
insert(_Table, {error, closed}) -> exit(normal).

kill_until(Done, Channel, Table, [Victim | Others]) ->
    case Done() of
        true ->
            [exit(Pid, kill) || Pid <- [Victim | Others]],
            wait_until(fun() -> waiting(Channel) =:= 0 end);
        false ->
            erlang:yield(),
            rand:uniform(3) =:= 1 andalso timer:sleep(1),
            suspend_and_kill(Victim),
            kill_until(Done, Channel, Table, Others ++ [spawn_receiver(Channel, Table)])
    end.

%% Only while it waits, or has been handed a message that it has not claimed.
suspend_and_kill(Pid) ->
    erlang:suspend_process(Pid),
    case process_info(Pid, [current_function, status]) of
        [{current_function, {?MODULE, receive_into, 2}} | _] -> exit(Pid, kill);
        _ -> erlang:resume_process(Pid), erlang:yield(), suspend_and_kill(Pid)
    end.

timeouts_racing_sends_lose_nothing(_Config) ->
    {ok, Channel} = py_channel:new(#{max_messages => 20}),
    Count = 5000,
    Sending = start_call(async_run, [Channel, Count]),
    Receivers = [start_receiver(fun() -> recv_with_timeouts(Channel, []) end)
                 || _ <- lists:seq(1, 3)],
    {ok, none} = result(Sending),
    ok = py_channel:close(Channel),
    Received = lists:append([result(R) || R <- Receivers]),
    ?assertEqual(lists:seq(1, Count), lists:sort(Received)).

recv_with_timeouts(Channel, Received) ->
    case py_channel:recv(Channel, rand:uniform(3) - 1) of
        {ok, N} ->
            recv_with_timeouts(Channel, [N | Received]);
        {error, timeout} ->
            {messages, []} = process_info(self(), messages),
            recv_with_timeouts(Channel, Received);
        {error, closed} ->
            Received
    end.

every_message_reaches_one_of_many_processes(_Config) ->
    {ok, Channel} = py_channel:new(#{max_size => 3200}),
    Receivers = [start_receiver(fun() -> recv_all(Channel, []) end) || _ <- lists:seq(1, 4)],
    Senders = [start_call(send_range, [Channel, 1, 5000]),
               start_call(send_range, [Channel, 5001, 10000]),
               start_call(async_run, [Channel, 10001, 15000])],
    [{ok, none} = result(S) || S <- Senders],
    ok = py_channel:close(Channel),
    Received = lists:append([result(R) || R <- Receivers]),
    ?assertEqual(lists:seq(1, 15000), lists:sort(Received)).

both_directions_at_once(_Config) ->
    {ok, Channel} = py_channel:new(#{max_messages => 30}),
    Echoes = [start_call(echo_shared, [Channel]) || _ <- lists:seq(1, 3)],
    Receivers = [start_receiver(fun() -> recv_all(Channel, []) end) || _ <- lists:seq(1, 3)],
    Senders = [spawn_monitor(fun() ->
        [ok = py_channel:send(Channel, {S, N}, infinity) || N <- lists:seq(1, 3000)]
    end) || S <- lists:seq(1, 3)],
    await(Senders),
    ok = py_channel:close(Channel, write),
    [{ok, none} = result(E) || E <- Echoes],
    {ok, none} = call(close_write, [Channel]),
    Received = lists:append([result(R) || R <- Receivers]),
    ?assertEqual([{S, N} || S <- lists:seq(1, 3), N <- lists:seq(1, 3000)],
                 lists:sort(Received)).

close_wakes_all_who_wait(_Config) ->
    [begin
         {ok, Channel} = py_channel:new(),
         Receivers = [start_receiver(fun() -> py_channel:recv(Channel) end)
                      || _ <- lists:seq(1, 20)],
         wait_until(fun() -> waiting(Channel) =:= 20 end),
         Close(Channel),
         [?assertEqual({error, closed}, result(R)) || R <- Receivers]
     end || Close <- [fun py_channel:close/1, fun(Channel) -> call(close, [Channel]) end,
                      fun(Channel) -> call(close_write, [Channel]) end]].

%% More than one call wakes: the others are woken soon after, and none is forgotten.
close_wakes_a_crowd(_Config) ->
    {ok, Channel} = py_channel:new(#{max_messages => 1}),
    Crowd = crowd(Channel, 2000),
    ok = py_channel:close(Channel),
    [?assertEqual({error, closed}, result(P)) || P <- Crowd].

the_owners_death_wakes_a_crowd(_Config) ->
    Owner = spawn(fun() -> receive stop -> ok end end),
    {ok, Channel} = py_channel:new(#{max_messages => 1, owner => Owner}),
    Crowd = crowd(Channel, 2000),
    Owner ! stop,
    [?assertEqual({error, closed}, result(P)) || P <- Crowd].

%% As many that wait to receive as wait to send.
crowd(Channel, Count) ->
    ok = py_channel:send(Channel, 0),
    Crowd = [start_receiver(fun() -> py_channel:recv(Channel) end) || _ <- lists:seq(1, Count)] ++
            [start_receiver(fun() -> py_channel:send(Channel, N, infinity) end)
             || N <- lists:seq(1, Count)],
    wait_until(fun() ->
        #{senders := #{process := Senders}} = py_channel:info(Channel),
        waiting(Channel) =:= Count andalso Senders =:= Count
    end),
    Crowd.

what_was_queued_outlives_close(_Config) ->
    {ok, Channel} = py_channel:new(),
    {ok, none} = call(send_range, [Channel, 1, 3]),
    ok = py_channel:close(Channel),
    {error, {<<"ChannelClosed">>, _, _}} = call(send_range, [Channel, 4, 4]),
    ?assertEqual([3, 2, 1], recv_all(Channel, [])).

one_direction_is_closed_alone(_Config) ->
    {ok, Channel} = py_channel:new(),
    ok = py_channel:close(Channel, write),
    #{closed := true, to_erlang := #{closed := false}} = py_channel:info(Channel),
    {ok, none} = call(send_range, [Channel, 1, 1]),
    {ok, 1} = py_channel:recv(Channel),
    {ok, Other} = py_channel:new(),
    {ok, none} = call(close_write, [Other]),
    {ok, none} = call(close_write, [Other]),
    #{closed := false, to_erlang := #{closed := true}} = py_channel:info(Other),
    ok = py_channel:send(Other, 1),
    {ok, 1} = call(take, [Other]),
    {error, closed} = py_channel:recv(Other).

%% Every send is either received or refused.
sends_racing_close_are_told(_Config) ->
    [begin
         {ok, Channel} = py_channel:new(#{max_messages => 5}),
         Receiver = start_receiver(fun() -> recv_all(Channel, []) end),
         Senders = [start_call(send_until_closed, [Channel]) || _ <- lists:seq(1, 3)],
         timer:sleep(Round rem 3),
         ok = py_channel:close(Channel),
         Sent = lists:sum([begin {ok, N} = result(S), N end || S <- Senders]),
         ?assertEqual(Sent, length(result(Receiver)))
     end || Round <- lists:seq(1, 30)].

a_waiting_receiver_keeps_the_channel_open(_Config) ->
    Self = self(),
    {Pid, Monitor} = spawn_monitor(fun() ->
        {ok, Channel} = py_channel:new(),
        {ok, none} = call(keep, [Channel]),
        Self ! go,
        exit({got, py_channel:recv(Channel)})
    end),
    receive go -> ok end,
    garbage_collect(Pid),
    {ok, none} = call(send_kept, [5]),
    receive {'DOWN', Monitor, process, Pid, Reason} -> ?assertEqual({got, {ok, 5}}, Reason) end,
    {ok, none} = call(drop_kept, []).

dropping_the_last_reference_refuses_python(_Config) ->
    {Pid, Monitor} = spawn_monitor(fun() ->
        {ok, Channel} = py_channel:new(),
        {ok, none} = call(keep, [Channel])
    end),
    await([{Pid, Monitor}]),
    wait_until(fun() -> element(1, call(send_kept, [1])) =:= error end),
    {error, {<<"ChannelClosed">>, _, _}} = call(send_kept, [1]),
    {ok, none} = call(drop_kept, []).

the_owners_death_closes_both_directions(_Config) ->
    Owner = spawn(fun() -> receive stop -> ok end end),
    {ok, Channel} = py_channel:new(#{owner => Owner}),
    Receiver = start_receiver(fun() -> py_channel:recv(Channel) end),
    Owner ! stop,
    ?assertEqual({error, closed}, result(Receiver)),
    #{closed := true, to_erlang := #{closed := true}} = py_channel:info(Channel).

info_tells_of_both_directions(_Config) ->
    {ok, Channel} = py_channel:new(#{max_size => 100, max_messages => 10}),
    {ok, none} = call(send_range, [Channel, 1, 2]),
    #{size := 0, messages := 0, to_erlang := ToErlang} = py_channel:info(Channel),
    #{size := 64, max_size := 100, messages := 2, max_messages := 10, total_in := 2,
      total_out := 0} = ToErlang,
    Sending = start_call(send_range, [Channel, 3, 5]),
    wait_until(fun() ->
        #{to_erlang := #{senders := Senders}} = py_channel:info(Channel),
        Senders =:= #{coroutine => 0, thread => 1, process => 0}
    end),
    ?assertEqual([5, 4, 3, 2, 1], recv_count(Channel, 5, [])),
    {ok, none} = result(Sending),
    Receiver = start_receiver(fun() -> py_channel:recv(Channel) end),
    wait_until(fun() ->
        #{to_erlang := #{receivers := Receivers}} = py_channel:info(Channel),
        Receivers =:= #{coroutine => 0, thread => 0, process => 1}
    end),
    ok = py_channel:close(Channel),
    {error, closed} = result(Receiver).

a_blocked_python_thread_is_woken_when_there_is_room(_Config) ->
    {ok, Channel} = py_channel:new(#{max_messages => 1}),
    Sending = start_call(send_range, [Channel, 1, 200]),
    ?assertEqual(lists:seq(200, 1, -1), recv_count(Channel, 200, [])),
    {ok, none} = result(Sending).

%% Callers that die while their calls wait in send().
a_cancelled_call_sends_nothing(_Config) ->
    {ok, Channel} = py_channel:new(#{max_messages => 1}),
    {ok, none} = call(send_range, [Channel, 1, 1]),
    Doomed = [spawn(fun() -> call(send_range, [Channel, 2, 2]) end) || _ <- lists:seq(1, 5)],
    wait_until(fun() -> senders(Channel) =:= 5 end),
    [exit(Pid, kill) || Pid <- Doomed],
    wait_until(fun() -> senders(Channel) =:= 0 end),
    {ok, 1} = py_channel:recv(Channel),
    {error, empty} = py_channel:try_recv(Channel),
    {ok, none} = call(send_range, [Channel, 3, 3]),
    {ok, 3} = py_channel:recv(Channel).

what_never_fits_is_told(_Config) ->
    {ok, Channel} = py_channel:new(#{max_size => 1000}),
    {error, {<<"MessageTooLarge">>, _, _}} = call(send_all, [Channel, [<<0:(8 * 1001)>>]]),
    {error, {<<"MessageTooLarge">>, _, _}} = call(send_list, [Channel, 100000]),
    #{to_erlang := #{size := 0, messages := 0}} = py_channel:info(Channel),
    {ok, none} = call(send_all, [Channel, [<<0:(8 * 900)>>]]).

%% Python has dropped what it sent by the time it is received.
live_handles_arrive_alive(_Config) ->
    {ok, Outer} = py_channel:new(),
    {Pid, Monitor} = spawn_monitor(fun() ->
        {ok, Inner} = py_channel:new(),
        {ok, none} = call(send_all, [Outer, [{Inner, [Inner]}, [Inner | binary:copy(<<1>>, 9000)]]])
    end),
    await([{Pid, Monitor}]),
    {ok, _} = py:eval("__import__('gc').collect()"),
    {ok, {Inner, [Inner]}} = py_channel:recv(Outer),
    {ok, [Inner | _]} = py_channel:recv(Outer),
    ok = py_channel:send(Inner, 1),
    {ok, 1} = call(take, [Inner]).

%% end_per_testcase sees whether it is gone.
a_channel_in_its_own_queue_does_not_keep_itself(_Config) ->
    {ok, Channel} = py_channel:new(),
    {ok, none} = call(send_all, [Channel, [Channel, [Channel, binary:copy(<<1>>, 9000)]]]).

%% --- helpers --------------------------------------------------------------------------------

recv_all(Channel, Received) ->
    case py_channel:recv(Channel) of
        {ok, Term} -> recv_all(Channel, [Term | Received]);
        {error, closed} -> Received
    end.

recv_count(_Channel, 0, Received) ->
    Received;
recv_count(Channel, Left, Received) ->
    {ok, Term} = py_channel:recv(Channel),
    recv_count(Channel, Left - 1, [Term | Received]).

waiting(Channel) ->
    #{to_erlang := #{waiters := Waiters}} = py_channel:info(Channel),
    Waiters.

senders(Channel) ->
    #{to_erlang := #{senders := Senders}} = py_channel:info(Channel),
    lists:sum(maps:values(Senders)).

await(Processes) ->
    [receive {'DOWN', Monitor, process, Pid, Reason} -> ?assertEqual(normal, Reason) end
     || {Pid, Monitor} <- Processes].

call(Function, Args) ->
    py:call(?HELPERS, Function, Args).

start_call(Function, Args) ->
    start_receiver(fun() -> call(Function, Args) end).

start_receiver(Fun) ->
    spawn_monitor(fun() -> exit({result, Fun()}) end).

result({Pid, Monitor}) ->
    receive
        {'DOWN', Monitor, process, Pid, {result, Result}} -> Result;
        {'DOWN', Monitor, process, Pid, Reason} -> error(Reason)
    after 60000 -> error(no_result)
    end.
