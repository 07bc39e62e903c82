%% @private
%% @doc Sends what Python sends to processes of other nodes. A thread of ours is no process and has
%% no way to another node; this process has. A connection that cannot be made, or that is full, does
%% not hold up the others: the send is handed to a process per node.
-module(beamloop_relay).

-behaviour(gen_server).

-export([start_link/0]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2]).

-type state() :: #{node() => pid()}.

-spec start_link() -> {ok, pid()} | {error, term()}.
start_link() ->
    gen_server:start_link({local, ?MODULE}, ?MODULE, [], []).

-spec init([]) -> {ok, state()}.
init([]) ->
    process_flag(trap_exit, true),
    {ok, #{}}.

-spec handle_call(term(), gen_server:from(), state()) -> {reply, {error, unknown}, state()}.
handle_call(_Request, _From, State) ->
    {reply, {error, unknown}, State}.

-spec handle_cast(term(), state()) -> {noreply, state()}.
handle_cast(_Request, State) ->
    {noreply, State}.

-spec handle_info(term(), state()) -> {noreply, state()}.
handle_info({send, To, Message}, State) ->
    {Sender, NewState} = sender_for(node(To), State),
    Sender ! {send, To, Message},
    {noreply, NewState};
handle_info({'EXIT', Pid, _Reason}, State) ->
    {noreply, maps:filter(fun(_Node, Sender) -> Sender =/= Pid end, State)};
handle_info(_Other, State) ->
    {noreply, State}.

-spec sender_for(node(), state()) -> {pid(), state()}.
sender_for(Node, State) ->
    case State of
        #{Node := Sender} ->
            {Sender, State};
        #{} ->
            Sender = spawn_link(fun forward/0),
            {Sender, State#{Node => Sender}}
    end.

-spec forward() -> no_return().
forward() ->
    receive
        {send, To, Message} ->
            To ! Message
    end,
    forward().
