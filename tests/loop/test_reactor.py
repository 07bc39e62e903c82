"""erlang.reactor in a plain Python: adopted descriptors, the actions, errors, the end."""

import asyncio
import concurrent.futures
import contextlib
import contextvars
import errno
import gc
import os
import socket
import ssl
import struct
import threading
import weakref

import pytest

import erlang
from erlang import reactor

PATIENCE = 10.0


class Recorder(reactor.Protocol):
    """Notes what it is told, and answers data as `answers` says (by default: it echoes)."""

    def __init__(self):
        self.seen = []
        self.answers = {}
        self.ended = asyncio.get_running_loop().create_future()

    def connection_made(self, fd, info):
        self.seen.append(("made", fd, info))

    def data_received(self, data):
        piece = bytes(data)
        self.seen.append(("data", piece))
        if piece in self.answers:
            answer = self.answers[piece]
            return answer(self) if callable(answer) else answer
        self.write(data)
        return reactor.CONTINUE

    def write_ready(self):
        self.seen.append("write_ready")

    def connection_lost(self, exc):
        self.seen.append(("lost", type(exc)))
        self.ended.set_result(exc)


class Peer:
    """The other end of an adopted connection, for coroutines."""

    def __init__(self, sock):
        self.sock = sock
        self._loop = asyncio.get_running_loop()

    async def send(self, data):
        await self._loop.sock_sendall(self.sock, data)

    async def receive(self, size):
        received = b""
        while len(received) < size:
            piece = await self._loop.sock_recv(self.sock, size - len(received))
            assert piece, f"the end after {received!r}"
            received += piece
        return received

    async def ask(self, data):
        await self.send(data)
        return await self.receive(len(data))

    async def receive_to_the_end(self):
        received = b""
        while piece := await self._loop.sock_recv(self.sock, 65536):
            received += piece
        return received


@contextlib.asynccontextmanager
async def serving(factory=Recorder, **limits):
    """(reactor, connect), where await connect(info, data) is (protocol, peer)."""
    loop = asyncio.get_running_loop()
    served = reactor.Reactor(loop, factory, **limits)
    peers = []

    def connect(info=None, data=b""):
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        peers.append(ours)
        # One that is refused stays the caller's.
        with theirs:
            protocol = served.adopt(theirs, info, data)
            assert theirs.fileno() == -1
        return protocol, Peer(ours)

    try:
        yield served, connect
        for peer in peers:
            peer.close()
        await asyncio.wait_for(served.stop(), PATIENCE)
    finally:
        for peer in peers:
            peer.close()
        served.abort()
        await served.wait_closed()


@pytest.fixture(autouse=True)
def every_connection_has_ended():
    yield
    assert not reactor._loop._adopted


def run(main, handler=None):
    """Runs main(); what the loop's exception handler was told is returned."""
    told = []

    async def with_handler():
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda loop, context: told.append(context))
        await asyncio.wait_for(main(), PATIENCE)

    erlang.run(with_handler())
    return told


# ---- being served ----


def test_data_comes_back():
    async def main():
        async with serving() as (_, connect):
            protocol, peer = connect({"who": "me"})
            assert await peer.ask(b"hello") == b"hello"
            fd = protocol.fileno()
            peer.sock.close()
            assert await protocol.ended is None
            assert protocol.seen == [
                ("made", fd, {"who": "me"}),
                ("data", b"hello"),
                ("lost", type(None)),
            ]
            assert protocol.fileno() == -1

    assert run(main) == []


def test_integers_and_socket_objects_are_adopted():
    async def main():
        served = reactor.Reactor(asyncio.get_running_loop(), Recorder)
        ours, theirs = socket.socketpair()
        with ours:
            fd = theirs.detach()
            protocol = served.adopt(fd)
            assert protocol.fileno() == fd
            assert not os.get_blocking(fd)
        await served.stop()

    assert run(main) == []


def test_early_data_comes_first():
    async def main():
        async with serving() as (served, connect):
            protocol, peer = connect(data=b"early ")
            await peer.send(b"late")
            assert await peer.receive(10) == b"early late"
            assert served.info()["received"] == 10
            assert protocol.seen[1] == ("data", b"early ")

    assert run(main) == []


def test_pieces_of_any_size_come_back():
    async def main():
        class Echo(reactor.Protocol):
            def data_received(self, data):
                self.write(data)

        async with serving(Echo) as (served, connect):
            _, peer = connect()
            for size in (1, 64, 1000, 16384, 262144, 1 << 20, 3 << 20):
                data = os.urandom(size)
                sending = asyncio.ensure_future(peer.send(data))
                assert await peer.receive(size) == data
                await sending
            info = served.info()
            assert info["received"] == info["sent"] == 65 + 1000 + 16384 + 262144 + (4 << 20)

    assert run(main) == []


