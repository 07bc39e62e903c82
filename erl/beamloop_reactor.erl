%% @private
%% @doc The process of a reactor, and the ways to the Python object that does the work.
%%
%% The object is reached through a table, by whoever hands a connection over: the process itself is
%% no bottleneck. A guard stands beside it, so that the connections end with it even when it is killed.
-module(beamloop_reactor).

-behaviour(gen_server).

-export([new_table/0, check/1, start_link/1, kind/1, handoff/4, info/1, stop/2]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2, terminate/2]).

-define(TABLE, beamloop_reactors).
-define(DRAIN_TIMEOUT, 3000).
-define(LIMITS, [max_connections, read_size, write_limit]).

-type kind() :: fd | port | inet | socket.
-type way() :: {py_event_loop:loop(), reference(), bytes | str}.
%% The loop, the object, and as what it sees binaries.
-type state() :: #{way := way(), guard := pid(), drain := timeout(), stopped => true}.

%% @doc The table of the reactors' objects, owned by the calling process.
-spec new_table() -> ok.
new_table() ->
    ?TABLE = ets:new(?TABLE, [named_table, public, {read_concurrency, true}]),
    ok.

%% --- options ---

-spec check(map()) -> ok | badarg.
check(#{protocol := _} = Options) ->
    case lists:all(fun({Key, Value}) -> allowed(Key, Value) end, maps:to_list(Options)) of
        true -> ok;
        false -> badarg
    end;
check(_NoProtocol) ->
    badarg.

allowed(protocol, {Target, Name}) ->
    (is_reference(Target) orelse is_name(Target)) andalso is_name(Name);
allowed(args, Args) -> is_list(Args) andalso length(Args) >= 0;
allowed(loop, Loop) -> is_pid(Loop) orelse is_atom(Loop);
allowed(name, Name) -> is_atom(Name) andalso Name =/= undefined;
allowed(max_connections, infinity) -> true;
allowed(drain_timeout, infinity) -> true;
allowed(drain_timeout, Time) -> is_integer(Time) andalso Time >= 0;
allowed(binaries, Type) -> Type =:= bytes orelse Type =:= str;
allowed(Key, Size) -> lists:member(Key, ?LIMITS) andalso is_integer(Size) andalso Size > 0
                          andalso Size < 1 bsl 62.

is_name(Name) ->
    try beamloop_call:name(Name) of
        _ -> true
    catch
        error:badarg -> false
    end.

-spec start_link(py_reactor:options()) -> {ok, pid()} | {error, term()}.
start_link(#{name := Name} = Options) ->
    gen_server:start_link({local, Name}, ?MODULE, Options, [{timeout, infinity}]);
start_link(Options) ->
    gen_server:start_link(?MODULE, Options, [{timeout, infinity}]).

%% --- the ways to the object ---

-spec way(pid() | atom()) -> {ok, way()} | {error, not_running}.
way(Name) when is_atom(Name) ->
    case whereis(Name) of
        Pid when is_pid(Pid) -> way(Pid);
        _None -> {error, not_running}
    end;
way(Pid) ->
    try ets:lookup(?TABLE, Pid) of
        [{_Pid, Way}] -> {ok, Way};
        [] -> {error, not_running}
    catch
        error:badarg -> {error, not_running}
    end.

-spec run(way(), atom(), [term()]) -> {ok, term()} | {error, py:error()}.
run({Loop, Object, Binaries}, Method, Args) ->
    py_event_loop:run(Object, Method, Args, #{loop => Loop, binaries => Binaries}).

-spec info(pid() | atom()) -> {ok, map()} | {error, py:error()}.
info(Reactor) ->
    case way(Reactor) of
        {ok, {Loop, Object, _Binaries}} ->
            case run({Loop, Object, str}, '_info', []) of
                {ok, Info} -> {ok, maps:from_list([{Key, shown(Key, Info)} || Key <- info_keys()])};
                {error, Reason} -> {error, Reason}
            end;
        Error ->
            Error
    end.

info_keys() ->
    [connections, accepted, closed, errors, received, sent, max_connections, read_size, write_limit,
     stopping].

shown(Key, Info) ->
    case maps:get(atom_to_binary(Key), Info) of
        none -> infinity;
        Value -> Value
    end.

-spec stop(pid() | atom(), timeout() | default) -> ok.
stop(Reactor, default) ->
    gen_server:stop(Reactor);
stop(Reactor, Timeout) ->
    ok = gen_server:call(Reactor, {drain_timeout, Timeout}, infinity),
    gen_server:stop(Reactor).

%% --- handing over ---

-spec kind(term()) -> kind() | badarg.
kind(Fd) when is_integer(Fd) -> fd;
kind(Port) when is_port(Port) -> port;
kind({'$inet', gen_tcp_socket, {Pid, _Socket}}) when is_pid(Pid) -> inet;
kind({'$socket', Ref}) when is_reference(Ref) -> socket;
kind(_Other) -> badarg.

-spec handoff(pid() | atom(), kind(), py_reactor:handed(), term()) -> ok | {error, term()}.
handoff(Reactor, Kind, Handed, Info) ->
    case way(Reactor) of
        {ok, Way} -> hand_over(Kind, Handed, Info, Way);
        Error -> Error
    end.

hand_over(fd, Fd, _Info, _Way) when Fd < 0; Fd >= 1 bsl 31 ->
    {error, ebadf};
hand_over(fd, Fd, Info, Way) ->
    case owner_of(Fd) of
        none -> answer(run(Way, '_adopt', [Fd, Info]));
        Socket -> {error, {owned, Socket}}
    end;
hand_over(port, Port, Info, Way) ->
    case check_port(Port) of
        {ok, Fd, Packet} -> hand_port_over(Port, Fd, Packet, Info, Way);
        Error -> Error
    end;
hand_over(inet, {'$inet', _, {Pid, Inner}} = Socket, Info, Way) ->
    Self = self(),
    case {inet:getopts(Socket, [active, packet]), inet:info(Socket)} of
        {{ok, _}, #{owner := Owner}} when Owner =/= Self -> {error, not_owner};
        {{ok, [{active, false}, {packet, Raw}]}, _} when Raw =:= raw; Raw =:= 0 ->
            copy_and_close(Inner, Pid, Info, Way, fun() -> gen_tcp:close(Socket) end);
        {{ok, [{active, false}, _Packet]}, _} -> {error, packet};
        {{ok, _Active}, _} -> {error, not_passive};
        {{error, _}, _} -> {error, closed}
    end;
hand_over(socket, Socket, Info, Way) ->
    copy_and_close(Socket, self(), Info, Way, fun() -> socket:close(Socket) end).

%% A socket of the module socket that Owner owns: it keeps no data of its own.
copy_and_close(Socket, Owner, Info, Way, Close) ->
    case {socket:getopt(Socket, {otp, fd}), socket:getopt(Socket, {otp, controlling_process})} of
        {{ok, Fd}, {ok, Owner}} ->
            Answer = with_copy(Fd, fun(Number) -> adopt_copy(Number, Info, <<>>, Way) end),
            Answer =:= ok andalso Close(),
            Answer;
        {{ok, _Fd}, {ok, _Other}} -> {error, not_owner};
        _Closed -> {error, closed}
    end.

%% The descriptor of a gen_tcp socket that nobody else uses and that has sent everything, and how it
%% divides data.
check_port(Port) ->
    case {erlang:port_info(Port, connected), inet:getopts(Port, [active, packet]),
          inet:getstat(Port, [send_pend]), inet:getfd(Port)} of
        {{connected, Owner}, _, _, _} when Owner =/= self() -> {error, not_owner};
        {_, {ok, [{active, false}, {packet, Packet}]}, {ok, [{send_pend, 0}]}, {ok, Fd}} ->
            {ok, Fd, Packet};
        {_, {ok, [{active, false}, _]}, {ok, [{send_pend, Size}]}, {ok, _}} ->
            {error, {unsent, Size}};
        {{connected, _}, {ok, [{active, _}, _]}, _, {ok, _}} -> {error, not_passive};
        {{connected, _}, {ok, [{active, _}]}, _, {ok, _}} -> {error, not_a_stream};
        _Closed -> {error, closed}
    end.

%% The copy comes first: a socket that finds the peer's end gives its descriptor up.
hand_port_over(Port, Fd, Packet, Info, Way) ->
    with_copy(Fd, fun(Number) ->
        Ahead = read_ahead(Port),
        case adopt_copy(Number, Info, Ahead, Way) of
            ok ->
                ok = gen_tcp:close(Port);
            Error ->
                _ = Ahead =/= <<>> andalso gen_tcp:unrecv(Port, Ahead),
                _ = inet:setopts(Port, [{packet, Packet}]),
                Error
        end
    end).

%% What the socket has read and not given yet, perhaps a part of a packet, and what has just come.
read_ahead(Port) ->
    _ = inet:setopts(Port, [{packet, raw}]),
    case gen_tcp:recv(Port, 0, 0) of
        {ok, Data} -> iolist_to_binary(Data);
        {error, _NothingOrTheEnd} -> <<>>
    end.

%% The copy belongs to the reference until Python takes it by its number.
with_copy(Fd, Use) ->
    case beamloop_nif:nif_descriptor_dup(Fd) of
        {ok, Descriptor, Number} ->
            Answer = Use(Number),
            true = is_reference(Descriptor), % which keeps it until here
            Answer;
        Error ->
            Error
    end.

%% Where binaries are texts in Python, what was read ahead is one character for each byte.
adopt_copy(Number, Info, Ahead, {_Loop, _Object, str} = Way) ->
    answer(run(Way, '_adopt_copy', [Number, Info, unicode:characters_to_binary(Ahead, latin1)]));
adopt_copy(Number, Info, Ahead, Way) ->
    answer(run(Way, '_adopt_copy', [Number, Info, Ahead])).

answer({ok, Answer}) -> Answer;
answer({error, Reason}) -> {error, Reason}.

%% The socket of Erlang's that has this descriptor, or none.
owner_of(Fd) ->
    case [Port || Port <- erlang:ports(), is_inet(Port), prim_inet:getfd(Port) =:= {ok, Fd}] of
        [Port | _] -> Port;
        [] -> owner_of(Fd, socket:which_sockets())
    end.

owner_of(Fd, Sockets) ->
    case [Socket || Socket <- Sockets, socket:getopt(Socket, {otp, fd}) =:= {ok, Fd}] of
        [Socket | _] -> Socket;
        [] -> none
    end.

is_inet(Port) ->
    case erlang:port_info(Port, name) of
        {name, Name} -> lists:member(Name, ["tcp_inet", "udp_inet", "sctp_inet"]);
        undefined -> false
    end.

%% --- the process ---

-spec init(py_reactor:options()) -> {ok, state()} | {stop, term()}.
init(#{protocol := {Target, Name}} = Options) ->
    process_flag(trap_exit, true),
    Loop = maps:get(loop, Options, default),
    Binaries = maps:get(binaries, Options, application:get_env(beamloop, binaries, bytes)),
    Limits = maps:filter(fun(_Key, Value) -> Value =/= infinity end, maps:with(?LIMITS, Options)),
    _ = monitor(process, beamloop_interpreter),
    _ = monitor_loop(Loop),
    case py_event_loop:run('erlang.reactor', '_start',
                           [target(Target), beamloop_call:name(Name),
                            maps:get(args, Options, []), Limits],
                           #{loop => Loop, binaries => Binaries}) of
        {ok, Object} ->
            Way = {Loop, Object, Binaries},
            Reactor = self(),
            Guard = spawn_link(fun() -> guard(Reactor, Way) end),
            true = ets:insert(?TABLE, {Reactor, Way}),
            {ok, #{way => Way, guard => Guard,
                   drain => maps:get(drain_timeout, Options, ?DRAIN_TIMEOUT)}};
        {error, Reason} ->
            {stop, Reason}
    end.

target(Object) when is_reference(Object) -> Object;
target(Module) -> beamloop_call:name(Module).

monitor_loop(default) -> ok;
monitor_loop(Loop) -> monitor(process, Loop).

%% Closes the connections of a reactor that is gone.
-spec guard(pid(), way()) -> ok.
guard(Reactor, Way) ->
    process_flag(trap_exit, true),
    Monitor = monitor(process, Reactor),
    receive
        {'DOWN', Monitor, process, Reactor, _Reason} ->
            _ = catch ets:delete(?TABLE, Reactor),
            _ = run(Way, '_abort', []),
            ok
    end.

-spec handle_call(term(), gen_server:from(), state()) -> {reply, ok | {error, unknown}, state()}.
handle_call({drain_timeout, Timeout}, _From, State) ->
    {reply, ok, State#{drain => Timeout}};
handle_call(_Request, _From, State) ->
    {reply, {error, unknown}, State}.

-spec handle_cast(term(), state()) -> {noreply, state()}.
handle_cast(_Request, State) ->
    {noreply, State}.

%% The loop or Python is gone, and the connections with it; or somebody that this process is linked to.
-spec handle_info(term(), state()) -> {noreply, state()} | {stop, term(), state()}.
handle_info({'DOWN', _Monitor, process, _LoopOrPython, _Reason}, State) ->
    {stop, {shutdown, not_running}, State#{stopped => true}};
handle_info({'EXIT', _Linked, Reason}, State) ->
    {stop, Reason, State};
handle_info(_Other, State) ->
    {noreply, State}.

%% In order, connections may end what they are about; the guard closes what is left.
-spec terminate(term(), state()) -> ok.
terminate(_Reason, #{stopped := true}) ->
    ok;
terminate(Reason, #{drain := Timeout} = State) when Reason =:= normal; Reason =:= shutdown ->
    drain(Timeout, State);
terminate({shutdown, _}, #{drain := Timeout} = State) ->
    drain(Timeout, State);
terminate(_Crash, _State) ->
    ok.

-spec drain(timeout(), state()) -> ok.
drain(Timeout, #{way := Way}) ->
    case run(Way, '_stop', [Timeout]) of
        {ok, 0} ->
            ok;
        {ok, Left} ->
            logger:notice("beamloop: a reactor closed ~b connections that had not ended in time",
                          [Left]);
        {error, _NotRunning} ->
            ok
    end.
