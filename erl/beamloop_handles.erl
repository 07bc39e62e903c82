%% @doc Finds the handles inside a term.
%%
%% A handle (a channel, a Python object) is a reference to Erlang.  A message that is queued as
%% bytes must keep the handles that it contains alive; this module finds what may be one.
-module(beamloop_handles).

-export([collect/1, collect/2]).

%% References that one call of a NIF looks at: HANDLE_BUNDLE_MAX.
-define(AT_ONCE, 500).

%% @doc What keeps the handles in `Term': the references in it, each once, in lists, tuples, maps (keys
%% too) and the environments of funs; which of them are handles is for the caller to find out.  Where
%% they are many it is bundles instead, each of which keeps many handles, so that a NIF which goes through
%% the list is quick.
%%
%% Its cost grows with the size of the term; binaries and bit strings of any size cost nothing.
-spec collect(term()) -> [reference()].
collect(Term) ->
    collect(Term, none).

%% @doc The same without one of them.
-spec collect(term(), reference() | none) -> [reference()].
collect(Term, Without) when is_reference(Term) ->
    [Term || Term =/= Without];
collect(Term, Without)
  when is_list(Term); is_tuple(Term); is_map(Term); is_function(Term) ->
    keepers(maps:remove(Without, walk(Term, #{})));
collect(_, _) ->
    [].

keepers(Found) when map_size(Found) =< ?AT_ONCE ->
    maps:keys(Found);
keepers(Found) ->
    keepers(maps:next(maps:iterator(Found)), 0, [], []).

keepers(none, _, Some, Bundles) ->
    beamloop_nif:nif_handle_bundle(Some) ++ Bundles;
keepers(Next, ?AT_ONCE, Some, Bundles) ->
    keepers(Next, 0, [], beamloop_nif:nif_handle_bundle(Some) ++ Bundles);
keepers({Ref, _, Iterator}, Count, Some, Bundles) ->
    keepers(maps:next(Iterator), Count + 1, [Ref | Some], Bundles).

walk(Term, Found) when is_reference(Term) ->
    Found#{Term => []};
walk([Head | Tail], Found) ->
    walk(Tail, walk(Head, Found));
walk(Term, Found) when is_tuple(Term) ->
    walk_tuple(Term, 1, tuple_size(Term), Found);
walk(Term, Found) when is_map(Term) ->
    walk_map(maps:next(maps:iterator(Term)), Found);
walk(Term, Found) when is_function(Term) ->
    walk_fun(Term, Found);
walk(_, Found) ->
    Found.

walk_tuple(Term, I, Size, Found) when I =< Size ->
    walk_tuple(Term, I + 1, Size, walk(element(I, Term), Found));
walk_tuple(_, _, _, Found) ->
    Found.

walk_map({Key, Value, Next}, Found) ->
    walk_map(maps:next(Next), walk(Value, walk(Key, Found)));
walk_map(none, Found) ->
    Found.

walk_fun(Fun, Found) ->
    case erlang:fun_info(Fun, type) of
        {type, local} ->
            {env, Environment} = erlang:fun_info(Fun, env),
            walk(Environment, Found);
        {type, external} ->
            Found
    end.
