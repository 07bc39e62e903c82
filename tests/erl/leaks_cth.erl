%% A Common Test hook: after each suite nothing that is counted may be left alive; and where the
%% environment's BEAMLOOP_REPEATS says how often the suites are run in this node, no suite may leave
%% more each time.
-module(leaks_cth).

-export([id/1, init/2, post_end_per_suite/4]).

%% So much more in each repeat is growth; the first repeats fill caches.
-define(UNITS, [{resident_kb, 64}, {binary_bytes, 1024}, {ets_bytes, 1024}, {malloc_bytes, 256},
                {python_blocks, 8}]).
-define(WARM_UP, 5).

id(_Options) -> ?MODULE.

init(_Id, _Options) -> {ok, []}.

post_end_per_suite(Suite, _Config, Return, State) ->
    case left(100) of
        [] -> {grown(Suite, repeats(), Return), State};
        Left -> {fail(Suite, {left_alive, Left}), State}
    end.

%% Common Test does not count suites that end badly: scripts/test.sh counts these lines.
fail(Suite, Why) ->
    io:format(user, "~n*** FAILED ~s: ~0p~n", [Suite, Why]),
    {fail, Why}.

repeats() ->
    list_to_integer(os:getenv("BEAMLOOP_REPEATS", "0")).

%% --- what is alive ---

%% Garbage of ours may be in any process, and in Python.
left(Tries) ->
    [garbage_collect(Pid) || Pid <- processes()],
    case [Counter || {_, Count} = Counter <- counters(), Count =/= 0] of
        [] -> [];
        Left when Tries =:= 0 -> Left;
        _ -> timer:sleep(20),
             Tries rem 20 =:= 0 andalso in_python(fun() -> ok end),
             left(Tries - 1)
    end.

counters() ->
    {Channels, Blocks} = beamloop_nif:nif_channel_live(),
    Info = maps:with([calls, objects, pending_decrefs, loops, descriptors], beamloop_nif:nif_info()),
    [{channels, Channels}, {blocks, Blocks} | maps:to_list(Info)].

%% Calls Fun where Python runs and has no garbage.
in_python(Fun) ->
    Running = lists:keymember(beamloop, 1, application:which_applications()),
    {ok, _} = application:ensure_all_started(beamloop),
    {ok, _} = py:eval("__import__('gc').collect()"),
    Result = Fun(),
    Running orelse application:stop(beamloop),
    Result.

%% --- what grows ---

grown(_Suite, 0, Return) ->
    Return;
grown(Suite, Repeats, Return) ->
    Before = persistent_term:get({?MODULE, Suite}, []),
    History = Before ++ [measure()],
    persistent_term:put({?MODULE, Suite}, History),
    case length(History) >= Repeats andalso growing(lists:nthtail(?WARM_UP, History)) of
        Nothing when Nothing =:= false; Nothing =:= [] -> Return;
        Growing -> fail(Suite, {grew_in_each_repeat, Growing})
    end.

measure() ->
    Memory = erlang:memory([binary, ets]),
    [{processes, erlang:system_info(process_count)},
     {ports, erlang:system_info(port_count)},
     {atoms, erlang:system_info(atom_count)},
     {binary_bytes, proplists:get_value(binary, Memory)},
     {ets_bytes, proplists:get_value(ets, Memory)}
     | in_python(fun python_counts/0)].

python_counts() ->
    ok = py:exec(
        "import ctypes, os, sys\n"
        "def leaks_counts():\n"
        "    libc = ctypes.CDLL(None)\n"
        "    libc.malloc_trim(0)\n"
        "    class info(ctypes.Structure):\n"
        "        _fields_ = [(name, ctypes.c_size_t) for name in 'abcdefghij']\n"
        "    libc.mallinfo2.restype = info\n"
        "    found = libc.mallinfo2()\n"
        "    with open('/proc/self/statm') as statm:\n"
        "        pages = int(statm.read().split()[1])\n"
        "    descriptors = len(os.listdir('/proc/self/fd'))\n"
        "    return descriptors, pages * 4, found.h + found.e, sys.getallocatedblocks()\n"),
    {ok, {Descriptors, Resident, Malloc, Blocks}} = py:call('__main__', leaks_counts, []),
    [{descriptors, Descriptors}, {resident_kb, Resident}, {malloc_bytes, Malloc},
     {python_blocks, Blocks}].

%% What grew by a unit or more in most of the repeats, and from the first half of them to the second.
growing(History) ->
    [{Name, Counts} || {Name, _} <- hd(History),
                       Counts <- [[proplists:get_value(Name, Counted) || Counted <- History]],
                       grows(Counts, proplists:get_value(Name, ?UNITS, 1))].

grows(Counts, Unit) ->
    Steps = lists:sort(lists:zipwith(fun(After, Before) -> After - Before end,
                                     tl(Counts), lists:droplast(Counts))),
    {First, Second} = lists:split(length(Counts) div 2, Counts),
    lists:nth((length(Steps) + 1) div 2, Steps) >= Unit
        andalso lists:min(Second) - lists:min(First) >= Unit * length(First).
