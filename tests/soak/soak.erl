%% All kinds of load for some minutes: what the node holds and what each kind has done, line by line, and a
%% verdict.  Samples go to samples.csv in the folder that is given, for the plot.
%%
%% The node is judged by what it lost or doubled (each turn of a kind checks that), by kinds that did
%% nothing for an interval, by counters that do not go back to zero once all has ended, and, in runs that
%% are long enough for the memory to have settled, by how fast it grows in the second half.
-module(soak).
-behaviour(gen_event).

-export([main/0, slope/1]).
-export([init/1, handle_event/2, handle_call/2]).

%% Megabytes, or thousands of objects, that may be more after each further minute.
-define(SLOPE_MAX, 0.5).
%% Shorter runs are not judged by their memory.
-define(SETTLED_SECONDS, 600).
-define(SAMPLES, 300).
-define(LINES, 4).

-define(MEMORY, [rss, total, binary, malloc, python_objects, python_blocks]).

main() ->
    [Minutes, Folder] = init:get_plain_arguments(),
    Seconds = number(Minutes) * 60,
    Seconds > 0 orelse usage(),
    {ok, _} = application:ensure_all_started(beamloop),
    interrupted_by_signal(),
    Load = soak_load:start(soak_load:kinds(), 2),
    header(Seconds),
    ok = filelib:ensure_dir(filename:join(Folder, ".")),
    {ok, File} = file:open(filename:join(Folder, "samples.csv"), [write]),
    Samples = run(Load, Seconds, File),
    ok = soak_load:stop(Load),
    ok = file:close(File),
    Left = left(),
    halt(verdict(Load, Samples, Left)).

number(Text) ->
    case string:to_float(Text) of
        {Float, ""} -> Float;
        _ -> case string:to_integer(Text) of {Integer, ""} -> Integer; _ -> usage() end
    end.

usage() ->
    io:format(standard_error, "usage: ./run soak MINUTES~n", []),
    halt(2).

header(Seconds) ->
    {ok, Python} = py:eval("__import__('platform').python_version()"),
    io:format("OTP ~s, CPython ~s, ~p schedulers, for ~p s~n",
              [erlang:system_info(otp_release), Python, erlang:system_info(schedulers_online),
               round(Seconds)]).

%% --- an end before its time: SIGUSR2, which `./run soak` sends at Ctrl-C --------------------------------

interrupted_by_signal() ->
    ok = os:set_signal(sigusr2, handle),
    ok = gen_event:add_handler(erl_signal_server, ?MODULE, self()).

init(Pid) -> {ok, Pid}.

handle_event(sigusr2, Pid) -> Pid ! interrupted, {ok, Pid};
handle_event(_, Pid) -> {ok, Pid}.

handle_call(_, Pid) -> {ok, ok, Pid}.

%% --- the run ----------------------------------------------------------------------------------------

%% Samples every so many seconds, oldest first; a line for every minute, or for a part of a short run.
run(Load, Seconds, File) ->
    Now = erlang:monotonic_time(millisecond),
    Every = round(max(1000, Seconds * 1000 / ?SAMPLES)),
    Line = round(min(60000, Seconds * 1000 / ?LINES)),
    First = sample(Load, Now),
    write_names(File, First),
    lists:reverse(run(#{load => Load, file => File, started => Now, every => Every, line => Line,
                        until => Now + round(Seconds * 1000)}, Now, Now, First, [First])).

