"""The stream transport in detail, on our loop and on asyncio's: what both must do alike."""

import asyncio
import contextvars
import gc
import logging
import random
import socket
import struct
import warnings
import weakref

import pytest


class Collector(asyncio.Protocol):
    """Collects what arrives; `ended` becomes the exception of connection_lost."""

    def __init__(self):
        self.received = bytearray()
        self.pieces = 0
        self.pauses = []
        self.ended = asyncio.get_running_loop().create_future()
        self.grown = asyncio.Event()

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        assert type(data) is bytes
        self.received += data
        self.pieces += 1
        self.grown.set()

    def pause_writing(self):
        self.pauses.append("pause")

    def resume_writing(self):
        self.pauses.append("resume")

    def connection_lost(self, exc):
        self.ended.set_result(exc)

    async def until(self, size):
        while len(self.received) < size:
            self.grown.clear()
            await asyncio.wait_for(self.grown.wait(), 10)


async def wrap(protocol=Collector):
    """A transport of the running loop, its protocol, and the blocking socket of the peer."""
    ours, peer = socket.socketpair()
    ours.setblocking(False)
    peer.settimeout(10)
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.connect_accepted_socket(protocol, ours)
    return transport, protocol, peer


async def read_all(peer, size):
    """The next size bytes that the peer receives, without blocking the loop."""

    def work():
        data = bytearray()
        while len(data) < size:
            piece = peer.recv(65536)
            if not piece:
                break
            data += piece
        return bytes(data)

    return await asyncio.to_thread(work)


async def shut(transport, protocol, peer):
    transport.abort()
    await protocol.ended
    peer.close()


def fill(transport):
    """Write until the kernel takes no more; how many bytes were written."""
    written = 0
    while transport.get_write_buffer_size() == 0:
        transport.write(bytes(65536))
        written += 65536
    return written


@pytest.mark.asyncio
async def test_attributes_that_asyncio_itself_uses():
    transport, protocol, peer = await wrap()
    assert isinstance(transport, asyncio.Transport)
    assert transport.get_protocol() is protocol
    assert transport.get_extra_info("socket").fileno() == transport._sock_fd
    assert transport.get_extra_info("sockname") == ""
    assert transport.get_extra_info("nothing", 7) == 7
    assert transport._loop is asyncio.get_running_loop()
    assert transport._start_tls_compatible
    assert transport._sendfile_compatible is asyncio.constants._SendfileMode.TRY_NATIVE
    assert transport.can_write_eof()
    transport.note = "users may keep notes on it"
    assert transport.note and "fd=" in repr(transport)
    await shut(transport, protocol, peer)
    assert transport._loop is None and transport._sock is None
    assert "closed" in repr(transport)


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
async def test_what_is_buffered_is_what_was_written(kind):
    transport, protocol, peer = await wrap()
    written = fill(transport)
    tail = kind(b"tail" * 1000)
    transport.write(tail)
    got = await read_all(peer, written + 4000)
    assert got[written:] == b"tail" * 1000
    assert transport.get_write_buffer_size() == 0
    await shut(transport, protocol, peer)


@pytest.mark.asyncio
async def test_writelines_gathers_in_order_before_and_after_a_full_buffer():
    transport, protocol, peer = await wrap()
    transport.writelines([b"a", bytearray(b"bc"), memoryview(b"def"), b""])
    transport.writelines([])
    assert await read_all(peer, 6) == b"abcdef"
    written = fill(transport)
    lines = [b"%d," % n for n in range(3000)]
    transport.writelines(lines)
    got = await read_all(peer, written + sum(map(len, lines)))
    assert got[written:] == b"".join(lines)
    with pytest.raises(TypeError):
        transport.writelines([b"x", "text"])
    await shut(transport, protocol, peer)


@pytest.mark.asyncio
async def test_limits_decide_when_the_protocol_is_paused():
    transport, protocol, peer = await wrap()
    assert transport.get_write_buffer_limits() == (16 * 1024, 64 * 1024)
    transport.set_write_buffer_limits(high=100)
    assert transport.get_write_buffer_limits() == (25, 100)
    with pytest.raises(ValueError):
        transport.set_write_buffer_limits(high=1, low=2)
    written = fill(transport)
    assert protocol.pauses == ["pause"]
    await read_all(peer, written)
    await asyncio.sleep(0.01)
    assert protocol.pauses == ["pause", "resume"]
    await shut(transport, protocol, peer)


