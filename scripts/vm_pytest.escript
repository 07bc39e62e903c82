%%! +S 2
%% escript vm_pytest.escript ARG...
%%
%% pytest inside the Erlang VM, on a worker thread, with its exit status as ours.
main(Args) ->
    {ok, _} = application:ensure_all_started(beamloop),
    ok = py:exec(
        "def run_pytest(arguments):\n"
        "    import sys, pytest\n"
        "    status = pytest.main(arguments)\n"
        "    sys.stdout.flush()\n"
        "    sys.stderr.flush()\n"
        "    return int(status)\n"),
    Arguments = [unicode:characters_to_binary(A) || A <- Args],
    case py:call('__main__', run_pytest, [Arguments], #{}, #{binaries => str}) of
        {ok, Status} ->
            halt(Status);
        {error, Reason} ->
            io:format(standard_error, "pytest did not run: ~tp~n", [Reason]),
            halt(70)
    end.
