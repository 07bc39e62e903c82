"""Reading a ByteChannel as a stream: sizes, separators, lines, into buffers, without a copy."""

import array
import asyncio
import gc
import random
import threading
import time

import channel_driver as driver
import pytest

import erlang
from erlang import ByteChannel, ByteChannelClosed

pytestmark = pytest.mark.usefixtures("nothing_is_left_alive")

WAYS = ["thread", *driver.LOOPS]


@pytest.fixture(params=WAYS)
def read(request):
    """read(channel, NAME, ARGUMENT...): on this thread, or in a coroutine on a loop."""
    if request.param == "thread":
        yield lambda channel, name, *args, **kwargs: getattr(channel, name)(*args, **kwargs)
        return
    with asyncio.Runner(loop_factory=driver.LOOPS[request.param]) as runner:

        async def in_coroutine(channel, name, args, kwargs):
            return await getattr(channel, f"async_{name}")(*args, **kwargs)

        yield lambda channel, name, *args, **kwargs: runner.run(
            in_coroutine(channel, name, args, kwargs)
        )


def channel_of(chunks, close=True, **options):
    """(ByteChannel, ChannelRef) of a channel in which these are queued."""
    ref = driver.new_byte_channel()
    driver.call("channel_driver", "send_chunks_and_close" if close else "send_chunks", ref, chunks)
    return ByteChannel(ref, **options), ref


async def waiters(ref, count):
    while driver.byte_info(ref)["waiters"] != count:
        await asyncio.sleep(0.001)


# --- readexactly ---------------------------------------------------------------------------------


def test_readexactly_cuts_chunks_as_it_needs(read):
    chunks = [b"abc", b"", b"defg", b"h" * 5000, b"i" * 100_000, b"j"]
    channel, _ = channel_of(chunks)
    rest = b"".join(chunks)
    for n in (1, 2, 0, 1, 2, 3000, 1998, 50_000, 50_003):
        assert read(channel, "readexactly", n) == rest[:n]
        rest = rest[n:]
    assert rest == b"j"
    with pytest.raises(asyncio.IncompleteReadError) as incomplete:
        read(channel, "readexactly", 2)
    assert (incomplete.value.partial, incomplete.value.expected) == (b"j", 2)
    with pytest.raises(asyncio.IncompleteReadError) as incomplete:
        read(channel, "readexactly", 2)
    assert incomplete.value.partial == b""
    assert read(channel, "readexactly", 0) == b""


def test_what_a_read_leaves_is_a_chunk(read):
    channel, ref = channel_of([b"abc", b"d" * 10_000, b"e"])
    assert read(channel, "readexactly", 1) == b"a"
    assert len(channel) == 3 and driver.byte_info(ref)["size"] == 32 + 10_000 + 32
    assert read(channel, "receive_bytes") == b"bc"
    assert read(channel, "readexactly", 9_000) == b"d" * 9_000
    assert driver.byte_info(ref)["size"] == 1_000 + 32
    assert driver.byte_info(ref)["total_out"] == 1
    assert list(channel) == [b"d" * 1_000, b"e"]
    info = driver.byte_info(ref)
    assert (info["size"], info["messages"], info["total_out"]) == (0, 0, 3)


def test_what_a_read_leaves_goes_to_who_waits():
    channel, ref = channel_of([b"ab"], close=False)

    async def main():
        assert await channel.async_readexactly(1) == b"a"
        assert await channel.async_receive_bytes() == b"b"
        exact = asyncio.create_task(channel.async_readexactly(2))
        await waiters(ref, 1)
        chunk = asyncio.create_task(channel.async_receive_bytes())
        await waiters(ref, 2)
        driver.start_call("channel_driver", "send_chunks", ref, [b"abcd"])
        assert (await exact, await chunk) == (b"ab", b"cd")

    erlang.run(main())


def test_a_read_may_be_larger_than_the_channel(read):
    ref = driver.new_byte_channel(max_size=100, max_messages=5)
    data = random.Random(5).randbytes(50_000)
    chunks = [data[i : i + 50] for i in range(0, len(data), 50)]
    sending = driver.start_call("channel_driver", "send_chunks_and_close", ref, chunks)
    channel = ByteChannel(ref)
    assert read(channel, "readexactly", len(data) - 10) == data[:-10]
    assert read(channel, "readexactly", 10) == data[-10:]
    sending.result()


