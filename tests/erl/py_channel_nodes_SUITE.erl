%% Channels and other nodes: remote processes in messages, and handles that travel there and back.
-module(py_channel_nodes_SUITE).

-include_lib("stdlib/include/assert.hrl").

-import(channel_tests, [wait_until/1]).

-export([all/0, suite/0, init_per_suite/1, end_per_suite/1]).
-export([python_replies_to_a_remote_process/1, remote_pids_pass_both_directions/1,
         a_reply_to_a_node_that_is_gone_is_no_error/1, a_handle_comes_back_alive/1]).
-export([new_channel/0, request/3, keep_one/0]).

suite() -> [{timetrap, {minutes, 2}}].

all() ->
    [python_replies_to_a_remote_process, remote_pids_pass_both_directions,
     a_handle_comes_back_alive, a_reply_to_a_node_that_is_gone_is_no_error].

%% Python runs on the node Here; There has nothing but this module.
init_per_suite(Config) ->
    Named = fun() -> #{name => peer:random_name()} end,
    {Here, ok} = vm_node:start([], Named()),
    {ok, There, ThereNode} =
        peer:start((Named())#{connection => standard_io,
                              args => ["-pa", filename:dirname(code:which(?MODULE))]}),
    pong = vm_node:call(Here, net_adm, ping, [ThereNode]),
    ok = vm_node:call(Here, py, exec, [helpers()]),
    unlink(Here),
    [{here, Here}, {there, There}, {there_node, ThereNode} | Config].

end_per_suite(Config) ->
    peer:stop(proplists:get_value(there, Config)),
    vm_node:stop(proplists:get_value(here, Config)).

helpers() ->
    "import erlang, sys, types\n"
    "from erlang.channel import Channel, reply\n"
    "\n"
    "def serve(ref):\n"
    "    for _, pid, data in Channel(ref):\n"
    "        reply(pid, ('response', data * 2))\n"
    "\n"
    "def take(ref):\n"
    "    return Channel(ref).receive()\n"
    "\n"
    "def send_back(ref):\n"
    "    Channel(ref).send(Channel(ref).receive())\n"
    "\n"
    "m = sys.modules['nodes_helpers'] = types.ModuleType('nodes_helpers')\n"
    "m.__dict__.update({k: v for k, v in globals().items() if not k.startswith('__')})\n".

python_replies_to_a_remote_process(Config) ->
    {Here, There} = both(Config),
    Channel = on(Here, ?MODULE, new_channel, []),
    _ = on(Here, erlang, spawn, [py, call, [nodes_helpers, serve, [Channel]]]),
    [?assertEqual({response, <<Data/binary, Data/binary>>},
                  on(There, ?MODULE, request, [py_node(Config), Channel, Data]))
     || N <- lists:seq(1, 20), Data <- [binary:copy(<<"x">>, N * 1000)]],
    ok = on(Here, py_channel, close, [Channel]).

%% On the other node: asks the node of the channel to send this process's request, and waits.
request(Node, Channel, Data) ->
    ok = erpc:call(Node, py_channel, send, [Channel, {request, self(), Data}]),
    receive {response, _} = Response -> Response after 20000 -> no_response end.

remote_pids_pass_both_directions(Config) ->
    {Here, There} = both(Config),
    Channel = on(Here, ?MODULE, new_channel, []),
    Remote = on(There, erlang, whereis, [init]),
    Reference = on(There, erlang, make_ref, []),
    ?assertNotEqual(node(Remote), py_node(Config)),
    ok = on(Here, py_channel, send, [Channel, {Remote, [Reference]}]),
    {ok, none} = on(Here, py, call, [nodes_helpers, send_back, [Channel]]),
    ?assertEqual({ok, {Remote, [Reference]}}, on(Here, py_channel, recv, [Channel, 10000])),
    ok = on(Here, py_channel, close, [Channel]).

%% A channel is local to its node; elsewhere it is a reference, which is the channel when it returns.
a_handle_comes_back_alive(Config) ->
    {Here, There} = both(Config),
    Channel = on(Here, ?MODULE, new_channel, []),
    Keeper = on(There, erlang, spawn, [?MODULE, keep_one, []]),
    {ok, none} = on(Here, py, call, [erlang, send, [Keeper, {Channel, Channel}]]),
    wait_until(fun() -> on(There, persistent_term, get, [kept, none]) =/= none end),
    Back = on(There, persistent_term, get, [kept]),
    ok = on(Here, py_channel, send, [Back, 1]),
    {ok, 1} = on(Here, py, call, [nodes_helpers, take, [Channel]]),
    ok = on(Here, py_channel, close, [Channel]).

keep_one() ->
    receive {Channel, Channel} -> persistent_term:put(kept, Channel) end.

a_reply_to_a_node_that_is_gone_is_no_error(Config) ->
    {Here, There} = both(Config),
    Remote = on(There, erlang, whereis, [init]),
    true = on(There, erlang, disconnect_node, [py_node(Config)]),
    {ok, none} = on(Here, py, call, [erlang, send, [Remote, hello]]).

%% On the node of Python, which keeps it.
new_channel() ->
    {ok, Channel} = py_channel:new(),
    persistent_term:put(channel, Channel),
    Channel.

%% --- helpers --------------------------------------------------------------------------------

both(Config) ->
    {proplists:get_value(here, Config), proplists:get_value(there, Config)}.

py_node(Config) ->
    on(proplists:get_value(here, Config), erlang, node, []).

on(Peer, Module, Function, Args) ->
    vm_node:call(Peer, Module, Function, Args).