def test_all_kinds_of_buffers_are_written():
    async def main():
        array = bytearray(b"bytearray ")
        pieces = [b"bytes ", array, memoryview(b"view ")[::1], memoryview(b"xslicex")[1:-1], b""]

        def answer(protocol):
            for piece in pieces:
                assert protocol.write(piece) == len(piece)
            array[:] = b"x" * len(array)
            protocol.write(bytes(100_000))
            assert protocol.write(bytearray(100_000)) == 100_000

        expected = b"bytes bytearray view slice" + bytes(200_000)
        async with serving() as (_, connect):
            protocol, peer = connect()
            protocol.answers[b"go"] = answer
            await peer.send(b"go")
            assert await peer.receive(len(expected)) == expected
            # From outside of a callback too.
            array[:] = b"bytearray "
            answer(protocol)
            assert await peer.receive(len(expected)) == expected

    assert run(main) == []


def test_slices_of_the_data_are_written_in_order():
    async def main():
        class Reverse(reactor.Protocol):
            def data_received(self, data):
                for i in reversed(range(len(data))):
                    self.write(data[i : i + 1])

        async with serving(Reverse) as (_, connect):
            _, peer = connect()
            data = bytes(range(200))
            await peer.send(data)
            assert await peer.receive(200) == data[::-1]

    assert run(main) == []


# ---- the view ----


def test_the_data_is_a_read_only_view_and_stays_valid_when_kept():
    async def main():
        class Keeps(reactor.Protocol):
            kept = None

            def data_received(self, data):
                assert type(data) is memoryview and data.readonly and data.format == "B"
                self.kept.append(self.keep(data))
                self.write(b".")

        keepers = [
            lambda data: data,
            lambda data: data[1:],
            lambda data: memoryview(data),
            lambda data: data.cast("c"),
            lambda data: data.toreadonly(),
        ]
        for keep in keepers:
            Keeps.kept, Keeps.keep = [], staticmethod(keep)
            async with serving(Keeps) as (_, connect):
                _, peer = connect()
                pieces = [bytes([65 + i]) * (i + 2) for i in range(20)]
                for piece in pieces:
                    await peer.send(piece)
                    await peer.receive(1)
                for piece, kept in zip(pieces, Keeps.kept, strict=True):
                    assert bytes(kept) == bytes(keep(memoryview(piece)))

    assert run(main) == []


def test_a_view_that_nobody_keeps_is_used_again():
    async def main():
        class Counts(reactor.Protocol):
            views, buffers, hashes = set(), set(), []

            def data_received(self, data):
                self.views.add(id(data))
                self.buffers.add(id(data.obj))
                self.write(data)

        async with serving(Counts) as (_, connect):
            peers = [connect()[1] for _ in range(5)]
            for i in range(20):
                for peer in peers:
                    data = b"x" * (i + 1)
                    assert await peer.ask(data) == data
        assert len(Counts.views) == len(Counts.buffers) == 1

    assert run(main) == []


@pytest.mark.parametrize("use", ["hash", "release", "weakref"])
def test_a_view_that_remembers_something_is_not_used_again(use):
    async def main():
        class Uses(reactor.Protocol):
            found = None

            def data_received(self, data):
                self.write(data)
                if use == "hash":
                    self.found.append(hash(data) == hash(bytes(data)))
                elif use == "release":
                    data.release()
                else:
                    self.found.append(weakref.ref(data))

        Uses.found = []
        async with serving(Uses) as (_, connect):
            _, peer = connect()
            for data in (b"abc", b"xyz", b"longer than that"):
                assert await peer.ask(data) == data
        if use == "hash":
            assert Uses.found == [True] * 3
        if use == "weakref":
            assert [ref() for ref in Uses.found] == [None] * 3

    assert run(main) == []


def test_kept_views_are_of_buffers_that_fit():
    async def main():
        kept = []

        class Keeps(reactor.Protocol):
            def data_received(self, data):
                kept.append(data)
                self.write(b".")

        async with serving(Keeps, read_size=1 << 20) as (_, connect):
            _, peer = connect()
            for _ in range(50):
                await peer.send(b"small")
                await peer.receive(1)
            assert len({id(view.obj) for view in kept}) == 50
            # Large pieces find large buffers again.
            await peer.send(bytes(200_000))
            while sum(map(len, kept)) < 200_250:
                await asyncio.sleep(0)
            assert len(kept) < 100

    assert run(main) == []


# ---- actions ----


