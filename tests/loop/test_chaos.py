"""Many clients, good and bad, against servers of each kind, over TCP and TLS.

What the clients do is drawn from a fixed seed; how it interleaves is not.  Whatever they do, what
was accepted is delivered, every connection ends, and nothing is left behind.
"""

import asyncio
import collections
import contextlib
import gc
import random
import socket
import struct
import threading
import weakref
import zlib
from concurrent.futures import ThreadPoolExecutor

import pytest

SEED = 20261124
CLIENTS = 6
VISITS = 40  # of each client to each server
HEADER = struct.Struct("!cI")
PATIENCE = 20.0
PIECE = 16384
PATTERN = bytes(range(256)) * 4096


# ---- the servers ---------------------------------------------------------------------------


class Session:
    """One connection of a server: obeys (operation, length) headers, whatever the transport."""

    def __init__(self, chaos, transport):
        chaos.made += 1
        chaos.watch(self, transport)
        self._chaos = chaos
        self._transport = transport
        self._input = bytearray()
        self._operation = None
        self._left = 0
        self._sum = 0

    def feed(self, data):
        self._input += data
        while self._input and not self._transport.is_closing():
            if self._operation is None:
                if len(self._input) < HEADER.size:
                    return
                self._start(*HEADER.unpack_from(self._input))
                del self._input[: HEADER.size]
            else:
                piece = bytes(self._input[: self._left])
                del self._input[: self._left]
                self._take(piece)

    def _start(self, operation, length):
        write = self._transport.write
        if operation in (b"E", b"S") and length:
            self._operation, self._left, self._sum = operation, length, 0
        elif operation == b"L":
            write(PATTERN[:length])
        elif operation == b"C":
            self._transport.writelines([PATTERN[:length], b"end"])
            self._transport.close()
        elif operation == b"P":
            self._transport.pause_reading()
            asyncio.get_running_loop().call_later(0.002, self._resume)
        elif operation == b"F":
            write(PATTERN[:length])
            if self._transport.can_write_eof():
                self._transport.write_eof()
            else:
                self._transport.close()
        else:
            self._transport.abort()

    def _take(self, piece):
        self._left -= len(piece)
        self._sum = zlib.crc32(piece, self._sum)
        if self._operation == b"E":
            self._transport.write(piece)
        if self._left == 0:
            if self._operation == b"S":
                self._chaos.sums.add(self._sum)
                self._transport.write(self._sum.to_bytes(4, "big"))
            self._operation = None

    def _resume(self):
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def lost(self):
        self._chaos.lost += 1


class Flow(asyncio.BaseProtocol):
    """What both kinds of protocols do: no reading while the peer does not read."""

    chaos = None

    def connection_made(self, transport):
        self.transport = transport
        self.session = Session(self.chaos, transport)
        self.chaos.watch(self)

    def connection_lost(self, exc):
        self.session.lost()

    def pause_writing(self):
        self.transport.pause_reading()

    def resume_writing(self):
        if not self.transport.is_closing():
            self.transport.resume_reading()


class Plain(Flow, asyncio.Protocol):
    def data_received(self, data):
        self.session.feed(data)


class Buffered(Flow, asyncio.BufferedProtocol):
    def connection_made(self, transport):
        super().connection_made(transport)
        self.buffer = bytearray(10_000)

    def get_buffer(self, sizehint):
        # asyncio's TLS reads into slices of it, which of a bytearray would be copies.
        return memoryview(self.buffer)

    def buffer_updated(self, nbytes):
        self.session.feed(self.buffer[:nbytes])


