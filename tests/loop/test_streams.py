"""asyncio's streams: the same objects and the same behaviour, in C over transports of ours."""

import asyncio
import contextlib
import gc
import random
import socket
import sys
import warnings

import pytest

import erlang


@contextlib.asynccontextmanager
async def connected(**options):
    """(reader, writer, peer): a client's streams and the socket at the other end."""
    listener = socket.create_server(("127.0.0.1", 0))
    reader, writer = await asyncio.open_connection(*listener.getsockname(), **options)
    peer, _ = listener.accept()
    listener.close()
    peer.setblocking(False)
    try:
        yield reader, writer, peer
    finally:
        peer.close()
        writer.transport.abort()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def send(peer, data):
    await asyncio.get_running_loop().sock_sendall(peer, data)


async def arrives(reader, size):
    """Wait until so much is in the reader's buffer, by what asyncio's own tests look at."""
    while len(reader._buffer) < size:
        await asyncio.sleep(0)


def is_native(reader):
    return type(reader) is not asyncio.StreamReader


@pytest.mark.asyncio
async def test_the_objects_are_asyncios():
    made = asyncio.get_running_loop().create_future()
    server = await asyncio.start_server(lambda *streams: made.set_result(streams), "127.0.0.1", 0)
    ours = await asyncio.open_connection(*server.sockets[0].getsockname())
    native = isinstance(asyncio.get_running_loop(), erlang.ErlangEventLoop)
    for reader, writer in (ours, await made):
        assert isinstance(reader, asyncio.StreamReader)
        assert isinstance(writer, asyncio.StreamWriter)
        assert isinstance(writer.transport.get_protocol(), asyncio.StreamReaderProtocol)
        assert is_native(reader) == native
        assert repr(reader).startswith("<StreamReader transport=<")
        assert reader._transport is writer.transport
        assert (reader._waiter, reader._exception, reader._eof) == (None, None, False)
        assert (reader._limit, reader._paused) == (2**16, False)
        assert reader._loop is asyncio.get_running_loop()
        writer.close()
    server.close()
    await server.wait_closed()


def test_what_is_there_is_read_without_a_coroutine(erlang_loop):
    async def main():
        async with connected() as (reader, _, peer):
            await send(peer, b"line\n1234567890")
            await reader.readexactly(1)
            for call in (reader.readline(), reader.read(4), reader.readexactly(2)):
                assert asyncio.iscoroutine(call)
                assert type(call).__name__ == "StreamCall"
                with pytest.raises(StopIteration):
                    call.send(None)

    erlang_loop.run_until_complete(main())


class Model:
    """What a reader should return, of all that was and will be sent."""

    def __init__(self, data):
        self.data = data

    def take(self, size):
        taken, self.data = self.data[:size], self.data[size:]
        return taken

    def take_through(self, separator):
        return self.take(self.data.index(separator) + len(separator))


async def read_like(model, reader, choose):
    """One random call and what it should have returned."""
    kind = choose.choice(("read", "readexactly", "readline", "readuntil", "touch"))
    if kind == "touch":
        assert model.data.startswith(reader._buffer)
    elif kind == "readexactly":
        size = choose.choice((1, 10, 3000))
        assert await reader.readexactly(size) == model.take(size)
    elif kind == "readline":
        assert await reader.readline() == model.take_through(b"\n")
    elif kind == "readuntil":
        assert await reader.readuntil(b"ab") == model.take_through(b"ab")
    else:
        size = choose.choice((1, 100, 1 << 20))
        data = await reader.read(size)
        assert 0 < len(data) <= size
        assert data == model.take(len(data))


@pytest.mark.asyncio
@pytest.mark.parametrize("seed", range(8))
async def test_any_sequence_of_reads_returns_the_stream(seed):
    choose = random.Random(seed)
    data = bytes(choose.choices(b"ab\n", k=60_000)) + b"ab\n" * 2000
    # Half of the seeds never look at the buffer, so that pieces stay what they are.
    may_touch = seed % 2

    async def feed(peer):
        rest = data
        while rest:
            size = choose.choice((7, 500, 30_000))
            await send(peer, rest[:size])
            rest = rest[size:]
            for _ in range(choose.randrange(3)):
                await asyncio.sleep(0)
        peer.shutdown(socket.SHUT_WR)

    async with connected() as (reader, _, peer):
        feeding = asyncio.create_task(feed(peer))
        model = Model(data)
        while len(model.data) > 6000:
            state = choose.getstate()
            if not may_touch and choose.choice(range(5)) == 4:
                continue
            choose.setstate(state)
            await read_like(model, reader, choose)
        assert await reader.read() == model.data
        assert reader.at_eof()
        await feeding