@pytest.mark.asyncio
async def test_an_exception_in_pause_writing_is_reported_and_the_write_kept():
    class Failing(Collector):
        def pause_writing(self):
            raise ZeroDivisionError

    reported = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda loop, context: reported.append(context))
    transport, protocol, peer = await wrap(Failing)
    transport.set_write_buffer_limits(high=0)
    written = fill(transport)
    assert len(await read_all(peer, written)) == written
    assert [context["message"] for context in reported] == ["protocol.pause_writing() failed"]
    assert reported[0]["transport"] is transport and reported[0]["protocol"] is protocol
    await shut(transport, protocol, peer)


@pytest.mark.asyncio
async def test_close_delivers_the_buffer_and_then_ends():
    transport, protocol, peer = await wrap()
    written = fill(transport)
    transport.close()
    assert transport.is_closing() and not protocol.ended.done()
    assert len(await read_all(peer, written + 1)) == written
    assert await protocol.ended is None
    peer.close()


@pytest.mark.asyncio
async def test_what_is_written_on_resuming_while_closing_is_sent_before_the_end():
    class Resumes(Collector):
        def resume_writing(self):
            super().resume_writing()
            self.transport.write(b"tail")

    transport, protocol, peer = await wrap(Resumes)
    size = fill(transport)
    while not protocol.pauses:
        transport.write(bytes(65536))
        size += 65536
    transport.close()
    received = await read_all(peer, size + 4)
    assert received[size:] == b"tail"
    assert await asyncio.wait_for(protocol.ended, 10) is None
    assert protocol.pauses == ["pause", "resume"]
    peer.close()


@pytest.mark.asyncio
async def test_write_eof_waits_for_the_buffer_and_leaves_reading_open():
    transport, protocol, peer = await wrap()
    written = fill(transport)
    transport.write_eof()
    with pytest.raises(RuntimeError):
        transport.write(b"x")
    with pytest.raises(RuntimeError):
        transport.writelines([b"x"])
    assert len(await read_all(peer, written + 1)) == written
    peer.sendall(b"still heard")
    await protocol.until(11)
    await shut(transport, protocol, peer)


@pytest.mark.asyncio
async def test_a_kept_half_open_transport_hears_the_end_once():
    class Keeping(Collector):
        ends = 0

        def eof_received(self):
            self.ends += 1
            return True

    transport, protocol, peer = await wrap(Keeping)
    peer.sendall(b"last words")
    peer.shutdown(socket.SHUT_WR)
    await protocol.until(10)
    await asyncio.sleep(0.02)
    assert protocol.ends == 1 and not transport.is_closing()
    transport.write(b"answer")
    assert await read_all(peer, 6) == b"answer"
    await shut(transport, protocol, peer)


@pytest.mark.asyncio
async def test_data_that_came_while_paused_is_read_on_resume():
    transport, protocol, peer = await wrap()
    for round in range(1, 4):
        transport.pause_reading()
        transport.pause_reading()
        assert not transport.is_reading()
        peer.sendall(bytes(1000))
        await asyncio.sleep(0.01)
        assert len(protocol.received) == 1000 * (round - 1)
        transport.resume_reading()
        transport.resume_reading()
        await protocol.until(1000 * round)
    await shut(transport, protocol, peer)


@pytest.mark.asyncio
async def test_more_than_one_read_holds_arrives_without_another_event():
    transport, protocol, peer = await wrap()
    data = bytes(range(256)) * 8192
    sender = asyncio.create_task(asyncio.to_thread(peer.sendall, data))
    await protocol.until(len(data))
    await sender
    assert protocol.received == data and protocol.pieces > 1
    await shut(transport, protocol, peer)


