%% Schedulers stay free: nothing of ours keeps one for long, at worst and under load.
%%
%% `erlang:system_monitor' tells of a process that ran for more than 5 ms without a pause; but where other
%% programs want the processor, the operating system stops a scheduler in the middle of anything, and such
%% an event says nothing about who is to blame. So the events are no verdict here. Who causes one has to
%% have used a scheduler's time, in one of three ways, and each is measured by what does not depend on
%% other programs:
%%
%% - One call of ours is long. nif_clock.c measures every NIF, destructor and `down' by the CPU time of the
%%   scheduler's own thread. A host that takes the processor away from a whole virtual machine is on that
%%   clock all the same, and so is a first touch of memory: of several runs of a case the shortest counts,
%%   since neither can make a call shorter than it is.
%% - Each call is short and counts as fewer reductions than it costs, so that a process which repeats it runs
%%   for too long. The times between in and out of such a process are traced, and their lower quartile
%%   counts: an interruption makes single ones longer, never most of them, and none shorter.
%% - Something of ours keeps schedulers from others, or wakes so much at a time that they queue. A process on each
%%   scheduler sleeps for a millisecond over and over while everything is under load, and so does a process
%%   of the operating system's; the median of how late the first are is not much above the other's.
%%
%% So an event under load is caused by us only if a call of ours took that long by its thread's clock, and no
%% call may; the events themselves are printed, by where the process went in and out. That all this can
%% fail is tested by a call that burns 20 ms.
-module(scheduler_health_SUITE).

-include_lib("stdlib/include/assert.hrl").
-include_lib("common_test/include/ct.hrl").

-export([all/0, suite/0, init_per_suite/1, end_per_suite/1]).
-export([no_call_is_long_in_the_worst_cases/1, repeated_calls_give_way/1,
         schedulers_are_free_under_load/1, a_long_call_is_found/1]).
-export([import_cases/0, slices/2, watched_load/1]).

%% Of one call, in the shortest of all runs, and of any call under load, in nanoseconds.
-define(CALL_MAX, 1000000).
-define(CALL_MAX_LOADED, 5000000).
%% The lower quartile of what a process runs at a time, in microseconds.
-define(SLICE_MAX, 5000).
%% By how much the median of processes' sleeps may be later than that of the control, in microseconds.
-define(LATE_MAX, 5000).
-define(LONG_SCHEDULE, 5).
-define(RUNS, 3).
-define(LOAD_MS, 8000).

%% As in nif_clock.c.
-define(RECORD, 80).
-define(NAME, 48).

suite() -> [{timetrap, {minutes, 5}}].

all() ->
    [no_call_is_long_in_the_worst_cases, repeated_calls_give_way, schedulers_are_free_under_load,
     a_long_call_is_found].

%% A sanitizer makes everything slow, each thing by another factor.
init_per_suite(Config) ->
    case os:getenv("LD_PRELOAD", "") of
        "" -> Config;
        Preloaded -> {skip, Preloaded}
    end.

end_per_suite(_Config) ->
    ok.

%% --- a node whose calls are clocked -----------------------------------------------------------------

