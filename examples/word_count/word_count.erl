%% Several Erlang processes stream the lines of a text through one channel to Python coroutines,
%% which count the words and answer each sender, while an asyncio server on the same loop tells
%% socket clients the running totals.  Ends with 0 when the total agrees with an independent count.
%%
%%   ./run demo [PATH]
-module(word_count).

-export([main/0, main/1]).

-define(DEFAULT_TEXT, "/usr/share/common-licenses/GPL-3").
-define(PASSES, 20).
-define(PRODUCERS, 4).
-define(WORKERS, 4).
-define(CLIENTS, 2).
%% Queued at most, in bytes; and lines that one producer has under way at most.
-define(MAX_SIZE, 16384).
-define(WINDOW, 256).

-spec main() -> no_return().
main() ->
    main(init:get_plain_arguments()).

-spec main([string()]) -> no_return().
main([]) ->
    main([?DEFAULT_TEXT]);
main([Path]) ->
    case file:read_file(Path) of
        {ok, Text} ->
            {ok, _} = application:ensure_all_started(beamloop),
            Agreed = count(Path, Text),
            halt(case Agreed of true -> 0; false -> 1 end);
        {error, Reason} ->
            io:format(standard_error, "~ts: ~ts~n", [Path, file:format_error(Reason)]),
            halt(2)
    end.

count(Path, Text) ->
    ok = py:exec(["import sys\nsys.path.insert(0, '", source_dir(), "')\n"]),
    {ok, Channel} = py_channel:new(#{max_size => ?MAX_SIZE}),
    Self = self(),
    {Runner, RunnerMonitor} =
        spawn_monitor(fun() ->
            exit({result, py:call(word_count, run, [Channel, Self, ?WORKERS])})
        end),
    Port = receive
        {listening, P} -> P;
        {'DOWN', RunnerMonitor, process, Runner, Why} -> error({python_failed, Why})
    end,
    io:format("~ts: ~b bytes, ~b times, ~b producers, ~b workers, server on 127.0.0.1:~b~n",
              [Path, byte_size(Text), ?PASSES, ?PRODUCERS, ?WORKERS, Port]),
    Clients = [client(Port) || _ <- lists:seq(1, ?CLIENTS)],
    Lines = binary:split(Text, <<"\n">>, [global]),
    Started = erlang:monotonic_time(),
    Results = produce(Channel, Lines),
    Elapsed = erlang:convert_time_unit(erlang:monotonic_time() - Started, native, microsecond),
    Answers = [finish_client(C) || C <- Clients],
    ok = py_channel:close(Channel),
    Report = receive
        {'DOWN', RunnerMonitor, process, Runner, {result, {ok, R}}} -> R;
        {'DOWN', RunnerMonitor, process, Runner, Reason} -> error({python_failed, Reason})
    end,
    judge(Text, Lines, Results, Answers, Report, Elapsed).

%% Prints what happened; true when every count agrees.
judge(Text, Lines, Results, Answers, Report, Elapsed) ->
    ExpectedLines = length(Lines) * ?PASSES,
    ExpectedWords = independent_count(Text) * ?PASSES,
    AnsweredWords = lists:sum([W || {_, W, _} <- Results]),
    Busy = lists:sum([B || {_, _, B} <- Results]),
    #{<<"lines">> := PyLines, <<"words">> := PyWords, <<"top">> := Top,
      <<"by_worker">> := ByWorker, <<"loop">> := Loop} = Report,
    io:format("Python (~ts) counted ~b words in ~b lines; most frequent:~ts~n",
              [Loop, PyWords, PyLines, [[" ", W, $=, integer_to_list(N)] || {W, N} <- Top]]),
    io:format("lines by worker: ~w; sends that met a full queue: ~b~n",
              [[N || {_, N} <- lists:sort(maps:to_list(ByWorker))], Busy]),
    io:format("~b lines in ~.3f s: ~b lines/s, each sent, counted and answered~n",
              [PyLines, Elapsed / 1.0e6, round(PyLines * 1.0e6 / max(1, Elapsed))]),
    [io:format("client ~b: ~b answers, last \"~ts\"~n", [N, Count, string:trim(Last)])
     || {N, {Count, Last}} <- lists:enumerate(Answers)],
    Final = iolist_to_binary(io_lib:format("~b lines, ~b words\n", [ExpectedLines, ExpectedWords])),
    Agreed = PyWords =:= ExpectedWords andalso AnsweredWords =:= ExpectedWords
        andalso PyLines =:= ExpectedLines
        andalso lists:all(fun({_, Last}) -> Last =:= Final end, Answers),
    io:format("independent count: ~b words in ~b lines: ~ts~n",
              [ExpectedWords, ExpectedLines, case Agreed of true -> "agreed"; false -> "DIFFERENT" end]),
    Agreed.