@pytest.mark.parametrize("bad", [-1, "1", 1.5, None])
def test_readexactly_refuses_what_is_no_size(bad):
    channel = ByteChannel()
    for call in (channel.readexactly, channel.async_readexactly):
        with pytest.raises((TypeError, ValueError)):
            call(bad)
        with pytest.raises(TypeError):
            call()
    assert not channel.closed


# --- readuntil and readline ----------------------------------------------------------------------


@pytest.mark.parametrize("separator", [b"\n", b"\r\n", b"--boundary--", bytearray(b"\0\0\0")])
@pytest.mark.parametrize("size", [1, 2, 3, 7, 100, 5000])
def test_readuntil_finds_separators_wherever_chunks_end(read, separator, size):
    rng = random.Random(size)
    parts = [bytes(rng.choices(b"ab\r\n-\0", k=rng.randrange(40))) + separator for _ in range(200)]
    data = b"".join(parts) + b"rest"
    channel, _ = channel_of([data[i : i + size] for i in range(0, len(data), size)])
    got, end = [], 0
    while (end := data.find(separator, start := sum(map(len, got)))) >= 0:
        got.append(read(channel, "readuntil", separator))
        assert got[-1] == data[start : end + len(separator)]
    with pytest.raises(asyncio.IncompleteReadError) as incomplete:
        read(channel, "readuntil", separator)
    assert incomplete.value.partial == data[sum(map(len, got)) :]
    assert incomplete.value.expected is None


def test_readline_gives_lines_then_the_rest_then_nothing(read):
    channel, _ = channel_of([b"one\ntw", b"o\n\nthr", b"", b"ee\nfo", b"ur"])
    lines = [read(channel, "readline") for _ in range(7)]
    assert lines == [b"one\n", b"two\n", b"\n", b"three\n", b"four", b"", b""]


def test_readuntil_takes_nothing_where_the_limit_is_passed(read):
    channel, _ = channel_of([b"x" * 6, b"y" * 6, b"\nz"], limit=10)
    for _ in range(2):
        with pytest.raises(asyncio.LimitOverrunError) as overrun:
            read(channel, "readuntil")
        assert overrun.value.consumed == 12
    assert list(channel) == [b"x" * 6, b"y" * 6, b"\nz"]
    channel, _ = channel_of([b"x" * 12 + b"\n"], limit=10)
    with pytest.raises(asyncio.LimitOverrunError) as overrun:
        read(channel, "readuntil")
    assert overrun.value.consumed == 12
    assert read(channel, "readexactly", overrun.value.consumed) == b"x" * 12
    assert read(channel, "readuntil") == b"\n"


def test_readline_discards_what_is_too_long_as_asyncio_does(read):
    channel, _ = channel_of([b"x" * 12 + b"\nshort\n", b"y" * 12, b"\nlast"], limit=10)
    with pytest.raises(ValueError, match="limit"):
        read(channel, "readline")
    assert read(channel, "readline") == b"short\n"
    with pytest.raises(ValueError, match="limit"):
        read(channel, "readline")
    assert [read(channel, "readline") for _ in range(3)] == [b"\n", b"last", b""]


def test_wrong_separators_and_limits_are_refused():
    channel = ByteChannel()
    for bad, error in ((b"", ValueError), ("\n", TypeError), (None, TypeError)):
        for call in (channel.readuntil, channel.async_readuntil):
            with pytest.raises(error):
                call(bad)
    for bad in (0, -1):
        with pytest.raises(ValueError):
            ByteChannel(limit=bad)
    with pytest.raises(TypeError):
        ByteChannel(limit="1")


def test_a_stream_reader_reads_the_same():
    rng = random.Random(9)
    data = bytes(rng.choices(b"ab\r\n", k=20_000))
    chunks = []
    while sum(map(len, chunks)) < len(data):
        start = sum(map(len, chunks))
        chunks.append(data[start : start + rng.randrange(300)])
    channel, _ = channel_of(chunks, limit=50)

    async def outcome(awaitable):
        try:
            return await awaitable
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError) as error:
            return type(error), error.args

    async def main():
        reader = asyncio.StreamReader(limit=50)
        reader.feed_data(data)
        reader.feed_eof()
        while not reader.at_eof():
            match rng.randrange(3):
                case 0:
                    n = rng.randrange(100)
                    expected = await outcome(reader.readexactly(n))
                    assert await outcome(channel.async_readexactly(n)) == expected
                case 1:
                    expected = await outcome(reader.readuntil(b"\r\n"))
                    got = await outcome(channel.async_readuntil(b"\r\n"))
                    # How far it has looked depends on the chunks.
                    assert got[0] == expected[0] if type(got) is tuple else got == expected
                case 2:
                    # asyncio's discards what it has, which is all here: ours what it has looked at.
                    if b"\n" in bytes(reader._buffer[:50]):
                        assert await channel.async_readline() == await reader.readline()

    asyncio.run(main())


