%% A virtual machine of its own for tests that need a fresh Python, or that end the machine.
-module(vm_node).

-export([start/1, start/2, call/4, stop/1, run/1]).

%% A peer over its standard input and output with the application started; Env is its environment.
start(Env) ->
    start(Env, #{}).

%% Options are peer's, and `paths', where it finds the application instead.
start(Env, Options) ->
    Paths = maps:get(paths, Options, [directory(py)]) ++ [directory(?MODULE)],
    {ok, Peer, _Node} = peer:start_link((maps:remove(paths, Options))#{
        connection => standard_io, wait_boot => 60000, args => ["-pa" | Paths]}),
    _ = call(Peer, application, load, [beamloop]),
    %% The tests themselves may run with a virtual environment.
    [ok = call(Peer, application, unset_env, [beamloop, Key]) || Key <- [venv, python_home]],
    [ok = call(Peer, application, set_env, [beamloop, Key, Value]) || {Key, Value} <- Env],
    {Peer, call(Peer, application, start, [beamloop])}.

call(Peer, Module, Function, Args) ->
    peer:call(Peer, Module, Function, Args, 60000).

stop(Peer) ->
    peer:stop(Peer).

%% Evaluates Erlang code in a new machine, which the code ends: its exit status and what it printed.
run(Code) ->
    Erl = filename:join([code:root_dir(), "bin", "erl"]),
    Port = open_port({spawn_executable, Erl},
                     [{args, ["-noinput", "-pa" | code_paths()] ++ ["-eval", Code]},
                      exit_status, binary, stderr_to_stdout]),
    collect(Port, []).

collect(Port, Output) ->
    receive
        {Port, {data, Data}} -> collect(Port, [Output, Data]);
        {Port, {exit_status, Status}} -> {Status, iolist_to_binary(Output)}
    after 60000 ->
        {os_pid, Pid} = erlang:port_info(Port, os_pid),
        _ = os:cmd("kill -9 " ++ integer_to_list(Pid)),
        {never_ended, iolist_to_binary(Output)}
    end.

code_paths() ->
    [directory(Module) || Module <- [py, ?MODULE]].

directory(Module) ->
    filename:dirname(code:which(Module)).
