%% @doc Connections that Erlang opens and Python serves.
%%
%% A reactor belongs to a Python event loop. A process that has accepted a connection hands it over
%% with {@link handoff/3}; from then on a Python object, derived from `erlang.reactor.Protocol', is
%% called by the loop's own poller, and no byte passes through Erlang.
%%
%% The process of the reactor owns its connections: they are closed when it ends, in whatever way.
%% It fits under a supervisor; one that is started anew has no connections.
-module(py_reactor).

-export([start_link/1, handoff/3, handoff/4, info/1, stop/1, stop/2]).
-export_type([options/0, reactor/0, handed/0, reason/0]).

-type factory() :: {py:target(), py:name()}.
%% A module and what in it makes a protocol when it is called, such as a class; or a Python object and
%% an attribute of it.
-type options() :: #{protocol := factory(), args => [term()], loop => py_event_loop:loop(),
                     name => atom(), max_connections => pos_integer() | infinity,
                     read_size => pos_integer(), write_limit => pos_integer(),
                     drain_timeout => timeout(), binaries => bytes | str}.
%% `args' are given to the factory at each call. `loop' is the default loop unless given; `name'
%% registers the process. `max_connections' is how many there may be at a time (`infinity');
%% `read_size' how many bytes one call receives at most (1 MB); `write_limit' of how many that a peer
%% does not take nothing more is read from it meanwhile (64 KB). `drain_timeout' is what {@link stop/1}
%% and a supervisor's shutdown give connections to end, in milliseconds (3000). `binaries' says as what
%% Python sees the binaries of `args' and of `Info'.
-type reactor() :: pid() | atom().
-type handed() :: integer() | gen_tcp:socket() | socket:socket().
-type reason() :: not_running | stopping | max_connections | closed | not_owner | not_passive
                | {unsent, pos_integer()} | {owned, port() | socket:socket()} | in_use
                | not_a_stream | listening | inet:posix() | {protocol, py:error()} | py:error().
%% `not_running': the reactor, its loop or Python does not run; `stopping': it adopts nothing any more;
%% `max_connections': it has as many as it may have.
%%
%% Of the socket: it is `closed'; another process owns it (`not_owner'); data goes to its owner by
%% itself (`not_passive': `{active, false}' is needed); so many bytes that were sent have not left
%% (`{unsent, Size}').
%%
%% Of the descriptor: it is that of a socket of Erlang's, which is to be handed over itself, or of a port
%% of the emulator's own (`{owned, Socket}'); Python serves it already (`in_use'), it is no stream socket, or one that listens; what the
%% system says (`ebadf', `enotsock', `enotconn', `emfile', ...).
%%
%% `{protocol, Error}': the factory raised an exception, or made no protocol. `timeout': of
%% {@link handoff/4}.

%% @doc Starts a reactor, linked to the calling process.
-spec start_link(options()) -> {ok, pid()} | {error, py:error() | {already_started, pid()}}.
start_link(Options) when is_map(Options) ->
    case beamloop_reactor:check(Options) of
        ok -> beamloop_reactor:start_link(Options);
        badarg -> erlang:error(badarg, [Options])
    end;
start_link(Options) ->
    erlang:error(badarg, [Options]).

%% @doc Hands a connection over to a new protocol of the reactor, whose `connection_made' is given
%% the descriptor and `Info'.
%%
%% After `ok' the reactor has the connection. A socket of `gen_tcp' or `socket' is closed for Erlang
%% (the reactor has a descriptor of its own); what it had read ahead comes first. An integer is the reactor's very descriptor, and closing it somewhere else is an error of the
%% program.
%%
%% After an error everything is as it was: socket or descriptor are the caller's, open, with all data.
%%
%% The process must own the socket, and no other one may be receiving from it. Nothing is done twice: where the caller dies meanwhile, the
%% connection is either the reactor's or closed with its socket.
-spec handoff(reactor(), handed(), Info :: term()) -> ok | {error, reason()}.
handoff(Reactor, Handed, Info) ->
    handoff(Reactor, Handed, Info, infinity).

%% @doc The same, for at most `Timeout' milliseconds until the loop has taken the connection over: it may be
%% busy with other Python code. `{error, timeout}' is an error like the others: everything is as it was, and
%% the reactor will not have the connection.
-spec handoff(reactor(), handed(), Info :: term(), timeout()) -> ok | {error, reason()}.
handoff(Reactor, Handed, Info, Timeout)
  when is_pid(Reactor) orelse is_atom(Reactor),
       Timeout =:= infinity orelse (is_integer(Timeout) andalso Timeout >= 0) ->
    case beamloop_reactor:kind(Handed) of
        badarg -> erlang:error(badarg, [Reactor, Handed, Info, Timeout]);
        Kind -> beamloop_reactor:handoff(Reactor, Kind, Handed, Info, Timeout)
    end;
handoff(Reactor, Handed, Info, Timeout) ->
    erlang:error(badarg, [Reactor, Handed, Info, Timeout]).

%% @doc What the reactor has done and may do: how many `connections' there are, were `accepted' and
%% `closed', and ended by an exception (`errors'); bytes `received' and `sent'; the limits
%% `max_connections', `read_size' and `write_limit'; whether it is `stopping'. The loop answers itself, so
%% one that is blocked does not: `{error, timeout}' after five seconds.
-spec info(reactor()) -> {ok, #{atom() => non_neg_integer() | infinity | boolean()}}
                       | {error, py:error()}.
info(Reactor) ->
    beamloop_reactor:info(Reactor).

%% @doc Stops the reactor as its option `drain_timeout' says. `ok' as well when it does not run, or when
%% somebody else has stopped it meanwhile.
-spec stop(reactor()) -> ok.
stop(Reactor) ->
    beamloop_reactor:stop(Reactor, default).

%% @doc Stops the reactor. It adopts nothing any more; what has come is still served; a connection
%% closes once no answer is due and everything is sent. What is left after `Timeout' milliseconds is
%% closed at once.
-spec stop(reactor(), timeout()) -> ok.
stop(Reactor, Timeout) when Timeout =:= infinity; is_integer(Timeout), Timeout >= 0 ->
    beamloop_reactor:stop(Reactor, Timeout);
stop(Reactor, Timeout) ->
    erlang:error(badarg, [Reactor, Timeout]).
