%% Properties, by PropEr where it is installed.
-module(properties_SUITE).

-export([all/0, suite/0, init_per_suite/1, end_per_suite/1, end_per_testcase/2]).
-export([a_channel_does_as_its_model/1, a_term_is_encoded_as_the_emulator_reads_it/1,
         a_term_comes_back_from_python/1]).

suite() ->
    [{timetrap, {minutes, 5}}].

all() ->
    [a_channel_does_as_its_model, a_term_is_encoded_as_the_emulator_reads_it,
     a_term_comes_back_from_python].

init_per_suite(Config) ->
    case code:which(proper) of
        non_existing ->
            {skip, "PropEr is not installed"};
        _ ->
            {ok, _} = application:ensure_all_started(beamloop),
            Path = filename:dirname(proplists:get_value(source, ?MODULE:module_info(compile))),
            ok = py:exec(["import sys\nsys.path.append('", Path, "')\n"]),
            Config
    end.

end_per_suite(_Config) ->
    application:stop(beamloop).

end_per_testcase(_Case, _Config) ->
    channel_tests:left().

a_channel_does_as_its_model(_Config) ->
    check(channel_statem:property(runs())).

a_term_is_encoded_as_the_emulator_reads_it(_Config) ->
    ok = py:exec("from erlang import _term\n"
                 "def recode(data): return _term.encode(_term.decode(data))\n"),
    check(for_terms(fun(Term) ->
        {ok, Encoded} = py:call('__main__', recode, [term_to_binary(Term)]),
        binary_to_term(Encoded)
    end)).

%% By way of the NIF's encoder, or that of the emulator for what it leaves to that.
a_term_comes_back_from_python(_Config) ->
    ok = py:exec("def same(term): return term\n"),
    check(for_terms(fun(Term) ->
        {ok, Back} = py:call('__main__', same, [Term]),
        Back
    end)).

for_terms(Through) ->
    proper:numtests(5 * runs(), proper:forall(term(), fun(Term) ->
        Expected = as_python_keeps_it(Term),
        try Through(Term) of
            Back -> Back =:= Expected
        catch
            Class:Reason -> ct:log("~p: ~p ~p", [Term, Class, Reason]), false
        end
    end)).

%% Any term but references to something, and what Python has no key for.
term() ->
    proper_types:frequency([{4, proper_types:any()}, {1, map(proper_types:any())},
                            {1, [map(map(proper_types:any())) | proper_types:any()]}]).

map(Value) ->
    Key = proper_types:oneof([proper_types:atom(), proper_types:binary(), proper_types:integer(),
                              {proper_types:integer(), proper_types:binary()}]),
    Pairs = proper_types:list({Key, Value}),
    proper_types:bind(Pairs, fun(Made) -> maps:from_list(unlike(Made)) end, false).

%% Keys that are one in Python: true and 1, false and 0.
unlike(Pairs) ->
    [Pair || Pair = {Key, _} <- Pairs, not is_boolean(Key)].

as_python_keeps_it(None) when None =:= nil; None =:= undefined -> none;
as_python_keeps_it([Head | Tail]) -> [as_python_keeps_it(Head) | as_python_keeps_it(Tail)];
as_python_keeps_it(Tuple) when is_tuple(Tuple) ->
    list_to_tuple(as_python_keeps_it(tuple_to_list(Tuple)));
as_python_keeps_it(Map) when is_map(Map) ->
    maps:from_list(as_python_keeps_it(maps:to_list(Map)));
as_python_keeps_it(Term) -> Term.

check(Property) ->
    Options = [{max_shrinks, 20}, {on_output, fun ct:log/2}],
    true = proper:quickcheck(Property, Options).

%% BEAMLOOP_PROPERTY_RUNS asks for more than the usual few.
runs() ->
    list_to_integer(os:getenv("BEAMLOOP_PROPERTY_RUNS", "200")).
