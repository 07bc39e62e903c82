%% Terms on their way through Python inside the VM: generated ones, and the handles inside them.
-module(terms_SUITE).

-include_lib("stdlib/include/assert.hrl").

-export([all/0, suite/0, init_per_suite/1, end_per_suite/1]).
-export([collect_finds_every_reference_once/1, collect_leaves_large_binaries_alone/1,
         collect_leaves_out_what_is_no_handle_of_many_references/1,
         generated_terms_come_back_from_calls/1, generated_terms_come_back_through_channels/1,
         a_handle_is_its_object_again/1, an_old_reference_is_no_handle/1,
         a_forged_reference_is_no_handle/1, a_fun_keeps_the_handles_it_holds/1,
         a_plain_reference_in_a_large_message_is_no_obstacle/1,
         handles_found_while_they_die_are_safe/1, what_python_cannot_hold_is_an_error/1,
         a_python_value_without_a_term_is_an_object/1, terms_nested_too_deep_are_errors/1,
         none_is_what_the_application_says/1, large_maps_reach_erlang/1,
         what_python_kept_survives_that_the_node_gets_its_name/1]).
-export([keep_and_get_a_name/0]).
%% A stand-in for epmd's client, which is not there for every machine that runs this.
-export([start_link/0, register_node/2, register_node/3]).

suite() -> [{timetrap, {minutes, 2}}].

all() ->
    [collect_finds_every_reference_once, collect_leaves_large_binaries_alone,
     collect_leaves_out_what_is_no_handle_of_many_references,
     generated_terms_come_back_from_calls, generated_terms_come_back_through_channels,
     a_handle_is_its_object_again, an_old_reference_is_no_handle, a_forged_reference_is_no_handle,
     a_fun_keeps_the_handles_it_holds, a_plain_reference_in_a_large_message_is_no_obstacle,
     handles_found_while_they_die_are_safe, what_python_cannot_hold_is_an_error,
     a_python_value_without_a_term_is_an_object, terms_nested_too_deep_are_errors,
     none_is_what_the_application_says, large_maps_reach_erlang,
     what_python_kept_survives_that_the_node_gets_its_name].

init_per_suite(Config) ->
    start(),
    Config.

start() ->
    {ok, _} = application:ensure_all_started(beamloop),
    ok = py:exec(
        "import sys, types\n"
        "from erlang.channel import Channel, reply\n"
        "\n"
        "kept = {}\n"
        "\n"
        "def same(value):\n"
        "    return value\n"
        "\n"
        "def kind(value):\n"
        "    return type(value).__name__\n"
        "\n"
        "def keep(name, value):\n"
        "    kept[name] = value\n"
        "\n"
        "def answer_kept(name, value):\n"
        "    reply(kept[name][0], value)\n"
        "\n"
        "def give(name):\n"
        "    return kept.pop(name)\n"
        "\n"
        "def echo(ref, pid):\n"
        "    for term in Channel(ref):\n"
        "        reply(pid, [term])\n"
        "\n"
        "def greet_back(ref):\n"
        "    for node, pid in Channel(ref):\n"
        "        reply(pid, [node, pid])\n"
        "\n"
        "sys.modules['terms_SUITE_helpers'] = helpers = types.ModuleType('terms_SUITE_helpers')\n"
        "helpers.__dict__.update(globals())\n").

end_per_suite(_Config) ->
    application:stop(beamloop).

call(Function, Args) ->
    py:call(terms_SUITE_helpers, Function, Args).