%% By a regular expression over the whole text, nothing of what Python does.
independent_count(Text) ->
    case re:run(Text, <<"[^ \\t\\n\\x0b\\f\\r]+">>, [global, {capture, first, index}]) of
        {match, Matches} -> length(Matches);
        nomatch -> 0
    end.

%% --- producers ------------------------------------------------------------------------------

%% Deals the lines out to the producers and waits for them: [{Lines, Words, TimesBusy}].
produce(Channel, Lines) ->
    Producers = [spawn_monitor(fun() -> exit({done, producer(Channel, Share)}) end)
                 || Share <- deal(Lines)],
    [receive {'DOWN', M, process, Pid, {done, Result}} -> Result;
             {'DOWN', M, process, Pid, Reason} -> error({producer_failed, Reason})
     end || {Pid, M} <- Producers].

deal(Lines) ->
    Numbered = lists:enumerate(Lines),
    [[L || {N, L} <- Numbered, N rem ?PRODUCERS =:= Share] || Share <- lists:seq(0, ?PRODUCERS - 1)].

producer(Channel, Share) ->
    All = lists:append(lists:duplicate(?PASSES, Share)),
    send_lines(Channel, All, 0, #{}, 0, 0).

%% UnderWay holds the numbers of the lines that Python has not answered yet.
send_lines(_Channel, [], Number, UnderWay, Words, Busy) when map_size(UnderWay) =:= 0 ->
    {Number, Words, Busy};
send_lines(Channel, [Line | Rest], Number, UnderWay, Words, Busy)
  when map_size(UnderWay) < ?WINDOW ->
    case py_channel:send(Channel, {line, self(), Number, Line}) of
        ok ->
            send_lines(Channel, Rest, Number + 1, UnderWay#{Number => []}, Words, Busy);
        busy when map_size(UnderWay) > 0 ->
            {Left, More} = await_answer(UnderWay),
            send_lines(Channel, [Line | Rest], Number, Left, Words + More, Busy + 1);
        busy ->
            %% The room is taken by the others, and no answer will tell when there is some again.
            ok = py_channel:send(Channel, {line, self(), Number, Line}, infinity),
            send_lines(Channel, Rest, Number + 1, UnderWay#{Number => []}, Words, Busy + 1)
    end;
send_lines(Channel, Lines, Number, UnderWay, Words, Busy) ->
    {Left, More} = await_answer(UnderWay),
    send_lines(Channel, Lines, Number, Left, Words + More, Busy).

await_answer(UnderWay) ->
    receive
        {counted, Number, Words} when is_map_key(Number, UnderWay) ->
            {maps:remove(Number, UnderWay), Words}
    after 30000 ->
        error({no_answer, map_size(UnderWay)})
    end.

%% --- socket clients -------------------------------------------------------------------------

%% A client that asks for the totals over and over until it is told to finish.
client(Port) ->
    spawn_monitor(fun() ->
        {ok, Socket} = gen_tcp:connect({127, 0, 0, 1}, Port,
                                       [binary, {packet, line}, {active, false}]),
        exit({client, ask(Socket, 0, 0)})
    end).

finish_client({Pid, Monitor}) ->
    Pid ! finish,
    receive
        {'DOWN', Monitor, process, Pid, {client, Result}} -> Result;
        {'DOWN', Monitor, process, Pid, Reason} -> error({client_failed, Reason})
    end.

%% Asks every few milliseconds; the totals may only grow.
ask(Socket, Count, Before) ->
    Finish = receive finish -> true after 5 -> false end,
    ok = gen_tcp:send(Socket, <<"totals\n">>),
    {ok, Answer} = gen_tcp:recv(Socket, 0, 30000),
    {ok, [Lines, _Words], _} = io_lib:fread("~d lines, ~d words", binary_to_list(Answer)),
    true = Lines >= Before,
    case Finish of
        true ->
            ok = gen_tcp:close(Socket),
            {Count + 1, Answer};
        false ->
            ask(Socket, Count + 1, Lines)
    end.

source_dir() ->
    case os:getenv("BEAMLOOP_EXAMPLES") of
        false -> filename:dirname(proplists:get_value(source, module_info(compile)));
        Dir -> filename:join(Dir, "word_count")
    end.
