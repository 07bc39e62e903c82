%% @private
%% @doc The owner of the Python interpreter: starts it, stops it, and stands for it. Whoever waits for
%% an answer of Python monitors this process. It is never asked anything on the way of a call.
-module(beamloop_interpreter).

-behaviour(gen_server).

-export([start_link/0]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2, terminate/2]).

-define(START_TIMEOUT, 60000).
-define(STOP_MS, 5000).
-define(ATEXIT_MS, 5000).
-define(MAX_NEW_ATOMS, 100000).

-type state() :: [].

-spec start_link() -> {ok, pid()} | {error, term()}.
start_link() ->
    gen_server:start_link({local, ?MODULE}, ?MODULE, [], [{timeout, infinity}]).

-spec init([]) -> {ok, state()} | {stop, {python, term()}}.
init([]) ->
    process_flag(trap_exit, true),
    %% Python must see how its children end; the VM itself has no use for the signal.
    ok = os:set_signal(sigchld, default),
    case executable() of
        {ok, Executable} ->
            start(Executable);
        {error, Reason} ->
            {stop, {python, Reason}}
    end.

-spec start(file:filename()) -> {ok, state()} | {stop, {python, term()}}.
start(Executable) ->
    Ref = make_ref(),
    Packages = filename:join(code:priv_dir(beamloop), "python"),
    ok = beamloop_nif:nif_interp_start(Ref, path(Executable), path(Packages),
                                       env(max_workers, 128), env(max_queued, 1000),
                                       env(idle_timeout, 30000), max_new_atoms()),
    receive
        {beamloop, Ref, ok} ->
            {ok, []};
        {beamloop, Ref, {error, Reason}} ->
            {stop, {python, Reason}}
    after ?START_TIMEOUT ->
        {stop, {python, timeout}}
    end.

%% The atoms that Python may make in all, which ought to leave others half of what there is: a full table
%% ends the virtual machine.
-spec max_new_atoms() -> non_neg_integer().
max_new_atoms() ->
    #{new_atoms := Made} = beamloop_nif:nif_info(),
    Left = erlang:system_info(atom_limit) - erlang:system_info(atom_count),
    min(env(max_new_atoms, ?MAX_NEW_ATOMS), Made + Left div 2).

-spec handle_call(term(), gen_server:from(), state()) -> {reply, {error, unknown}, state()}.
handle_call(_Request, _From, State) ->
    {reply, {error, unknown}, State}.

-spec handle_cast(term(), state()) -> {noreply, state()}.
handle_cast(_Request, State) ->
    {noreply, State}.

-spec handle_info(term(), state()) -> {noreply, state()}.
handle_info(_Info, State) ->
    {noreply, State}.

%% Python's own exit functions run when the whole system ends, and only then: an application that is
%% started again finds Python as it left it.
-spec terminate(term(), state()) -> ok.
terminate(shutdown, _State) ->
    _ = await(fun(Ref) -> beamloop_nif:nif_interp_stop(Ref, ?STOP_MS) end, 2 * ?STOP_MS),
    case init:get_status() of
        {stopping, _Progress} ->
            await(fun beamloop_nif:nif_interp_atexit/1, ?ATEXIT_MS);
        _Started ->
            ok
    end;
terminate(_Reason, _State) ->
    %% The supervisor starts a new owner, which finds the interpreter running and keeps it.
    ok.

-spec await(fun((reference()) -> ok), timeout()) -> ok.
await(Request, Timeout) ->
    Ref = make_ref(),
    ok = Request(Ref),
    receive
        {beamloop, Ref, ok} ->
            ok;
        {beamloop, Ref, {error, Reason}} ->
            logger:warning("beamloop: ~ts", [Reason])
    after Timeout ->
        logger:warning("beamloop: python did not end in time")
    end.

%% The program that sys.executable names, and by which CPython finds its library: that of the virtual
%% environment or installation asked for, else the one that the library was built for.
-spec executable() -> {ok, file:filename()} | {error, term()}.
executable() ->
    case {application:get_env(beamloop, venv), application:get_env(beamloop, python_home)} of
        {{ok, Venv}, _} when Venv =/= undefined ->
            venv_executable(Venv);
        {_, {ok, Home}} when Home =/= undefined ->
            existing(filename:join([Home, "bin", "python3"]));
        _Default ->
            existing(binary_to_list(beamloop_nif:nif_default_python()))
    end.

-spec venv_executable(file:filename_all()) -> {ok, file:filename()} | {error, term()}.
venv_executable(Venv) ->
    case filelib:is_regular(filename:join(Venv, "pyvenv.cfg")) of
        true ->
            existing(filename:join([Venv, "bin", "python3"]));
        false ->
            {error, {no_virtual_environment, Venv}}
    end.

-spec existing(file:filename_all()) -> {ok, file:filename_all()} | {error, term()}.
existing(Executable) ->
    case filelib:is_regular(Executable) of
        true ->
            {ok, Executable};
        false ->
            {error, {no_python, Executable}}
    end.

-spec path(file:filename_all()) -> binary().
path(Path) when is_binary(Path) ->
    Path;
path(Path) ->
    case unicode:characters_to_binary(Path, unicode, file:native_name_encoding()) of
        Encoded when is_binary(Encoded) -> Encoded;
        _Error -> erlang:error({bad_path, Path})
    end.

-spec env(atom(), non_neg_integer()) -> non_neg_integer().
env(Key, Default) ->
    application:get_env(beamloop, Key, Default).