@pytest.mark.parametrize("action", [None, "continue", "".join(["con", "tinue"])])
def test_continue_goes_on_reading(action):
    async def main():
        async with serving() as (_, connect):
            protocol, peer = connect()
            protocol.answers[b"a"] = action
            await peer.send(b"a")
            await asyncio.sleep(0.01)
            assert await peer.ask(b"b") == b"b"

    assert run(main) == []


def test_close_sends_everything_first():
    async def main():
        data = os.urandom(2 << 20)

        def answer(protocol):
            protocol.write(data)
            return reactor.CLOSE

        async with serving() as (_, connect):
            protocol, peer = connect()
            protocol.answers[b"go"] = answer
            await peer.send(b"go")
            assert await peer.receive_to_the_end() == data
            assert await protocol.ended is None
            assert "write_ready" not in protocol.seen

    assert run(main) == []


def test_write_pending_calls_write_ready_each_time_there_is_room():
    async def main():
        class Produces(Recorder):
            left = 40

            def write_ready(self):
                assert self.get_write_buffer_size() == 0
                self.write(bytes([self.left]) * 50_000)
                self.left -= 1
                return reactor.WRITE_PENDING if self.left else reactor.CONTINUE

        async with serving(Produces) as (_, connect):
            protocol, peer = connect()
            protocol.answers[b"go"] = reactor.WRITE_PENDING
            await peer.send(b"go")
            received = await peer.receive(40 * 50_000)
            assert received == b"".join(bytes([i]) * 50_000 for i in range(40, 0, -1))
            # Full duplex: it has been reading all the time.
            assert await peer.ask(b"still here") == b"still here"

    assert run(main) == []


def test_async_pending_stops_reading_until_the_answer():
    async def main():
        async def later(protocol):
            await asyncio.sleep(0.02)
            protocol.write(b"answer ")
            protocol.resume_reading()

        def answer(protocol):
            protocol.task = asyncio.ensure_future(later(protocol))
            return reactor.ASYNC_PENDING

        async with serving() as (_, connect):
            protocol, peer = connect()
            protocol.answers[b"ask"] = answer
            await peer.send(b"ask")
            await asyncio.sleep(0.01)
            await peer.send(b"next")
            # The peer has nothing more to say, and gets its answers all the same.
            peer.sock.shutdown(socket.SHUT_WR)
            assert await peer.receive_to_the_end() == b"answer next"

    assert run(main) == []


def test_read_pending_reads_again_without_waiting():
    async def main():
        reads = []

        def answer(protocol):
            reads.append(protocol.read(3))
            reads.append(protocol.read(100))
            reads.append(protocol.read(100))
            assert protocol.read(0) == b""
            protocol.write(b"done")
            return reactor.READ_PENDING

        async with serving(read_size=4) as (_, connect):
            protocol, peer = connect()
            protocol.answers[b"head"] = answer
            await peer.send(b"headbodytail")
            assert await peer.receive(4) == b"done"
            assert reads == [b"bod", b"ytail", None]
            assert await peer.ask(b"more") == b"more"

    assert run(main) == []


def test_read_takes_early_data_and_tells_the_end():
    async def main():
        reads = []

        class Reads(Recorder):
            def connection_made(self, fd, info):
                reads.extend([self.read(2), self.read(), self.read()])

        async with serving(Reads) as (_, connect):
            protocol, peer = connect(data=b"early")
            await asyncio.sleep(0.01)
            assert reads == [b"ea", b"rly", None]
            peer.sock.shutdown(socket.SHUT_WR)
            assert protocol.read() == b""
            assert await protocol.ended is None

    assert run(main) == []


def test_write_ready_may_ask_for_more_to_read():
    """As protocols do that read and write by turns."""

    async def main():
        class Turns(reactor.Protocol):
            buffer = b""

            def data_received(self, data):
                self.buffer += bytes(data)
                return "write_pending"

            def write_ready(self):
                written = self.write(self.buffer)
                self.buffer = self.buffer[written:]
                return "write_pending" if self.buffer else "read_pending"

        async with serving(Turns) as (_, connect):
            _, peer = connect()
            for data in (b"one", b"two", bytes(100_000)):
                assert await peer.ask(data) == data

    assert run(main) == []


def test_connection_made_may_act():
    async def main():
        class Greets(Recorder):
            def connection_made(self, fd, info):
                self.write(b"hello")
                return info

        async with serving(Greets) as (_, connect):
            _, peer = connect("close")
            assert await peer.receive_to_the_end() == b"hello"
            _, peer = connect("continue")
            assert await peer.receive(5) == b"hello"

    assert run(main) == []


