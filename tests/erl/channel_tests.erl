%% What the suites share.
-module(channel_tests).

-export([exception/1, left/0, result/1, wait_until/1]).

-include_lib("stdlib/include/assert.hrl").

%% The name of a Python exception as text: it is an atom where that atom is there already.  A test that writes the
%% atom down makes it, for all suites that come after it.
exception(Name) when is_atom(Name) -> atom_to_binary(Name);
exception(Name) -> Name.

%% For end_per_testcase: nothing that a test made may be left.
left() ->
    {ok, _} = py:eval("__import__('gc').collect()"),
    left(200).

left(Tries) ->
    [garbage_collect(Pid) || Pid <- processes()],
    case beamloop_nif:nif_channel_live() of
        {0, 0} -> ok;
        Left when Tries =:= 0 -> {fail, {channels_and_blocks_left, Left}};
        _ -> timer:sleep(10), left(Tries - 1)
    end.

%% What a process gave that ended by exit({result, Result}), from what spawn_monitor gave.
result({Pid, Monitor}) ->
    receive {'DOWN', Monitor, process, Pid, {result, Result}} -> Result
    after 60000 -> error(no_result)
    end.

wait_until(Condition) ->
    wait_until(Condition, 500).

wait_until(Condition, 0) ->
    ?assert(Condition(), py:info());
wait_until(Condition, Left) ->
    case Condition() of
        true -> ok;
        false -> timer:sleep(10), wait_until(Condition, Left - 1)
    end.
