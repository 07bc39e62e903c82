%% Kinds of load: channels of terms, in both directions.
-module(soak_channels).

-export([kinds/0]).

-define(BATCH, 40).
-define(WAIT, 30000).
-define(OPTIONS, #{owner => self(), max_size => 262144}).

kinds() ->
    [echo(async_for, echo_async), echo(async_many, echo_async_many), echo(thread, echo_thread),
     echo(thread_many, echo_thread_many),
     #{name => select, start => fun start_select/0, turn => fun select/1, pause => 10},
     #{name => crowd, start => fun start_crowd/0, turn => fun crowd/1, pause => 10},
     #{name => recv, start => fun new/0, turn => fun recv/1, pause => 10},
     #{name => subscribe, start => fun new/0, turn => fun subscribe/1, pause => 10},
     #{name => open_close, start => fun() -> 0 end, turn => fun open_close/1, pause => 20}].

new() ->
    {ok, Channel} = py_channel:new(?OPTIONS),
    {Channel, 0}.

%% --- what is sent comes back in order, and nothing else ---------------------------------------------

echo(Name, Function) ->
    #{name => Name, start => fun() -> start_echo(Function) end, turn => fun echo_turn/1, pause => 10}.

start_echo(Function) ->
    {Channel, 0} = new(),
    start_receiver(Function, [Channel]),
    {Channel, 0}.

%% A function of soak_actors until its channel closes, which is when this process ends.
start_receiver(Function, Arguments) ->
    Call = [atom_to_binary(Function) | Arguments],
    _ = spawn_link(fun() -> {ok, none} = py:call(soak_actors, run, Call) end),
    ok.

echo_turn({Channel, Turn}) ->
    Terms = [{N, term(N)} || N <- lists:seq(Turn * ?BATCH, Turn * ?BATCH + ?BATCH - 1)],
    send_all(Turn rem 3, Channel, Terms),
    same(Terms, [take(Channel) || _ <- Terms]),
    {error, empty} = py_channel:try_recv(Channel),
    {?BATCH, {Channel, Turn + 1}}.

send_all(0, Channel, Terms) ->
    lists:foreach(fun(Term) -> send_busy(Channel, Term) end, Terms);
send_all(1, Channel, Terms) ->
    [ok = py_channel:send(Channel, Term, ?WAIT) || Term <- Terms],
    ok;
send_all(2, Channel, Terms) ->
    case py_channel:send_many(Channel, Terms) of
        ok -> ok;
        {busy, Sent} -> send_all(1, Channel, lists:nthtail(Sent, Terms))
    end.

send_busy(Channel, Term) ->
    case py_channel:send(Channel, Term) of
        ok -> ok;
        busy -> timer:sleep(1), send_busy(Channel, Term)
    end.

take(Channel) ->
    {ok, Term} = py_channel:recv(Channel, ?WAIT),
    Term.

same(Sent, Received) when Sent =:= Received -> ok;
same(Sent, Received) -> error({not_the_same, Sent -- Received, Received -- Sent}).

%% Of many sizes and types, the same each time for one number.
term(N) ->
    case N rem 10 of
        0 -> N;
        1 -> binary:copy(<<N:32>>, 16);
        2 -> #{N => [N, N / 3, <<"map">>], {a, key} => true};
        3 -> {ok, self(), make_ref(), [N | -N]};
        4 -> binary:copy(<<N:32>>, 1500);
        5 -> [{I, integer_to_binary(I)} || I <- lists:seq(1, 30)];
        6 -> 1 bsl (N rem 900);
        7 -> {nested, lists:foldl(fun(I, Inner) -> [I, Inner] end, [], lists:seq(1, 60)),
              binary:copy(<<N:32>>, 300)};
        8 -> [];
        9 -> none
    end.

%% --- one message of one of several channels ----------------------------------------------------

start_select() ->
    Channels = [element(1, new()) || _ <- [a, b, c]],
    {ok, Answers} = py_channel:new(?OPTIONS),
    start_receiver(select_async, [Channels, Answers]),
    start_receiver(select_thread, [Channels, Answers]),
    {Channels, Answers, 0}.

select({Channels, Answers, Turn}) ->
    Sent = [{Turn, I} || I <- lists:seq(1, ?BATCH)],
    [ok = py_channel:send(lists:nth(1 + I rem 3, Channels), Term, ?WAIT) || {_, I} = Term <- Sent],
    same(Sent, lists:sort([take(Answers) || _ <- Sent])),
    {error, empty} = py_channel:try_recv(Answers),
    {?BATCH, {Channels, Answers, Turn + 1}}.

%% --- receivers that are cancelled and time out while they share a channel -------------------------

start_crowd() ->
    {Channel, 0} = new(),
    start_receiver(crowd_async, [Channel]),
    start_receiver(crowd_thread, [Channel]),
    {Channel, 0}.

crowd({Channel, Turn}) ->
    Sent = [{Turn, I} || I <- lists:seq(1, ?BATCH)],
    [begin
         ok = py_channel:send(Channel, Term, ?WAIT),
         I rem 8 =:= 0 andalso timer:sleep(rand:uniform(4))
     end || {_, I} = Term <- Sent],
    same(Sent, lists:sort([take(Channel) || _ <- Sent])),
    {error, empty} = py_channel:try_recv(Channel),
    {?BATCH, {Channel, Turn + 1}}.

%% --- from Python, to processes that time out and die ------------------------------------------------

recv({Channel, Turn}) ->
    kill_waiting(Channel),
    Self = self(),
    Receivers = [spawn_link(fun() -> receive_some(Channel, Self) end) || _ <- [a, b, c]],
    produce(Channel, Turn, ?BATCH),
    Expected = [{Turn, I} || I <- lists:seq(0, ?BATCH - 1)],
    same(Expected, lists:sort([receive {got, M} -> M after ?WAIT -> lost end || _ <- Expected])),
    [begin unlink(R), stop_receiver(R) end || R <- Receivers],
    receive {got, More} -> error({doubled, More}) after 0 -> ok end,
    {?BATCH, {Channel, Turn + 1}}.

%% What it might be handed later goes to those who live.
kill_waiting(Channel) ->
    {Pid, Monitor} = spawn_monitor(fun() -> py_channel:recv(Channel) end),
    timer:sleep(rand:uniform(3) - 1),
    exit(Pid, kill),
    receive {'DOWN', Monitor, process, Pid, killed} -> ok end.

stop_receiver(Pid) ->
    Monitor = monitor(process, Pid),
    Pid ! stop,
    receive {'DOWN', Monitor, process, Pid, _} -> ok end.

receive_some(Channel, Driver) ->
    case py_channel:recv(Channel, rand:uniform(5)) of
        {ok, Message} -> Driver ! {got, Message};
        {error, timeout} -> ok
    end,
    receive stop -> ok after 0 -> receive_some(Channel, Driver) end.

produce(Channel, Turn, Count) ->
    ok = py_event_loop:spawn_task(soak_actors, produce, [Channel, Turn, Count]).

subscribe({Channel, Turn}) ->
    Expected = [{Turn, I} || I <- lists:seq(0, ?BATCH - 1)],
    ok = py_channel:subscribe(Channel, #{active => case Turn rem 2 of 0 -> true; 1 -> ?BATCH end}),
    produce(Channel, Turn, ?BATCH),
    same(Expected, [receive {py_channel, Channel, {data, M}} -> M after ?WAIT -> lost end
                    || _ <- Expected]),
    case Turn rem 2 of
        0 -> ok = py_channel:unsubscribe(Channel);
        1 -> receive {py_channel, Channel, passive} -> ok after ?WAIT -> error(not_passive) end
    end,
    receive {py_channel, Channel, More} -> error({doubled, More}) after 0 -> ok end,
    {?BATCH, {Channel, Turn + 1}}.

%% --- channels that begin and end ----------------------------------------------------------------

open_close(Turn) ->
    open_close(Turn rem 5, Turn),
    {1, Turn + 1}.

%% Closed with messages in it, and drained.
open_close(0, Turn) ->
    {ok, Channel} = py_channel:new(),
    ok = py_channel:send_many(Channel, lists:seq(1, 500)),
    ok = py_channel:close(Channel),
    {error, closed} = py_channel:send(Channel, Turn),
    {ok, 500} = py_event_loop:run(soak_actors, count, [Channel]);
%% Forgotten with messages in it, with a channel in one of them.
open_close(1, Turn) ->
    {ok, Channel} = py_channel:new(),
    {ok, Other} = py_channel:new(),
    ok = py_channel:send(Channel, {Turn, Other, binary:copy(<<0>>, 100000)});
%% Its owner is killed while Python waits.
open_close(2, _Turn) ->
    {Owner, Monitor} = spawn_monitor(fun() -> receive never -> ok end end),
    {ok, Channel} = py_channel:new(#{owner => Owner}),
    {ok, Task} = py_event_loop:create_task(soak_actors, count, [Channel]),
    exit(Owner, kill),
    receive {'DOWN', Monitor, process, Owner, killed} -> ok end,
    {ok, 0} = py_event_loop:await(Task, ?WAIT);
%% Senders and receivers wait and learn of the end.
open_close(3, _Turn) ->
    {ok, Channel} = py_channel:new(#{max_messages => 1}),
    ok = py_channel:send(Channel, 0),
    Waiting = [spawn_monitor(fun() -> exit(Wait()) end)
               || Wait <- [fun() -> py_channel:send(Channel, 1, ?WAIT) end,
                           fun() -> py_channel:recv(Channel, ?WAIT) end]],
    timer:sleep(2),
    ok = py_channel:close(Channel),
    [receive {'DOWN', Monitor, process, Pid, Result} -> {error, closed} = Result end
     || {Pid, Monitor} <- Waiting];
%% Made and closed by Python, and used in between.
open_close(4, Turn) ->
    {ok, Turn} = py_event_loop:run(soak_actors, own_channel, [self(), Turn]),
    receive
        {own_channel, Channel, Turn} ->
            {ok, Turn} = py_channel:recv(Channel, ?WAIT),
            {error, closed} = py_channel:recv(Channel, ?WAIT)
    after ?WAIT ->
        error(no_channel)
    end.