# --- waiting -------------------------------------------------------------------------------------


def test_reads_wait_for_what_they_need(run, poll):
    ref = driver.new_byte_channel()

    async def main():
        channel = ByteChannel(ref, poll=poll)
        reads = (
            (channel.async_readexactly(6), b"abcdef"),
            (channel.async_readuntil(b"ef"), b"abcdef"),
            (channel.async_readline(), b"abcdef\n"),
        )
        for reading, expected in reads:
            task = asyncio.create_task(reading)
            for piece in (b"ab", b"", b"cde", b"f", b"\n")[: 5 if expected[-1:] == b"\n" else 4]:
                await waiters(ref, 1)
                assert not task.done()
                driver.start_call("py_byte_channel", "send", ref, piece)
                while driver.byte_info(ref)["size"] > 0:
                    await asyncio.sleep(0.001)
            assert await task == expected

    run(main())


def test_a_thread_waits_for_what_it_needs():
    ref = driver.new_byte_channel()
    got = []
    thread = threading.Thread(target=lambda: got.append(ByteChannel(ref).readexactly(10)))
    thread.start()
    for _ in range(5):
        time.sleep(0.005)
        driver.call("py_byte_channel", "send", ref, b"ab")
    thread.join(30)
    assert got == [b"ababababab"]


def test_a_read_that_times_out_loses_nothing(read):
    channel, _ = channel_of([b"abc", b"def"], close=False)
    for timeout in (0, 0.01):
        with pytest.raises(TimeoutError):
            read(channel, "readexactly", 7, timeout)
        with pytest.raises(TimeoutError):
            read(channel, "readuntil", b"\n", timeout)
        with pytest.raises(TimeoutError):
            read(channel, "readline", timeout=timeout)
    assert [channel.try_receive_bytes() for _ in range(3)] == [b"abc", b"def", None]


def test_a_read_that_times_out_gives_back_empty_chunks_too(read):
    channel, ref = channel_of([b"", b"", b"ab", b""], close=False)
    with pytest.raises(TimeoutError):
        read(channel, "readexactly", 7, 0.01)
    assert driver.byte_info(ref)["total_out"] == 0
    assert [channel.try_receive_bytes() for _ in range(5)] == [b"", b"", b"ab", b"", None]


def test_the_timeout_of_a_read_is_for_all_of_it():
    ref = driver.new_byte_channel()
    stop = threading.Event()

    def trickle():
        while not stop.wait(0.005):
            driver.call("py_byte_channel", "send", ref, b"x")

    thread = threading.Thread(target=trickle)
    thread.start()
    channel = ByteChannel(ref)
    try:
        with pytest.raises(TimeoutError):
            channel.readline(0.1)

        async def main():
            with pytest.raises(TimeoutError):
                await channel.async_readline(0.1)

        erlang.run(main())
    finally:
        stop.set()
        thread.join()


def test_cancelled_reads_lose_nothing(run):
    ref = driver.new_byte_channel(max_messages=30)
    rng = random.Random(3)
    data = b"".join(b"%d\n" % n for n in range(20_000))
    chunks = []
    while sum(map(len, chunks)) < len(data):
        start = sum(map(len, chunks))
        chunks.append(data[start : start + rng.randrange(60)])
    sending = driver.start_call("channel_driver", "send_chunks_and_close", ref, chunks)
    got = []

    async def consume(channel):
        while True:
            if rng.random() < 0.5:
                got.append(await channel.async_readexactly(rng.randrange(1, 200)))
            else:
                line = await channel.async_readline()
                if not line:
                    return True
                got.append(line)

    async def main():
        channel = ByteChannel(ref)
        while True:
            task = asyncio.create_task(consume(channel))
            await asyncio.sleep(rng.choice((0, 0, 1e-5, 1e-4, 1e-3)))
            task.cancel()
            (result,) = await asyncio.gather(task, return_exceptions=True)
            if isinstance(result, asyncio.IncompleteReadError):
                got.append(result.partial)
            elif result is True:
                return

    run(main())
    sending.result()
    assert b"".join(got) == data


