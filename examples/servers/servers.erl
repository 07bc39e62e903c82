%% One of the example servers as an OTP application, which starts after beamloop and stops before it.
%%
%%   ./run example NAME [ARGUMENT...]
%%
%% SIGTERM stops all applications in order, so that the server is asked to end, and connections finish,
%% while the event loop is still whole.
-module(servers).

-behaviour(application).
-behaviour(gen_server).

-export([main/0, start/2, stop/1]).
-export([start_link/1, init/1, handle_call/3, handle_cast/2, handle_info/2, terminate/2]).

%% What a server takes to end is bounded by itself (GRACE in serving.py); this is for a hung loop.
-define(STOP_TIMEOUT, 10000).

%% Serves until the VM is stopped. A server that cannot is the end of the VM, with status 1.
-spec main() -> ok.
main() ->
    ok = application:load({application, ?MODULE, [
        {vsn, "1"}, {modules, [?MODULE]}, {registered, []},
        {applications, [kernel, stdlib, beamloop]},
        {mod, {?MODULE, init:get_plain_arguments()}}]}),
    {ok, _} = application:ensure_all_started(?MODULE),
    ok.

%% --- the application ------------------------------------------------------------------------

-spec start(application:start_type(), [string()]) -> {ok, pid()}.
start(_Type, Arguments) ->
    ok = py:exec(["import sys\nsys.path.insert(0, '", source_dir(), "')\n"]),
    start_link(Arguments).

-spec stop(term()) -> ok.
stop(_State) ->
    ok.

source_dir() ->
    filename:dirname(proplists:get_value(source, module_info(compile))).

%% --- its process ----------------------------------------------------------------------------

-spec start_link([string()]) -> {ok, pid()}.
start_link([Name | Arguments]) ->
    gen_server:start_link(?MODULE, [unicode:characters_to_binary(A) || A <- [Name | Arguments]], []).

%% The call into Python takes as long as the server serves, and has a process of its own.
init([Name | Arguments]) ->
    process_flag(trap_exit, true),
    Caller = spawn_link(fun() ->
        exit({served, py_event_loop:run(serving, serve, [Name, Arguments], #{binaries => str})})
    end),
    {ok, Caller}.

handle_call(_Request, _From, Caller) ->
    {reply, {error, unknown}, Caller}.

handle_cast(_Request, Caller) ->
    {noreply, Caller}.

%% The end of the server that nobody asked for.
handle_info({'EXIT', Caller, Reason}, Caller) ->
    report(Reason),
    init:stop(case Reason of {served, {ok, _}} -> 0; _ -> 1 end),
    {noreply, Caller};
handle_info({'EXIT', _Parent, Reason}, Caller) ->
    {stop, Reason, Caller};
handle_info(_Other, Caller) ->
    {noreply, Caller}.

terminate(_Reason, Caller) ->
    case is_process_alive(Caller) of
        true -> py_event_loop:run(serving, stop, [], #{timeout => ?STOP_TIMEOUT});
        false -> ok
    end.

report({served, {ok, _}}) ->
    ok;
report({served, {error, {_Exception, Message, _Traceback}}}) ->
    io:format(standard_error, "~ts~n", [Message]);
report(Reason) ->
    io:format(standard_error, "~tp~n", [Reason]).
