%% escript compare.escript ROUNDS
%%
%% A channel against a reactor, from an Erlang process to Python code.  All measures take turns in each
%% round; shown are the medians and the ranges.
-mode(compile).

-define(BOUND, 512). % messages that may be queued

main([Rounds]) ->
    {ok, _} = application:ensure_all_started(beamloop),
    Folder = filename:dirname(escript:script_name()),
    ok = py:exec(["import sys\nsys.path.insert(0, '", Folder, "')\n"]),
    Measures = [{Way, Size} || Size <- [64, 1024, 16384], Way <- ways()],
    Results = [[{Measure, measure(Measure)} || Measure <- rotate(N, Measures)]
               || N <- lists:seq(0, list_to_integer(Rounds))],
    %% The first round warms up.
    report(Measures, lists:append(tl(Results))),
    halt(0).

ways() -> [channel, messages, stream, request, echo].

rotate(N, List) ->
    {Before, After} = lists:split(N * 4 rem length(List), List),
    After ++ Before.

count(64) -> 200000;
count(1024) -> 200000;
count(16384) -> 40000.

trips() -> 5000.

%% {Nanoseconds, nanoseconds of CPU} a message or a round trip.
measure({request, Size}) ->
    {ok, Channel} = py_channel:new(),
    ok = py_event_loop:spawn_task(receivers, answer, [Channel]),
    Data = binary:copy(<<"x">>, Size),
    Result = trips(fun() ->
        ok = py_channel:send(Channel, {request, self(), Data}),
        receive {response, Data} -> ok end
    end),
    ok = py_channel:close(Channel),
    Result;
measure({echo, Size}) ->
    Data = binary:copy(<<"x">>, Size),
    over_reactor('Echo', none, raw, fun(Socket) ->
        trips(fun() ->
            ok = gen_tcp:send(Socket, Data),
            {ok, Data} = gen_tcp:recv(Socket, Size)
        end)
    end);
measure({channel, Size}) ->
    Bound = ?BOUND * max(1024, Size),
    {ok, Channel} = py_channel:new(#{max_size => Bound, low_watermark => Bound div 2}),
    received(channel, Size, fun(Name, Data, Count) ->
        ok = py_event_loop:spawn_task(receivers, drain, [Name, Channel]),
        repeat(Count, fun() -> ok = py_channel:send(Channel, Data, infinity) end),
        fun() -> ok = py_channel:close(Channel) end
    end);
measure({messages, Size}) ->
    received(messages, Size, fun(Name, Data, Count) ->
        over_reactor('Messages', Name, 4, fun(Socket) ->
            repeat(Count, fun() -> ok = gen_tcp:send(Socket, Data) end),
            fun() -> ok end
        end)
    end);
measure({stream, Size}) ->
    received(stream, Size, fun(Name, Data, Count) ->
        over_reactor('Stream', {Name, Size}, raw, fun(Socket) ->
            repeat(Count, fun() -> ok = gen_tcp:send(Socket, Data) end),
            fun() -> ok end
        end)
    end).

received(Way, Size, Send) ->
    Name = iolist_to_binary([atom_to_list(Way), integer_to_list(Size)]),
    Count = count(Size),
    {ok, none} = py_event_loop:run(receivers, measure, [Name, Count]),
    End = Send(Name, binary:copy(<<"x">>, Size), Count),
    {ok, {Elapsed, Spent, Received}} = py_event_loop:run(receivers, result, [Name]),
    End(),
    {Elapsed / Received, Spent / Received}.

trips(Trip) ->
    repeat(100, Trip),
    {ok, Before} = py:call(time, process_time_ns, []),
    {Us, ok} = timer:tc(fun() -> repeat(trips(), Trip) end),
    {ok, After} = py:call(time, process_time_ns, []),
    {Us * 1000 / trips(), (After - Before) / trips()}.

%% The reactor drains before it ends: everything sent has been received.
over_reactor(Protocol, Info, Packet, Use) ->
    {ok, Reactor} = py_reactor:start_link(#{protocol => {receivers, Protocol}}),
    {ok, Listener} = gen_tcp:listen(0, [binary, {active, false}, {ip, {127, 0, 0, 1}}]),
    {ok, Port} = inet:port(Listener),
    {ok, Client} = gen_tcp:connect({127, 0, 0, 1}, Port,
                                   [binary, {active, false}, {nodelay, true}, {packet, Packet}]),
    {ok, Server} = gen_tcp:accept(Listener),
    ok = py_reactor:handoff(Reactor, Server, Info),
    Result = Use(Client),
    [ok = gen_tcp:close(Socket) || Socket <- [Client, Listener]],
    until_empty(Reactor),
    ok = py_reactor:stop(Reactor),
    Result.

until_empty(Reactor) ->
    case py_reactor:info(Reactor) of
        {ok, #{connections := 0}} -> ok;
        _ -> timer:sleep(1), until_empty(Reactor)
    end.

repeat(0, _Function) -> ok;
repeat(N, Function) -> Function(), repeat(N - 1, Function).

%% --- the report -----------------------------------------------------------------------------

report(Measures, Results) ->
    {ok, Python} = py:eval("__import__('platform').python_version()"),
    io:format("~nOTP ~s, CPython ~s, ~b schedulers~n~n"
              "| from Erlang to Python | size | thousand/s | CPU us each |~n|---|---|---|---|~n",
              [erlang:system_info(otp_release), Python, erlang:system_info(schedulers_online)]),
    [begin
         All = [Result || {M, Result} <- Results, M =:= Measure],
         io:format("| ~s | ~b B | ~s | ~s |~n",
                   [title(Way), Size, spread([1.0e6 / Each || {Each, _} <- All], "~.1f"),
                    spread([Spent / 1000 || {_, Spent} <- All], "~.2f")])
     end || {Way, Size} = Measure <- lists:sort(fun by_way/2, Measures)].

by_way({Way1, Size1}, {Way2, Size2}) ->
    {place(Way1), Size1} =< {place(Way2), Size2}.

place(Way) -> length(lists:takewhile(fun(W) -> W =/= Way end, ways())).

title(channel) -> "channel, `send/3` to `async for`";
title(messages) -> "reactor, `gen_tcp:send` to messages behind a length";
title(stream) -> "reactor, `gen_tcp:send` to a stream that is counted";
title(request) -> "channel, request and reply, one at a time";
title(echo) -> "reactor, echo, one at a time".

spread(Numbers, Format) ->
    Sorted = lists:sort(Numbers),
    io_lib:format(Format ++ " [" ++ Format ++ ", " ++ Format ++ "]",
                  [lists:nth((length(Sorted) + 1) div 2, Sorted), hd(Sorted), lists:last(Sorted)]).