def test_a_read_whose_loop_is_closed_gives_back():
    channel, _ref = channel_of([b"ab"], close=False)
    loop = erlang.new_event_loop()
    task = loop.create_task(channel.async_readexactly(3))
    loop.run_until_complete(asyncio.sleep(0.01))
    assert not task.done() and len(channel) == 0
    loop.close()
    task._log_destroy_pending = False
    del task
    gc.collect()
    assert channel.receive_bytes(5) == b"ab"


def test_two_reads_at_a_time_are_refused():
    channel, ref = channel_of([b"ab"], close=False)

    async def main():
        first = asyncio.create_task(channel.async_readexactly(3))
        await waiters(ref, 1)
        for second in (channel.async_readline(), channel.async_readexactly(1)):
            with pytest.raises(RuntimeError, match="already"):
                await second
        with pytest.raises(RuntimeError, match="already"):
            channel.readuntil(b"x")
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        assert await channel.async_readexactly(1) == b"a"

    erlang.run(main())


# --- into buffers --------------------------------------------------------------------------------


def test_receive_into_fills_what_there_is_place_for(read):
    channel, _ = channel_of([b"abcdef", b"", b"g" * 10_000])
    buffer = bytearray(4)
    assert read(channel, "receive_into", buffer) == 4 and buffer == b"abcd"
    assert read(channel, "receive_into", memoryview(buffer)[1:]) == 2 and buffer == b"aefd"
    assert read(channel, "receive_into", buffer) == 0
    assert read(channel, "receive_into", bytearray()) == 0
    numbers = array.array("I", bytes(4000))
    assert read(channel, "receive_into", numbers) == 4000
    assert numbers.tobytes() == b"g" * 4000
    large = bytearray(10_000)
    assert read(channel, "receive_into", large) == 6000
    assert large == b"g" * 6000 + bytes(4000)
    large.append(1)  # nobody holds it any more
    with pytest.raises(ByteChannelClosed):
        read(channel, "receive_into", large)


def test_receive_into_times_out(read):
    channel, _ = channel_of([], close=False)
    buffer = bytearray(1)
    with pytest.raises(TimeoutError):
        read(channel, "receive_into", buffer, 0.01)
    buffer.append(1)


@pytest.mark.parametrize("bad", [b"bytes", "text", None, memoryview(bytearray(8))[::2]])
def test_receive_into_refuses_what_cannot_be_written(bad):
    channel = ByteChannel()
    for call in (channel.receive_into, channel.async_receive_into):
        with pytest.raises((TypeError, BufferError)):
            call(bad)


# --- views ---------------------------------------------------------------------------------------


def test_views_show_every_kind_of_chunk(read):
    large = random.Random(1).randbytes(300_000)
    chunks = [b"", b"small", large, b"x" * 4097]
    channel, _ = channel_of(chunks)
    views = [read(channel, "receive_view") for _ in chunks]
    for view, chunk in zip(views, chunks, strict=True):
        assert type(view) is memoryview and view.readonly and view == chunk
        with pytest.raises(TypeError):
            view[:1] = b"z"
    with pytest.raises(ByteChannelClosed):
        read(channel, "receive_view")


def test_a_view_keeps_the_erlang_binary_and_releases_it():
    channel, ref = channel_of([bytes(50_000_000)])
    assert driver.call("erlang", "memory", erlang.Atom("binary")) > 50_000_000
    view = channel.receive_view()
    channel.close()
    del channel, ref
    part = view[10:20]
    view.release()
    driver.call("channel_driver", "collect")
    assert driver.call("erlang", "memory", erlang.Atom("binary")) > 50_000_000
    assert bytes(part) == bytes(10)
    released = threading.Thread(target=part.release)  # any thread may
    released.start()
    released.join()
    deadline = time.monotonic() + 30
    while driver.call("erlang", "memory", erlang.Atom("binary")) > 40_000_000:
        assert time.monotonic() < deadline
        driver.call("channel_driver", "collect")


def test_a_view_of_what_a_read_left(read):
    channel, _ = channel_of([b"a" * 5000 + b"b" * 5000])
    assert read(channel, "readexactly", 5000) == b"a" * 5000
    assert read(channel, "receive_view") == b"b" * 5000
