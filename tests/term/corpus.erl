%% Writes the external format of a wide range of terms to a file and reads another one back, so that
%% the codec is checked against the emulator itself.  Both are records of <<Index:32, Size:32, Ext>>.
-module(corpus).

-export([run/3, echo/0]).

%% Writes every term in each form that the emulator has to the file Out, prints "written" and waits for
%% a line, as pids, references and funs are the same ones in this process only.  Then prints for each
%% record of the file In its index and whether it is exactly the term written.  The terms are those
%% listed below, or 300 that are made up from a seed.
run(Out, In, Seed) ->
    Terms = case Seed of
        none -> terms();
        _ -> rand:seed(exsss, Seed), [made_up(rand:uniform(5) - 1) || _ <- lists:seq(1, 300)]
    end,
    Records = [
        [<<Index:32, (byte_size(Ext)):32>>, Ext]
     || {Index, Term} <- lists:enumerate(Terms),
        Ext <- lists:usort(forms(Term))
    ],
    ok = file:write_file(Out, Records),
    io:format("written~n"),
    io:get_line(""),
    {ok, Answers} = file:read_file(In),
    answer(list_to_tuple(Terms), Answers).

forms(Term) ->
    Options = [[{minor_version, 0}], [{minor_version, 1}], [{minor_version, 2}], [deterministic],
               [compressed], [{compressed, 9}, {minor_version, 2}]],
    [iolist_to_binary(term_to_iovec(Term)) | [term_to_binary(Term, O) || O <- Options]].

%% For each packet that comes, the same term as the emulator itself encodes it.
echo() ->
    Port = open_port({fd, 0, 1}, [binary, {packet, 4}, eof]),
    echo(Port).

echo(Port) ->
    receive
        {Port, {data, Ext}} ->
            port_command(Port, term_to_binary(binary_to_term(Ext), [{minor_version, 2}])),
            echo(Port);
        {Port, eof} ->
            ok
    end.