def test_pausing_and_resuming():
    async def main():
        async with serving() as (_, connect):
            protocol, peer = connect()
            assert await peer.ask(b"a") == b"a"
            protocol.pause_reading()
            await peer.send(b"b")
            await asyncio.sleep(0.01)
            assert ("data", b"b") not in protocol.seen
            protocol.resume_reading()
            assert await peer.receive(1) == b"b"

    assert run(main) == []


# ---- flow control and ends ----


def test_nothing_is_read_while_much_is_unsent():
    async def main():
        class Floods(reactor.Protocol):
            received = 0

            def data_received(self, data):
                Floods.received += len(data)
                self.write(bytes(100 * len(data)))

        async with serving(Floods, read_size=1000, write_limit=10_000) as (_, connect):
            protocol, peer = connect()
            sending = asyncio.ensure_future(peer.send(bytes(100_000)))
            await asyncio.sleep(0.05)
            assert Floods.received < 100_000
            assert protocol.get_write_buffer_size() > 10_000
            assert len(await peer.receive(10_000_000)) == 10_000_000
            await sending
            assert Floods.received == 100_000

    assert run(main) == []


def test_the_peers_end_closes_once_all_is_sent():
    async def main():
        data = os.urandom(1 << 20)
        async with serving() as (_, connect):
            protocol, peer = connect()
            protocol.answers[b"go"] = lambda protocol: protocol.write(data) and None
            await peer.send(b"go")
            peer.sock.shutdown(socket.SHUT_WR)
            assert await peer.receive_to_the_end() == data
            assert await protocol.ended is None

    assert run(main) == []


def test_the_peers_end_lets_write_ready_finish():
    async def main():
        class Produces(Recorder):
            left = 30

            def write_ready(self):
                self.write(bytes(50_000))
                self.left -= 1
                return "write_pending" if self.left else "continue"

        async with serving(Produces) as (_, connect):
            protocol, peer = connect()
            protocol.answers[b"go"] = "write_pending"
            await peer.send(b"go")
            peer.sock.shutdown(socket.SHUT_WR)
            assert len(await peer.receive_to_the_end()) == 30 * 50_000

    assert run(main) == []


def test_eof_received_may_keep_the_connection():
    async def main():
        class Stays(Recorder):
            def eof_received(self):
                self.seen.append("eof")
                return reactor.CONTINUE

        async with serving(Stays) as (_, connect):
            protocol, peer = connect()
            peer.sock.shutdown(socket.SHUT_WR)
            while "eof" not in protocol.seen:
                await asyncio.sleep(0.001)
            await asyncio.sleep(0.01)
            assert protocol.seen.count("eof") == 1
            protocol.write(b"bye")
            protocol.close()
            assert await peer.receive_to_the_end() == b"bye"

    assert run(main) == []


def test_a_reset_is_told():
    async def main():
        server = socket.create_server(("127.0.0.1", 0))
        client = socket.create_connection(server.getsockname())
        accepted, _ = server.accept()
        server.close()
        served = reactor.Reactor(asyncio.get_running_loop(), Recorder)
        protocol = served.adopt(accepted)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.close()
        assert isinstance(await protocol.ended, ConnectionResetError)
        assert served.info()["errors"] == 1

    assert run(main) == []


def test_abort_loses_what_is_unsent():
    async def main():
        async with serving() as (_, connect):
            protocol, peer = connect()
            await asyncio.sleep(0)
            protocol.write(bytes(10 << 20))
            protocol.abort()
            assert await protocol.ended is None
            assert len(await peer.receive_to_the_end()) < 10 << 20

    assert run(main) == []


def test_after_the_end_nothing_can_be_done():
    async def main():
        async with serving() as (_, connect):
            protocol, _peer = connect()
            await asyncio.sleep(0)
            protocol.close()
            with pytest.raises(ConnectionError):
                protocol.write(b"x")
            await protocol.ended
            for use in (lambda: protocol.write(b"x"), protocol.read):
                with pytest.raises(ConnectionError):
                    use()
            protocol.close()
            protocol.abort()
            protocol.pause_reading()
            protocol.resume_reading()
            assert protocol.is_closing() and protocol.get_write_buffer_size() == 0
        with pytest.raises(ConnectionError):
            Recorder().write(b"x")

    assert run(main) == []


# ---- errors ----


class Raising(Recorder):
    where = ""

    def maybe_raise(self, method):
        if method == self.where:
            raise ValueError(method)

    def connection_made(self, fd, info):
        super().connection_made(fd, info)
        self.maybe_raise("connection_made")

    def data_received(self, data):
        self.write(b"written before")
        self.maybe_raise("data_received")
        return "write_pending"

    def write_ready(self):
        self.maybe_raise("write_ready")
        return "continue"

    def eof_received(self):
        self.maybe_raise("eof_received")

    def connection_lost(self, exc):
        super().connection_lost(exc)
        self.maybe_raise("connection_lost")


