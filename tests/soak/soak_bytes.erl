%% Kinds of load: byte channels.
-module(soak_bytes).

-export([kinds/0]).

-define(WAIT, 30000).

kinds() ->
    [#{name => Name, start => fun() -> start(Function) end, turn => Turn, pause => Pause}
     || {Name, Function, Turn, Pause} <-
            [{bytes, echo_bytes, fun chunks/1, 20},
             {views, echo_views, fun chunks/1, 20},
             {bytes_thread, echo_bytes_thread, fun chunks/1, 20},
             {frames, echo_frames, fun frames/1, 20},
             {transport, echo_transport, fun stream/1, 20},
             {send_file, count_bytes, fun send_file/1, 50}]].

start(Function) ->
    {ok, Channel} = py_byte_channel:new(#{owner => self(), max_size => 4194304}),
    Call = [atom_to_binary(Function), Channel],
    _ = spawn_link(fun() -> {ok, none} = py:call(soak_actors, run, Call) end),
    {Channel, 0}.

%% Chunks come back as they were; one in so many turns is large.
chunks({Channel, Turn}) ->
    Sizes = case Turn rem 10 of
        0 -> [1048576, 300000];
        _ -> [0, 1, 100, 4096, 4097, 20000, 65536]
    end,
    Chunks = [binary:copy(<<(Turn + I):8>>, Size)
              || {I, Size} <- lists:zip(lists:seq(1, length(Sizes)), Sizes)],
    [ok = py_byte_channel:send(Channel, pieces(Turn rem 2, Chunk), ?WAIT) || Chunk <- Chunks],
    Chunks = [take(Channel) || _ <- Chunks],
    {error, empty} = py_byte_channel:try_receive(Channel),
    {length(Chunks), {Channel, Turn + 1}}.

pieces(0, Chunk) -> Chunk;
pieces(1, Chunk) ->
    {A, B} = split_binary(Chunk, byte_size(Chunk) div 3),
    [A, [B], []].

take(Channel) ->
    {ok, Bytes} = py_byte_channel:recv(Channel, ?WAIT),
    Bytes.

%% Frames that chunks cut anywhere.
frames({Channel, Turn}) ->
    Frames = [binary:copy(<<I>>, I * 37) || I <- lists:seq(1, 30)],
    Whole = iolist_to_binary([[integer_to_binary(byte_size(F)), $\n, F] || F <- Frames]),
    send_cut(Channel, Whole, 1 + Turn rem 1000),
    Frames = [take(Channel) || _ <- Frames],
    {error, empty} = py_byte_channel:try_receive(Channel),
    {length(Frames), {Channel, Turn + 1}}.

send_cut(Channel, Bytes, Size) when byte_size(Bytes) =< Size ->
    ok = py_byte_channel:send(Channel, Bytes, ?WAIT);
send_cut(Channel, Bytes, Size) ->
    {Chunk, Rest} = split_binary(Bytes, Size),
    ok = py_byte_channel:send(Channel, Chunk, ?WAIT),
    send_cut(Channel, Rest, Size * 2).

%% A stream over the channel's transport.
stream({Channel, Turn}) ->
    Bytes = binary:copy(<<Turn:32, "stream">>, 1 + Turn * 7919 rem 20000),
    send_cut(Channel, Bytes, 30000),
    Bytes = take_stream(Channel, byte_size(Bytes), []),
    {error, empty} = py_byte_channel:try_receive(Channel),
    {1, {Channel, Turn + 1}}.

take_stream(_, 0, Taken) ->
    iolist_to_binary(lists:reverse(Taken));
take_stream(Channel, Left, Taken) when Left > 0 ->
    Bytes = take(Channel),
    take_stream(Channel, Left - byte_size(Bytes), [Bytes | Taken]).

send_file({Channel, Turn}) ->
    Path = code:which(erl_internal),
    {ok, Size} = py_byte_channel:send_file(Channel, Path),
    ok = py_byte_channel:send(Channel, <<>>),
    {ok, <<Size:64>>} = py_byte_channel:recv(Channel, ?WAIT),
    {1, {Channel, Turn + 1}}.
