%% The programs of the channels' reference document, as it prints them, and callers that die in select.
-module(py_channel_reference_SUITE).

-include_lib("stdlib/include/assert.hrl").

-import(channel_tests, [result/1, wait_until/1]).

-export([all/0, suite/0, init_per_suite/1, end_per_suite/1, end_per_testcase/2]).
-export([a_request_is_answered_on_a_thread/1, a_request_is_answered_in_a_coroutine/1,
         request_and_response/1, a_stream_is_processed/1, a_pool_of_workers_does_the_work/1,
         a_full_channel_says_busy/1, utilization_is_size_by_max_size/1, with_closes_at_the_end/1,
         a_closed_channel_raises/1, a_reply_carries_a_dict/1,
         a_caller_that_dies_in_select_leaves_the_channels_to_the_next/1,
         raw_bytes_from_erlang/1, raw_bytes_in_python/1, raw_bytes_in_a_context_manager/1,
         raw_bytes_in_a_coroutine/1]).

-define(PYTHON, py_channel_reference_python).

suite() -> [{timetrap, {minutes, 1}}].

all() ->
    [a_request_is_answered_on_a_thread, a_request_is_answered_in_a_coroutine, request_and_response,
     a_stream_is_processed, a_pool_of_workers_does_the_work, a_full_channel_says_busy,
     utilization_is_size_by_max_size, with_closes_at_the_end, a_closed_channel_raises,
     a_reply_carries_a_dict, a_caller_that_dies_in_select_leaves_the_channels_to_the_next,
     raw_bytes_from_erlang, raw_bytes_in_python, raw_bytes_in_a_context_manager,
     raw_bytes_in_a_coroutine].

init_per_suite(Config) ->
    {ok, _} = application:ensure_all_started(beamloop),
    ok = py:exec(python()),
    Config.

end_per_suite(_Config) ->
    application:stop(beamloop).

end_per_testcase(_Case, _Config) ->
    channel_tests:left().

