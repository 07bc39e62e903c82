%% escript main.escript [--rounds N] [--scale PERCENT] [MEASURE...]
%%
%% Prints, for each measure of a channel, what was asked, what was measured (the median of all rounds and
%% the range), and the floors of the same run.
-mode(compile).

main(Args) ->
    {Options, Wanted} = options(Args, #{rounds => 5, scale => 100}),
    {ok, _} = application:ensure_all_started(beamloop),
    Folder = filename:dirname(escript:script_name()),
    prepare(Folder),
    Groups = lists:usort([element(1, M) || M <- measures(Options)]),
    Wanted -- Groups =:= [] orelse no_measure(Wanted -- Groups, Groups),
    header(Options),
    Measures = [M || M <- measures(Options), Wanted =:= [] orelse lists:member(element(1, M), Wanted)],
    Rounds = [round_of(N, Measures) || N <- lists:seq(1, maps:get(rounds, Options))],
    report(Measures, Rounds),
    halt(0).

options(["--rounds", N | Rest], Options) ->
    options(Rest, Options#{rounds => list_to_integer(N)});
options(["--scale", Percent | Rest], Options) ->
    options(Rest, Options#{scale => list_to_integer(Percent)});
options([Name | Rest], Options) ->
    {Found, Wanted} = options(Rest, Options),
    {Found, [list_to_atom(Name) | Wanted]};
options([], Options) ->
    {Options, []}.

no_measure(Unknown, Groups) ->
    io:format(standard_error, "no measure ~s; there are: ~s~n",
              [lists:join(", ", [atom_to_list(U) || U <- Unknown]),
               lists:join(", ", [atom_to_list(G) || G <- Groups])]),
    halt(2).

%% Compiles the two sides and the floors into a directory of their own.
prepare(Folder) ->
    Out = filename:join([os:getenv("TMPDIR", "/tmp"), "beamloop-bench-" ++ os:getpid()]),
    Library = filename:join(Out, "floors"),
    ok = filelib:ensure_dir(Library),
    Include = filename:join([code:root_dir(), "usr", "include"]),
    Command = lists:join($\s, ["cc -O2 -shared -fPIC -I", Include, filename:join(Folder, "floors.c"),
                               "-o", Library ++ ".so -lpthread 2>&1"]),
    "" = os:cmd(lists:flatten(Command)),
    [load(filename:join(Folder, Name)) || Name <- ["channel_bench.erl", "byte_bench.erl"]],
    ok = channel_bench:load(Library),
    ok = file:del_dir_r(Out),
    import("channel_consumers", filename:join(Folder, "consumers.py")),
    import("byte_consumers", filename:join(Folder, "byte_consumers.py")).

load(Source) ->
    {ok, Module, Code} = compile:file(Source, [binary, report]),
    {module, Module} = code:load_binary(Module, Source, Code).

import(Name, Source) ->
    ok = py:exec(["import importlib.util, sys\n"
                  "s = importlib.util.spec_from_file_location('", Name, "', '", Source, "')\n"
                  "sys.modules['", Name, "'] = m = importlib.util.module_from_spec(s)\n"
                  "s.loader.exec_module(m)\n"]).

header(#{rounds := Rounds, scale := Scale}) ->
    {ok, Python} = py:eval("__import__('platform').python_version()"),
    {ok, Load} = file:read_file("/proc/loadavg"),
    io:format("OTP ~s, CPython ~s, ~p schedulers, emulator flags: ~s; ~p rounds, scale ~p %, load ~s~n~n",
              [erlang:system_info(otp_release), Python, erlang:system_info(schedulers_online),
               flags(), Rounds, Scale, hd(string:lexemes(Load, " "))]).

flags() ->
    case init:get_arguments() of
        Arguments ->
            Flags = [F || {F, _} <- Arguments, lists:prefix("+", atom_to_list(F))],
            case Flags of [] -> "defaults"; _ -> io_lib:format("~p", [Flags]) end
    end.

%% {Group, Label, Unit, Today, Asked, Function}: Function gives nanoseconds for one.
measures(#{scale := Scale}) ->
    Count = fun(N) -> max(1000, N * Scale div 100 div 1000 * 1000) end,
    [{send, ["send/2 alone, ", text(Size), ", ", atom_to_list(Kind), " binary, ",
             integer_to_list(Count(N)), " queued"], rate, Today,
      case Asked of pin -> {pin, Kind, Size}; _ -> Asked end,
      fun() -> channel_bench:send_alone(Size, Count(N), Kind) end}
     || {Size, N, Today, Asked} <- [{64, 1000000, 0.9, 3.0}, {1024, 1000, 0.7, 2.5},
                                    {1024, 1000000, 0.7, 2.5}, {16384, 100000, 0.2, pin}],
        Kind <- [same, fresh]] ++
    [{Group, [Label, ", producer in ", Call, ", ", text(Size)], rate, Today, Asked,
      fun() -> channel_bench:receive_while_sending(Consumer, Way, Size, Count(N)) end}
     || {Way, Call} <- [{wait, "send/3"}, {retry, "send/2"}],
        {Group, Label, Consumer, Todays} <-
            [{async, "async for", drain_async, [0.12, 0.12, 0.09]},
             {thread, "for on a thread", drain_thread, [0.19, 0.11, 0.09]}],
        {Size, N, {Today, Asked}} <- lists:zip3([64, 1024, 16384], [300000, 300000, 50000],
                                                lists:zip(Todays, [1.5, 1.0, 0.4]))] ++
    [{request, "request -> coroutine -> reply, 64 in flight", rate, 0.111, 0.3,
      fun() -> channel_bench:in_flight(64, Count(100000), 64) end},
     {request, "the same, 1 in flight", trip, {15, 57}, trip,
      fun() -> channel_bench:one_in_flight(64, Count(10000)) end}] ++
    [{to_erlang, [Label, ", ", text(Size)], sent, Size, none,
      fun() -> channel_bench:to_erlang(Sender, How, Size, Count(N)) end}
     || {Label, Sender, How} <-
            [{"send on a thread -> recv/1", send_thread, recv},
             {"async_send -> recv/1", send_async, recv},
             {"try_send on a thread -> recv/1", send_trying, recv},
             {"send on a thread -> subscribe/2", send_thread, subscribe}],
        {Size, N} <- [{64, 200000}, {1024, 200000}, {16384, 50000}]] ++
    [{close, io_lib:format("close/1, ~p processes wait", [Count(50000)]), close, none, none,
      fun() -> channel_bench:close_crowd(Count(50000)) end}] ++
    byte_bench:measures(Count).

text(Bytes) when Bytes < 1024 -> integer_to_list(Bytes) ++ " B";
text(Bytes) -> integer_to_list(Bytes div 1024) ++ " KB".

%% The floors and every measure once, in an order that changes: {Floors, #{Label => Nanoseconds}}.
round_of(N, Measures) ->
    Floors = channel_bench:floors(5000),
    {Before, After} = lists:split(N * 3 rem length(Measures), Measures),
    Results = [{Label, measure(Label, Function)}
               || {_, Label, _, _, _, Function} <- After ++ Before],
    {Floors, maps:from_list(Results)}.

measure(Label, Function) ->
    [garbage_collect(Pid) || Pid <- processes()],
    wait_until_gone(),
    io:format(standard_error, "  ~s~n", [Label]),
    Function().

%% What the last measure queued is released on a thread of its own.
wait_until_gone() ->
    case beamloop_nif:nif_channel_live() of
        {0, 0} -> ok;
        _ -> timer:sleep(10), wait_until_gone()
    end.

%% --- the report -----------------------------------------------------------------------------

report(Measures, Rounds) ->
    Floors = [F || {F, _} <- Rounds],
    Floor = fun(Key) -> median([maps:get(Key, F) || F <- Floors]) end,
    io:format("| measure | today | asked | measured, median [range] | |~n|---|---|---|---|---|~n"),
    [line(Measure, [maps:get(element(2, Measure), R) || {_, R} <- Rounds], Floor)
     || Measure <- Measures],
    io:format("~nFloors of the same run, ns (medians of ~p)~n~n| floor | |~n|---|---|~n",
              [length(Rounds)]),
    [io:format("| ~s | ~.1f |~n", [Name, float(Floor(Key))])
     || {Name, Key} <- [{"an empty NIF call", empty},
                        {"NIF call + pin of 16 KB, one binary", {pin, same, 16384}},
                        {"NIF call + pin of 16 KB, fresh binaries", {pin, fresh, 16384}},
                        {"NIF call + pin of 1 MB, one binary", {pin, same, 1048576}},
                        {"NIF call + pin of 1 MB, fresh binaries", {pin, fresh, 1048576}},
                        {"writing 1 KB of memory that is new to the process", fresh_memory},
                        {"memcpy of 64 B", {copy, 64}}, {"memcpy of 1 KB", {copy, 1024}},
                        {"memcpy of 16 KB", {copy, 16384}}, {"memcpy of 1 MB", {copy, 1048576}},
                        {"enif_send of a fresh binary of 64 B from a thread", {enif_send, 64}},
                        {"the same, 1 KB", {enif_send, 1024}},
                        {"the same, 16 KB", {enif_send, 16384}},
                        {"two threads, condition variables, not pinned: round trip p50", trip_p50},
                        {"the same, p99", trip_p99},
                        {"asyncio.Queue in one thread, put_nowait and get", asyncio_queue}]].

line({Group, Label, rate, Today, Asked, _}, Results, Floor) when Group =:= send; Group =:= byte_send ->
    Lasts = [Last || {_, Last} <- Results],
    Extra = io_lib:format("~.1f ns each, the last tenth ~.1f",
                          [median([Whole || {Whole, _} <- Results]), median(Lasts)]),
    rate_line(Label, Today, Asked, [Whole || {Whole, _} <- Results], Extra, Floor);
line({_, Label, rate, Today, Asked, _}, Results, Floor) ->
    rate_line(Label, Today, Asked, Results, io_lib:format("~.1f ns each", [median(Results)]), Floor);
line({_, Label, sent, Size, _, _}, Results, Floor) ->
    Each = median(Results),
    io:format("| ~s | | | ~s M/s | ~.1f ns each, ~.2f x enif_send |~n",
              [Label, spread([1000 / T || T <- Results], "~.3f"), Each,
               Each / Floor({enif_send, Size})]);
line({_, Label, close, _, _, _}, Results, _Floor) ->
    io:format("| ~s | | | ~s us | ~.1f ms until all are told |~n",
              [Label, spread([Call / 1000 || {Call, _} <- Results], "~.1f"),
               median([All || {_, All} <- Results]) / 1.0e6]);
line({_, Label, trip, {P50, P99}, trip, _}, Results, Floor) ->
    Asked = min(15.0, 1.5 * Floor(trip_p50) / 1000),
    [io:format("| ~s, ~s | ~p us | ~s us | ~s us | |~n",
               [Label, Name, Today, Limit, spread([Ns / 1000 || Ns <- Times], "~.1f")])
     || {Name, Today, Limit, Times} <-
            [{"p50", P50, io_lib:format("~.1f", [Asked]), [A || {A, _} <- Results]},
             {"p99", P99, io_lib:format("~.1f", [3 * Asked]), [B || {_, B} <- Results]}]].

rate_line(Label, Today, Asked, Times, Extra, Floor) ->
    Mark = case Asked of
        {pin, _, _} -> 1000 / (1.2 * Floor(Asked));
        {copy, _} -> 0.8 * 1000 / Floor(Asked);
        none -> none;
        _ -> Asked
    end,
    io:format("| ~s | ~s | ~s | ~s M/s | ~s |~n",
              [Label, rate(Today), rate(Mark), spread([1000 / T || T <- Times], "~.3f"), Extra]).

rate(none) -> "";
rate(Millions) -> io_lib:format("~p M/s", [round(1000 * Millions) / 1000]).

spread(Numbers, Format) ->
    io_lib:format(Format ++ " [" ++ Format ++ ", " ++ Format ++ "]",
                  [median(Numbers), lists:min(Numbers), lists:max(Numbers)]).

median(Numbers) ->
    Sorted = lists:sort(Numbers),
    float(lists:nth((length(Sorted) + 1) div 2, Sorted)).