%% Floats have 20 digits in the oldest form, which are enough for those that are here.
made_up(0) ->
    case rand:uniform(14) of
        1 -> rand:uniform(1000) - 500;
        2 -> (rand:uniform(3) - 2) * rand:uniform(1 bsl rand:uniform(70));
        3 -> (rand:uniform(3) - 2) * rand:uniform(1 bsl rand:uniform(5000));
        4 -> (rand:uniform(2000) - 1000) / (1 bsl (rand:uniform(20)));
        5 -> element(rand:uniform(6), {true, false, none, atom, '', nil});
        6 -> list_to_atom([element(rand:uniform(4), {$a, 16#e5, 16#42, 16#1f40d}) || _ <- lists:seq(1, 4)]);
        7 -> rand:bytes(rand:uniform(300) - 1);
        8 -> Bits = rand:uniform(100), <<(rand:uniform(1 bsl Bits) - 1):Bits>>;
        9 -> lists:nth(rand:uniform(3), [self(), hd(processes()), spawn(fun() -> ok end)]);
        10 -> make_ref();
        11 -> hd(erlang:ports());
        12 -> element(rand:uniform(2), {fun lists:map/2, fun unknown:unknown/255});
        13 -> Held = made_up(0), fun() -> {Held, self()} end;
        14 -> [rand:uniform(256) - 1 || _ <- lists:seq(1, rand:uniform(50) - 1)]
    end;
made_up(Depth) ->
    Some = fun() -> [made_up(rand:uniform(Depth) - 1) || _ <- lists:seq(2, rand:uniform(5))] end,
    case rand:uniform(6) of
        1 -> made_up(0);
        2 -> Some();
        3 -> list_to_tuple(Some());
        4 -> maps:from_list([{key(N), made_up(Depth - 1)} || N <- lists:seq(2, rand:uniform(width(Depth)))]);
        5 -> [made_up(0), made_up(0) | made_up(0)];
        6 -> list_to_tuple(lists:duplicate(250 + rand:uniform(10), made_up(0)))
    end.

%% The wider the shallower, so that a term has no more than some hundred parts.
width(1) -> 40;
width(_) -> 5.

%% No two that Python takes for one.
key(N) -> element(1 + N rem 4, {N, <<N>>, {k, N / 2}, list_to_atom([$k, N])}).

answer(Terms, <<Index:32, Size:32, Ext:Size/binary, Rest/binary>>) ->
    io:format("~b ~ts~n", [Index, verdict(as_python_keeps_it(element(Index, Terms)), Ext)]),
    answer(Terms, Rest);
answer(_, <<>>) ->
    ok.

verdict(Expected, Ext) ->
    try binary_to_term(Ext) of
        Expected -> "same";
        Other -> io_lib:format("~0tP", [Other, 20])
    catch
        error:Reason -> atom_to_list(Reason)
    end.

%% nil and undefined are None to Python, which comes back as none.
as_python_keeps_it(nil) -> none;
as_python_keeps_it(undefined) -> none;
as_python_keeps_it(Term) when is_tuple(Term) ->
    list_to_tuple([as_python_keeps_it(T) || T <- tuple_to_list(Term)]);
as_python_keeps_it([Head | Tail]) ->
    [as_python_keeps_it(Head) | as_python_keeps_it(Tail)];
as_python_keeps_it(Term) when is_map(Term) ->
    maps:from_list([
        {as_python_keeps_it(Key), as_python_keeps_it(Value)}
     || {Key, Value} <- maps:to_list(Term)
    ]);
as_python_keeps_it(Term) ->
    Term.

terms() ->
    atoms() ++ numbers() ++ binaries() ++ lists() ++ containers() ++ identifiers() ++ funs() ++
        everything().

atoms() ->
    [
        a, '', 'with space', true, false, none, nil, undefined, 'True',
        binary_to_atom(<<"åäö"/utf8>>),
        binary_to_atom(<<"日本語"/utf8>>),
        binary_to_atom(<<240, 159, 144, 141>>),
        list_to_atom(lists:duplicate(255, $a)),
        list_to_atom(lists:duplicate(255, 16#e5)),
        list_to_atom(lists:duplicate(255, 16#1f40d))
    ].

numbers() ->
    Powers = [1 bsl N || N <- [7, 8, 15, 16, 27, 31, 32, 59, 60, 63, 64, 127, 128, 2039, 2040, 9999]],
    Around = lists:flatmap(fun(P) -> [P - 1, P, P + 1, -P + 1, -P, -P - 1] end, Powers),
    [0, 1, -1, 0.0, -0.0, 1.5, -1.0e300, 1.0e-300, 5.0e-324, 1.7976931348623157e308 | Around].

binaries() ->
    [
        <<>>, <<0>>, <<"text">>, <<"zażółć"/utf8>>, <<255, 254>>, binary:copy(<<"x">>, 100000),
        <<1:1>>, <<5:3>>, <<16#abcd:15>>, <<0:7>>, <<"abc", 1:1>>
    ].

lists() ->
    [
        [], [[]], [[[]]], "string", [0, 255], [256], [-1], lists:seq(1, 70000),
        [$x || _ <- lists:seq(1, 65535)], [$x || _ <- lists:seq(1, 65536)],
        [a | b], [1, 2 | 3], [[a | b] | {c}], [1 | <<"tail">>], [a, b, c | #{}]
    ].

containers() ->
    [
        {}, {{}}, {a, {b, {c}}}, list_to_tuple(lists:seq(1, 255)), list_to_tuple(lists:seq(1, 256)),
        #{}, #{a => 1}, #{1 => a, 2.5 => b, <<"k">> => c, {t, 1} => d, self() => e, <<1:1>> => f},
        maps:from_list([{I, integer_to_binary(I)} || I <- lists:seq(1, 1000)]),
        #{deep => #{deeper => #{deepest => [#{}]}}}
    ].

identifiers() ->
    Node = <<"far@away.example">>,
    Long = binary:copy(<<"n">>, 250),
    [
        self(), whereis(init), make_ref(), erlang:alias([]), hd(erlang:ports()),
        remote(<<88>>, Node, <<5:32, 6:32, 77:32>>),
        remote(<<88>>, <<"zdalny@węzeł"/utf8>>, <<5:32, 6:32, 77:32>>),
        remote(<<88>>, Long, <<1:32, 0:32, 1:32>>),
        remote(<<103>>, Node, <<5:32, 6:32, 3>>),
        remote(<<89>>, Node, <<5:32, 77:32>>),
        remote(<<102>>, Node, <<5:32, 3>>),
        remote(<<120>>, Node, <<16#123456789a:64, 77:32>>),
        remote(<<90, 1:16>>, Node, <<77:32, 5:32>>),
        remote(<<90, 3:16>>, Node, <<77:32, 1:32, 2:32, 3:32>>),
        remote(<<90, 5:16>>, Node, <<77:32, 1:32, 2:32, 3:32, 4:32, 5:32>>),
        remote(<<114, 3:16>>, Node, <<3, 1:32, 2:32, 3:32>>),
        remote(<<101>>, Node, <<5:32, 3>>)
    ].

remote(Head, Node, Rest) ->
    binary_to_term(<<131, Head/binary, 119, (byte_size(Node)), Node/binary, Rest/binary>>).

funs() ->
    Environment = {self(), make_ref(), #{k => [1, 2 | 3]}, <<"text">>, 1 bsl 100, 1.5},
    Inner = fun() -> Environment end,
    [fun lists:map/2, fun erlang:'+'/2, fun terms/0, fun(X) -> {X, Environment} end, fun() -> Inner end].

everything() ->
    [{numbers(), lists(), containers(), identifiers(), funs()}].
