%% What bounds memory and atoms: what comes from outside can be refused, and cannot end the VM.
-module(limits_SUITE).

-include_lib("stdlib/include/assert.hrl").

-export([all/0, suite/0, init_per_suite/1, end_per_suite/1, end_per_testcase/2]).
-export([atoms_of_python_are_bounded/1, atoms_that_exist_are_free/1,
         a_new_atom_is_counted_once/1, text_of_python_makes_no_atom/1,
         an_exceptions_name_makes_no_atom/1, most_of_the_atom_table_is_left_to_others/1,
         a_count_without_its_elements_allocates_nothing/1]).

suite() -> [{timetrap, {minutes, 2}}].

all() ->
    [atoms_of_python_are_bounded, atoms_that_exist_are_free, a_new_atom_is_counted_once,
     text_of_python_makes_no_atom, an_exceptions_name_makes_no_atom,
     most_of_the_atom_table_is_left_to_others,
     a_count_without_its_elements_allocates_nothing].

init_per_suite(Config) ->
    restart([]),
    Config.

end_per_suite(_Config) ->
    application:unset_env(beamloop, max_new_atoms),
    application:stop(beamloop).

end_per_testcase(_Case, _Config) ->
    channel_tests:left().

restart(Env) ->
    _ = application:stop(beamloop),
    application:unset_env(beamloop, max_new_atoms),
    [application:set_env(beamloop, Key, Value) || {Key, Value} <- Env],
    ok = application:start(beamloop),
    ok = py:exec("from erlang import Atom, TermError, _term\n"
                 "from erlang.channel import Channel\n").

made() ->
    maps:get(new_atoms, py:info()).

%% ---- atoms ----

atoms_of_python_are_bounded(_Config) ->
    restart([{max_new_atoms, made() + 10}]),
    ok = py:exec("def make(n): return Atom('limits_SUITE bounded %d' % n)\n"),
    Made = [py:call('__main__', make, [N]) || N <- lists:seq(1, 10)],
    ?assertEqual(10, length([Atom || {ok, Atom} <- Made, is_atom(Atom)])),
    {error, {<<"ValueError">>, Text, _}} = py:call('__main__', make, [11]),
    ?assertNotEqual(nomatch, binary:match(Text, <<"max_new_atoms">>)),
    ?assertError(badarg, binary_to_existing_atom(<<"limits_SUITE bounded 11">>)),
    %% In a message, too, and those that are there go on.
    {ok, Channel} = py_channel:new(),
    ok = py:exec("def send(ref, value): Channel(ref).send(value)\n"),
    ?assertMatch({error, {<<"ValueError">>, _, _}},
                 py:call('__main__', send, [Channel, {<<"limits_SUITE bounded">>, made_in_python(12)}])),
    ?assertEqual({ok, none}, py:call('__main__', send, [Channel, element(2, hd(Made))])),
    ?assertEqual({ok, element(2, hd(Made))}, py_channel:recv(Channel)),
    ok = py_channel:close(Channel),
    restart([]).

%% What a function of Python's gives back to be an argument would be an atom by then.
made_in_python(N) ->
    ok = py:exec(["pending = Atom('limits_SUITE bounded ", integer_to_list(N), "')\n"
                  "def send(ref, value):\n"
                  "    Channel(ref).send(pending if isinstance(value, tuple) else value)\n"]),
    N.

atoms_that_exist_are_free(_Config) ->
    restart([{max_new_atoms, 0}]),
    ?assertEqual({ok, [ok, error, 'żółw']}, py:eval("[Atom('ok'), Atom('error'), Atom('żółw')]")),
    ?assertMatch({error, {<<"ValueError">>, _, _}}, py:eval("Atom('limits_SUITE ' + 'unknown')")),
    restart([]).

a_new_atom_is_counted_once(_Config) ->
    Before = made(),
    [?assertMatch({ok, Atom} when is_atom(Atom), py:eval("Atom('limits_SUITE ' 'counted')"))
     || _ <- lists:seq(1, 3)],
    ?assertEqual(Before + 1, made()).

text_of_python_makes_no_atom(_Config) ->
    Name = <<"limits_SUITE", " text">>,
    ?assertEqual({ok, {Name, Name, #{Name => 1}}},
                 py:eval("('limits_SUITE text', b'limits_SUITE text', {'limits_SUITE text': 1})")),
    {ok, Channel} = py_channel:new(),
    ok = py:exec("def answer(ref): Channel(ref).send(('limits_SUITE text', 1))\n"),
    {ok, none} = py:call('__main__', answer, [Channel]),
    ?assertEqual({ok, {Name, 1}}, py_channel:recv(Channel)),
    ok = py_channel:close(Channel),
    ?assertError(badarg, binary_to_existing_atom(Name)).

an_exceptions_name_makes_no_atom(_Config) ->
    ok = py:exec("def fail(name): raise type(name, (Exception,), {})()\n"),
    Name = <<"limits_SUITE_", "exception">>,
    {error, {Class, _, _}} = py:call('__main__', fail, [Name], #{}, #{binaries => str}),
    ?assertEqual(Name, Class),
    ?assertError(badarg, binary_to_existing_atom(Name)).

most_of_the_atom_table_is_left_to_others(_Config) ->
    Paths = lists:append([["-pa", Path] || Path <- code:get_path(), filelib:is_dir(Path)]),
    {ok, Peer, nonode@nohost} =
        peer:start_link(#{connection => standard_io, args => ["+t", "40000" | Paths]}),
    {ok, _} = peer:call(Peer, application, ensure_all_started, [beamloop], 60000),
    Left = peer:call(Peer, erlang, system_info, [atom_limit]) -
           peer:call(Peer, erlang, system_info, [atom_count]),
    {error, {<<"ValueError">>, _, _}} =
        peer:call(Peer, py, eval, ["[__import__('erlang').Atom('a%d' % n) for n in range(50000)]"], 60000),
    #{new_atoms := Made} = peer:call(Peer, py, info, []),
    ?assert(Made > 1000),
    ?assert(Made =< Left div 2 + 1000),
    peer:stop(Peer).

%% ---- memory ----

%% The largest counts that the format has, in a term of a few bytes.
a_count_without_its_elements_allocates_nothing(_Config) ->
    ok = py:exec("import resource\n"
                 "def refused(data):\n"
                 "    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
                 "    try:\n"
                 "        _term.decode(data)\n"
                 "    except TermError:\n"
                 "        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before\n"),
    [begin
         {ok, Kilobytes} = py:call('__main__', refused, [<<131, Tag, 16#ffffffff:32, 97, 1>>]),
         ?assert(Kilobytes < 10000)
     end || Tag <- [$l, $i, $t, $m, $o, $M]].