@pytest.mark.asyncio
async def test_protocols_change_between_plain_and_buffered_while_data_flows():
    class Buffered(asyncio.BufferedProtocol):
        def __init__(self, outer):
            self.outer = outer
            self.buffer = bytearray(100)

        def get_buffer(self, sizehint):
            assert sizehint == -1
            return self.buffer

        def buffer_updated(self, nbytes):
            self.outer.data_received(bytes(self.buffer[:nbytes]))

        def connection_lost(self, exc):
            self.outer.connection_lost(exc)

    transport, protocol, peer = await wrap()
    buffered = Buffered(protocol)
    for round in range(1, 5):
        transport.set_protocol(buffered if round % 2 else protocol)
        peer.sendall(b"%d" % round * 1000)
        await protocol.until(1000 * round)
    assert protocol.received == b"".join(b"%d" % n * 1000 for n in range(1, 5))
    await shut(transport, protocol, peer)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("answer", "error"),
    [(b"", RuntimeError), (5, TypeError), (b"read only", (TypeError, BufferError))],
)
async def test_a_bad_buffer_ends_the_connection(answer, error):
    class Bad(asyncio.BufferedProtocol):
        def __init__(self):
            self.ended = asyncio.get_running_loop().create_future()

        def get_buffer(self, sizehint):
            return answer

        def connection_lost(self, exc):
            self.ended.set_result(exc)

    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
    _, protocol, peer = await wrap(Bad)
    peer.sendall(b"x")
    assert isinstance(await asyncio.wait_for(protocol.ended, 5), error)
    peer.close()


@pytest.mark.asyncio
async def test_callbacks_run_in_the_context_of_the_connections_maker():
    seen = []
    variable = contextvars.ContextVar("variable", default="outside")

    class Looking(Collector):
        def data_received(self, data):
            seen.append(variable.get())
            variable.set("changed")
            super().data_received(data)

    variable.set("maker")
    transport, protocol, peer = await wrap(Looking)
    variable.set("later")
    peer.sendall(b"1")
    await protocol.until(1)
    peer.sendall(b"2")
    await protocol.until(2)
    assert seen == ["maker", "changed"]
    transport.pause_reading()
    transport.resume_reading()
    peer.sendall(b"3")
    await protocol.until(3)
    assert seen[2] == "later" and variable.get() == "later"
    await shut(transport, protocol, peer)


@pytest.mark.asyncio
async def test_a_reset_peer_fails_the_connection_and_later_writes_are_only_warned_of(caplog):
    listener = socket.create_server(("127.0.0.1", 0))
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.create_connection(Collector, *listener.getsockname())
    peer, _ = listener.accept()
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()
    listener.close()
    assert isinstance(await asyncio.wait_for(protocol.ended, 5), ConnectionResetError)
    with caplog.at_level(logging.WARNING, "asyncio"):
        for _ in range(4):
            transport.write(b"x")
        assert not caplog.records
        for _ in range(4):
            transport.write(b"x")
    assert {record.getMessage() for record in caplog.records} == {"socket.send() raised exception."}


@pytest.mark.asyncio
async def test_a_write_to_a_peer_that_is_gone_ends_with_a_broken_pipe():
    transport, protocol, peer = await wrap()
    transport.pause_reading()
    peer.close()
    while not transport.is_closing():
        transport.write(b"x")
        await asyncio.sleep(0)
    assert isinstance(await protocol.ended, (BrokenPipeError, ConnectionResetError))


def test_a_forgotten_transport_warns_and_closes_its_socket(loop_factory):
    loop = loop_factory()
    transport, protocol, peer = loop.run_until_complete(wrap())
    loop.close()
    del protocol
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del transport
        gc.collect()
    assert any("unclosed transport" in str(warning.message) for warning in caught)
    assert peer.recv(1) == b""
    peer.close()


def test_a_transport_that_is_forgotten_while_paused_warns_and_closes_its_socket(loop):
    """It waits for nothing, so that the loop does not hold it; one that resumed is held."""

    async def main(steps):
        transport, _, peer = await wrap()
        await asyncio.sleep(0)
        for step in steps:
            getattr(transport, step)()
        return peer

    async def rest():
        # Where it is held, this ends it.
        for _ in range(3):
            await asyncio.sleep(0)

    for steps in (["pause_reading"], ["pause_reading", "resume_reading"]):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            peer = loop.run_until_complete(main(steps))
            gc.collect()
            told = [str(warning.message) for warning in caught]
        held = len(steps) == 2
        assert any("unclosed transport" in text for text in told) != held
        if held:
            peer.close()
            loop.run_until_complete(rest())
        else:
            assert peer.recv(1) == b""
            peer.close()


