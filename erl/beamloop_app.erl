%% @private
-module(beamloop_app).

-behaviour(application).

-export([start/2, stop/1]).

-spec start(application:start_type(), term()) -> {ok, pid()} | {error, term()}.
start(_Type, _Args) ->
    case code:ensure_loaded(beamloop_nif) of
        {module, beamloop_nif} ->
            beamloop_sup:start_link();
        {error, Reason} ->
            {error, {nif_not_loaded, Reason}}
    end.

-spec stop(term()) -> ok.
stop(_State) ->
    ok.
