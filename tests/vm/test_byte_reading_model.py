"""Any reads of a ByteChannel give what a model of the stream gives, however it was cut."""

import asyncio
import os
from random import Random

import channel_driver as driver
import pytest

from erlang import ByteChannel, ByteChannelClosed

pytestmark = pytest.mark.usefixtures("nothing_is_left_alive")

RUNS = int(os.environ.get("BEAMLOOP_PROPERTY_RUNS", "40"))
LIMIT = 20
SEPARATORS = [b"\n", b"\r\n", b"--b--", b"aa", b"aab"]
PIECES = [b"", b"\r", b"\n", b"--b", b"--\n", b"a" * 30, b"x" * 5000]


def some_chunks(random):
    """Of few letters, so that separators and parts of them come about."""
    return [
        random.choice(PIECES)
        if random.random() < 0.3
        else bytes(random.choices(b"ab-\r\n", k=random.randrange(13)))
        for _ in range(random.randrange(13))
    ]


def some_operations(random):
    for _ in range(random.randrange(25)):
        yield random.choice(
            [
                ("readexactly", random.choice([0, 1, 2, 3, 7, 40, 6000])),
                ("readuntil", random.choice(SEPARATORS)),
                ("readline",),
                ("receive_bytes",),
                ("receive_into", random.randrange(1, 40)),
            ]
        )


@pytest.fixture(params=["thread", *driver.LOOPS])
def ask(request):
    """ask(channel, NAME, ARGUMENT...): what it returns, or the exception."""
    if request.param == "thread":

        def directly(channel, name, *args):
            try:
                return getattr(channel, name)(*args)
            except (asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
                return error
            except (ValueError, ByteChannelClosed) as error:
                return error

        yield directly
        return
    with asyncio.Runner(loop_factory=driver.LOOPS[request.param]) as runner:

        async def outcome(awaitable):
            (result,) = await asyncio.gather(awaitable, return_exceptions=True)
            return result

        async def in_coroutine(channel, name, args):
            return await outcome(getattr(channel, f"async_{name}")(*args))

        yield lambda channel, name, *args: runner.run(in_coroutine(channel, name, args))


def expect_until(data, separator, got):
    """Checks what readuntil gave; how much of data is gone by that."""
    at = data.find(separator)
    if 0 <= at <= LIMIT:
        assert got == data[: at + len(separator)]
        return len(got)
    if at < 0 and len(data) + 1 - len(separator) <= LIMIT:
        assert type(got) is asyncio.IncompleteReadError and got.partial == data
        return len(data)
    assert type(got) is asyncio.LimitOverrunError
    assert LIMIT < got.consumed <= len(data) and separator not in data[: got.consumed]
    return 0


def expect(data, name, args, got, buffer):
    """As expect_until, for every operation."""
    if name == "readuntil":
        return expect_until(data, *args, got)
    if name == "readexactly":
        if len(data) < args[0]:
            assert type(got) is asyncio.IncompleteReadError and got.partial == data
            return len(data)
        assert got == data[: args[0]]
        return len(got)
    if isinstance(got, ByteChannelClosed):
        assert data == b"" and name.startswith("receive")
        return 0
    if name == "receive_into":
        assert data.startswith(buffer[:got])
        return got
    assert data.startswith(got)
    if name == "readline":
        assert got == data[: data.find(b"\n") + 1 or len(data)]
    return len(got)


def test_reads_are_those_of_a_stream(ask):
    for seed in range(RUNS):
        random = Random(seed)
        ref = driver.new_byte_channel()
        chunks = some_chunks(random)
        driver.call("channel_driver", "send_chunks_and_close", ref, chunks)
        channel = ByteChannel(ref, limit=LIMIT)
        data = b"".join(chunks)
        for name, *args in some_operations(random):
            end = data.find(b"\n") if b"\n" in data else len(data)
            if name == "readline" and end > LIMIT:
                # What is too long is dropped as far as it was seen, which is not told.
                continue
            buffer = bytearray(args[0]) if name == "receive_into" else b""
            got = ask(channel, name, *([buffer] if buffer else args))
            data = data[expect(data, name, args, got, buffer) :]
        assert b"".join(channel) == data
