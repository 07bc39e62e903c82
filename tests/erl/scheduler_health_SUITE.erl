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
%%   for too long. Of such a process the reductions are counted, and the CPU time of our calls by the same
%%   clock: what it takes in the 4,000 reductions after which the emulator lets another process run.
%% - Something of ours keeps schedulers from others, or wakes so much at a time that they queue. A process on each
%%   scheduler sleeps for a millisecond over and over while everything is under load, and so does a process
%%   of the operating system's; the median of how late the first are is not much above the other's.
%%
%% So an event under load is caused by us only if calls of ours took that long by their thread's clock, and none
%% may (in the best of three runs, for a host that takes the processor away); the events are printed, by where the process went in and out. That all this can
%% fail is tested by a call that burns 20 ms.
-module(scheduler_health_SUITE).

-include_lib("stdlib/include/assert.hrl").
-include_lib("common_test/include/ct.hrl").

-export([all/0, suite/0, init_per_suite/1, end_per_suite/1]).
-export([no_call_is_long_in_the_worst_cases/1, repeated_calls_give_way/1,
         schedulers_are_free_under_load/1, a_long_call_is_found/1]).
-export([import_cases/0, prepare/1, repeat/1, watched_load/1]).

%% Of one call, in the shortest of all runs, and of any call under load, in nanoseconds.  The first is meant to be
%% a millisecond; as much again is left to slow machines.
-define(CALL_MAX, 2000000).
-define(CALL_MAX_LOADED, 5000000).
%% Microseconds of CPU that a process may take before another has its turn, which is after so many reductions.
-define(SLICE_MAX, 5000).
-define(SLICE_REDUCTIONS, 4000).
%% By how much the median of processes' sleeps may be later than that of the control, in microseconds.
-define(LATE_MAX, 20000).
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

%% Nanoseconds of all calls together.
total(Clock) ->
    {ok, Records} = file:read_file(Clock),
    lists:sum([Total || <<_:?NAME/binary, _:128, Total:64/native, _:64>> <= Records]).

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
    {Peer, Clock} = start(Config, []),
    Slices = [{Name, slice(Peer, Clock, Name)} || Name <- health_cases:repeated()],
    vm_node:stop(Peer),
    ct:pal("us of CPU in 4,000 reductions: ~p", [Slices]),
    ?assertEqual([], [Long || {_, Us} = Long <- Slices, Us > ?SLICE_MAX]).

%% Microseconds of CPU that calls of ours take from a process which repeats one, in as many reductions as it
%% may do before another has its turn.
slice(Peer, Clock, Name) ->
    ok = call(Peer, ?MODULE, prepare, [Name]),
    clear(Clock),
    Reductions = call(Peer, ?MODULE, repeat, [300]),
    total(Clock) * ?SLICE_REDUCTIONS div Reductions div 1000.

%% In the peer.  A process makes what the call needs, and waits.
prepare(Name) ->
    Self = self(),
    spawn(fun() ->
        true = register(repeating, self()),
        Call = health_cases:prepare(Name),
        Self ! prepared,
        receive {repeat, Milliseconds, From} ->
            {reductions, Before} = process_info(self(), reductions),
            health_cases:repeat(Call, Milliseconds),
            {reductions, After} = process_info(self(), reductions),
            unregister(repeating),
            From ! {reductions, After - Before}
        end
    end),
    receive prepared -> ok end.

%% In the peer.  How many reductions that process counts while it repeats the call.
repeat(Milliseconds) ->
    repeating ! {repeat, Milliseconds, self()},
    receive {reductions, Reductions} -> Reductions end.

schedulers_are_free_under_load(Config) ->
    {Peer, Clock} = start(Config, []),
    Found = loaded(Peer, Clock, ?RUNS),
    vm_node:stop(Peer),
    ?assertEqual(good, Found).

%% What is wrong in the last of several runs, if none was good.
loaded(Peer, Clock, Runs) ->
    clear(Clock),
    #{late := Late, control := Control, turns := Turns, errors := Errors} = Watched =
        call(Peer, ?MODULE, watched_load, [?LOAD_MS]),
    Longest = lists:reverse(lists:keysort(2, maps:to_list(longest(Clock)))),
    ct:pal("longest calls, ns of CPU: ~p~n~p", [lists:sublist(Longest, 6), Watched]),
    ?assertEqual({0, []}, Errors),
    ?assertEqual([], [Turn || {_, 0} = Turn <- Turns]),
    Long = [Call || {_, Ns} = Call <- Longest, Ns > ?CALL_MAX_LOADED],
    case Long =:= [] andalso element(1, Late) < element(1, Control) + ?LATE_MAX of
        true -> good;
        false when Runs > 1 -> loaded(Peer, Clock, Runs - 1);
        false -> {Long, Late, Control}
    end.

a_long_call_is_found(Config) ->
    {Peer, Clock} = start(Config, [{"BEAMLOOP_NIF_CLOCK_BURN", "nif_channel_info/2"}]),
    ?assertMatch([{many_senders, <<"nif_channel_info/2">>, Ns}] when Ns >= 20000000,
                 long_calls(Peer, Clock, many_senders)),
    ?assert(slice(Peer, Clock, info) > ?SLICE_MAX),
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
