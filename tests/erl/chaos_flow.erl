%% One channel of chaos_SUITE: producers and consumers that are killed, cancelled and begun again until it
%% is closed in some way; then what they saw is added up.
%%
%% What was acknowledged must have been received, exactly once, in order where nobody gave anything back;
%% what was refused must not.  Where a consumer is killed that has received a message and not noted it yet,
%% that one is not known: it is looked at first, and only if it is not waiting one message may be missing.
-module(chaos_flow).

-export([run/3]).

-include_lib("stdlib/include/assert.hrl").

-import(channel_tests, [wait_until/1]).

-record(flow, {number, kind, direction, channel, table, ways, strict}).
%% One of those at work: its role is producer or consumer, its way erlang, coroutine or thread.
-record(actor, {pid, monitor, role, way}).

%% Seed determines what is done, not when.  Ways are those of Python's actors: thread, or a loop.
run(Seed, Number, Ways) ->
    _ = rand:seed(exsss, {Seed, Number, 0}),
    Kind = pick([terms, terms, bytes]),
    Owner = spawn_link(fun() -> receive stop -> ok end end),
    Options = maps:merge(pick([#{}, #{max_size => 200000}, #{max_size => 80000},
                               #{max_messages => 1}, #{max_messages => 20},
                               #{max_size => 100000, low_watermark => 3000}]),
                         pick([#{}, #{owner => Owner}])),
    {ok, Channel} = (module(Kind)):new(Options),
    Flow = #flow{number = Number, kind = Kind, direction = pick([to_python, to_erlang]),
                 channel = Channel, table = ets:new(flow, [public, duplicate_bag]),
                 ways = Ways, strict = rand:uniform(4) =:= 1},
    Consumers = case Flow#flow.strict of true -> 1; false -> rand:uniform(3) end,
    Actors = [start(consumer, Flow) || _ <- lists:seq(1, Consumers)] ++
             [start(producer, Flow) || _ <- lists:seq(1, rand:uniform(3))],
    Left = disturb(rand:uniform(40), Flow, Actors),
    unlink(Owner),
    finish([fun() -> exit(Owner, kill) end || maps:is_key(owner, Options)], Flow, Left),
    exit(Owner, kill),
    audit(Flow).

module(terms) -> py_channel;
module(bytes) -> py_byte_channel.

pick(List) ->
    lists:nth(rand:uniform(length(List)), List).

%% ---- chaos ----

disturb(0, _Flow, Actors) ->
    Actors;
disturb(Steps, Flow, Actors) ->
    timer:sleep(rand:uniform(25)),
    Victim = pick(Actors),
    case Flow#flow.strict andalso Victim#actor.role =:= consumer of
        true ->
            disturb(Steps - 1, Flow, Actors);
        false ->
            end_actor(Victim, Flow),
            Others = lists:delete(Victim, Actors),
            disturb(Steps - 1, Flow, [start(Victim#actor.role, Flow) | Others])
    end.

%% Some have ended by themselves, when their call timed out or their loop ended.
end_actor(#actor{pid = Pid, monitor = Monitor} = Actor, Flow) ->
    case {Actor#actor.role, Actor#actor.way, rand:uniform(2)} of
        {producer, erlang, _} -> exit(Pid, kill);
        {_, thread, _} -> exit(Pid, kill);
        {consumer, erlang, 1} -> kill_consumer(Pid, Flow);
        {_, _Loop, 1} -> exit(Pid, kill);
        {_, _, 2} -> Pid ! stop
    end,
    await_end(Pid, Monitor).

await_end(Pid, Monitor) ->
    receive
        {'DOWN', Monitor, process, Pid, Reason} ->
            lists:member(Reason, [normal, killed, stop, noproc]) orelse exit({actor, Reason})
    after 30000 ->
        exit({hangs, process_info(Pid, current_stacktrace), py:info()})
    end.

%% What has been handed to one that waits goes to the next.
kill_consumer(Pid, Flow) ->
    try erlang:suspend_process(Pid) of
        true ->
            Where = process_info(Pid, current_function),
            case Where =:= {current_function, {beamloop_channel, recv_and_wait, 3}} of
                true -> ok;
                false -> note(Flow, {unknown, 1})
            end,
            exit(Pid, kill)
    catch
        error:badarg -> ok
    end.

%% ---- actors ----

start(Role, Flow) ->
    Way = case Flow of
        #flow{direction = to_python} when Role =:= producer -> erlang;
        #flow{direction = to_erlang} when Role =:= consumer -> erlang;
        %% Nothing but the end of the channel ends these.
        #flow{strict = true, ways = Ways} when Role =:= consumer ->
            pick([W || W <- Ways, W =:= default orelse W =:= thread]);
        #flow{ways = Ways} -> pick(Ways)
    end,
    Number = erlang:unique_integer([positive]) rem 16#ffffffff,
    Seed = rand:uniform(1 bsl 32),
    {Pid, Monitor} = spawn_monitor(fun() ->
        _ = rand:seed(exsss, Seed),
        act(Role, Way, Number, Seed, Flow)
    end),
    #actor{pid = Pid, monitor = Monitor, role = Role, way = Way}.

act(producer, erlang, Number, _Seed, Flow) ->
    produce(Number, 0, Flow);
act(consumer, erlang, Number, _Seed, Flow) ->
    consume(Number, 0, Flow);
act(producer, thread, Number, Seed, Flow) ->
    on_thread(produce_on_thread, [Number, Seed], Flow);
act(consumer, thread, _Number, Seed, Flow) ->
    on_thread(consume_on_thread, [Seed], Flow);
act(producer, Loop, Number, Seed, Flow) ->
    on_loop(Loop, produce, [Number, Seed], Flow);
act(consumer, Loop, _Number, Seed, Flow) ->
    on_loop(Loop, consume, [Seed], Flow).

arguments(#flow{kind = Kind, channel = Channel, number = Number}) ->
    [atom_to_binary(Kind), Channel, Number].

on_thread(Function, Arguments, Flow) ->
    Timeout = case Flow#flow.strict of true -> infinity; false -> pick([infinity, 20, 200]) end,
    ended(py:call(chaos_actors, Function, arguments(Flow) ++ Arguments, #{},
                  #{timeout => Timeout, binaries => str})).

%% Each loop may end at any time.
on_loop(Loop, Function, Arguments, Flow) ->
    Options = #{loop => Loop, binaries => str},
    case py_event_loop:create_task(chaos_actors, Function, arguments(Flow) ++ Arguments, Options) of
        {ok, Task} -> await(Task);
        {error, not_running} when Loop =/= default -> ok
    end.

await(Task) ->
    case py_event_loop:await(Task, 10) of
        {error, timeout} ->
            receive stop -> py_event_loop:cancel(Task) after 0 -> await(Task) end;
        Result ->
            ended(Result)
    end.

ended({ok, none}) -> ok;
ended({error, timeout}) -> ok;
ended({error, not_running}) -> ok;
ended({error, {Name, _, _}} = Other) ->
    case channel_tests:exception(Name) of
        <<"CancelledError">> -> ok;
        _ -> exit(Other)
    end;
ended(Other) -> exit(Other).

note(#flow{table = Table}, What) ->
    ets:insert(Table, What).

message(Producer, Number, #flow{kind = terms, number = Flow}) ->
    {Flow, Producer, Number, filler(Number)};
message(Producer, Number, #flow{kind = bytes, number = Flow}) ->
    Header = <<Flow:32, Producer:32, Number:32>>,
    case Number rem 3 of
        0 -> [Header, filler(Number)];
        _ -> <<Header/binary, (filler(Number))/binary>>
    end.

filler(Number) ->
    binary:copy(<<Number>>, size_of(Number)).

size_of(Number) when Number rem 64 =:= 63 -> 70000;
size_of(Number) when Number rem 16 =:= 15 -> 5000;
size_of(Number) -> Number * 37 rem 300.

produce(Producer, Number, Flow = #flow{kind = Kind, channel = Channel}) ->
    Module = module(Kind),
    Message = message(Producer, Number, Flow),
    Count = case pick([send, wait, wait_shortly, many]) of
        send -> sent(Module:send(Channel, Message), Producer, Number, Flow);
        wait -> sent(Module:send(Channel, Message, infinity), Producer, Number, Flow);
        wait_shortly ->
            sent(Module:send(Channel, Message, rand:uniform(10) - 1), Producer, Number, Flow);
        many when Kind =:= terms -> produce_many(Producer, Number, rand:uniform(12), Flow);
        many -> 0
    end,
    rand:uniform(10) =< 3 andalso timer:sleep(1),
    case Count of
        closed -> ok;
        _ -> receive stop -> ok after 0 -> produce(Producer, Number + Count, Flow) end
    end.

sent(ok, Producer, Number, Flow) ->
    note(Flow, {sent, Producer, Number}),
    1;
sent({error, closed}, Producer, Number, Flow) ->
    note(Flow, {refused, Producer, Number}),
    closed;
sent(Result, Producer, Number, Flow) when Result =:= busy; Result =:= {error, timeout} ->
    note(Flow, {refused, Producer, Number}),
    1.

produce_many(Producer, Number, Count, Flow = #flow{channel = Channel}) ->
    Numbers = lists:seq(Number, Number + Count - 1),
    Sent = case py_channel:send_many(Channel, [message(Producer, N, Flow) || N <- Numbers]) of
        ok -> Count;
        {busy, Some} -> Some;
        {error, {closed, Some}} -> Some
    end,
    {First, Last} = lists:split(Sent, Numbers),
    note(Flow, [{sent, Producer, N} || N <- First] ++ [{refused, Producer, N} || N <- Last]),
    Count.

consume(Consumer, Received, Flow = #flow{kind = Kind, channel = Channel, strict = Strict}) ->
    Module = module(Kind),
    Result = case pick([recv, recv_shortly, try_recv | [subscribe || not Strict]]) of
        recv -> receive_or_stop(Flow);
        recv_shortly -> Module:recv(Channel, rand:uniform(10) - 1);
        try_recv when Kind =:= terms -> py_channel:try_recv(Channel);
        try_recv -> py_byte_channel:try_receive(Channel);
        subscribe -> subscribed(Consumer, Received, Flow)
    end,
    rand:uniform(10) =:= 1 andalso timer:sleep(rand:uniform(4)),
    case Result of
        {ok, Message} ->
            received(Consumer, Received, Message, Flow),
            next(Consumer, Received + 1, Flow);
        {subscribed, Count} -> next(Consumer, Received + Count, Flow);
        {error, closed} -> ok;
        {error, _TimeoutOrEmpty} -> next(Consumer, Received, Flow)
    end.

next(Consumer, Received, Flow) ->
    receive stop -> ok after 0 -> consume(Consumer, Received, Flow) end.

%% Not for ever: it is asked to stop by a message.
receive_or_stop(#flow{kind = Kind, channel = Channel}) ->
    (module(Kind)):recv(Channel, 100).

received(Consumer, Number, Message, Flow) ->
    {Producer, N} = read(Message, Flow),
    note(Flow, {received, Consumer, Number, Producer, N}).

read({Number, Producer, N, Filler}, #flow{number = Number, kind = terms}) ->
    ?assertEqual(filler(N), Filler),
    {Producer, N};
read(<<Number:32, Producer:32, N:32, Filler/binary>>, #flow{number = Number, kind = bytes}) ->
    ?assertEqual(filler(N), Filler),
    {Producer, N}.

%% For a few messages, however many come.  A process of its own, which nobody kills: what it was sent would be lost with it.
subscribed(Consumer, Received, Flow = #flow{kind = Kind, channel = Channel}) ->
    Module = module(Kind),
    {Pid, Monitor} = spawn_monitor(fun() ->
        note(Flow, {subscriber, self()}),
        ok = Module:subscribe(Channel, #{active => pick([once, 3, true])}),
        Count = take_subscribed(Consumer, Received, Received + 50, Flow, rand:uniform(20)),
        ok = Module:unsubscribe(Channel),
        exit({count, take_subscribed(Consumer, Count, infinity, Flow, 0)})
    end),
    receive {'DOWN', Monitor, process, Pid, {count, Count}} -> {subscribed, Count - Received} end.

take_subscribed(_Consumer, Most, Most, _Flow, _Timeout) ->
    Most;
take_subscribed(Consumer, Received, Most, Flow = #flow{channel = Channel}, Timeout) ->
    receive
        {_, Channel, {data, Message}} ->
            received(Consumer, Received, Message, Flow),
            take_subscribed(Consumer, Received + 1, Most, Flow, Timeout);
        {_, Channel, What} when What =:= closed; What =:= passive ->
            take_subscribed(Consumer, Received, Most, Flow, Timeout)
    after Timeout ->
        Received
    end.

%% ---- the end ----

%% KillOwner is a list of the function that does so, if there is an owner.
finish(KillOwner, Flow = #flow{kind = Kind, channel = Channel, direction = Direction}, Actors) ->
    Close = fun() -> (module(Kind)):close(Channel) end,
    CloseWrite = case Direction of
        to_python -> fun() -> (module(Kind)):close(Channel, write) end;
        to_erlang -> fun() -> close_by_python(Flow, true) end
    end,
    CloseByPython = fun() -> close_by_python(Flow, false) end,
    {Producers, Consumers} = lists:partition(fun(A) -> A#actor.role =:= producer end, Actors),
    case pick([stop_first, Close, CloseWrite, CloseByPython | KillOwner]) of
        stop_first ->
            [end_actor(Producer, Flow) || Producer <- Producers],
            Close(),
            [await_end(Pid, Monitor) || #actor{pid = Pid, monitor = Monitor} <- Consumers];
        Ending ->
            Ending(),
            [await_end(Pid, Monitor) || #actor{pid = Pid, monitor = Monitor} <- Actors]
    end,
    Subscribers = [Pid || {subscriber, Pid} <- ets:lookup(Flow#flow.table, subscriber)],
    wait_until(fun() -> not lists:any(fun is_process_alive/1, Subscribers) end),
    wait_until(fun() -> {ok, 0} =:= call(at_work, [Flow#flow.number]) end),
    drain(Flow).

close_by_python(Flow, Write) ->
    [Kind, Channel | _] = arguments(Flow),
    {ok, none} = call(close, [Kind, Channel, Write]).

%% Of no actor's: there may be too many of those.
call(Function, Arguments) ->
    case py:call(chaos_actors, Function, Arguments, #{}, #{binaries => str}) of
        {error, overloaded} -> timer:sleep(5), call(Function, Arguments);
        Answer -> Answer
    end.

%% Also what those give back whose end the channel has yet to hear of.
drain(Flow = #flow{direction = to_python}) ->
    wait_until(fun() ->
        {ok, _} = call(drain, arguments(Flow)),
        is_empty(Flow)
    end);
drain(Flow = #flow{direction = to_erlang}) ->
    wait_until(fun() -> drain_erlang(Flow), is_empty(Flow) end).

drain_erlang(Flow = #flow{kind = Kind, channel = Channel}) ->
    case (module(Kind)):recv(Channel, 0) of
        {ok, Message} ->
            received(last, erlang:unique_integer([monotonic]), Message, Flow),
            drain_erlang(Flow);
        {error, _ClosedOrNotYet} ->
            ok
    end.

is_empty(Flow) ->
    maps:get(messages, info(Flow)) =:= 0.

info(#flow{kind = Kind, channel = Channel, direction = Direction}) ->
    Info = (module(Kind)):info(Channel),
    case Direction of
        to_python -> Info;
        to_erlang -> maps:get(to_erlang, Info)
    end.

%% ---- the audit ----

audit(Flow = #flow{table = Table, kind = Kind, number = Number, strict = Strict}) ->
    {ok, {Sent0, Refused0, Received0}} = call(take, [atom_to_binary(Kind), Number]),
    Rows = lists:sort(ets:tab2list(Table)),
    Sent = Sent0 ++ [{P, N} || {sent, P, N} <- Rows],
    Refused = Refused0 ++ [{P, N} || {refused, P, N} <- Rows],
    ByErlang = [{P, N} || {received, _, _, P, N} <- Rows],
    Received = lists:append(Received0) ++ ByErlang,
    Unknown = length([1 || {unknown, 1} <- Rows]),
    Unique = lists:usort(Received),
    ?assertEqual([], Received -- Unique),
    ?assertEqual([], ordsets:intersection(Unique, lists:usort(Refused))),
    Missing = ordsets:subtract(lists:usort(Sent), Unique),
    ?assert(length(Missing) =< Unknown, {acknowledged_and_lost, Missing, Unknown}),
    #{size := 0, messages := 0, waiters := 0, total_in := In, total_out := Out} = Info = info(Flow),
    ?assertEqual(In, Out),
    ?assertMatch({#{coroutine := 0, thread := 0, process := 0}, #{coroutine := 0, thread := 0, process := 0}},
                 {maps:get(receivers, Info), maps:get(senders, Info)}),
    ?assert(Out - length(Received) =< Unknown),
    Strict andalso in_order(Received0, ByErlang),
    {length(Sent), length(Received), length(Refused), Unknown}.

%% Those of one producer, for a consumer that nobody disturbed and the one that drained after it.
in_order(ByPython, ByErlang) ->
    [?assertEqual(lists:sort(Numbers), Numbers)
     || One <- [lists:append(ByPython), ByErlang],
        P <- lists:usort([P || {P, _} <- One]),
        Numbers <- [[N || {Q, N} <- One, Q =:= P]]].
