%% A channel as PropEr drives it: random commands against a model, in either direction, with processes,
%% threads and coroutines that send and receive at the same time, are killed, and see the channel closed
%% or its owner die.
%%
%% The model says for each command what it answers, which of those who waited end by it and with what,
%% and what info/1 counts afterwards.  It runs twice: as PropEr's abstract state, and along with the
%% real channel, so that commands can be left out when a failing run is shrunk.
-module(channel_statem).

-export([property/1]).
-export([initial_state/0, command/1, precondition/2, next_state/3, postcondition/3]).
-export([run/1]).

-import(proper_types, [oneof/1, frequency/1, integer/2, binary/1, tuple/1, elements/1]).

%% direction: to_python or to_erlang; max: of messages; queue: what is queued; receivers, senders: who
%% waits, in order, a sender with its message; closed; next: the number of the next one who comes.
initial(Direction, Max) ->
    #{direction => Direction, max => Max, queue => [], receivers => [], senders => [],
      closed => false, next => 1}.

property(Count) ->
    Setup = tuple([elements([to_python, to_erlang]), integer(1, 3)]),
    proper:numtests(Count, proper:forall(Setup, fun({Direction, Max}) ->
        Initial = initial(Direction, Max),
        proper:forall(proper_statem:commands(?MODULE, Initial), fun(Commands) ->
            begin_run(Direction, Max),
            {_History, _State, Result} = proper_statem:run_commands(?MODULE, Commands),
            Problem = end_run(),
            proper:whenfail(
                fun() -> io:format("~p ~p~n~p~n~p~n", [Direction, Max, Commands, Problem]) end,
                fun() -> Result =:= ok end)
        end)
    end)).

%% ---- what PropEr calls ----

initial_state() ->
    initial(to_python, 1).

