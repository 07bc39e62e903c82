%% @private
%% @doc Delivers the messages of a channel to a process that subscribed to it.
%%
%% Each subscription has a process of its own, which receives from the channel while it has credits.  It
%% wakes up once for many messages, and decodes the large ones as any process does, yielding.
-module(beamloop_subscription).

-export([set/3, stop/2]).

-import(beamloop_channel, [take/2, wait/3, claim/1]).

-type active() :: boolean() | once | pos_integer().

-record(subscription, {
    kind :: beamloop_nif:kind(),
    channel :: reference(),
    subscriber :: pid(),
    monitor :: reference(),
    active = false :: active()
}).

%% --- the subscriber's side ---

%% @doc Subscribes the calling process, or changes its credits; false when they become too many.
-spec set(reference(), beamloop_nif:kind(), boolean() | once | integer()) ->
          ok | false | {error, system_limit}.
set(Channel, Kind, Active) ->
    case ask(Channel, Kind, {active, Active}) of
        none -> start(Channel, Kind, Active);
        Answer -> Answer
    end.

%% @doc Ends the calling process's subscription.
-spec stop(reference(), beamloop_nif:kind()) -> ok.
stop(Channel, Kind) ->
    _ = ask(Channel, Kind, stop),
    ok.

start(Channel, Kind, Active) ->
    Subscriber = self(),
    Deliverer = spawn(fun() -> init(Channel, Kind, Subscriber) end),
    case beamloop_nif:nif_channel_subscribe(Channel, Kind, Deliverer) of
        ok -> set(Channel, Kind, Active);
        Error -> exit(Deliverer, kill), Error
    end.

%% What the deliverer answers; none when there is none.
ask(Channel, Kind, Request) ->
    case beamloop_nif:nif_channel_subscription(Channel, Kind) of
        none ->
            none;
        Deliverer ->
            Ref = monitor(process, Deliverer),
            Deliverer ! {?MODULE, Ref, Request},
            receive
                {Ref, Answer} -> demonitor(Ref, [flush]), Answer;
                {'DOWN', Ref, process, Deliverer, _} -> none
            end
    end.

%% --- the deliverer ---

init(Channel, Kind, Subscriber) ->
    Monitor = monitor(process, Subscriber),
    run(#subscription{kind = Kind, channel = Channel, subscriber = Subscriber, monitor = Monitor}).

%% Requests go first.
run(#subscription{active = false} = S) ->
    receive
        Message -> control(Message, S)
    end;
run(S) ->
    receive
        Message -> control(Message, S)
    after 0 ->
        %% Nothing is to be taken out for a process that is dying.
        case is_process_alive(S#subscription.subscriber) of
            true -> next(take(S#subscription.channel, S#subscription.kind), S);
            false -> finish(S)
        end
    end.

next(empty, S) ->
    Ref = make_ref(),
    case wait(S#subscription.channel, S#subscription.kind, Ref) of
        {wait, Receiver} -> waiting(Ref, Receiver, S);
        Result -> next(Result, S)
    end;
next({ok, Term}, S) ->
    run(deliver({data, Term}, S));
next({error, bad_message} = Error, S) ->
    run(deliver(Error, S));
next({error, closed}, S) ->
    tell(closed, S),
    finish(S);
%% Memory was short for a waiter, and nothing tells when there is some again.
next({error, system_limit}, S) ->
    ok = timer:sleep(10),
    run(S).

%% A request that comes may forbid to deliver what has been handed meanwhile: that goes back.
waiting(Ref, Receiver, S) ->
    receive
        {Ref, handed} ->
            next(claim(Receiver), S);
        Message ->
            _ = beamloop_nif:nif_channel_recv_give_up(Receiver) orelse
                receive {Ref, handed} -> ok end,
            control(Message, S)
    end.

control({'DOWN', Monitor, process, _, _}, #subscription{monitor = Monitor} = S) ->
    finish(S);
control({?MODULE, Ref, stop}, #subscription{subscriber = Subscriber} = S) ->
    finish(S),
    Subscriber ! {Ref, ok},
    ok;
control({?MODULE, Ref, {active, Active}}, #subscription{subscriber = Subscriber} = S) ->
    case credits(Active, S#subscription.active) of
        too_many ->
            Subscriber ! {Ref, false},
            run(S);
        passive ->
            Subscriber ! {Ref, ok},
            tell(passive, S),
            run(S#subscription{active = false});
        New ->
            Subscriber ! {Ref, ok},
            run(S#subscription{active = New})
    end;
control(_Other, S) ->
    run(S).

%% As gen_tcp counts them.
credits(N, Old) when is_integer(N), is_integer(Old) -> count(Old + N);
credits(N, _Old) when is_integer(N) -> count(N);
credits(Active, _Old) -> Active.

count(N) when N > 32767 -> too_many;
count(N) when N > 0 -> N;
count(_) -> passive.

deliver(What, #subscription{active = Active} = S) ->
    tell(What, S),
    case Active of
        true -> S;
        once -> S#subscription{active = false};
        1 -> tell(passive, S), S#subscription{active = false};
        N -> S#subscription{active = N - 1}
    end.

tell(What, #subscription{kind = Kind, subscriber = Subscriber, channel = Channel}) ->
    Subscriber ! {tag(Kind), Channel, What},
    ok.

tag(terms) -> py_channel;
tag(bytes) -> py_byte_channel.

finish(#subscription{kind = Kind, channel = Channel, subscriber = Subscriber}) ->
    beamloop_nif:nif_channel_unsubscribe(Channel, Kind, Subscriber).
