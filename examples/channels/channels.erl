%% Channels at work on the lines of a text: a request and its response, a stream, a pool of workers, and
%% backpressure.  Each ends with status 0 when Erlang comes to the same result by itself.
%%
%%   ./run pattern request_response | stream | worker_pool | backpressure [PATH]
-module(channels).

-export([main/0]).

-define(WORKERS, 4).
-define(MAX_SIZE, 8192).

-spec main() -> no_return().
main() ->
    [Name, Path] = init:get_plain_arguments(),
    case file:read_file(Path) of
        {ok, Text} ->
            {ok, _} = application:ensure_all_started(beamloop),
            ok = py:exec(["import sys\nsys.path.insert(0, '", source_dir(), "')\n"]),
            Lines = binary:split(Text, <<"\n">>, [global]),
            Agreed = run(Name, Lines),
            io:format("~ts~n", [case Agreed of true -> "agreed"; false -> "DIFFERENT" end]),
            halt(case Agreed of true -> 0; false -> 1 end);
        {error, Reason} ->
            io:format(standard_error, "~ts: ~ts~n", [Path, file:format_error(Reason)]),
            halt(2)
    end.

run("request_response", Lines) -> request_response(Lines);
run("stream", Lines) -> stream(Lines);
run("worker_pool", Lines) -> worker_pool(Lines);
run("backpressure", Lines) -> backpressure(Lines).

%% --- request and response -------------------------------------------------------------------

%% Asks for the checksum of each line and waits for it.
request_response(Lines) ->
    {ok, Ch} = py_channel:new(),
    Server = start(handle_requests, [Ch]),
    Answers = [request(Ch, Line) || Line <- Lines],
    ok = py_channel:close(Ch),
    Served = result(Server),
    io:format("~b requests answered, last ~.16b~n", [Served, lists:last(Answers)]),
    Answers =:= [erlang:crc32(Line) || Line <- Lines] andalso Served =:= length(Lines).

request(Ch, Data) ->
    ok = py_channel:send(Ch, {request, self(), Data}),
    receive
        {response, Result} -> Result
    after 10000 ->
        error(no_response)
    end.

%% --- a stream -------------------------------------------------------------------------------

%% Sends all lines, waiting for room where there is none; closing ends the stream.
stream(Lines) ->
    {ok, Ch} = py_channel:new(#{max_size => ?MAX_SIZE}),
    Reader = start(run_stream, [Ch]),
    lists:foreach(fun(Line) -> ok = py_channel:send(Ch, Line, infinity) end, Lines),
    ok = py_channel:close(Ch),
    {Count, Bytes, Digest} = result(Reader),
    io:format("~b lines, ~b bytes streamed~n", [Count, Bytes]),
    {Count, Bytes, Digest} =:= {length(Lines), iolist_size(Lines), erlang:md5(Lines)}.

%% --- a pool of workers ----------------------------------------------------------------------

%% Work goes to whichever worker is free; what they find comes back through the same channel.
worker_pool(Lines) ->
    {ok, Ch} = py_channel:new(#{max_size => 100000}),
    Pool = start(run_pool, [Ch, ?WORKERS]),
    Numbered = lists:enumerate(Lines),
    _ = spawn_link(fun() ->
        [ok = py_channel:send(Ch, {work, Item}, infinity) || Item <- Numbered],
        ok = py_channel:close(Ch, write)
    end),
    Found = [begin {ok, R} = py_channel:recv(Ch, 10000), R end || _ <- Lines],
    ByWorker = result(Pool),
    ok = py_channel:close(Ch),
    io:format("~b words; lines by worker: ~w~n", [lists:sum([W || {_, W} <- Found]), ByWorker]),
    lists:sort(Found) =:= [{N, words(Line)} || {N, Line} <- Numbered]
        andalso lists:sum(ByWorker) =:= length(Lines).

words(Line) ->
    length(string:lexemes(Line, " \t\r\n\v\f")).

%% --- backpressure ---------------------------------------------------------------------------

%% A reader that takes its time: the channel never holds more than it may, and the sender is told.
backpressure(Lines) ->
    {ok, Ch} = py_channel:new(#{max_size => ?MAX_SIZE}),
    Reader = start(run_slow_reader, [Ch]),
    {Busy, Largest} = send_all(Ch, Lines, 0, 0),
    ok = py_channel:close(Ch),
    {Count, Bytes, Batches} = result(Reader),
    io:format("~b lines in ~b batches; a full channel met ~b times; at most ~b of ~b bytes queued~n",
              [Count, Batches, Busy, Largest, ?MAX_SIZE]),
    Busy > 0 andalso Largest =< ?MAX_SIZE
        andalso {Count, Bytes} =:= {length(Lines), iolist_size(Lines)}.

send_all(_Ch, [], Busy, Largest) ->
    {Busy, Largest};
send_all(Ch, [Line | Rest], Busy, Largest) ->
    Was = case py_channel:send(Ch, Line) of
        ok -> 0;
        busy ->
            %% Sleeps until there is room, and its turn has come.
            ok = py_channel:send(Ch, Line, infinity),
            1
    end,
    #{size := Size} = py_channel:info(Ch),
    send_all(Ch, Rest, Busy + Was, max(Largest, Size)).

%% --- Python calls ---------------------------------------------------------------------------

start(Function, Arguments) ->
    spawn_monitor(fun() -> exit({result, py:call(patterns, Function, Arguments)}) end).

result({Pid, Monitor}) ->
    receive
        {'DOWN', Monitor, process, Pid, {result, {ok, Result}}} -> Result;
        {'DOWN', Monitor, process, Pid, Reason} -> error({python_failed, Reason})
    end.

source_dir() ->
    filename:dirname(proplists:get_value(source, module_info(compile))).