run(#{every := Every, line := Line, until := Until} = Run, NextSample, NextLine, Before, Samples) ->
    Due = min(NextSample + Every, Until),
    Interrupted = receive interrupted -> true
                  after max(0, Due - erlang:monotonic_time(millisecond)) -> false
                  end,
    Sample = sample(maps:get(load, Run), maps:get(started, Run)),
    write(maps:get(file, Run), Sample),
    Last = Interrupted orelse Due >= Until,
    case Last orelse Due >= NextLine + Line of
        true -> line(Before, Sample);
        false -> ok
    end,
    case Last of
        true -> [Sample | Samples];
        false when Due >= NextLine + Line -> run(Run, Due, NextLine + Line, Sample, [Sample | Samples]);
        false -> run(Run, Due, NextLine, Before, [Sample | Samples])
    end.

%% Everything that is counted, in an order that stays.
sample(Load, Started) ->
    Memory = maps:from_list(erlang:memory()),
    {Channels, Blocks} = beamloop_nif:nif_channel_live(),
    {ok, {Objects, PythonBlocks, Malloc}} = py:call(soak_actors, memory, []),
    Info = maps:remove(state, py:info()),
    {Errors, _} = soak_load:errors(Load),
    #{seconds => (erlang:monotonic_time(millisecond) - Started) / 1000,
      memory => [{rss, status("VmRSS") / 1024}, {total, maps:get(total, Memory) / 1048576},
                 {binary, maps:get(binary, Memory) / 1048576}, {malloc, Malloc / 1048576}, {python_objects, Objects / 1000},
                 {python_blocks, PythonBlocks / 1000}],
      counters => [{channels, Channels}, {blocks, Blocks}] ++ lists:sort(maps:to_list(Info)) ++
                  loop_counters() ++
                  [{processes, erlang:system_info(process_count)}, {fds, descriptors()},
                   {threads, status("Threads")}],
      errors => Errors,
      turns => lists:zip(soak_load:names(Load), soak_load:turns(Load))}.

loop_counters() ->
    {ok, Loop} = py_event_loop:info(),
    [{Key, maps:get(Key, Loop)} || Key <- [tasks, timers, watched, sources]].

status(Key) ->
    {ok, Status} = file:read_file("/proc/self/status"),
    {match, [Number]} = re:run(Status, Key ++ ":\\s*([0-9]+)", [{capture, [1], list}]),
    list_to_integer(Number).

descriptors() ->
    {ok, Names} = file:list_dir("/proc/self/fd"),
    length(Names).

write_names(File, Sample) ->
    io:format(File, "~s~n", [lists:join(",", [atom_to_list(Name) || {Name, _} <- columns(Sample)])]).

write(File, Sample) ->
    io:format(File, "~s~n", [lists:join(",", [io_lib:format("~p", [V]) || {_, V} <- columns(Sample)])]).