start(Config, Env) ->
    Clock = filename:join(?config(priv_dir, Config), "clock"),
    Tests = filename:dirname(code:which(?MODULE)),
    Ebin = filename:join([Tests, "..", "..", "clocked", "beamloop", "ebin"]),
    {Peer, ok} = vm_node:start([{venv, list_to_binary(os:getenv("VIRTUAL_ENV"))}],
                               #{paths => [Ebin], env => [{"BEAMLOOP_NIF_CLOCK", Clock} | Env]}),
    ok = call(Peer, ?MODULE, import_cases, []),
    {Peer, Clock}.

call(Peer, Module, Function, Args) ->
    peer:call(Peer, Module, Function, Args, 240000).

import_cases() ->
    Folder = filename:dirname(proplists:get_value(source, ?MODULE:module_info(compile))),
    py:exec(["import sys; sys.path.insert(0, '", Folder, "')"]).

clear(Clock) ->
    {ok, File} = file:open(Clock, [read, write, raw, binary]),
    Count = filelib:file_size(Clock) div ?RECORD,
    ok = file:pwrite(File, [{N * ?RECORD + ?NAME, <<0:(?RECORD - ?NAME)/unit:8>>}
                            || N <- lists:seq(0, Count - 1)]),
    file:close(File).

%% #{Name => Nanoseconds of the longest call}
longest(Clock) ->
    {ok, Records} = file:read_file(Clock),
    maps:from_list([{hd(binary:split(Name, <<0>>)), Longest}
                    || <<Name:?NAME/binary, Calls:64/native, Longest:64/native, _:128>> <= Records,
                       Calls > 0]).

%% --- the tests ----------------------------------------------------------------------------------------

no_call_is_long_in_the_worst_cases(Config) ->
    {Peer, Clock} = start(Config, []),
    Long = lists:append([long_calls(Peer, Clock, Case) || Case <- health_cases:cases()]),
    vm_node:stop(Peer),
    ?assertEqual([], Long).

%% Of several runs the shortest.
long_calls(Peer, Clock, Case) ->
    Runs = [begin
                clear(Clock),
                ok = call(Peer, health_cases, run, [Case, Time]),
                longest(Clock)
            end || Time <- lists:seq(1, ?RUNS)],
    Shortest = lists:foldl(fun(A, B) -> maps:intersect_with(fun(_, X, Y) -> min(X, Y) end, A, B) end,
                           hd(Runs), tl(Runs)),
    Sorted = lists:reverse(lists:keysort(2, maps:to_list(Shortest))),
    ct:pal("~p, us of CPU: ~s", [Case, [io_lib:format("~s ~.1f, ", [Name, Ns / 1000])
                                       || {Name, Ns} <- lists:sublist(Sorted, 4)]]),
    [{Case, Name, Ns} || {Name, Ns} <- Sorted, Ns > ?CALL_MAX].

repeated_calls_give_way(Config) ->
    {Peer, _} = start(Config, []),
    Quartiles = [{Name, call(Peer, ?MODULE, slices, [Name, 400])} || Name <- health_cases:repeated()],
    vm_node:stop(Peer),
    ct:pal("us that a process runs at a time: lower quartile, median, how many~n~p", [Quartiles]),
    ?assertEqual([], [{Name, Found} || {Name, {Quartile, _, _} = Found} <- Quartiles,
                                       Quartile > ?SLICE_MAX]).

%% In the peer: the lower quartile and the median of how long a process runs that repeats a call.
slices(Name, Milliseconds) ->
    Self = self(),
    {Pid, Monitor} = spawn_monitor(fun() ->
        receive start -> ok end,
        health_cases:repeat(Name, Milliseconds),
        %% So that the last time ends by a pause too.
        receive after 1 -> exit(done) end
    end),
    Tracer = spawn_link(fun() -> trace(Self, Pid, []) end),
    1 = erlang:trace(Pid, true, [running, monotonic_timestamp, {tracer, Tracer}]),
    Pid ! start,
    receive {'DOWN', Monitor, process, Pid, done} -> ok end,
    Ref = erlang:trace_delivered(Pid),
    receive {trace_delivered, Pid, Ref} -> Tracer ! ended end,
    receive {slices, Slices} ->
        Sorted = lists:sort(Slices),
        {nth(Sorted, 4), nth(Sorted, 2), length(Sorted)}
    end.

nth(Sorted, Part) ->
    lists:nth(length(Sorted) div Part + 1, Sorted) div 1000.

trace(To, Pid, Slices) ->
    receive
        {trace_ts, Pid, in, _, In} ->
            receive {trace_ts, Pid, How, _, Out} when How =/= in -> trace(To, Pid, [Out - In | Slices])
            after 1000 -> trace(To, Pid, Slices)
            end;
        ended ->
            To ! {slices, Slices}
    end.

schedulers_are_free_under_load(Config) ->
    {Peer, Clock} = start(Config, []),
    clear(Clock),
    #{events := Events, late := Late, control := Control, queues := Queues, turns := Turns,
      errors := Errors} =
        call(Peer, ?MODULE, watched_load, [?LOAD_MS]),
    Longest = lists:reverse(lists:keysort(2, maps:to_list(longest(Clock)))),
    vm_node:stop(Peer),
    ct:pal("longest calls, ns of CPU: ~p~nlate by, us, median and 99 %: ~p, control ~p~n"
           "run queues, mean and most: ~p~nturns ~p~nevents: ~p",
           [lists:sublist(Longest, 6), Late, Control, Queues, Turns, Events]),
    ?assertEqual({0, []}, Errors),
    ?assertEqual([], [Turn || {_, 0} = Turn <- Turns]),
    ?assertEqual([], [Long || {_, Ns} = Long <- Longest, Ns > ?CALL_MAX_LOADED]),
    ?assert(element(1, Late) < element(1, Control) + ?LATE_MAX).