METHODS = ["connection_made", "data_received", "write_ready", "eof_received", "connection_lost"]


@pytest.mark.parametrize("method", METHODS)
def test_what_a_method_raises_is_reported_and_ends_the_connection(method):
    protocols = []

    async def main():
        Raising.where = method
        async with serving(Raising) as (served, connect):
            protocol, peer = connect()
            protocols.append(protocol)
            _, _other = connect()
            if method != "connection_made":
                await peer.send(b"x")
            peer.sock.shutdown(socket.SHUT_WR)
            received = await peer.receive_to_the_end()
            assert received == (b"" if method == "connection_made" else b"written before")
            exc = await protocol.ended
            assert exc is None if method == "connection_lost" else isinstance(exc, ValueError)
            await asyncio.sleep(0)
            assert served.info()["errors"] >= (method != "connection_lost")
            Raising.where = ""

    told = [context for context in run(main) if context["protocol"] is protocols[0]]
    assert [str(context["exception"]) for context in told] == [method]
    assert method in told[0]["message"]
    assert isinstance(told[0]["reactor"], reactor.Reactor)


@pytest.mark.parametrize("action", ["no such action", b"continue", 17, True])
def test_an_unknown_action_is_an_error(action):
    async def main():
        async with serving() as (_, connect):
            protocol, peer = connect()
            protocol.answers[b"go"] = action
            await peer.send(b"go")
            assert isinstance(await protocol.ended, ValueError)
            assert await peer.receive_to_the_end() == b""

    (context,) = run(main)
    assert repr(action) in str(context["exception"])
    assert "data_received" in str(context["exception"])


def test_a_protocol_without_data_received_is_an_error():
    async def main():
        async with serving(reactor.Protocol) as (_, connect):
            _, peer = connect()
            await peer.send(b"x")
            assert await peer.receive_to_the_end() == b""

    (context,) = run(main)
    assert isinstance(context["exception"], NotImplementedError)


def test_errors_are_logged(caplog):
    async def main():
        async with serving(reactor.Protocol) as (_, connect):
            _, peer = connect()
            await peer.send(b"x")
            await peer.receive_to_the_end()

    erlang.run(main())
    assert "Exception in data_received() of a reactor's protocol" in caplog.text
    assert "NotImplementedError" in caplog.text


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_exits_go_through(error):
    async def main():
        def leave(protocol):
            raise error

        loop = asyncio.get_running_loop()
        served = reactor.Reactor(loop, Recorder)
        ours, theirs = socket.socketpair()
        with ours:
            served.adopt(theirs).answers[b"go"] = leave
            ours.send(b"go")
            try:
                await asyncio.sleep(PATIENCE)
            finally:
                served.abort()
                await served.wait_closed()

    with pytest.raises(error):
        erlang.run(main())


def test_what_is_no_connected_stream_socket_is_refused(tmp_path):
    async def main():
        served = reactor.Reactor(asyncio.get_running_loop(), Recorder)
        with (
            open(tmp_path / "file", "w") as file,
            socket.socket() as unconnected,
            socket.socket(type=socket.SOCK_DGRAM) as datagrams,
            socket.create_server(("127.0.0.1", 0)) as listener,
        ):
            read_end, write_end = os.pipe()
            for bad, number in (
                (file.fileno(), errno.ENOTSOCK),
                (read_end, errno.ENOTSOCK),
                (unconnected, errno.ENOTCONN),
                (10_000, errno.EBADF),
            ):
                with pytest.raises(OSError) as caught:
                    served.adopt(bad)
                assert caught.value.errno == number
            for bad, reason in ((datagrams, "not_a_stream"), (listener, "listening")):
                with pytest.raises(reactor.NotAdopted) as caught:
                    served.adopt(bad)
                assert caught.value.reason == reason
            for bad in (-1, "text", None):
                with pytest.raises(ValueError):
                    served.adopt(bad)
            os.close(read_end)
            os.close(write_end)
        assert served.info()["accepted"] == 0

    assert run(main) == []


def test_a_descriptor_is_adopted_once():
    async def main():
        loop = asyncio.get_running_loop()
        other = erlang.new_event_loop()
        async with serving() as (served, connect):
            protocol, peer = connect()
            fd = protocol.fileno()
            for another in (
                served,
                reactor.Reactor(loop, Recorder),
                reactor.Reactor(other, Recorder),
            ):
                with pytest.raises(reactor.NotAdopted) as caught:
                    another.adopt(fd)
                assert caught.value.reason == "in_use"
            assert await peer.ask(b"served") == b"served"
            ours, theirs = socket.socketpair()
            with ours, theirs:
                loop.add_reader(theirs, int)
                with pytest.raises(reactor.NotAdopted):
                    served.adopt(theirs)
                loop.remove_reader(theirs)
                assert theirs.fileno() != -1
        other.close()

    assert run(main) == []


