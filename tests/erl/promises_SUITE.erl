%% What the system promises as a whole: schedulers stay free, nothing is lost, idle costs nothing.
-module(promises_SUITE).

-include_lib("stdlib/include/assert.hrl").

-export([all/0, suite/0, init_per_suite/1, end_per_suite/1]).
-export([blocked_calls_leave_schedulers_free/1, a_million_messages_arrive_in_order/1,
         an_idle_loop_uses_no_cpu/1]).
-export([wait_on_an_empty_channel/0]).

-define(MESSAGES, 500000).
-define(MAX_SIZE, 1048576).

suite() -> [{timetrap, {minutes, 3}}].

all() ->
    [blocked_calls_leave_schedulers_free, a_million_messages_arrive_in_order,
     an_idle_loop_uses_no_cpu].

init_per_suite(Config) ->
    {ok, _} = application:ensure_all_started(beamloop),
    ok = py:exec(["import sys; sys.path.insert(0, '", data_dir(), "')"]),
    Config.

end_per_suite(_Config) ->
    application:stop(beamloop).

%% 50 processes sleep in Python; a ticking process sees no delay and one more call answers.
blocked_calls_leave_schedulers_free(_Config) ->
    Sleepers = [spawn_monitor(fun() -> exit(py:call(time, sleep, [10])) end)
                || _ <- lists:seq(1, 50)],
    {Ticks, {Elapsed, Answer}} =
        longest_tick(fun() -> timer:tc(fun() -> py:eval("6 * 7") end) end, 2000),
    ?assertEqual({ok, 42}, Answer),
    %% Far below the ten seconds that the others sleep, with room for a busy machine.
    ?assert(Elapsed < 1000000),
    ?assert(Ticks < 500),
    [receive {'DOWN', M, process, P, Result} -> ?assertEqual({ok, none}, Result) end
     || {P, M} <- Sleepers].

%% Runs Fun while another process sleeps one millisecond over and over for Ms in all; its longest
%% sleep in milliseconds, and what Fun returned.
longest_tick(Fun, Ms) ->
    End = erlang:monotonic_time(millisecond) + Ms,
    {Pid, Monitor} = spawn_monitor(fun() -> exit({longest, tick(End, 0)}) end),
    Result = Fun(),
    receive {'DOWN', Monitor, process, Pid, {longest, Longest}} -> {Longest, Result} end.

tick(End, Longest) ->
    Before = erlang:monotonic_time(millisecond),
    timer:sleep(1),
    After = erlang:monotonic_time(millisecond),
    Now = max(Longest, After - Before),
    case After < End of
        true -> tick(End, Now);
        false -> Now
    end.

%% Two producers, 64 bytes each message, one `async for`: all counted, in order per producer,
%% and the memory of the node does not grow with their number.
a_million_messages_arrive_in_order(_Config) ->
    {ok, Ch} = py_channel:new(#{max_size => ?MAX_SIZE}),
    Self = self(),
    {Consumer, Monitor} = spawn_monitor(fun() ->
        exit(py:call(promises, count_in_order, [Ch, Self]))
    end),
    Before = resident_kib(),
    Producers = [spawn_monitor(fun() -> produce(Ch, N, 0, ?MESSAGES) end) || N <- [1, 2]],
    [receive {'DOWN', M, process, P, Reason} -> ?assertEqual(normal, Reason) end
     || {P, M} <- Producers],
    After = resident_kib(),
    ok = py_channel:close(Ch),
    receive {'DOWN', Monitor, process, Consumer, Result} ->
        ?assertEqual({ok, #{1 => ?MESSAGES, 2 => ?MESSAGES}}, Result)
    end,
    ct:log("resident: ~b KiB before, ~b KiB after", [Before, After]),
    %% Two queues' worth and the emulator's own carriers; the messages are 64 MB.
    ?assert(After - Before < 32768).

%% A message is {Producer, Number, Filler}; its external format takes a little over 64 bytes.
produce(_Ch, _N, Last, Last) -> ok;
produce(Ch, N, Number, Last) ->
    case py_channel:send(Ch, {N, Number, filler()}) of
        ok -> produce(Ch, N, Number + 1, Last);
        busy -> timer:sleep(1), produce(Ch, N, Number, Last)
    end.

filler() -> <<0:512>>.

resident_kib() ->
    {ok, Status} = file:read_file("/proc/self/status"),
    {match, [Kib]} = re:run(Status, "VmRSS:\\s+(\\d+)", [{capture, [1], list}]),
    list_to_integer(Kib).

%% A node with a loop that waits on an empty channel, beside a node without the application.
an_idle_loop_uses_no_cpu(_Config) ->
    {Bare, BarePid} = start_node(),
    {Idle, IdlePid} = start_node(),
    ok = peer:call(Idle, ?MODULE, wait_on_an_empty_channel, [], 30000),
    %% The application's start is over; what is measured is the waiting alone.
    timer:sleep(1000),
    Before = {cpu_ms(BarePid), cpu_ms(IdlePid)},
    timer:sleep(10000),
    After = {cpu_ms(BarePid), cpu_ms(IdlePid)},
    %% The meter works: starting a node takes more than this.
    ?assert(element(1, Before) > 10),
    ?assert(element(2, Before) > element(1, Before)),
    [peer:stop(P) || P <- [Bare, Idle]],
    Own = element(1, After) - element(1, Before),
    Used = element(2, After) - element(2, Before),
    ct:log("CPU in 10 s: ~b ms with an idle loop, ~b ms without", [Used, Own]),
    ?assert(Used - Own < 10).

%% On the peer: a coroutine waits for a message that never comes.
wait_on_an_empty_channel() ->
    {ok, _} = application:ensure_all_started(beamloop),
    ok = py:exec(["import sys; sys.path.insert(0, '", data_dir(), "')"]),
    Self = self(),
    spawn(fun() ->
        {ok, Ch} = py_channel:new(),
        spawn(fun() -> py:call(promises, count_in_order, [Ch, Self]) end),
        receive {keep, Ch} -> ok end
    end),
    receive waiting -> ok after 20000 -> timeout end.

%% User and system time of all threads, from the scheduler's own nanosecond account.
cpu_ms(OsPid) ->
    Tasks = filelib:wildcard("/proc/" ++ OsPid ++ "/task/*/schedstat"),
    lists:sum([begin
        {ok, Stat} = file:read_file(Task),
        [OnCpu | _] = binary:split(Stat, <<" ">>),
        binary_to_integer(OnCpu)
    end || Task <- Tasks]) div 1000000.

start_node() ->
    {ok, Peer, _} = peer:start_link(#{connection => standard_io,
                                      args => ["-pa" | code:get_path()]}),
    {Peer, peer:call(Peer, os, getpid, [])}.

data_dir() ->
    filename:dirname(filename:absname(proplists:get_value(source, module_info(compile)))).