python() ->
    "import asyncio, sys, types\n"
    "import erlang\n"
    "from erlang.channel import Channel, ChannelClosed, reply, select_sync\n"
    "\n"
    "def compute(data):\n"
    "    return data.upper()\n"
    "\n"
    "def process_messages(channel_ref):\n"
    "    ch = Channel(channel_ref)\n"
    "    for msg in ch:\n"
    "        # Extract sender PID from message\n"
    "        _, sender_pid, data = msg\n"
    "        # Process and reply\n"
    "        result = compute(data)\n"
    "        reply(sender_pid, ('response', result))\n"
    "\n"
    "async def process(data):\n"
    "    await asyncio.sleep(0)\n"
    "    return data.upper()\n"
    "\n"
    "async def process_messages_async(channel_ref):\n"
    "    ch = Channel(channel_ref)\n"
    "    async for msg in ch:\n"
    "        # Extract sender PID from message\n"
    "        _, sender_pid, data = msg\n"
    "        # Process and reply\n"
    "        result = await process(data)\n"
    "        reply(sender_pid, ('response', result))\n"
    "\n"
    "def handle_requests(channel_ref):\n"
    "    ch = Channel(channel_ref)\n"
    "    for msg in ch:\n"
    "        if msg[0] == 'request':\n"
    "            _, sender_pid, data = msg\n"
    "            result = compute(data)\n"
    "            reply(sender_pid, ('response', result))\n"
    "\n"
    "async def process_stream(channel_ref):\n"
    "    ch = Channel(channel_ref)\n"
    "    results = []\n"
    "    async for item in ch:\n"
    "        results.append(compute(item))\n"
    "    return results\n"
    "\n"
    "processed = []\n"
    "\n"
    "async def process_item(item):\n"
    "    await asyncio.sleep(0)\n"
    "    processed.append(item)\n"
    "\n"
    "async def worker(channel_ref, worker_id):\n"
    "    ch = Channel(channel_ref)\n"
    "    async for msg in ch:\n"
    "        if msg[0] == 'work':\n"
    "            _, item = msg\n"
    "            await process_item(item)\n"
    "\n"
    "def take_processed():\n"
    "    taken = sorted(processed)\n"
    "    processed.clear()\n"
    "    return taken\n"
    "\n"
    "def drain_with(channel_ref):\n"
    "    items = []\n"
    "    with Channel(channel_ref) as ch:\n"
    "        for _ in range(2):\n"
    "            items.append(ch.receive())\n"
    "    return items\n"
    "\n"
    "def receive_or_say(channel_ref):\n"
    "    ch = Channel(channel_ref)\n"
    "    try:\n"
    "        return ch.receive()\n"
    "    except ChannelClosed:\n"
    "        return 'Channel closed'\n"
    "\n"
    "def reply_with_status(sender_pid, data):\n"
    "    reply(sender_pid, {'status': 'ok', 'result': data})\n"
    "\n"
    "from erlang import ByteChannel, ByteChannelClosed\n"
    "\n"
    "chunks = []\n"
    "\n"
    "def process_chunk(chunk):\n"
    "    chunks.append(chunk)\n"
    "\n"
    "def take_chunks():\n"
    "    taken = chunks[:]\n"
    "    chunks.clear()\n"
    "    return taken\n"
    "\n"
    "def process_bytes(channel_ref):\n"
    "    ch = ByteChannel(channel_ref)\n"
    "    # Blocking receive (releases GIL while waiting)\n"
    "    data = ch.receive_bytes()\n"
    "    process_chunk(data)\n"
    "    # Non-blocking receive\n"
    "    data = ch.try_receive_bytes() # Returns None if empty\n"
    "    process_chunk(data)\n"
    "    # Iterate over bytes\n"
    "    for chunk in ch:\n"
    "        process_chunk(chunk)\n"
    "    # Send bytes back\n"
    "    ch.send_bytes(b'response data')\n"
    "    # Close when done\n"
    "    ch.close()\n"
    "\n"
    "def process_bytes_with(channel_ref):\n"
    "    # Or use context manager for automatic cleanup\n"
    "    with ByteChannel(channel_ref) as ch:\n"
    "        for chunk in ch:\n"
    "            process_chunk(chunk)\n"
    "    # channel automatically closed\n"
    "\n"
    "async def process_bytes_async(channel_ref):\n"
    "    ch = ByteChannel(channel_ref)\n"
    "    # Async receive (yields to other coroutines)\n"
    "    data = await ch.async_receive_bytes()\n"
    "    process_chunk(data)\n"
    "    # Async iteration\n"
    "    async for chunk in ch:\n"
    "        process_chunk(chunk)\n"
    "\n"
    "def send_chunks(channel_ref, to_send):\n"
    "    ch = ByteChannel(channel_ref)\n"
    "    for chunk in to_send:\n"
    "        ch.send_bytes(chunk)\n"
    "\n"
    "def run(function, *args):\n"
    "    return erlang.run(globals()[function](*args))\n"
    "\n"
    "def select_message(refs, timeout=None):\n"
    "    return select_sync(*map(Channel, refs), timeout=timeout)[1]\n"
    "\n"
    "m = sys.modules['py_channel_reference_python'] = types.ModuleType('reference')\n"
    "m.__dict__.update({k: v for k, v in globals().items() if not k.startswith('__')})\n".

a_request_is_answered_on_a_thread(_Config) ->
    %% Create a channel
    {ok, Ch} = py_channel:new(),
    Python = start(process_messages, [Ch]),
    %% Send messages with sender PID for replies
    ok = py_channel:send(Ch, {request, self(), <<"data">>}),
    %% Wait for response
    receive
        {response, Result} -> ?assertEqual(<<"DATA">>, Result)
    end,
    %% Close when done
    py_channel:close(Ch),
    {ok, none} = result(Python).

a_request_is_answered_in_a_coroutine(_Config) ->
    {ok, Ch} = py_channel:new(),
    Python = start(run, [process_messages_async, Ch]),
    ok = py_channel:send(Ch, {request, self(), <<"data">>}),
    receive
        {response, Result} -> ?assertEqual(<<"DATA">>, Result)
    end,
    py_channel:close(Ch),
    {ok, none} = result(Python).