def test_limits():
    async def main():
        async with serving(max_connections=1) as (_, connect):
            _, peer = connect()
            with pytest.raises(reactor.NotAdopted) as caught:
                connect()
            assert caught.value.reason == "max_connections"
            assert await peer.ask(b"x") == b"x"
        loop = asyncio.get_running_loop()
        for limits in ({"max_connections": 0}, {"read_size": 0}, {"write_limit": -1}):
            with pytest.raises(ValueError):
                reactor.Reactor(loop, Recorder, **limits)
        for arguments in ((loop, 17), (None, Recorder)):
            with pytest.raises(TypeError):
                reactor.Reactor(*arguments)
        with pytest.raises(TypeError):
            reactor.Reactor(loop, Recorder, no_such_limit=1)

    # The sockets of the refused one are collected.
    assert run(main) == []


def test_a_factory_that_fails_leaves_the_descriptor():
    async def main():
        loop = asyncio.get_running_loop()
        shared = Recorder()
        for factory, error in ((lambda: 1 / 0, ZeroDivisionError), (object, TypeError)):
            served = reactor.Reactor(loop, factory)
            ours, theirs = socket.socketpair()
            with ours, theirs:
                with pytest.raises(error):
                    served.adopt(theirs)
                assert theirs.fileno() != -1 and os.get_blocking(theirs.fileno())
        async with serving(lambda: shared) as (served, connect):
            connect()
            with pytest.raises(ValueError):
                connect()

    assert run(main) == []


def test_another_thread_is_refused():
    async def main():
        async with serving() as (served, connect):
            protocol, peer = connect()
            await peer.ask(b"x")

            def use():
                for method in (
                    lambda: protocol.write(b"x"),
                    protocol.read,
                    protocol.close,
                    protocol.abort,
                    protocol.resume_reading,
                    lambda: served.adopt(0),
                    served.abort,
                ):
                    with pytest.raises(RuntimeError):
                        method()

            await asyncio.to_thread(use)
            assert await peer.ask(b"y") == b"y"

    assert run(main) == []


# ---- the reactor's end ----


def test_stop_serves_what_has_come():
    async def main():
        loop = asyncio.get_running_loop()
        served = reactor.Reactor(loop, Recorder)
        ours, theirs = socket.socketpair()
        with ours:
            served.adopt(theirs)
            await asyncio.sleep(0.01)
            ours.send(b"just in time")
            assert await served.stop(PATIENCE) == 0
            ours.setblocking(False)
            assert await Peer(ours).receive_to_the_end() == b"just in time"
            with pytest.raises(reactor.NotAdopted) as caught:
                served.adopt(ours)
            assert caught.value.reason == "stopping"

    assert run(main) == []


def test_stop_ends_after_its_time():
    async def main():
        served = reactor.Reactor(asyncio.get_running_loop(), Recorder)
        ours, theirs = socket.socketpair()
        with ours:
            protocol = served.adopt(theirs)
            protocol.answers[b"x"] = reactor.ASYNC_PENDING
            ours.send(b"x")
            assert await served.stop(0.02) == 1
            assert isinstance(await protocol.ended, ConnectionAbortedError)

    assert run(main) == []


def test_a_closed_loop_leaves_no_descriptor():
    loop = erlang.new_event_loop()
    served = reactor.Reactor(loop, reactor.Protocol)
    ours, theirs = socket.socketpair()
    with ours:
        protocol = served.adopt(theirs)
        fd = protocol.fileno()
        with pytest.warns(ResourceWarning, match="unclosed connection"):
            loop.close()
            gc.collect()
        with pytest.raises(OSError):
            os.fstat(fd)
        assert protocol.fileno() == -1
        with pytest.raises(ConnectionError):
            protocol.write(b"x")
        with pytest.raises(RuntimeError):
            served.adopt(ours)


# ---- context, debug mode, the loop's own interface ----


def test_callbacks_of_a_connection_share_a_context():
    variable = contextvars.ContextVar("variable", default="none")

    async def main():
        class Sees(reactor.Protocol):
            def connection_made(self, fd, info):
                self.write(variable.get().encode())
                variable.set(info)

            def data_received(self, data):
                self.write(variable.get().encode())

        async with serving(Sees) as (_, connect):
            variable.set("outer")
            peers = [connect(name)[1] for name in ("first", "other")]
            variable.set("later")
            for name, peer in zip((b"first", b"other"), peers, strict=True):
                assert await peer.receive(5) == b"outer"
                await peer.send(b"?")
                assert await peer.receive(5) == name

    assert run(main) == []


