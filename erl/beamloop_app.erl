%% @private
-module(beamloop_app).

-behaviour(application).

-export([start/2, stop/1]).

-spec start(application:start_type(), term()) -> {ok, pid()} | {error, term()}.
start(_Type, _Args) ->
    case code:ensure_loaded(beamloop_nif) of
        {module, beamloop_nif} ->
            set_none(beamloop_sup:start_link());
        {error, Reason} ->
            {error, {nif_not_loaded, Reason}}
    end.

%% What None becomes: the application environment `none', one of none, nil and undefined.
-spec set_none({ok, pid()} | {error, term()}) -> {ok, pid()} | {error, term()}.
set_none({ok, Supervisor} = Started) ->
    case application:get_env(beamloop, none) of
        undefined ->
            Started;
        {ok, Name} ->
            Options = #{binaries => str},
            case py:call('erlang._term', set_none_atom, [atom_to_binary(Name)], #{}, Options) of
                {ok, _Before} -> Started;
                {error, Reason} -> stop_supervisor(Supervisor), {error, {bad_none, Name, Reason}}
            end
    end;
set_none(Error) ->
    Error.

%% Returns when it has ended: the next start registers the same name.
-spec stop_supervisor(pid()) -> ok.
stop_supervisor(Supervisor) ->
    Monitor = monitor(process, Supervisor),
    unlink(Supervisor),
    exit(Supervisor, shutdown),
    receive {'DOWN', Monitor, process, Supervisor, _} -> ok end.

-spec stop(term()) -> ok.
stop(_State) ->
    ok.
