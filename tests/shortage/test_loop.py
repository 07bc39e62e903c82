"""The event loop where memory is short: see walk.py."""

import asyncio
import contextlib
import os
import socket
import threading

import pytest
from walk import DESCRIPTORS, MEMORY, OBJECTS, OnLoop, Operation, walk

import erlang
from erlang import reactor


@pytest.fixture(scope="module")
def loop():
    with contextlib.closing(erlang.new_event_loop()) as loop:
        yield loop


def check(operation, kinds=MEMORY | OBJECTS, own=True):
    places, faults = walk(operation, kinds, own)
    assert not faults, f"{len(faults)} faults in {places} places: " + "\n".join(map(str, faults))
    assert places > 0


class Loops(Operation):
    errors = (MemoryError, OSError)  # what has a descriptor says it as the system does

    def run(self):
        self.loop = erlang.new_event_loop()

    def prepare(self, fails):
        self.loop = None

    def clean(self):
        if self.loop is not None:
            self.loop.close()


def test_loops():
    check(Loops(), kinds=MEMORY | OBJECTS | DESCRIPTORS)


class Callbacks(Operation):
    """Each callback that call_soon and its like took is called once, or its failure is told."""

    errors = (MemoryError, OSError)

    def __init__(self, count):
        self.count = count

    def prepare(self, fails):
        self.loop = erlang.new_event_loop()
        self.told = []
        self.loop.set_exception_handler(lambda loop, context: self.told.append(context["message"]))
        self.taken, self.ran = [], []
        # The call of one may be what fails.
        for delay in (0.003, 0.006):
            self.loop.call_later(delay, self.loop.stop)

    def take(self, number, call, *arguments):
        with contextlib.suppress(MemoryError):
            call(*arguments, self.ran.append, number)
            self.taken.append(number)

    def run(self):
        loop = self.loop
        for i in range(0, 4 * self.count, 4):
            self.take(i, loop.call_soon)
            self.take(i + 1, loop.call_later, 0.0001)
            self.take(i + 2, loop.call_at, loop.time())
            self.take(i + 3, loop.call_soon_threadsafe)
        loop.run_forever()

    def verify(self):
        self.loop.call_later(0.001, self.loop.stop)
        self.loop.run_forever()
        assert len(set(self.ran)) == len(self.ran)
        missing = set(self.taken) - set(self.ran)
        assert len(missing) <= len(self.told), (missing, self.told)

    def clean(self):
        self.loop.close()


def test_callbacks():
    check(Callbacks(1))


def test_many_callbacks():
    """The queues grow."""
    check(Callbacks(200), kinds=MEMORY)


class Posts(Operation):
    """Each callback of another thread's that was taken is called, once."""

    errors = (MemoryError, OSError)

    def prepare(self, fails):
        self.loop = erlang.new_event_loop()
        self.posted, self.ran = [], []

    def run(self):
        thread = threading.Thread(target=self.post)
        thread.start()
        thread.join()
        self.loop.call_soon(self.loop.stop)
        self.loop.run_forever()

    def verify(self):
        self.loop.call_soon(self.loop.stop)
        self.loop.run_forever()
        assert self.ran == self.posted

    def post(self):
        for i in range(300):
            with contextlib.suppress(MemoryError):
                self.loop.call_soon_threadsafe(self.ran.append, i)
                self.posted.append(i)

    def clean(self):
        self.loop.close()


def test_posts():
    check(Posts(), kinds=MEMORY, own=False)


def pair(stack):
    """A connected pair of sockets that do not block."""
    ends = socket.socketpair()
    for end in ends:
        end.setblocking(False)
        stack.callback(end.close)
    return ends


def test_readers_and_writers(loop):
    async def watch(stack):
        one, other = pair(stack)
        got = loop.create_future()
        stack.callback(loop.remove_reader, one)
        stack.callback(loop.remove_writer, one)
        loop.add_writer(one, lambda: (one.send(b"x"), loop.remove_writer(one)))
        loop.add_reader(one, lambda: got.done() or got.set_result(one.recv(9)))
        other.send(b"y")
        assert await got == b"y"

    check(OnLoop(loop, watch))


def test_many_descriptors(loop):
    async def watch(stack):
        one, _ = pair(stack)
        far = os.dup2(one.fileno(), 900)
        stack.callback(os.close, far)
        own = erlang.new_event_loop()
        stack.callback(own.close)
        own.add_writer(far, own.stop)

    check(OnLoop(loop, watch, errors=(MemoryError, OSError)), kinds=MEMORY)


def test_sock_calls(loop):
    async def talk(stack):
        one, other = pair(stack)
        received = asyncio.ensure_future(loop.sock_recv(one, 10))
        await asyncio.sleep(0)
        await loop.sock_sendall(other, b"hello")
        assert await received == b"hello"
        buffer = bytearray(10)
        await loop.sock_sendall(other, b"again")
        assert await loop.sock_recv_into(one, buffer) == 5

    check(OnLoop(loop, talk))


class Echo(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.transport.write(data)


async def receive(loop, end, size):
    """So many bytes of an echo; the end instead says that memory was short."""
    received = b""
    while len(received) < size:
        piece = await loop.sock_recv(end, size)
        if not piece:
            raise MemoryError
        received += piece
    return received


def test_transports(loop):
    async def connection(stack):
        one, other = pair(stack)
        transport, _ = await loop.create_connection(Echo, sock=one)
        stack.callback(transport.abort)
        await loop.sock_sendall(other, b"x" * 1000)
        assert await receive(loop, other, 1000) == b"x" * 1000

    check(OnLoop(loop, connection, errors=(MemoryError, ConnectionError)))


def test_transports_that_go_on(loop):
    """What fails is told, and the connection serves on; what was written is sent once."""

    async def talk(stack):
        one, other = pair(stack)
        transport, _ = await loop.create_connection(Echo, sock=one)
        stack.callback(transport.abort)
        transport.pause_reading()
        while not transport.is_reading():
            with contextlib.suppress(MemoryError):
                transport.resume_reading()
        written = b""
        for data in (b"a" * 10, b"b" * 10, b"c" * 500_000):
            with contextlib.suppress(MemoryError):
                transport.write(data)
                written += data
        assert await receive(loop, other, len(written)) == written
        await loop.sock_sendall(other, b"hello")
        assert await receive(loop, other, 5) == b"hello"

    check(OnLoop(loop, talk, errors=(MemoryError, ConnectionError)))


def test_streams(loop):
    """A server of streams; who is not served sees the end."""

    async def serve(reader, writer):
        try:
            while line := await reader.readline():
                writer.write(line)
                await writer.drain()
        finally:
            writer.close()

    async def lines(stack):
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        stack.callback(server.close)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        stack.callback(writer.close)
        writer.write(b"one\ntwo\n")
        for expected in (b"one\n", b"two\n"):
            if await reader.readline() != expected:
                raise MemoryError

    check(OnLoop(loop, lines, errors=(MemoryError, ConnectionError)), kinds=MEMORY)


class EchoReactor(reactor.Protocol):
    def data_received(self, data):
        self.write(data)
        return reactor.CONTINUE


def test_reactors(loop):
    async def serve(stack):
        reacting = reactor.Reactor(loop, EchoReactor)
        stack.callback(reacting.abort)
        one, other = pair(stack)
        reacting.adopt(one)
        await loop.sock_sendall(other, b"hello")
        assert await receive(loop, other, 5) == b"hello"

    check(OnLoop(loop, serve, errors=(MemoryError, ConnectionError, reactor.NotAdopted)))