a_long_call_is_found(Config) ->
    {Peer, Clock} = start(Config, [{"BEAMLOOP_NIF_CLOCK_BURN", "nif_channel_info/2"}]),
    ?assertMatch([{many_senders, <<"nif_channel_info/2">>, Ns}] when Ns >= 20000000,
                 long_calls(Peer, Clock, many_senders)),
    {Quartile, _, _} = call(Peer, ?MODULE, slices, [info, 1000]),
    ?assert(Quartile > ?SLICE_MAX),
    vm_node:stop(Peer).

%% --- in the peer: the soak's load, watched ------------------------------------------------------------

watched_load(Milliseconds) ->
    Watcher = spawn_link(fun() -> watch(#{}) end),
    erlang:system_monitor(Watcher, [{long_schedule, ?LONG_SCHEDULE}, {long_gc, ?LONG_SCHEDULE}]),
    Load = soak_load:start(soak_load:kinds(), 0.2),
    Worst = spawn_link(fun() -> worst_cases([many_terms, references, large_binaries, many_channels]) end),
    Probes = [spawn_opt(fun() -> probe([]) end, [link, {scheduler, N}])
              || N <- lists:seq(1, erlang:system_info(schedulers_online))],
    Control = start_control(),
    Queues = queues(Milliseconds div 10),
    Late = lists:append([ended(Probe) || Probe <- Probes]),
    ControlLate = control_ended(Control),
    ok = ended(Worst),
    Turns = lists:zip(soak_load:names(Load), soak_load:turns(Load)),
    ok = soak_load:stop(Load),
    #{events => ended(Watcher), late => summary(Late), control => summary(ControlLate),
      queues => {lists:sum(Queues) / length(Queues), lists:max(Queues)}, turns => Turns,
      errors => soak_load:errors(Load)}.

%% What such a process has found by now.
ended(Pid) ->
    Pid ! {ended, self()},
    receive {Pid, Result} -> Result end.

%% #{{Event, In, Out} => {How many, Longest in ms}}
watch(Events) ->
    receive
        {monitor, _, long_schedule, Info} ->
            watch(add({schedule, proplists:get_value(in, Info), proplists:get_value(out, Info)},
                      proplists:get_value(timeout, Info), Events));
        {monitor, _, long_gc, Info} ->
            watch(add(gc, proplists:get_value(timeout, Info), Events));
        {ended, From} ->
            From ! {self(), Events}
    end.

add(Event, Milliseconds, Events) ->
    {Count, Longest} = maps:get(Event, Events, {0, 0}),
    Events#{Event => {Count + 1, max(Longest, Milliseconds)}}.

worst_cases([Case | Rest]) ->
    {Pid, Monitor} = spawn_monitor(fun() -> health_cases:run_alone(Case) end),
    receive {'DOWN', Monitor, process, Pid, normal} -> ok end,
    receive {ended, From} -> From ! {self(), ok}
    after 0 -> worst_cases(Rest ++ [Case])
    end.

%% Microseconds by which it woke late.
probe(Late) ->
    Before = erlang:monotonic_time(microsecond),
    receive
        {ended, From} -> From ! {self(), Late}
    after 1 ->
        probe([erlang:monotonic_time(microsecond) - Before - 1000 | Late])
    end.

%% The same in a program of its own.
start_control() ->
    Code = "import select, sys, time\n"
           "late = []\n"
           "while not select.select([sys.stdin], [], [], 0)[0]:\n"
           "    before = time.monotonic_ns()\n"
           "    time.sleep(0.001)\n"
           "    late.append((time.monotonic_ns() - before - 1000000) // 1000)\n"
           "print(' '.join(map(str, late)), flush=True)\n",
    {ok, Python} = py:eval("__import__('sys').executable"),
    open_port({spawn_executable, Python}, [{args, ["-S", "-c", Code]}, {line, 10000000}]).

control_ended(Port) ->
    port_command(Port, "\n"),
    receive {Port, {data, {eol, Line}}} -> [list_to_integer(Word) || Word <- string:lexemes(Line, " ")] end.

%% How many processes and ports were ready to run, every 10 ms.
queues(0) -> [];
queues(Left) ->
    timer:sleep(10),
    [lists:sum(erlang:statistics(run_queue_lengths_all)) | queues(Left - 1)].

%% The median and the 99th percentile.
summary(Numbers) ->
    Sorted = lists:sort(Numbers),
    {lists:nth(length(Sorted) div 2 + 1, Sorted), lists:nth(length(Sorted) * 99 div 100 + 1, Sorted)}.
