%% @private
%% @doc The process of a reactor, and the ways to the Python object that does the work.
%%
%% The object is reached through a table, by whoever hands a connection over: the process itself is
%% no bottleneck. A guard stands beside it, so that the connections end with it even when it is killed.
-module(beamloop_reactor).

-behaviour(gen_server).

-export([new_table/0, check/1, start_link/1, kind/1, handoff/5, info/1, stop/2]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2, terminate/2]).

-define(TABLE, beamloop_reactors).
-define(DRAIN_TIMEOUT, 3000).
-define(INFO_TIMEOUT, 5000).
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

-spec run(way(), atom(), [term()], timeout()) -> {ok, term()} | {error, py:error()}.
run({Loop, Object, Binaries}, Method, Args, Timeout) ->
    py_event_loop:run(Object, Method, Args,
                      #{loop => Loop, binaries => Binaries, timeout => Timeout}).

-spec info(pid() | atom()) -> {ok, map()} | {error, py:error()}.
info(Reactor) ->
    case way(Reactor) of
        {ok, {Loop, Object, _Binaries}} ->
            case run({Loop, Object, str}, '_info', [], ?INFO_TIMEOUT) of
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

%% Whoever stops it at the same time as others is answered by its end.
-spec stop(pid() | atom(), timeout() | default) -> ok.
stop(Reactor, Timeout) ->
    Monitor = monitor(process, Reactor),
    try
        gen_server:call(Reactor, {stop, Timeout}, infinity)
    catch
        exit:{_Ended, {gen_server, call, _}} -> ok
    end,
    receive
        {'DOWN', Monitor, process, _, _Reason} -> ok
    end.

%% --- handing over ---

-spec kind(term()) -> kind() | badarg.
kind(Fd) when is_integer(Fd) -> fd;
kind(Port) when is_port(Port) -> port;
kind({'$inet', gen_tcp_socket, {Pid, _Socket}}) when is_pid(Pid) -> inet;
kind({'$socket', Ref}) when is_reference(Ref) -> socket;
kind(_Other) -> badarg.

-spec handoff(pid() | atom(), kind(), py_reactor:handed(), term(), timeout()) ->
          ok | {error, term()}.
handoff(Reactor, Kind, Handed, Info, Timeout) ->
    case way(Reactor) of
        {ok, Way} ->
            hand_over(Kind, Handed, fun(Offered, Ahead) ->
                adopt(Offered, Info, Ahead, Way, Timeout)
            end);
        Error ->
            Error
    end.

%% Adopt is called with what was offered, and with the channel through which comes what is first, or none.
hand_over(fd, Fd, _Adopt) when Fd < 0; Fd >= 1 bsl 31 ->
    {error, ebadf};
hand_over(fd, Fd, Adopt) ->
    case owner_of(Fd) of
        none -> with_offer(Fd, same, fun(Offered) -> Adopt(Offered, none) end);
        Socket -> {error, {owned, Socket}}
    end;
hand_over(port, Port, Adopt) ->
    case check_port(Port) of
        {ok, Fd} -> with_offer(Fd, copy, fun(Copy) -> hand_gen_tcp_over(Port, Copy, Adopt) end);
        Error -> Error
    end;
hand_over(inet, {'$inet', _, {Pid, Inner}} = Socket, Adopt) ->
    Self = self(),
    case {inet:getopts(Socket, [active]), inet:info(Socket)} of
        {{ok, _}, #{owner := Owner}} when Owner =/= Self -> {error, not_owner};
        {{ok, [{active, false}]}, _} -> offer_copy(Inner, Pid, fun(Copy) ->
                                            hand_gen_tcp_over(Socket, Copy, Adopt)
                                        end);
        {{ok, _Active}, _} -> {error, not_passive};
        {{error, _}, _} -> {error, closed}
    end;
hand_over(socket, Socket, Adopt) ->
    %% It keeps no data of its own.
    offer_copy(Socket, self(), fun(Copy) ->
        Answer = Adopt(Copy, none),
        _ = Answer =:= ok andalso socket:close(Socket),
        Answer
    end).

%% Of a socket of the module socket that Owner owns.
offer_copy(Socket, Owner, Use) ->
    case {socket:getopt(Socket, {otp, fd}), socket:getopt(Socket, {otp, controlling_process})} of
        {{ok, Fd}, {ok, Owner}} -> with_offer(Fd, copy, Use);
        {{ok, _Fd}, {ok, _Other}} -> {error, not_owner};
        _Closed -> {error, closed}
    end.

%% What a gen_tcp socket gives it does not take back as it was, so that it is read once the reactor is sure to
%% serve the connection, which begins when that has come through a channel.  Where this process dies before,
%% the channel closes, and the connection ends with its socket.
hand_gen_tcp_over(Socket, Copy, Adopt) ->
    case py_byte_channel:new(#{owner => self()}) of
        {ok, Channel} ->
            case Adopt(Copy, Channel) of
                ok ->
                    _ = inet:setopts(Socket, [{packet, raw}]),
                    ok = py_byte_channel:send(Channel, receive_now(Socket)),
                    ok = gen_tcp:close(Socket);
                Error ->
                    ok = py_byte_channel:close(Channel),
                    Error
            end;
        {error, system_limit} ->
            {error, enomem}
    end.

%% What the socket has read and not given yet, perhaps a part of a packet, or what has just come.
receive_now(Socket) ->
    case gen_tcp:recv(Socket, 0, 0) of
        {ok, Data} -> iolist_to_binary(Data);
        {error, _NothingOrTheEnd} -> <<>>
    end.

%% The descriptor of a gen_tcp socket that nobody else uses and that has sent everything.
check_port(Port) ->
    case {erlang:port_info(Port, connected), inet:getopts(Port, [active, packet]),
          inet:getstat(Port, [send_pend]), inet:getfd(Port)} of
        {{connected, Owner}, _, _, _} when Owner =/= self() -> {error, not_owner};
        {_, {ok, [{active, false}, {packet, _}]}, {ok, [{send_pend, 0}]}, {ok, Fd}} -> {ok, Fd};
        {_, {ok, [{active, false}, _]}, {ok, [{send_pend, Size}]}, {ok, _}} ->
            {error, {unsent, Size}};
        {{connected, _}, {ok, [{active, _}, _]}, _, {ok, _}} -> {error, not_passive};
        {{connected, _}, {ok, [{active, _}]}, _, {ok, _}} -> {error, not_a_stream};
        _Closed -> {error, closed}
    end.

%% What is offered belongs to the reference until Python has accepted it by its number.
with_offer(Fd, Way, Use) ->
    case beamloop_nif:nif_descriptor_offer(Fd, Way) of
        {ok, Descriptor, Number} -> Use({Descriptor, Number});
        {error, emulator} -> {error, {owned, forker()}};
        {error, Reason} -> {error, Reason}
    end.

%% The port of the emulator's own socket, which leads to the process that starts all others.
forker() ->
    hd([Port || Port <- erlang:ports(), erlang:port_info(Port, name) =:= {name, "forker"}]).

%% Without an answer either side may have been first.
adopt({Descriptor, Number}, Info, Ahead, Way, Timeout) ->
    case run(Way, '_adopt', [Number, Info, Ahead], Timeout) of
        {ok, ok} ->
            ok;
        NotAdopted ->
            case {beamloop_nif:nif_descriptor_withdraw(Descriptor), NotAdopted} of
                {false, _} -> ok;
                {true, {ok, Error}} -> Error;
                {true, Error} -> Error
            end
    end.

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
            abort(Reactor, Way)
    end.

-spec abort(pid(), way()) -> ok.
abort(Reactor, Way) ->
    _ = catch ets:delete(?TABLE, Reactor),
    _ = run(Way, '_abort', [], infinity),
    ok.

-spec handle_call(term(), gen_server:from(), state()) ->
          {reply, {error, unknown}, state()} | {stop, normal, ok, state()}.
handle_call({stop, default}, _From, State) ->
    {stop, normal, ok, State};
handle_call({stop, Timeout}, _From, State) ->
    {stop, normal, ok, State#{drain => Timeout}};
handle_call(_Request, _From, State) ->
    {reply, {error, unknown}, State}.

-spec handle_cast(term(), state()) -> {noreply, state()}.
handle_cast(_Request, State) ->
    {noreply, State}.

%% The loop or Python is gone, and the connections with it; or somebody that this process is linked to.
-spec handle_info(term(), state()) -> {noreply, state()} | {stop, term(), state()}.
handle_info({'DOWN', _Monitor, process, _LoopOrPython, _Reason}, State) ->
    {stop, {shutdown, not_running}, State#{stopped => true}};
handle_info({'EXIT', Guard, Reason}, #{guard := Guard, way := Way} = State) ->
    %% Nobody is left who would do it.
    ok = abort(self(), Way),
    {stop, Reason, State#{stopped => true}};
handle_info({'EXIT', _Linked, Reason}, State) ->
    {stop, Reason, State};
handle_info(_Other, State) ->
    {noreply, State}.

%% In order, connections may end what they are about.
-spec terminate(term(), state()) -> ok.
terminate(_Reason, #{stopped := true}) ->
    ok;
terminate(Reason, #{drain := Timeout} = State) when Reason =:= normal; Reason =:= shutdown ->
    drain(Timeout, State);
terminate({shutdown, _}, #{drain := Timeout} = State) ->
    drain(Timeout, State);
terminate(_Crash, #{way := Way}) ->
    abort(self(), Way).

-spec drain(timeout(), state()) -> ok.
drain(Timeout, #{way := Way}) ->
    case run(Way, '_stop', [Timeout], infinity) of
        {ok, 0} ->
            ok;
        {ok, Left} ->
            logger:notice("beamloop: a reactor closed ~b connections that had not ended in time",
                          [Left]);
        {error, _NotRunning} ->
            ok
    end.
