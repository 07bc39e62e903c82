%% The README's quick start, run from the README itself.
-module(readme_SUITE).

-include_lib("stdlib/include/assert.hrl").

-export([all/0, init_per_suite/1, end_per_suite/1]).
-export([quick_start_gets_its_answer/1, async_handler_gets_its_answer/1,
         printed_results_are_the_results/1]).

all() ->
    [quick_start_gets_its_answer, async_handler_gets_its_answer, printed_results_are_the_results].

init_per_suite(Config) ->
    {ok, _} = application:ensure_all_started(beamloop),
    [{readme, readme()} | Config].

end_per_suite(_Config) ->
    application:stop(beamloop).

%% The first two Erlang blocks, as they stand.
quick_start_gets_its_answer(Config) ->
    [Define, Use | _] = blocks("erlang", Config),
    Bindings = evaluate(Define, []),
    After = evaluate(Use, Bindings),
    ?assertEqual({value, {'Result', <<"DATA">>}}, lists:keysearch('Result', 1, After)),
    {'Ch', Ch} = lists:keyfind('Ch', 1, After),
    ?assertEqual({error, closed}, py_channel:send(Ch, late)).

%% The first Python block; process is the reader's to write.
async_handler_gets_its_answer(Config) ->
    [Handler | _] = blocks("python", Config),
    ok = py:exec([Handler, "\nasync def process(data):\n    return data[::-1]\n"]),
    {ok, Ch} = py_channel:new(),
    {Pid, Monitor} = spawn_monitor(fun() -> exit(py:call('__main__', start, [Ch])) end),
    ok = py_channel:send(Ch, {request, self(), <<"data">>}),
    receive {response, Result} -> ?assertEqual(<<"atad">>, Result)
    after 10000 -> ct:fail(no_answer)
    end,
    ok = py_channel:close(Ch),
    receive {'DOWN', Monitor, process, Pid, Reason} -> ?assertEqual({ok, none}, Reason)
    after 10000 -> ct:fail(handler_goes_on)
    end.

printed_results_are_the_results(_Config) ->
    ?assertEqual({ok, 4.0}, py:call(math, sqrt, [16])),
    ?assertEqual({ok, 42}, py:eval("x * 2", #{x => 21})),
    ?assertMatch({error, {_, <<"division by zero">>, [_ | _]}}, py:eval("1 / 0")).

%% --- reading the README ---------------------------------------------------------------------

readme() ->
    {ok, Text} = file:read_file(filename:join(top(), "README.md")),
    Text.

%% The tree that holds this suite's source.
top() ->
    Source = proplists:get_value(source, module_info(compile)),
    filename:dirname(filename:dirname(filename:dirname(filename:absname(Source)))).

blocks(Language, Config) ->
    Pattern = ["^```", Language, "\\n(.*?)^```"],
    {match, Found} = re:run(proplists:get_value(readme, Config), Pattern,
                            [global, multiline, dotall, {capture, [1], list}]),
    [Block || [Block] <- Found].

%% Evaluates each expression of a shell transcript; the bindings after the last.
evaluate(Text, Bindings) ->
    {ok, Tokens, _} = erl_scan:string(Text),
    lists:foldl(fun(Form, Before) ->
        {ok, Expressions} = erl_parse:parse_exprs(Form),
        {value, _, After} = erl_eval:exprs(Expressions, Before),
        After
    end, Bindings, forms(Tokens, [])).

forms([], []) -> [];
forms([{dot, _} = Dot | Rest], Form) -> [lists:reverse([Dot | Form]) | forms(Rest, [])];
forms([Token | Rest], Form) -> forms(Rest, [Token | Form]).