@pytest.mark.asyncio
async def test_lines_by_async_for():
    async with connected() as (reader, _, peer):
        await send(peer, b"one\ntwo\n\nthree")
        peer.shutdown(socket.SHUT_WR)
        assert [line async for line in reader] == [b"one\n", b"two\n", b"\n", b"three"]


@pytest.mark.asyncio
@pytest.mark.parametrize("how", ["read", "readexactly", "readline", "readuntil"])
async def test_a_cancelled_read_loses_nothing(how):
    arguments = {"read": (10,), "readexactly": (5,)}.get(how, ())
    async with connected() as (reader, _, peer):
        for _ in range(3):
            task = asyncio.create_task(getattr(reader, how)(*arguments))
            await asyncio.sleep(0)
            assert reader._waiter is not None
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert reader._waiter is None
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(getattr(reader, how)(*arguments), 0.01)
        await send(peer, b"1234\n")
        assert await asyncio.wait_for(getattr(reader, how)(*arguments), 10) == b"1234\n"


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("how", "named"),
    [("read", "read"), ("readexactly", "readexactly"), ("readline", "readuntil")],
)
async def test_only_one_may_wait(how, named):
    arguments = () if how == "readline" else (4,)
    async with connected() as (reader, _, peer):
        first = asyncio.create_task(reader.readexactly(4))
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match=f"^{named}\\(\\) called while another coroutine"):
            await getattr(reader, how)(*arguments)
        await send(peer, b"1234")
        assert await first == b"1234"


@pytest.mark.asyncio
async def test_an_end_leaves_a_part():
    async with connected() as (reader, _, peer):
        await send(peer, b"123456")
        peer.shutdown(socket.SHUT_WR)
        assert await reader.readexactly(2) == b"12"
        with pytest.raises(asyncio.IncompleteReadError) as caught:
            await reader.readexactly(10)
        assert (caught.value.partial, caught.value.expected) == (b"3456", 10)
        assert await reader.read(5) == b""
        assert await reader.readline() == b""
        with pytest.raises(asyncio.IncompleteReadError):
            await reader.readuntil()


@pytest.mark.asyncio
async def test_a_line_beyond_the_limit():
    async with connected(limit=8) as (reader, _, peer):
        await send(peer, b"123456789\nrest\n")
        await arrives(reader, 15)
        with pytest.raises(asyncio.LimitOverrunError) as caught:
            await reader.readuntil(b"\n")
        assert caught.value.consumed == 9
        with pytest.raises(ValueError, match="longer than limit"):
            await reader.readline()
        assert await reader.readline() == b"rest\n"
        await send(peer, b"no end of line in this")
        with pytest.raises(ValueError, match="not found") as caught:
            await reader.readline()
        assert isinstance(caught.value.__context__, asyncio.LimitOverrunError)


@pytest.mark.asyncio
async def test_a_full_reader_pauses_its_transport_until_it_is_read():
    async with connected(limit=1000) as (reader, writer, peer):
        await send(peer, b"x" * 3000)
        await arrives(reader, 3000)
        assert reader._paused
        assert not writer.transport.is_reading()
        await reader.readexactly(1999)
        assert not writer.transport.is_reading()
        await reader.readexactly(1)
        assert writer.transport.is_reading()
        waiting = asyncio.create_task(reader.readexactly(200_000))
        await send(peer, b"y" * 199_000)
        assert await waiting == b"x" * 1000 + b"y" * 199_000


@pytest.mark.asyncio
async def test_what_others_do_to_the_buffer_counts():
    async with connected() as (reader, _, peer):
        await send(peer, b"12345")
        await arrives(reader, 5)
        buffer = reader._buffer
        del buffer[:2]
        assert await reader.readexactly(3) == b"345"
        await send(peer, b"more")
        await reader._wait_for_data("test")
        assert buffer == b"more"
        reader._buffer = bytearray(b"other\n")
        assert await reader.readline() == b"other\n"
        reader._buffer = type("Buffer", (bytearray,), {})(b"mine")
        await send(peer, b" too\n")
        await arrives(reader, 9)
        assert await reader.readline() == b"mine too\n"
        assert await reader.read(0) == b""


@pytest.mark.asyncio
async def test_a_reader_is_fed_by_hand():
    async with connected() as (reader, _, _peer):
        waiting = asyncio.create_task(reader.readline())
        await asyncio.sleep(0)
        reader.feed_data(bytearray(b"by "))
        reader.feed_data(b"hand\n")
        assert await waiting == b"by hand\n"
        waiting = asyncio.create_task(reader.read(100))
        await asyncio.sleep(0)
        reader.set_exception(ZeroDivisionError("by hand"))
        for _ in range(2):
            with pytest.raises(ZeroDivisionError):
                await waiting
            waiting = reader.readexactly(3)
        waiting.close()
        assert isinstance(reader.exception(), ZeroDivisionError)