request_and_response(_Config) ->
    {ok, Ch} = py_channel:new(),
    Python = start(handle_requests, [Ch]),
    ok = py_channel:send(Ch, {other, self(), <<"compute">>}),
    ok = py_channel:send(Ch, {request, self(), <<"compute">>}),
    receive
        {response, Result} -> ?assertEqual(<<"COMPUTE">>, Result)
    end,
    py_channel:close(Ch),
    {ok, none} = result(Python),
    receive {response, _} -> ct:fail(answered_twice) after 0 -> ok end.

a_stream_is_processed(_Config) ->
    {ok, Ch} = py_channel:new(),
    LargeList = [integer_to_binary(N, 36) || N <- lists:seq(1, 10000)],
    lists:foreach(fun(Item) ->
        ok = py_channel:send(Ch, Item)
    end, LargeList),
    Python = start(run, [process_stream, Ch]),
    py_channel:close(Ch),
    ?assertEqual({ok, LargeList}, result(Python)).

a_pool_of_workers_does_the_work(_Config) ->
    %% Create a channel
    {ok, Ch} = py_channel:new(#{max_size => 100000}),
    WorkItems = lists:seq(1, 2000),
    %% Start multiple Python workers on the channel
    Workers = [start(run, [worker, Ch, Id]) || Id <- lists:seq(1, 4)],
    %% Send work items
    [py_channel:send(Ch, {work, Item}) || Item <- WorkItems],
    %% Signal completion
    py_channel:close(Ch),
    [{ok, none} = result(Worker) || Worker <- Workers],
    ?assertEqual({ok, WorkItems}, py:call(?PYTHON, take_processed, [])).

a_full_channel_says_busy(_Config) ->
    {ok, Ch} = py_channel:new(#{max_size => 10000}),
    LargeData = binary:copy(<<7>>, 6000),
    ok = py_channel:send(Ch, LargeData),
    Python = spawn_monitor(fun() ->
        receive go -> ok end,
        exit({result, py:call(?PYTHON, drain_with, [Ch])})
    end),
    continue = send_retrying(Ch, LargeData, Python),
    ?assertEqual({ok, [LargeData, LargeData]}, result(Python)).

%% The document's loop: try again after a while.  The reader starts at the first refusal.
send_retrying(Ch, LargeData, {Reader, _} = Python) ->
    case py_channel:send(Ch, LargeData) of
        ok ->
            continue;
        busy ->
            Reader ! go,
            %% Queue is full, wait before retrying
            timer:sleep(10),
            send_retrying(Ch, LargeData, Python)
    end.

utilization_is_size_by_max_size(_Config) ->
    {ok, Ch} = py_channel:new(#{max_size => 10000}),
    ok = py_channel:send(Ch, binary:copy(<<7>>, 994)),
    #{size := Size, max_size := MaxSize, closed := false} = py_channel:info(Ch),
    ?assertEqual(0.1, Size / MaxSize).

with_closes_at_the_end(_Config) ->
    {ok, Ch} = py_channel:new(),
    [ok = py_channel:send(Ch, N) || N <- [1, 2, 3]],
    {ok, [1, 2]} = py:call(?PYTHON, drain_with, [Ch]),
    {error, closed} = py_channel:send(Ch, 4),
    #{closed := true, messages := 1} = py_channel:info(Ch).

a_closed_channel_raises(_Config) ->
    {ok, Ch} = py_channel:new(),
    Python = start(receive_or_say, [Ch]),
    py_channel:close(Ch),
    {ok, <<"Channel closed">>} = result(Python).

a_reply_carries_a_dict(_Config) ->
    {ok, none} = py:call(?PYTHON, reply_with_status, [self(), 42]),
    receive
        Reply -> ?assertEqual(#{<<"status">> => <<"ok">>, <<"result">> => 42}, Reply)
    end.

a_caller_that_dies_in_select_leaves_the_channels_to_the_next(_Config) ->
    Channels = [begin {ok, C} = py_channel:new(), C end || _ <- lists:seq(1, 3)],
    Waiters = fun() -> [maps:get(waiters, py_channel:info(C)) || C <- Channels] end,
    Doomed = [spawn(fun() -> py:call(?PYTHON, select_message, [Channels]) end)
              || _ <- lists:seq(1, 4)],
    wait_until(fun() -> Waiters() =:= [4, 4, 4] end),
    [exit(Pid, kill) || Pid <- Doomed],
    wait_until(fun() -> Waiters() =:= [0, 0, 0] end),
    ok = py_channel:send(lists:last(Channels), 42),
    {ok, 42} = py:call(?PYTHON, select_message, [Channels]),
    {error, {<<"TimeoutError">>, _, _}} = py:call(?PYTHON, select_message, [Channels, 0.01]).

raw_bytes_from_erlang(_Config) ->
    BodyBytes = binary:copy(<<"body">>, 5000),
    %% Create a byte channel
    {ok, Ch} = py_byte_channel:new(),
    %% Send raw bytes
    ok = py_byte_channel:send(Ch, <<"HTTP/1.1 200 OK\r\n">>),
    ok = py_byte_channel:send(Ch, BodyBytes),
    {ok, none} = py:call(?PYTHON, send_chunks, [Ch, [<<"one">>, BodyBytes]]),
    %% Receive raw bytes
    {ok, <<"one">>} = py_byte_channel:recv(Ch),
    %% Non-blocking receive
    {ok, BodyBytes} = py_byte_channel:try_receive(Ch),
    {error, empty} = py_byte_channel:try_receive(Ch), %% If no data
    %% Close when done
    py_byte_channel:close(Ch),
    {ok, none} = py:call(?PYTHON, run, [process_bytes_async, Ch]),
    {ok, [<<"HTTP/1.1 200 OK\r\n">>, BodyBytes]} = py:call(?PYTHON, take_chunks, []).

raw_bytes_in_python(_Config) ->
    {ok, Ch} = py_byte_channel:new(),
    Python = start(process_bytes, [Ch]),
    ok = py_byte_channel:send(Ch, <<"first">>),
    wait_until(fun() -> maps:get(waiters, py_byte_channel:info(Ch)) =:= 1 end),
    ok = py_byte_channel:send(Ch, <<"second">>),
    ok = py_byte_channel:close(Ch, write),
    {ok, <<"response data">>} = py_byte_channel:recv(Ch),
    {error, closed} = py_byte_channel:recv(Ch),
    {ok, none} = result(Python),
    #{to_erlang := #{closed := true}} = py_byte_channel:info(Ch),
    {ok, [<<"first">>, none, <<"second">>]} = py:call(?PYTHON, take_chunks, []).

raw_bytes_in_a_context_manager(_Config) ->
    {ok, Ch} = py_byte_channel:new(),
    ok = py_byte_channel:send(Ch, <<"first">>),
    ok = py_byte_channel:close(Ch, write),
    {ok, none} = py:call(?PYTHON, process_bytes_with, [Ch]),
    {error, closed} = py_byte_channel:recv(Ch),
    #{to_erlang := #{closed := true}} = py_byte_channel:info(Ch),
    {ok, [<<"first">>]} = py:call(?PYTHON, take_chunks, []).

raw_bytes_in_a_coroutine(_Config) ->
    {ok, Ch} = py_byte_channel:new(),
    Python = start(run, [process_bytes_async, Ch]),
    wait_until(fun() -> maps:get(waiters, py_byte_channel:info(Ch)) =:= 1 end),
    [ok = py_byte_channel:send(Ch, Chunk) || Chunk <- [<<>>, <<"two">>, "three"]],
    py_byte_channel:close(Ch),
    {ok, none} = result(Python),
    {ok, [<<>>, <<"two">>, <<"three">>]} = py:call(?PYTHON, take_chunks, []).

%% --- helpers --------------------------------------------------------------------------------

start(Function, Arguments) ->
    spawn_monitor(fun() -> exit({result, py:call(?PYTHON, Function, Arguments)}) end).