def test_debug_mode_serves_and_logs_slow_callbacks(caplog):
    async def main():
        loop = asyncio.get_running_loop()
        loop.slow_callback_duration = 0
        async with serving() as (_, connect):
            _, peer = connect()
            assert await peer.ask(b"hello") == b"hello"

    erlang.run(main(), debug=True)
    assert "Connection" in caplog.text and "took" in caplog.text


def test_events_can_be_taken_one_by_one():
    loop = erlang.new_event_loop()
    served = reactor.Reactor(loop, Echo)
    ours, theirs = socket.socketpair()
    with ours:
        protocol = served.adopt(theirs)
        fd = protocol.fileno()
        assert loop._selector.get_map()[fd].events == 1
        loop._run_once()
        ours.send(b"hello")
        events = loop._run_once_native_for(1000)
        assert (fd, reactor._loop.READ) in events
        for event in events:
            loop._dispatch(*event)
        assert ours.recv(100) == b"hello"
        served.abort()
        loop._run_once()
    loop.close()


class Echo(reactor.Protocol):
    __slots__ = ()

    def data_received(self, data):
        self.write(data)


# ---- leaks and load ----


def test_nothing_is_left_behind():
    found = []

    async def main():
        async with serving() as (served, connect):
            for _ in range(50):
                protocol, peer = connect({"some": "info"}, b"early")
                protocol.answers[b"boom"] = lambda protocol: 1 / 0
                found.append(weakref.ref(protocol))
                await peer.ask(b"data")
                await peer.send(b"boom")
                await protocol.ended
                peer.sock.close()
            found.append(weakref.ref(served))

    assert len(run(main)) == 50
    gc.collect()
    assert [ref() for ref in found] == [None] * 51


def test_many_connections_share_the_loop():
    async def main():
        async with serving(Echo) as (served, connect):
            peers = [connect()[1] for _ in range(400)]

            async def talk(peer, number):
                for size in (10, 5_000, 100):
                    data = number.to_bytes(2, "big") * size
                    assert await peer.ask(data) == data

            await asyncio.gather(*(talk(peer, i) for i, peer in enumerate(peers)))
            assert served.info()["connections"] == 400

    assert run(main) == []