@pytest.mark.asyncio
@pytest.mark.parametrize("method, size", [("read", 9), ("readexactly", 3), ("readline", None)])
async def test_what_came_before_an_exception_is_returned(method, size):
    async with connected() as (reader, writer, _peer):
        args = () if size is None else (size,)
        waiting = asyncio.create_task(getattr(reader, method)(*args))
        await asyncio.sleep(0)
        protocol = writer.transport.get_protocol()
        protocol.data_received(b"ab\n")
        reader.set_exception(ZeroDivisionError("after it"))
        assert await waiting == b"ab\n"
        with pytest.raises(ZeroDivisionError):
            await getattr(reader, method)(*args)


@pytest.mark.asyncio
async def test_an_end_before_an_exception_leaves_a_part():
    async with connected() as (reader, _, _peer):
        waiting = asyncio.create_task(reader.readexactly(9))
        await asyncio.sleep(0)
        reader.feed_data(b"part")
        reader.feed_eof()
        reader.set_exception(ZeroDivisionError("after it"))
        with pytest.raises(asyncio.IncompleteReadError) as info:
            await waiting
        assert info.value.partial == b"part"
        assert isinstance(reader.exception(), ZeroDivisionError)


@pytest.mark.asyncio
async def test_a_reader_that_was_not_initialized_cannot_wait():
    async with connected() as (reader, _, _peer):
        other = type(reader).__new__(type(reader))
        with pytest.raises(AttributeError):
            await other.read(1)


@pytest.mark.asyncio
async def test_a_reset_reaches_reader_and_writer():
    async with connected() as (reader, writer, peer):
        await send(peer, b"some")
        await arrives(reader, 4)
        waiting = asyncio.create_task(reader.readexactly(10))
        await asyncio.sleep(0)
        writer.transport._fatal_error(ConnectionResetError("reset"), "told")
        with pytest.raises(ConnectionResetError):
            await waiting
        with pytest.raises(ConnectionResetError):
            await reader.read(1)
        with pytest.raises(ConnectionResetError):
            await writer.drain()