columns(#{seconds := Seconds, memory := Memory, counters := Counters, errors := Errors, turns := Turns}) ->
    [{seconds, Seconds}] ++ Memory ++ Counters ++ [{errors, Errors}] ++
        [{list_to_atom("turns_" ++ atom_to_list(Name)), Turn} || {Name, Turn} <- Turns].

%% Three lines: what there is, and how much of each kind was done in a second since the line before.
line(Before, #{seconds := Seconds, memory := Memory, counters := Counters, errors := Errors} = Sample) ->
    Sizes = [io_lib:format("~s ~.1f~s, ", [Name, float(V), unit(Name)]) || {Name, V} <- Memory],
    io:format("~7.1f s  ~serrors ~p~n           ~s~n           per second: ~s~n",
              [float(Seconds), Sizes, Errors, words("~p ~p", Counters),
               words("~p ~.1f", rates(Before, Sample))]).

unit(python_objects) -> " thousand";
unit(python_blocks) -> " thousand";
unit(_) -> " MB".

words(Format, Pairs) ->
    lists:join(", ", [io_lib:format(Format, [Name, V]) || {Name, V} <- Pairs]).

rates(#{seconds := S0, turns := T0}, #{seconds := S1, turns := T1}) ->
    [{Name, (New - Old) / max(0.001, S1 - S0)} || {{Name, New}, {Name, Old}} <- lists:zip(T1, T0)].

%% --- the verdict ----------------------------------------------------------------------------------------

%% What is left of all that was made, some time after the end.
left() ->
    left(500).

left(Tries) ->
    {ok, _} = py:eval("__import__('gc').collect()"),
    {ok, #{tasks := Tasks}} = py_event_loop:info(),
    [garbage_collect(Pid) || Pid <- processes()],
    {Channels, Blocks} = beamloop_nif:nif_channel_live(),
    Kept = maps:with([calls, queued, objects, pending_decrefs, loops, descriptors, abandoned_workers],
                     py:info()),
    Counted = [{channels, Channels}, {blocks, Blocks}, {tasks, Tasks} | maps:to_list(Kept)],
    case [Pair || {_, Count} = Pair <- Counted, Count =/= 0] of
        [] -> [];
        Left when Tries =:= 0 -> Left;
        _ -> timer:sleep(20), left(Tries - 1)
    end.

%% The exit status.
verdict(Load, Samples, Left) ->
    {Errors, Kept} = soak_load:errors(Load),
    [io:format("error in ~p: ~p~n", [Name, Error]) || {Name, Error} <- Kept],
    Faults =
        [io_lib:format("~p errors", [Errors]) || Errors > 0] ++
        [io_lib:format("~p stood still from ~.1f to ~.1f s", [Name, From, To])
         || {Name, From, To} <- stood_still(Samples)] ++
        [io_lib:format("left at the end: ~p", [Left]) || Left =/= []] ++
        [io_lib:format("~p grew by ~.2f~s a minute in the second half, more than ~p",
                       [Name, S, unit(Name), ?SLOPE_MAX])
         || {Name, S} <- slopes(Samples), S > ?SLOPE_MAX, is_settled(Samples)],
    io:format("~s~n", [lists:join(", ", [io_lib:format("~p ~s~.3f~s a minute",
                                                      [Name, [$+ || S >= 0], S, unit(Name)])
                                        || {Name, S} <- slopes(Samples)])]),
    io:format("~s", [["FAULT: " ++ Fault ++ "\n" || Fault <- Faults]]),
    io:format("~s~n", [case Faults of
                           [] when length(Samples) > 1 -> verdict_good(is_settled(Samples));
                           _ -> "soak: failed"
                       end]),
    case Faults of [] -> 0; _ -> 1 end.

verdict_good(true) -> "soak: good; the memory is flat";
verdict_good(false) -> "soak: good; too short to judge the memory".

is_settled(Samples) ->
    maps:get(seconds, lists:last(Samples)) >= ?SETTLED_SECONDS.

%% Each kind has to have done something in each half of the run, and in each minute of it.
stood_still(Samples) ->
    Length = maps:get(seconds, lists:last(Samples)),
    Marks = marks(Samples, min(60, Length / 2), 0),
    [{Name, float(From), float(To)}
     || {#{seconds := From, turns := T0}, #{seconds := To, turns := T1}} <-
            lists:zip(lists:droplast(Marks), tl(Marks)),
        {{Name, Same}, {Name, Same}} <- lists:zip(T0, T1)].

marks([Last], _, _) -> [Last];
marks([#{seconds := Seconds} = Sample | Rest], Step, Next) when Seconds >= Next ->
    [Sample | marks(Rest, Step, Seconds + Step)];
marks([_ | Rest], Step, Next) -> marks(Rest, Step, Next).

%% By how much each kind of memory grew in a minute, in the second half.
slopes(Samples) ->
    Half = maps:get(seconds, lists:last(Samples)) / 2,
    Second = [Sample || #{seconds := Seconds} = Sample <- Samples, Seconds >= Half],
    [{Name, 60 * slope([{Seconds, proplists:get_value(Name, Memory)}
                        || #{seconds := Seconds, memory := Memory} <- Second])} || Name <- ?MEMORY].

%% @doc The slope of Theil and Sen: the median of the slopes between any two points, which single peaks do
%% not move.
slope(Points) ->
    Slopes = [(Y2 - Y1) / (X2 - X1) || {X1, Y1} <- Points, {X2, Y2} <- Points, X2 > X1],
    case lists:sort(Slopes) of
        [] -> 0.0;
        Sorted -> float(lists:nth((length(Sorted) + 1) div 2, Sorted))
    end.
