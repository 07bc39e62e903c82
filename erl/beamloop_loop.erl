%% @private
%% @doc A further event loop on a thread of its own: this process owns it. The loop stops when the
%% process ends, and the process ends when the loop or the interpreter does.
-module(beamloop_loop).

-behaviour(gen_server).

-export([start_link/1, handle/1, new_table/0]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2, terminate/2]).

-define(TABLE, beamloop_loops).
-define(START_TIMEOUT, 30000).
-define(STOP_TIMEOUT, 10000).

-type state() :: #{ref := reference(), handle := reference(), stopped => true}.

%% @doc The table of the loops' handles, owned by the calling process.
-spec new_table() -> ok.
new_table() ->
    ?TABLE = ets:new(?TABLE, [named_table, public, {read_concurrency, true}]),
    ok.

-spec start_link(py_event_loop:options()) -> {ok, pid()} | {error, term()}.
start_link(#{name := Name}) ->
    gen_server:start_link({local, Name}, ?MODULE, [], []);
start_link(#{}) ->
    gen_server:start_link(?MODULE, [], []).

%% @doc The handle of the loop that the process owns.
-spec handle(pid()) -> {ok, reference()} | {error, not_running}.
handle(Pid) ->
    try ets:lookup(?TABLE, Pid) of
        [{_Pid, Handle}] -> {ok, Handle};
        [] -> {error, not_running}
    catch
        error:badarg -> {error, not_running}
    end.

-spec init([]) -> {ok, state()} | {stop, term()}.
init([]) ->
    process_flag(trap_exit, true),
    _ = monitor(process, beamloop_interpreter),
    Ref = make_ref(),
    case beamloop_nif:nif_loop_start(Ref) of
        ok -> await_start(Ref);
        {error, Reason} -> {stop, Reason}
    end.

-spec await_start(reference()) -> {ok, state()} | {stop, term()}.
await_start(Ref) ->
    receive
        {beamloop, Ref, {ok, Handle}} ->
            true = ets:insert(?TABLE, {self(), Handle}),
            {ok, #{ref => Ref, handle => Handle}};
        {beamloop, Ref, {error, Reason}} ->
            {stop, {python, Reason}}
    after ?START_TIMEOUT ->
        {stop, timeout}
    end.

-spec handle_call(term(), gen_server:from(), state()) -> {reply, {error, unknown}, state()}.
handle_call(_Request, _From, State) ->
    {reply, {error, unknown}, State}.

-spec handle_cast(term(), state()) -> {noreply, state()}.
handle_cast(_Request, State) ->
    {noreply, State}.

-spec handle_info(term(), state()) -> {noreply, state()} | {stop, term(), state()}.
handle_info({beamloop, Ref, stopped}, #{ref := Ref} = State) ->
    {stop, {shutdown, not_running}, State#{stopped => true}};
handle_info({'DOWN', _Monitor, process, _Interpreter, _Reason}, State) ->
    {stop, {shutdown, not_running}, State};
handle_info({'EXIT', _Linked, Reason}, State) ->
    {stop, Reason, State};
handle_info(_Other, State) ->
    {noreply, State}.

-spec terminate(term(), state()) -> ok.
terminate(_Reason, State) ->
    _ = catch ets:delete(?TABLE, self()),
    await_stop(State).

-spec await_stop(state()) -> ok.
await_stop(#{stopped := true}) ->
    ok;
await_stop(#{ref := Ref, handle := Handle}) ->
    ok = beamloop_nif:nif_loop_stop(Handle),
    receive
        {beamloop, Ref, stopped} -> ok
    after ?STOP_TIMEOUT ->
        logger:warning("beamloop: an event loop did not end in time")
    end.