collect_finds_every_reference_once(_Config) ->
    Refs = [make_ref() || _ <- lists:seq(1, 9)],
    [A, B, C, D, E, F, G, H, I] = Refs,
    Inner = fun() -> {F, A} end,
    Term = {[A, B | C], #{D => [E]}, fun() -> [Inner, G, B] end, fun lists:map/2,
            maps:from_list([{{N, H}, I} || N <- lists:seq(1, 100)])},
    ?assertEqual(lists:sort(Refs), lists:sort(beamloop_handles:collect(Term))),
    ?assertEqual([A], beamloop_handles:collect(A)),
    [?assertEqual([], beamloop_handles:collect(T)) || T <- [1, a, <<1>>, [], {}, #{}, self(), "x"]].

collect_leaves_out_what_is_no_handle_of_many_references(_Config) ->
    {ok, First} = py_channel:new(),
    {ok, Last} = py_channel:new(),
    Refs = [make_ref() || _ <- lists:seq(1, 20000)],
    ?assertEqual([], beamloop_handles:collect(Refs)),
    Term = [First, Refs, {Last, Refs}],
    ?assert(length(beamloop_handles:collect(Term)) =< 2),
    ?assertEqual({ok, Term}, call(same, [Term])).

collect_leaves_large_binaries_alone(_Config) ->
    Large = binary:copy(<<0>>, 100000000),
    {reductions, Before} = process_info(self(), reductions),
    [] = beamloop_handles:collect([Large, {Large}]),
    {reductions, After} = process_info(self(), reductions),
    ?assert(After - Before < 2000).

generated_terms_come_back_from_calls(_Config) ->
    rand:seed(exsss, {1, 2, 3}),
    [begin
         Term = term(4),
         ?assertEqual({ok, Term}, call(same, [Term]))
     end || _ <- lists:seq(1, 500)].

generated_terms_come_back_through_channels(_Config) ->
    rand:seed(exsss, {4, 5, 6}),
    {ok, Channel} = py_channel:new(),
    Parent = self(),
    {_, Monitor} = spawn_monitor(fun() -> exit(call(echo, [Channel, Parent])) end),
    [begin
         Term = term(5),
         ok = py_channel:send(Channel, Term),
         receive
             [Back] -> ?assertEqual(Term, Back)
         after 10000 -> error({no_answer, Term})
         end
     end || _ <- lists:seq(1, 500)],
    ok = py_channel:close(Channel),
    receive {'DOWN', Monitor, _, _, Reason} -> ?assertEqual({ok, none}, Reason) end.

%% A random term that Python holds exactly: no nil or undefined, no two keys that it takes for one.
term(0) ->
    case rand:uniform(15) of
        1 -> rand:uniform(1000) - 500;
        2 -> rand:uniform(1 bsl 70) - (1 bsl 69);
        3 -> rand:uniform(1 bsl 700) - (1 bsl 699);
        4 -> rand:normal() * 1.0e10;
        5 -> lists:nth(rand:uniform(5), [true, false, none, atom, '']);
        6 -> binary_to_atom(<<"żółw"/utf8>>);
        7 -> rand:bytes(rand:uniform(300) - 1);
        8 -> rand:bytes(70000);
        9 -> <<(rand:uniform(128) - 1):7, (rand:bytes(rand:uniform(20)))/binary>>;
        10 -> self();
        11 -> make_ref();
        12 -> hd(erlang:ports());
        13 -> fun lists:map/2;
        14 -> N = rand:uniform(100), fun() -> {N, self()} end;
        15 -> lists:seq(1, rand:uniform(50))
    end;
term(Depth) ->
    Size = rand:uniform(5) - 1,
    Inner = fun() -> term(rand:uniform(Depth) - 1) end,
    case rand:uniform(5) of
        1 -> term(0);
        2 -> [Inner() || _ <- lists:seq(1, Size)];
        3 -> list_to_tuple([Inner() || _ <- lists:seq(1, Size)]);
        4 -> maps:from_list([{lists:nth(N, [1, <<"k">>, a, {t, 2.5}]), Inner()}
                             || N <- lists:seq(1, min(Size, 4))]);
        5 -> [Inner() | term(0)]
    end.

a_handle_is_its_object_again(_Config) ->
    {ok, Channel} = py_channel:new(),
    ?assertEqual({ok, <<"ChannelRef">>}, call(kind, [Channel])),
    ?assertEqual({ok, #{<<"k">> => [Channel, {Channel}]}},
                 call(same, [#{<<"k">> => [Channel, {Channel}]}])),
    {ok, Object} = py:eval("object()"),
    ?assertEqual({ok, <<"object">>}, call(kind, [Object])),
    ok = py_channel:close(Channel).

%% The bytes of a reference whose channel is gone.
old_reference() ->
    {_, Monitor} = spawn_monitor(fun() ->
        {ok, Channel} = py_channel:new(),
        exit(term_to_binary(Channel))
    end),
    receive {'DOWN', Monitor, _, _, Bytes} -> Bytes end.

an_old_reference_is_no_handle(_Config) ->
    Bytes = old_reference(),
    wait_until(fun() -> call(kind, [binary_to_term(Bytes)]) =:= {ok, <<"Reference">>} end),
    Reference = binary_to_term(Bytes),
    ?assertEqual({ok, [Reference]}, call(same, [[Reference]])).

a_forged_reference_is_no_handle(_Config) ->
    {ok, Channel} = py_channel:new(),
    <<131, 90, 3:16, Rest/binary>> = term_to_binary(Channel, [{minor_version, 2}]),
    <<119, Length, Node:Length/binary, Creation:32, Numbers:12/binary>> = Rest,
    Forge = fun(Name, Number) ->
        binary_to_term(<<131, 90, 3:16, 119, (byte_size(Name)), Name/binary, Number:32,
                         Numbers/binary>>)
    end,
    ?assertEqual(Channel, Forge(Node, Creation)),
    [begin
         ?assertEqual({ok, <<"Reference">>}, call(kind, [Forged])),
         ?assertEqual({ok, Forged}, call(same, [Forged]))
     end || Forged <- [Forge(<<"other@nowhere">>, Creation), Forge(Node, Creation bxor 1)]],
    ok = py_channel:close(Channel).

%% Python holds the fun as bytes; the channel in its environment lives as long.
a_fun_keeps_the_handles_it_holds(_Config) ->
    {_, Monitor} = spawn_monitor(fun() ->
        {ok, Channel} = py_channel:new(),
        {ok, none} = call(keep, [<<"fun">>, fun() -> Channel end])
    end),
    receive {'DOWN', Monitor, _, _, Reason} -> normal = Reason end,
    timer:sleep(50),
    {ok, Fun} = call(give, [<<"fun">>]),
    Channel = Fun(),
    ?assertMatch(#{closed := false}, py_channel:info(Channel)),
    ?assertEqual(ok, py_channel:send(Channel, 1)).

a_plain_reference_in_a_large_message_is_no_obstacle(_Config) ->
    {ok, Channel} = py_channel:new(),
    Message = {make_ref(), Channel, binary:copy(<<"x">>, 10000), make_ref()},
    ok = py_channel:send(Channel, Message),
    ok = py_channel:close(Channel),
    Parent = self(),
    {ok, none} = call(echo, [Channel, Parent]),
    receive [Back] -> ?assertEqual(Message, Back) after 5000 -> error(no_message) end.

%% Processes make channels and die while others send the references of just these.
handles_found_while_they_die_are_safe(_Config) ->
    {ok, Target} = py_channel:new(),
    Parent = self(),
    {_, Echo} = spawn_monitor(fun() -> exit(call(echo, [Target, Parent])) end),
    Sent = lists:sum([send_dying(Target) || _ <- lists:seq(1, 2000)]),
    ok = py_channel:close(Target),
    receive {'DOWN', Echo, _, _, Reason} -> ?assertEqual({ok, none}, Reason) end,
    ?assertEqual(Sent, count_echoes(0)).

send_dying(Target) ->
    Bytes = old_reference(),
    ok = py_channel:send(Target, binary_to_term(Bytes)),
    ok = py_channel:send(Target, {Bytes, binary_to_term(Bytes)}),
    2.

count_echoes(N) ->
    receive
        [Reference] when is_reference(Reference) -> count_echoes(N + 1);
        [{Bytes, Reference}] ->
            ?assertEqual(Reference, binary_to_term(Bytes)),
            count_echoes(N + 1)
    after 0 -> N
    end.

what_python_cannot_hold_is_an_error(_Config) ->
    [?assertMatch({error, {<<"TermError">>, _, _}}, call(same, [Term]))
     || Term <- [#{[] => 1}, #{1 => a, 1.0 => b}, #{true => a, 1 => b}, #{none => a, nil => b}]],
    [?assertMatch({error, {<<"ValueError">>, _, _}}, py:eval(Expression))
     || Expression <- ["float('nan')", "[float('inf')]", "{'a': 1, b'a': 2}"]].

a_python_value_without_a_term_is_an_object(_Config) ->
    {ok, {1, Set, [Type]}} = py:eval("(1, {2, 3}, [int])"),
    ?assert(is_reference(Set) andalso is_reference(Type)),
    ?assertEqual({ok, <<"set">>}, call(kind, [Set])),
    ?assertEqual({ok, 17}, py:eval("t('17')", #{t => Type})).

terms_nested_too_deep_are_errors(_Config) ->
    Nest = fun(Levels) -> lists:foldl(fun(_, Term) -> [Term] end, 0, lists:seq(1, Levels)) end,
    ?assertEqual({ok, Nest(9000)}, call(same, [Nest(9000)])),
    ?assertMatch({error, {<<"TermError">>, _, _}}, call(same, [Nest(200000)])),
    ?assertMatch({error, {<<"RecursionError">>, _, _}},
                 py:eval("__import__('functools').reduce(lambda t, _: [t], range(200000), 0)")).

none_is_what_the_application_says(_Config) ->
    ?assertEqual({ok, {none, [none]}}, py:eval("(None, [None])")),
    restart_with_none(undefined),
    ?assertEqual({ok, {undefined, [undefined]}}, py:eval("(None, [None])")),
    ?assertEqual({ok, [undefined, undefined]}, call(same, [[none, nil]])),
    ok = application:stop(beamloop),
    ok = application:set_env(beamloop, none, null),
    ?assertMatch({error, {{bad_none, null, {_, _, _}}, _}}, application:start(beamloop)),
    restart_with_none(none),
    application:unset_env(beamloop, none),
    ?assertEqual({ok, none}, py:eval("None")).

restart_with_none(Name) ->
    _ = application:stop(beamloop),
    ok = application:set_env(beamloop, none, Name),
    ok = application:start(beamloop).

what_python_kept_survives_that_the_node_gets_its_name(_Config) ->
    Paths = lists:append([["-pa", Path] || Path <- code:get_path(), filelib:is_dir(Path)]),
    {ok, Peer, nonode@nohost} =
        peer:start_link(#{connection => standard_io,
                          args => ["-epmd_module", ?MODULE_STRING, "-start_epmd", "false" | Paths]}),
    ok = peer:call(Peer, ?MODULE, keep_and_get_a_name, [], 60000),
    peer:stop(Peer).

%% On a node without a name.
keep_and_get_a_name() ->
    start(),
    {ok, Channel} = py_channel:new(),
    {ok, Queue} = py_channel:new(),
    Values = [self(), make_ref(), hd(erlang:ports()), Channel],
    {ok, none} = call(keep, [<<"values">>, Values]),
    ok = py_channel:send(Queue, {Channel, self()}),
    {ok, _} = net_kernel:start([late, shortnames]),
    true = node() =/= nonode@nohost,
    {ok, none} = call(answer_kept, [<<"values">>, answered]),
    receive answered -> ok after 5000 -> error(no_answer) end,
    ?assertEqual({ok, Values}, call(give, [<<"values">>])),
    ok = py_channel:close(Queue),
    {ok, none} = call(echo, [Queue, self()]),
    receive [Back] -> ?assertEqual({Channel, self()}, Back) after 5000 -> error(no_message) end,
    {_, Monitor} = spawn_monitor(fun pids_follow_the_name/0),
    receive {'DOWN', Monitor, process, _, Reason} -> ?assertEqual(normal, Reason) end.

%% A pid that was sent before is sent as it is called now: else it comes back as another node's.  In a
%% process that was never sent before it had a name.
pids_follow_the_name() ->
    {ok, Queue} = py_channel:new(),
    spawn_link(fun() -> {ok, none} = call(greet_back, [Queue]) end),
    Steps = [{true, fun() -> ok end}, {false, fun net_kernel:stop/0},
             {true, fun() -> {ok, _} = net_kernel:start([late, shortnames]) end},
             {false, fun net_kernel:stop/0},
             {true, fun() -> {ok, _} = net_kernel:start([later, shortnames]) end}],
    [begin
         _ = Step(),
         %% net_kernel:stop/0 returns a moment before the node has lost its name.
         wait_until(fun() -> is_alive() =:= Alive end),
         [begin
              ok = py_channel:send(Queue, {node(), self()}),
              receive Back -> ?assertEqual([node(), self()], Back)
              after 5000 -> error({no_message, node()})
              end
          end || _ <- [1, 2]]
     end || {Alive, Step} <- Steps],
    ok = py_channel:close(Queue).

start_link() ->
    ignore.

register_node(Name, Port) ->
    register_node(Name, Port, inet).

register_node(_Name, _Port, _Family) ->
    {ok, 77}.

wait_until(Condition) ->
    wait_until(Condition, 500).

wait_until(Condition, Tries) ->
    case Condition() of
        true -> ok;
        false when Tries > 0 -> timer:sleep(10), wait_until(Condition, Tries - 1)
    end.

%% The emulator's decoder sorts the entries of such maps with the help of its scheduler.
large_maps_reach_erlang(_Config) ->
    Maps = [maps:from_list([{N, {N, [N]}} || N <- lists:seq(1, Size)])
            || Size <- [0, 1, 32, 33, 128, 129, 1000, 30000]],
    Terms = Maps ++ [Maps, [lists:last(Maps) | tail], list_to_tuple(Maps), #{<<"in">> => Maps},
                     <<116, 0, 0, 1, 0, 0:8000>>],
    [?assertEqual({ok, Term}, py:call('__main__', same, [Term])) || Term <- Terms],
    {ok, Ch} = py_channel:new(),
    Self = self(),
    spawn_link(fun() -> {ok, none} = py:call('__main__', echo, [Ch, Self]) end),
    [begin
         ok = py_channel:send(Ch, Term),
         receive [Answer] -> ?assertEqual(Term, Answer) end
     end || Term <- Terms],
    ok = py_channel:close(Ch),
    %% Keys that differ in Python only.
    ?assertMatch({error, _}, py:eval("{**{n: n for n in range(200)}, 'a': 1, b'a': 2}")),
    %% Only the emulator can make a fun.
    Map = maps:from_list([{N, N} || N <- lists:seq(1, 200)]),
    ?assertMatch({error, _}, py:call('__main__', same, [fun() -> Map end])),
    ?assertEqual({ok, 1}, py:call('__main__', same, [1])).