command(#{receivers := Receivers, senders := Senders}) ->
    Wait = [{send_wait, kind(), message()}, {receive_wait, kind()}],
    Kill = [{kill, Who} || Who <- Receivers ++ [Id || {Id, _} <- Senders]],
    Command = frequency(
        [{4, {send, message()}}, {4, try_receive}, {1, close}, {1, kill_owner}] ++
        [{6, C} || C <- Wait] ++ [{3, oneof(Kill)} || Kill =/= []]),
    {call, ?MODULE, run, [Command]}.

precondition(#{receivers := Receivers, senders := Senders}, {call, _, run, [{kill, Who}]}) ->
    lists:member(Who, Receivers) orelse lists:keymember(Who, 1, Senders);
precondition(_, _) ->
    true.

next_state(Model, _Result, {call, _, run, [Command]}) ->
    {_Answer, _Ends, Next} = step(Command, Model),
    Next.

postcondition(_Model, _Call, Result) ->
    Result =:= as_expected.

kind() ->
    oneof([thread, coroutine]).

message() ->
    Large = [binary:copy(<<Byte>>, 5000) || Byte <- "abc"],
    oneof([integer(-1000, 1000), binary(3), {a_tuple, integer(0, 9)}, elements(Large)]).

%% ---- the model: {Answer, [{Who, Result}], Model} ----

step({send, Message}, Model) ->
    case admit(Message, Model) of
        {waits, _} -> {busy, [], Model};
        {Answer, Ends, Next} -> {Answer, Ends, Next}
    end;
step({send_wait, _Kind, Message}, Model = #{next := Who, senders := Senders}) ->
    case admit(Message, Model#{next := Who + 1}) of
        {waits, Next} -> {started, [], Next#{senders := Senders ++ [{Who, Message}]}};
        {Answer, Ends, Next} -> {started, [{Who, Answer} | Ends], Next}
    end;
step(try_receive, Model) ->
    take(Model);
step({receive_wait, _Kind}, Model = #{next := Who, receivers := Receivers}) ->
    case take(Model#{next := Who + 1}) of
        {empty, [], Next} -> {started, [], Next#{receivers := Receivers ++ [Who]}};
        {Answer, Ends, Next} -> {started, [{Who, Answer} | Ends], Next}
    end;
step({kill, Who}, Model = #{receivers := Receivers, senders := Senders}) ->
    {killed, [], Model#{receivers := lists:delete(Who, Receivers),
                        senders := lists:keydelete(Who, 1, Senders)}};
step(Close, Model = #{receivers := Receivers, senders := Senders})
  when Close =:= close; Close =:= kill_owner ->
    %% Who waits for a message has nothing to wait for: nothing is queued while somebody waits.
    {closed, [{Who, closed} || Who <- Receivers ++ [Id || {Id, _} <- Senders]],
     Model#{closed := true, receivers := [], senders := []}}.

admit(_, Model = #{closed := true}) ->
    {closed, [], Model};
admit(Message, Model = #{receivers := [First | Others]}) ->
    {ok, [{First, {ok, Message}}], Model#{receivers := Others}};
admit(Message, Model = #{queue := Queue, max := Max, senders := []}) when length(Queue) < Max ->
    {ok, [], Model#{queue := Queue ++ [Message]}};
admit(_, Model) ->
    {waits, Model}.

take(Model = #{queue := [Message | Queue], senders := [{First, Next} | Others]}) ->
    {{ok, Message}, [{First, ok}], Model#{queue := Queue ++ [Next], senders := Others}};
take(Model = #{queue := [Message | Queue]}) ->
    {{ok, Message}, [], Model#{queue := Queue}};
take(Model = #{closed := true}) ->
    {closed, [], Model};
take(Model) ->
    {empty, [], Model}.

%% ---- the channel ----

begin_run(Direction, Max) ->
    Owner = spawn(fun() -> receive stop -> ok end end),
    {ok, Channel} = py_channel:new(#{max_messages => Max, owner => Owner}),
    put(run, #{channel => Channel, owner => Owner, actors => #{}, problem => none,
               model => initial(Direction, Max)}).

end_run() ->
    #{channel := Channel, owner := Owner, actors := Actors, problem := Problem} = erase(run),
    py_channel:close(Channel),
    [end_of(Actor, kill) || Actor <- [{Owner, monitor(process, Owner)} | maps:values(Actors)]],
    Problem.

end_of({Pid, Monitor}, Reason) ->
    exit(Pid, Reason),
    receive {'DOWN', Monitor, process, Pid, Why} -> Why end.

%% as_expected, or what was different.  PropEr does not get through an exception on every OTP.
run(Command) ->
    Outcome = try
        run_both(Command)
    catch
        Class:Reason:Stack -> {Class, Reason, Stack}
    end,
    put(run, (get(run))#{problem := Outcome}),
    Outcome.

run_both(Command) ->
    Run = #{model := Model, channel := Channel, actors := Actors} = get(run),
    {Answer, Ends, Next} = step(Command, Model),
    {Got, Started} = perform(Command, Model, Run),
    All = maps:merge(Actors, Started),
    GotEnds = [{Who, result(maps:get(Who, All))} || {Who, _} <- Ends],
    Info = settled_info(Channel, Next, 500),
    Expected = {Answer, Ends, info_of(Next)},
    Gone = [Who || {Who, _} <- Ends] ++ [Who || {kill, Who} <- [Command]],
    put(run, Run#{model := Next, actors := maps:without(Gone, All)}),
    case {Got, GotEnds, Info} of
        Expected -> as_expected;
        Other -> {Other, instead_of, Expected}
    end.

perform({send, Message}, #{direction := Direction}, #{channel := Channel}) ->
    {send(Direction, Channel, Message), #{}};
perform(try_receive, #{direction := Direction}, #{channel := Channel}) ->
    {try_receive(Direction, Channel), #{}};
perform({send_wait, Kind, Message}, #{direction := Direction, next := Who}, #{channel := Channel}) ->
    {started, #{Who => start(fun() -> send_wait(Direction, Kind, Channel, Message) end)}};
perform({receive_wait, Kind}, #{direction := Direction, next := Who}, #{channel := Channel}) ->
    {started, #{Who => start(fun() -> receive_wait(Direction, Kind, Channel) end)}};
perform({kill, Who}, _, #{actors := Actors}) ->
    {end_of(maps:get(Who, Actors), kill), #{}};
perform(close, _, #{channel := Channel}) ->
    ok = py_channel:close(Channel),
    {closed, #{}};
perform(kill_owner, _, #{owner := Owner}) ->
    exit(Owner, kill),
    {closed, #{}}.

start(Function) ->
    spawn_monitor(fun() -> exit({result, Function()}) end).

result({Pid, Monitor}) ->
    receive {'DOWN', Monitor, process, Pid, {result, Result}} -> Result
    after 10000 -> waits_still
    end.

%% A claim, a death and a close of a dead owner's channel take their time.
settled_info(Channel, Model, Tries) ->
    Info = info(maps:get(direction, Model), py_channel:info(Channel)),
    case info_of(Model) of
        Info -> Info;
        _ when Tries =:= 0 -> Info;
        _ -> timer:sleep(2), settled_info(Channel, Model, Tries - 1)
    end.

info(to_erlang, #{to_erlang := Info}) ->
    info(to_python, Info);
info(to_python, #{messages := Messages, receivers := Receivers, senders := Senders,
                  closed := Closed}) ->
    Sum = fun(ByKind) -> lists:sum(maps:values(ByKind)) end,
    {Messages, Sum(Receivers), Sum(Senders), Closed}.

info_of(#{queue := Queue, receivers := Receivers, senders := Senders, closed := Closed}) ->
    {length(Queue), length(Receivers), length(Senders), Closed}.

send(to_python, Channel, Message) -> answer(py_channel:send(Channel, Message));
send(to_erlang, Channel, Message) -> python(try_send, [Channel, Message]).

send_wait(to_python, _, Channel, Message) -> answer(py_channel:send(Channel, Message, infinity));
send_wait(to_erlang, Kind, Channel, Message) -> python(Kind, send, [Channel, Message]).

try_receive(to_python, Channel) -> python(try_receive, [Channel]);
try_receive(to_erlang, Channel) -> answer(py_channel:try_recv(Channel)).

receive_wait(to_python, Kind, Channel) -> python(Kind, 'receive', [Channel]);
receive_wait(to_erlang, _, Channel) -> answer(py_channel:recv(Channel)).

answer({error, Reason}) -> Reason;
answer(Answer) -> Answer.

python(Kind, Function, Args) ->
    case Kind of
        thread -> python(Function, Args);
        coroutine -> python_answer(py_event_loop:run(channel_actors, "async_" ++
                                                     atom_to_list(Function), Args))
    end.

python(Function, Args) ->
    python_answer(py:call(channel_actors, Function, Args)).

python_answer({ok, Answer}) -> Answer;
%% An exception's name is an atom only where one exists: none is made here, as other suites run in this node.
python_answer({error, {<<"ChannelClosed">>, _, _}}) -> closed;
python_answer(Other) -> Other.
