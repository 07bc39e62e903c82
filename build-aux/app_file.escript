%% escript app_file.escript IN OUT VERSION MODULE...
%%
%% Writes the application resource file: IN with the version and the list of modules filled in.
main([In, Out, Version | Modules]) ->
    {ok, [{application, Name, Keys}]} = file:consult(In),
    Filled = [{modules, lists:sort([list_to_atom(M) || M <- Modules])}, {vsn, Version}],
    App = {application, Name, lists:ukeymerge(1, Filled, lists:ukeysort(1, Keys))},
    ok = file:write_file(Out, io_lib:format("~tp.~n", [App])).