class Chaos:
    """The servers of a run, and what came of their connections."""

    def __init__(self):
        self.made = self.lost = 0
        self.sums = set()
        self.errors = []
        self._watched = []

    def watch(self, *objects):
        for one in objects:
            # Not every transport can be watched.
            with contextlib.suppress(TypeError):
                self._watched.append(weakref.ref(one))

    def left_behind(self):
        return [found for ref in self._watched if (found := ref()) is not None]

    async def stream(self, reader, writer):
        session = Session(self, writer.transport)
        try:
            while data := await reader.read(PIECE):
                session.feed(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            session.lost()
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def start(self, kind, context):
        if kind == "streams":
            return await asyncio.start_server(self.stream, "127.0.0.1", 0, ssl=context)
        protocol = type(kind.__name__, (kind,), {"chaos": self})
        loop = asyncio.get_running_loop()
        return await loop.create_server(protocol, "127.0.0.1", 0, ssl=context)


# ---- the clients ---------------------------------------------------------------------------


def header(operation, length=0):
    return HEADER.pack(operation, length)


def read_exactly(connection, length):
    received = bytearray()
    while len(received) < length:
        piece = connection.recv(length - len(received))
        assert piece, f"the end after {len(received)} of {length} bytes"
        received += piece
    return bytes(received)


def read_to_the_end(connection):
    received = bytearray()
    while piece := connection.recv(65536):
        received += piece
    return bytes(received)


def reset(connection):
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


class Client:
    """A thread's visits to one server, each a program drawn from its own random numbers."""

    def __init__(self, number, port, context):
        self.random = random.Random(SEED + number)
        self.must_have = []
        self._port = port
        self._context = context

    def run(self):
        programs = [
            *(self.echo, self.sink, self.sink_and_close, self.be_closed, self.read_slowly),
            *(self.be_aborted, self.write_and_reset, self.leave_unread, self.reset_at_once),
            *(self.nonsense, self.half_close, self.pause, self.answered_to_the_end),
        ]
        for _ in range(VISITS):
            program = self.random.choice(programs)
            with socket.create_connection(("127.0.0.1", self._port), PATIENCE) as raw:
                if program == self.nonsense:
                    self.nonsense(raw)
                elif self._context is None:
                    program(raw)
                else:
                    self._over_tls(raw, program)

    def _over_tls(self, raw, program):
        if self.random.random() < 0.1:
            # A handshake that stops in the middle.
            raw.sendall(
                b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[: self.random.randrange(11)]
            )
            if self.random.random() < 0.5:
                reset(raw)
            return
        with self._context.wrap_socket(raw, server_hostname="localhost") as connection:
            program(connection)
            if self.random.random() < 0.3 and connection.fileno() != -1:
                with contextlib.suppress(OSError):
                    connection.unwrap()

    def data(self, most=100_000):
        return self.random.randbytes(self.random.randint(1, most))

    def echo(self, connection):
        for _ in range(self.random.randint(1, 5)):
            data = self.data(40_000)
            connection.sendall(header(b"E", len(data)))
            for start in range(0, len(data), PIECE):
                connection.sendall(data[start : start + PIECE])
            assert read_exactly(connection, len(data)) == data

    def sink(self, connection):
        data = self.data()
        connection.sendall(header(b"S", len(data)) + data)
        assert int.from_bytes(read_exactly(connection, 4), "big") == zlib.crc32(data)

    def sink_and_close(self, connection):
        """Nobody waits for the answer, but what was sent before an orderly end counts."""
        data = self.data()
        connection.sendall(header(b"S", len(data)) + data)
        if self._context is None:
            self.must_have.append(zlib.crc32(data))

    def be_closed(self, connection):
        length = self.random.randint(0, len(PATTERN))
        connection.sendall(header(b"C", length))
        assert read_to_the_end(connection) == PATTERN[:length] + b"end"

    def answered_to_the_end(self, connection):
        length = self.random.randint(0, 100_000)
        connection.sendall(header(b"F", length))
        assert read_to_the_end(connection) == PATTERN[:length]

    def read_slowly(self, connection):
        connection.sendall(header(b"L", len(PATTERN)) + header(b"C", 10))
        received = 0
        while piece := connection.recv(self.random.choice((1000, 20_000, 300_000))):
            received += len(piece)
        assert received == len(PATTERN) + 13

    def be_aborted(self, connection):
        connection.sendall(header(b"A"))
        with contextlib.suppress(OSError):
            assert read_to_the_end(connection) == b""

    def write_and_reset(self, connection):
        data = self.data()
        connection.sendall(header(b"E", len(data) + self.random.randint(0, 1)) + data)
        reset(connection)

    def leave_unread(self, connection):
        connection.sendall(header(b"L", self.random.randint(1, len(PATTERN))))
        connection.recv(self.random.randint(1, 1000))

    def reset_at_once(self, connection):
        reset(connection)

    def nonsense(self, connection):
        with contextlib.suppress(OSError):
            connection.sendall(self.data(1000))
            connection.shutdown(socket.SHUT_WR)
            read_to_the_end(connection)

    def half_close(self, connection):
        data = self.data(30_000)
        connection.sendall(header(b"E", len(data)) + data)
        if self._context is None:
            connection.shutdown(socket.SHUT_WR)
            assert read_to_the_end(connection) == data
        else:
            assert read_exactly(connection, len(data)) == data
            with contextlib.suppress(OSError):
                # No end that TLS knows.
                socket.socket.shutdown(connection, socket.SHUT_WR)

    def pause(self, connection):
        data = self.data(30_000)
        connection.sendall(header(b"P") + header(b"E", len(data)) + data)
        assert read_exactly(connection, len(data)) == data


# ---- the run -------------------------------------------------------------------------------


async def until(condition):
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.005)


async def visit(chaos, kind, server_context, client_context):
    server = await chaos.start(kind, server_context)
    port = server.sockets[0].getsockname()[1]
    loop = asyncio.get_running_loop()
    clients = [Client(number, port, client_context) for number in range(CLIENTS)]
    with ThreadPoolExecutor(CLIENTS) as pool:
        await asyncio.gather(*(loop.run_in_executor(pool, client.run) for client in clients))
    # The last connections may not have been accepted yet.
    must_have = {one for client in clients for one in client.must_have}
    await until(lambda: chaos.sums >= must_have)
    server.close()
    async with asyncio.timeout(PATIENCE):
        await server.wait_closed()
    await until(lambda: chaos.made == chaos.lost)


def count_objects():
    """How many there are of what connections are made of."""
    gc.collect()
    names = ("Task", "Future", "Handle", "TimerHandle", "socket", "SSLProtocol", "StreamReader")
    found = collections.Counter(type(one).__name__ for one in gc.get_objects())
    return {name: count for name, count in found.items() if name.lstrip("_").endswith(names)}


@pytest.mark.parametrize("wire", ["tcp", "tls"])
@pytest.mark.parametrize("kind", [Plain, Buffered, "streams"])
def test_bad_clients_leave_nothing_behind(loop, kind, wire, server_tls, client_tls):
    contexts = (server_tls, client_tls) if wire == "tls" else (None, None)
    chaos = Chaos()
    # asyncio's debug mode reports each handshake that fails.
    loop.set_debug(False)
    loop.set_exception_handler(lambda loop, context: chaos.errors.append(context))
    threads = threading.active_count()
    # What the loop opens once is no connection's.
    loop.run_until_complete(asyncio.sleep(0))
    before = count_objects()
    loop.run_until_complete(visit(chaos, kind, *contexts))
    loop.run_until_complete(asyncio.sleep(0))
    gc.collect()
    assert chaos.errors == []
    assert chaos.made > CLIENTS
    assert chaos.left_behind() == []
    assert count_objects() == before
    assert threading.active_count() == threads
    if hasattr(loop, "_stats"):
        stats = loop._stats()
        assert (stats["ready"], stats["timers"], stats["pending"]) == (0, 0, 0)
