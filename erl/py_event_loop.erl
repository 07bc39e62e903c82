%% @doc Coroutines on Python event loops.
%%
%% The default loop runs on Python's main thread as long as the application runs. Further loops are
%% started here, each on a thread of its own. A coroutine runs as a task of its loop; when the Erlang
%% process that waits for it dies or gives up, the task is cancelled.
-module(py_event_loop).

-export([start_link/0, start_link/1, stop/1, info/0, info/1]).
-export([run/3, run/4, create_task/3, create_task/4, await/1, await/2, cancel/1,
         spawn_task/3, spawn_task/4]).
-export_type([options/0, task_options/0, loop/0, task/0]).

-type options() :: #{name => atom()}.
%% `name' registers the process of the loop.
-type loop() :: default | pid() | atom().
-type task_options() :: #{loop => loop(), kwargs => py:kwargs(), timeout => timeout(),
                          binaries => bytes | str}.
%% `loop' is the default loop unless given. `timeout' is for {@link run/4}.
-opaque task() :: {beamloop_task, pid(), beamloop_call:pending()}.

-define(COROUTINE, 3).
-define(INFO_TIMEOUT, 5000).

%% @equiv start_link(#{})
-spec start_link() -> {ok, pid()} | {error, term()}.
start_link() ->
    start_link(#{}).

%% @doc Starts an event loop on a thread of its own; it stops when the returned process ends.
-spec start_link(options()) -> {ok, pid()} | {error, term()}.
start_link(#{name := Name} = Options)
  when map_size(Options) =:= 1, is_atom(Name), Name =/= undefined, Name =/= default ->
    beamloop_loop:start_link(Options);
start_link(Options) when Options =:= #{} ->
    beamloop_loop:start_link(Options);
start_link(Options) ->
    erlang:error(badarg, [Options]).

%% @doc Stops a loop that {@link start_link/1} started: its tasks are cancelled.
-spec stop(pid() | atom()) -> ok.
stop(Loop) ->
    gen_server:stop(Loop).

%% @equiv info(default)
-spec info() -> {ok, #{atom() => number()}} | {error, py:error()}.
info() ->
    info(default).

%% @doc What a loop has done and what it has before it: how many `callbacks' and `iterations' it ran;
%% how many callbacks are `ready', `timers' set, events `pending', descriptors `watched', `sources'
%% registered, `tasks' not done; how long the `last_iteration' took, from one wait to the next, and a
%% timer was late at most (`max_lag'), in seconds. An iteration is timed when the loop looks at the
%% clock: before it sleeps, and while it has timers or descriptors. The loop answers itself, so one
%% that is blocked does not: `{error, timeout}' after five seconds.
-spec info(loop()) -> {ok, #{atom() => number()}} | {error, py:error()}.
info(Loop) ->
    case run('erlang.vm', '_loop_info', [],
             #{loop => Loop, timeout => ?INFO_TIMEOUT, binaries => str}) of
        {ok, Info} ->
            {ok, maps:from_list([{Key, maps:get(atom_to_binary(Key), Info)} || Key <- info_keys()])};
        {error, Reason} ->
            {error, Reason}
    end.

-spec info_keys() -> [atom()].
info_keys() ->
    [callbacks, iterations, ready, timers, pending, watched, sources, tasks, last_iteration, max_lag].

%% @equiv run(Target, Function, Args, #{})
-spec run(py:target(), py:name(), [term()]) -> {ok, term()} | {error, py:error()}.
run(Target, Function, Args) ->
    run(Target, Function, Args, #{}).

%% @doc Calls a coroutine function on a loop and waits for its result.
-spec run(py:target(), py:name(), [term()], task_options()) -> {ok, term()} | {error, py:error()}.
run(Target, Function, Args, Options) ->
    {Request, Flags, Timeout, Loop} = request(Target, Function, Args, Options),
    with_loop(Loop, fun(Handle) ->
        beamloop_call:call(?COROUTINE, Request, Flags, Handle, Timeout)
    end).

%% @equiv create_task(Target, Function, Args, #{})
-spec create_task(py:target(), py:name(), [term()]) ->
          {ok, task()} | {error, not_running | enomem}.
create_task(Target, Function, Args) ->
    create_task(Target, Function, Args, #{}).

%% @doc Starts a coroutine function as a task. The calling process owns the task: it alone may
%% {@link await/2} and {@link cancel/1} it, and when it dies the task is cancelled.
-spec create_task(py:target(), py:name(), [term()], task_options()) ->
          {ok, task()} | {error, not_running | enomem}.
create_task(Target, Function, Args, Options) ->
    {Request, Flags, _Timeout, Loop} = request(Target, Function, Args, Options),
    with_loop(Loop, fun(Handle) ->
        case beamloop_call:submit(?COROUTINE, Request, Flags, Handle) of
            {ok, Pending} -> {ok, {beamloop_task, self(), Pending}};
            {error, Reason} -> {error, Reason}
        end
    end).

%% @equiv await(Task, infinity)
-spec await(task()) -> {ok, term()} | {error, py:error() | already_awaited}.
await(Task) ->
    await(Task, infinity).

%% @doc Waits for the result of a task, which is given once. After `{error, timeout}' the task goes
%% on, and can be awaited again.
-spec await(task(), timeout()) -> {ok, term()} | {error, py:error() | already_awaited}.
await({beamloop_task, Owner, Pending}, Timeout) when Owner =:= self() ->
    beamloop_call:await_task(Pending, Timeout);
await(Task, Timeout) ->
    erlang:error(badarg, [Task, Timeout]).

%% @doc Cancels a task, whose result is given up. Nothing happens when it was awaited or cancelled.
-spec cancel(task()) -> ok.
cancel({beamloop_task, Owner, Pending}) when Owner =:= self() ->
    beamloop_call:cancel_task(Pending);
cancel(Task) ->
    erlang:error(badarg, [Task]).

%% @equiv spawn_task(Target, Function, Args, #{})
-spec spawn_task(py:target(), py:name(), [term()]) -> ok | {error, not_running | enomem}.
spawn_task(Target, Function, Args) ->
    spawn_task(Target, Function, Args, #{}).

%% @doc Starts a coroutine function as a task that nobody waits for; what it raises goes to the
%% loop's exception handler.
-spec spawn_task(py:target(), py:name(), [term()], task_options()) ->
          ok | {error, not_running | enomem}.
spawn_task(Target, Function, Args, Options) ->
    {Request, Flags, _Timeout, Loop} = request(Target, Function, Args, Options),
    with_loop(Loop, fun(Handle) -> beamloop_call:spawn(?COROUTINE, Request, Flags, Handle) end).

-spec request(py:target(), py:name(), [term()], task_options()) ->
          {term(), beamloop_call:flags(), timeout(), loop()}.
request(Target, Function, Args, Options) when is_map(Options) ->
    Loop = maps:get(loop, Options, default),
    Kwargs = maps:get(kwargs, Options, #{}),
    {Timeout, Flags} = beamloop_call:options(maps:without([loop, kwargs], Options)),
    {beamloop_call:function(Target, Function, Args, Kwargs), Flags, Timeout, Loop};
request(Target, Function, Args, Options) ->
    erlang:error(badarg, [Target, Function, Args, Options]).

-spec with_loop(loop(), fun((reference() | default) -> Result)) -> Result | {error, not_running}.
with_loop(default, Fun) ->
    Fun(default);
with_loop(Loop, Fun) when is_pid(Loop) ->
    case beamloop_loop:handle(Loop) of
        {ok, Handle} -> Fun(Handle);
        {error, not_running} -> {error, not_running}
    end;
with_loop(Name, Fun) when is_atom(Name) ->
    case whereis(Name) of
        undefined -> {error, not_running};
        Pid -> with_loop(Pid, Fun)
    end.