def test_a_paused_transport_with_something_to_send_is_held(loop):
    async def main():
        transport, protocol, peer = await wrap()
        await asyncio.sleep(0)
        size = fill(transport)
        transport.pause_reading()
        return size, weakref.ref(protocol), peer

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        size, protocol, peer = loop.run_until_complete(main())
        gc.collect()
        assert protocol() is not None
        assert len(loop.run_until_complete(read_all(peer, size))) == size
        gc.collect()
    assert protocol() is None
    assert any("unclosed transport" in str(warning.message) for warning in caught)
    assert peer.recv(1) == b""
    peer.close()


def test_an_exception_of_connection_lost_is_reported_and_the_socket_closed(loop):
    class Failing(Collector):
        def connection_lost(self, exc):
            super().connection_lost(exc)
            raise ZeroDivisionError

    async def main():
        transport, protocol, peer = await wrap(Failing)
        transport.close()
        await protocol.ended
        await asyncio.sleep(0)
        assert peer.recv(1) == b""
        peer.close()

    reported = []
    loop.set_exception_handler(lambda loop, context: reported.append(context["exception"]))
    loop.run_until_complete(main())
    assert [type(exception) for exception in reported] == [ZeroDivisionError]


def test_a_write_outside_the_running_loop_is_sent_at_once(loop):
    transport, protocol, peer = loop.run_until_complete(wrap())
    transport.write(b"now")
    assert peer.recv(3) == b"now"
    loop.run_until_complete(shut(transport, protocol, peer))


def test_a_slow_protocol_is_logged_in_debug_mode(loop, caplog):
    class Slow(Collector):
        def data_received(self, data):
            loop.slow_callback_duration = 0
            super().data_received(data)

    async def main():
        transport, protocol, peer = await wrap(Slow)
        peer.sendall(b"x")
        await protocol.until(1)
        loop.slow_callback_duration = 10
        await shut(transport, protocol, peer)

    loop.set_debug(True)
    loop.slow_callback_duration = 10
    with caplog.at_level(logging.WARNING, "asyncio"):
        loop.run_until_complete(main())
    assert any("_read_ready" in record.getMessage() for record in caplog.records)


@pytest.mark.asyncio
async def test_data_that_is_kept_stays_as_it_was():
    choose = random.Random(7)

    class Keeping(Collector):
        def __init__(self):
            super().__init__()
            self.total = 0
            self.kept = []

        def data_received(self, data):
            # All ways to have it at hand later, or none.
            if choose.random() < 0.4:
                self.kept.append((self.total, data))
            elif choose.random() < 0.3:
                self.kept.append((self.total, memoryview(data)[1:-1]))
            assert hash(data) == hash(bytes(bytearray(data)))
            self.total += len(data)

    transport, protocol, peer = await wrap(Keeping)
    peer.setblocking(False)
    loop = asyncio.get_running_loop()
    sent = b""
    for size in choose.choices((1, 600, 650, 1000, 9_000, 60_000, 100_000), k=80):
        data = choose.randbytes(size)
        await loop.sock_sendall(peer, data)
        sent += data
        # Most are received before the next one is sent, so that there are many pieces.
        while protocol.total < len(sent) and size != 650:
            await asyncio.sleep(0)
    while protocol.total < len(sent):
        await asyncio.sleep(0)
    assert len(protocol.kept) > 10
    for start, data in protocol.kept:
        if isinstance(data, memoryview):
            start += 1
        assert data == sent[start : start + len(data)]
    transport.abort()
    assert await protocol.ended is None
    peer.close()


@pytest.mark.parametrize("size", [300, 30_000, 3_000_000])
def test_views_are_sent_as_they_were_when_written(erlang_loop, size):
    """asyncio sends what a buffer holds when the kernel has room, from 3.12 on."""

    async def main():
        transport, protocol, peer = await wrap()
        fixed = random.Random(size).randbytes(size)
        changing = bytearray(fixed)
        for data in (fixed, memoryview(fixed)[10:-10], changing, memoryview(changing)):
            transport.write(data)
        transport.writelines([memoryview(fixed)[:50], memoryview(changing)[50:]])
        expected = fixed + fixed[10:-10] + fixed * 3
        changing[:] = bytes(size)
        del fixed
        assert await read_all(peer, len(expected)) == expected
        await shut(transport, protocol, peer)

    erlang_loop.run_until_complete(main())