def test_loops_of_several_threads_have_reactors():
    def serve(results):
        async def main():
            async with serving(Echo) as (served, connect):
                _, peer = connect()
                for i in range(200):
                    data = bytes([i]) * 1000
                    assert await peer.ask(data) == data
                results.append(served.info()["received"])

        erlang.run(main())

    results = []
    threads = [threading.Thread(target=serve, args=(results,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [200_000] * 4


# ---- what is written late ----


def test_a_finaliser_may_write_while_sending_fails():
    class Cycle:
        def __init__(self, protocol):
            self.protocol, self.me = protocol, self

        def __del__(self):
            for _ in range(60):
                with contextlib.suppress(ConnectionError):
                    self.protocol.write(b"late")
            finalised.append(self.protocol)

    class Writer(Recorder):
        def data_received(self, data):
            broken.sock.close()
            for n in range(15):
                self.write(b"%d" % n)
            for _ in range(5):
                Cycle(self)
            gc.set_threshold(1)
            gc.enable()
            self.write(b"the last that is gathered")
            gc.disable()

    async def main():
        nonlocal broken
        async with serving(Writer) as (served, connect):
            limits = served.info()
            for _ in range(3):
                protocol, broken = connect()
                await broken.send(b"go")
                assert isinstance(await protocol.ended, ConnectionError)
            info = served.info()
            assert (info["read_size"], info["write_limit"]) == (
                limits["read_size"],
                limits["write_limit"],
            )

    broken, finalised, threshold = None, [], gc.get_threshold()
    gc.collect()
    gc.disable()
    try:
        assert run(main) == []
    finally:
        gc.set_threshold(*threshold)
        gc.enable()
    gc.collect()
    assert finalised


def test_what_an_exception_handler_writes_goes_to_its_connection():
    """And to no other one, whose callback comes next."""

    async def main():
        async with serving() as (_, connect):
            asyncio.get_running_loop().set_exception_handler(
                lambda loop, context: context["protocol"].write(b"sorry")
            )
            raising, peer = connect()
            _, other_peer = connect()
            raising.answers = {b"raise": lambda self: 1 / 0}
            await peer.send(b"raise")
            assert await peer.receive_to_the_end() == b"sorry"
            await raising.ended
            assert await other_peer.ask(b"hello") == b"hello"

    run(main)


# ---- other threads, loops and sockets ----


def test_a_descriptor_of_another_loop_is_refused():
    def other(sock):
        async def serve():
            loop = asyncio.get_running_loop()
            done = asyncio.Event()
            transport, _ = await loop.create_connection(asyncio.Protocol, sock=sock)
            loop.add_reader(watched, lambda: None)
            begun.set_result((loop, done))
            await done.wait()
            loop.remove_reader(watched)
            transport.close()

        erlang.run(serve())

    async def main():
        async with serving() as (served, _):
            loop, done = await asyncio.wrap_future(begun)
            for fd in served_there.fileno(), watched.fileno():
                with pytest.raises(reactor.NotAdopted) as refused:
                    served.adopt(fd)
                assert refused.value.reason == "in_use"
            loop.call_soon_threadsafe(done.set)
            await asyncio.to_thread(thread.join)
            served.adopt(watched)

    begun = concurrent.futures.Future()
    watched, watched_peer = socket.socketpair()
    served_there, peer = socket.socketpair()
    served_there.setblocking(False)
    thread = threading.Thread(target=other, args=(served_there,))
    thread.start()
    with watched_peer, peer:
        run(main)


def test_a_callback_does_not_let_other_threads_in():
    def refused(self):
        def use():
            for method in (lambda: self.write(b"x"), self.read, self.close):
                with pytest.raises(RuntimeError, match="another thread"):
                    method()
            told.append(True)

        thread = threading.Thread(target=use)
        thread.start()
        thread.join()
        self.write(b"end")

    async def main():
        async with serving() as (_, connect):
            protocol, peer = connect()
            protocol.answers = {b"use": refused}
            assert await peer.ask(b"use") == b"end"

    told = []
    run(main)
    assert told == [True]


def test_an_index_may_end_the_connection():
    class Index:
        def __index__(self):
            protocol.abort()
            loop.run_until_complete(protocol.ended)
            return 10

    async def begin():
        protocol = served.adopt(theirs)
        await asyncio.sleep(0)
        return protocol

    with contextlib.closing(erlang.new_event_loop()) as loop:
        ours, theirs = socket.socketpair()
        with ours:
            served = reactor.Reactor(loop, Recorder)
            protocol = loop.run_until_complete(begin())
            with pytest.raises(ConnectionError):
                protocol.read(Index())


def test_read_of_any_size_gives_what_is_there():
    async def main():
        async with serving(read_size=10) as (_, connect):
            protocol, peer = connect()
            protocol.answers = {b"0123456789": lambda self: self.write(self.read(10**15)) and None}
            await peer.send(b"0123456789abcdefghijkl")
            assert await peer.receive(12) == b"abcdefghijkl"

    assert run(main) == []


def test_the_object_of_a_view_keeps_its_data():
    def keep(self):
        kept.append(self.view.obj)
        self.write(b"kept")

    class Viewed(Recorder):
        def data_received(self, data):
            self.view = data
            result = super().data_received(data)
            self.view = None
            return result

    async def main():
        async with serving(Viewed) as (_, connect):
            protocol, peer = connect()
            protocol.answers = {b"first": keep, b"SECOND": keep}
            for piece in b"first", b"SECOND":
                await peer.send(piece)
                assert await peer.receive(4) == b"kept"
            assert await peer.ask(b"served") == b"served"

    kept = []
    run(main)
    assert [bytes(memoryview(buffer)) for buffer in kept] == [b"first", b"SECOND"]


def test_a_tls_socket_is_refused():
    async def main():
        ours, theirs = socket.socketpair()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        wrapped = context.wrap_socket(
            theirs, server_hostname="localhost", do_handshake_on_connect=False
        )
        async with serving() as (served, _):
            with pytest.raises(TypeError, match="SSLSocket"):
                served.adopt(wrapped)
        assert wrapped.fileno() >= 0
        wrapped.close()
        ours.close()

    run(main)


def test_a_connection_does_not_linger():
    async def main():
        loop = asyncio.get_running_loop()
        with socket.create_server(("127.0.0.1", 0)) as server:
            peer = socket.create_connection(server.getsockname())
            sock, _ = server.accept()
        for seconds, left in (5, (0, 0)), (0, (1, 0)):
            copy = sock.dup()
            copy.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, seconds))
            served = reactor.Reactor(loop, Recorder)
            protocol = served.adopt(copy)
            option = sock.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8)
            assert (struct.unpack("ii", option)[0] != 0) == (left[0] != 0)
            protocol.close()
            await protocol.ended
        peer.close()
        sock.close()

    run(main)