@pytest.mark.asyncio
async def test_drain_waits_while_the_peer_does_not_read():
    made = asyncio.get_running_loop().create_future()

    async def serve(reader, writer):
        made.set_result((reader, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    peer = socket.create_connection(server.sockets[0].getsockname())
    peer.setblocking(False)
    _, writer = await made
    sent = 0
    while not writer.transport.get_write_buffer_size():
        writer.write(bytes(1 << 16))
        sent += 1 << 16
    writer.write(bytes(1 << 17))
    sent += 1 << 17
    draining = asyncio.create_task(writer.drain())
    await asyncio.sleep(0.01)
    assert not draining.done()
    loop = asyncio.get_running_loop()
    while sent:
        sent -= len(await loop.sock_recv(peer, 1 << 18))
    await draining
    await writer.drain()
    writer.close()
    with pytest.raises(ConnectionResetError):
        while True:
            await writer.drain()
    peer.close()
    server.close()


@pytest.mark.asyncio
async def test_odd_arguments_are_asyncios():
    async with connected() as (reader, writer, peer):
        await send(peer, b"1234567\n89")
        await arrives(reader, 9)
        assert await reader.read(n=2) == b"12"
        assert await reader.readuntil(separator=b"3") == b"3"
        assert await reader.readuntil(bytearray(b"4")) == b"4"
        assert await reader.readexactly(0) == b""
        assert await reader.read(True) == b"5"
        with pytest.raises(ValueError, match="less than zero"):
            await reader.readexactly(-1)
        with pytest.raises(ValueError, match="at least one"):
            await reader.readuntil(b"")
        if sys.version_info >= (3, 13):
            assert await reader.readuntil((b"x", b"7")) == b"67"
        for call in (
            lambda: reader.read(1, 2),
            lambda: reader.readline(1),
            lambda: reader.readexactly(),
            lambda: writer.drain(1),
        ):
            with pytest.raises(TypeError, match="argument"):
                call()


@pytest.mark.asyncio
async def test_calls_are_coroutines():
    async with connected() as (reader, _, peer):
        call = reader.read(3)
        assert (call.__name__, call.__qualname__) == ("read", "StreamReader.read")
        future = call.send(None)
        assert reader._waiter is future
        call.close()
        assert reader._waiter is None
        with pytest.raises(RuntimeError, match="reuse"):
            call.send(None)
        call = reader.read(3)
        with pytest.raises(ZeroDivisionError):
            call.throw(ZeroDivisionError())
        await send(peer, b"123456")
        await arrives(reader, 6)
        calls = (reader.readexactly(3), reader.readexactly(2))
        assert await asyncio.gather(*calls) == [b"123", b"45"]
        with pytest.warns(RuntimeWarning, match="'StreamReader.read' was never awaited"):
            reader.read(3)
            gc.collect()


@pytest.mark.asyncio
async def test_subclasses_and_replaced_methods_are_used(monkeypatch):
    class Reader(asyncio.StreamReader):
        async def readline(self):
            return b"mine"

    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    reader = Reader(loop=loop)
    transport, protocol = await loop.create_connection(
        lambda: asyncio.StreamReaderProtocol(reader), sock=ours
    )
    assert type(reader) is Reader
    assert type(protocol) is asyncio.StreamReaderProtocol
    await send(theirs, b"data\n")
    assert await reader.readline() == b"mine"
    assert await asyncio.StreamReader.readline(reader) == b"data\n"
    transport.abort()
    theirs.close()

    async def replaced(self, n=-1):
        return b"replaced"

    monkeypatch.setattr(asyncio.StreamReader, "read", replaced)
    async with connected() as (reader, _, _peer):
        assert await reader.read(1) == b"replaced"


@pytest.mark.asyncio
async def test_a_reader_made_by_hand_and_already_waiting():
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    reader = asyncio.StreamReader(limit=100, loop=loop)
    reader.feed_data(b"before ")
    waiting = asyncio.create_task(reader.readexactly(12))
    await asyncio.sleep(0)
    transport, _ = await loop.create_connection(
        lambda: asyncio.StreamReaderProtocol(reader), sock=ours
    )
    await send(theirs, b"after")
    assert await waiting == b"before after"
    assert reader._limit == 100
    # An object of the same class, fed by hand alone.
    other = type(reader)(limit=10, loop=loop)
    other.feed_data(b"line\n")
    assert await other.readline() == b"line\n"
    transport.abort()
    theirs.close()


@pytest.mark.asyncio
async def test_what_comes_without_a_reader_is_dropped():
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)

    async def connect():
        reader = asyncio.StreamReader(loop=loop)
        return await loop.create_connection(lambda: asyncio.StreamReaderProtocol(reader), sock=ours)

    transport, protocol = await connect()
    gc.collect()
    assert protocol._stream_reader is None
    await send(theirs, b"for nobody")
    theirs.shutdown(socket.SHUT_WR)
    await asyncio.sleep(0.01)
    transport.abort()
    theirs.close()


def test_streams_that_nobody_holds_are_collected(loop):
    async def main():
        async def serve(reader, writer):
            await reader.readline()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        for _ in range(20):
            _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            await asyncio.sleep(0)
            writer.transport.abort()
        # wait_closed() would wait for the server's ends, which nobody closes, to be collected.
        server.close()
        await asyncio.sleep(0.05)

    def settled():
        # A writer that is collected closes its transport, which takes a while.
        for _ in range(5):
            gc.collect()
            loop.run_until_complete(asyncio.sleep(0.01))
        names = ("StreamReader", "StreamCall", "ReaderData", "StreamReaderProtocol", "StreamWriter")
        return sum(type(o).__name__ in names for o in gc.get_objects())

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        loop.run_until_complete(main())
        before = settled()
        loop.run_until_complete(main())
        assert settled() <= before


@pytest.mark.asyncio
async def test_streams_over_tls(server_tls, client_tls):
    async def echo(reader, writer):
        async for line in reader:
            writer.write(line)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0, ssl=server_tls)
    reader, writer = await asyncio.open_connection(
        *server.sockets[0].getsockname(), ssl=client_tls, server_hostname="localhost"
    )
    for size in (0, 10, 60_000):
        line = b"x" * size + b"\n"
        writer.write(line)
        await writer.drain()
        assert await reader.readline() == line
    writer.close()
    await writer.wait_closed()
    server.close()
    await server.wait_closed()


@pytest.mark.asyncio
async def test_streams_go_on_in_tls(server_tls, client_tls):
    async def serve(reader, writer):
        writer.write(await reader.readline())
        await writer.drain()
        await writer.start_tls(server_tls)
        writer.write(await reader.readline())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(b"plain\n")
    assert await reader.readline() == b"plain\n"
    await writer.start_tls(client_tls, server_hostname="localhost")
    writer.write(b"secret\n")
    assert await reader.readline() == b"secret\n"
    assert await reader.read() == b""
    writer.close()
    server.close()
    await server.wait_closed()
