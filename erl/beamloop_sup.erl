%% @private
%% @doc The top supervisor. Its children do not depend on each other: the crash of one leaves Python
%% and its running calls alone, but for the interpreter's own owner.
-module(beamloop_sup).

-behaviour(supervisor).

-export([start_link/0]).
-export([init/1]).

%% A little longer than the owner gives Python to end (see beamloop_interpreter).
-define(INTERPRETER_SHUTDOWN, 20000).

-spec start_link() -> {ok, pid()} | {error, term()}.
start_link() ->
    case supervisor:start_link({local, ?MODULE}, ?MODULE, []) of
        {error, {shutdown, {failed_to_start_child, _Child, Reason}}} ->
            {error, Reason};
        {ok, Pid} ->
            {ok, Pid};
        {error, Reason} ->
            {error, Reason}
    end.

-spec init([]) -> {ok, {supervisor:sup_flags(), [supervisor:child_spec()]}}.
init([]) ->
    ok = beamloop_loop:new_table(),
    ok = beamloop_reactor:new_table(),
    Flags = #{strategy => one_for_one, intensity => 5, period => 10},
    Children = [#{id => beamloop_relay,
                  start => {beamloop_relay, start_link, []}},
                #{id => beamloop_interpreter,
                  start => {beamloop_interpreter, start_link, []},
                  shutdown => ?INTERPRETER_SHUTDOWN}],
    {ok, {Flags, Children}}.
