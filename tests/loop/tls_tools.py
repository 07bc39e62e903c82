"""What the tests of TLS share: certificates, protocols, and a peer that is not asyncio's."""

import asyncio
import contextlib
import functools
import socket
import ssl

import trustme


@functools.cache
def authority():
    return trustme.CA()


@functools.cache
def certificate(name="localhost"):
    return authority().issue_cert(name)


def server_context(name="localhost"):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate(name).configure_cert(context)
    return context


def client_context():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority().configure_trust(context)
    return context


class Collector(asyncio.Protocol):
    """Collects what arrives and what happens; `ended` becomes connection_lost's exception."""

    def __init__(self):
        self.received = bytearray()
        self.pieces = []
        self.events = []
        self.ended = asyncio.get_running_loop().create_future()
        self.grown = asyncio.Event()

    def connection_made(self, transport):
        self.transport = transport
        self.events.append("made")

    def data_received(self, data):
        assert type(data) is bytes
        self.received += data
        self.pieces.append(len(data))
        self.grown.set()

    def eof_received(self):
        self.events.append("eof")

    def pause_writing(self):
        self.events.append("pause")

    def resume_writing(self):
        self.events.append("resume")

    def connection_lost(self, exc):
        self.events.append("lost")
        self.ended.set_result(exc)

    async def until(self, size):
        while len(self.received) < size:
            self.grown.clear()
            await asyncio.wait_for(self.grown.wait(), 20)


class BufferedCollector(Collector, asyncio.BufferedProtocol):
    """The same through a buffer of `size` bytes."""

    size = 1000

    def __init__(self):
        super().__init__()
        self.buffer = bytearray(self.size)

    def get_buffer(self, sizehint):
        return memoryview(self.buffer)

    def buffer_updated(self, nbytes):
        self.data_received(bytes(self.buffer[:nbytes]))


class Peer:
    """The other end of a connection: OpenSSL between bytes, and a blocking socket.

    What it does is called in a thread, by its `asynchronous` face.
    """

    def __init__(self, sock, context=None, server_side=False, hostname="localhost"):
        self.sock = sock
        sock.settimeout(20)
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.wire = bytearray()  # all that was received
        if context is None:
            context = server_context() if server_side else client_context()
        self.tls = context.wrap_bio(
            self.incoming,
            self.outgoing,
            server_side=server_side,
            server_hostname=None if server_side else hostname,
        )

    def receive(self):
        data = self.sock.recv(65536)
        self.wire += data
        if data:
            self.incoming.write(data)
        else:
            self.incoming.write_eof()

    def flush(self):
        if self.outgoing.pending:
            self.sock.sendall(self.outgoing.read())

    def work(self, operation, *args):
        """operation(*args) of the ssl object, with all the receiving and sending it wants."""
        while True:
            try:
                result = operation(*args)
            except ssl.SSLWantReadError:
                self.flush()
                self.receive()
            else:
                self.flush()
                return result

    def handshake(self):
        self.work(self.tls.do_handshake)

    def read(self, size):
        """The next size bytes, or fewer at the end."""
        data = bytearray()
        while len(data) < size:
            piece = self.work(self.tls.read, min(size - len(data), 65536))
            if not piece:
                break
            data += piece
        return bytes(data)

    def write(self, data):
        view = memoryview(data)
        while view:
            view = view[self.work(self.tls.write, view) :]

    def records(self, *pieces):
        """The records of pieces, one for each, not sent."""
        for piece in pieces:
            assert self.tls.write(piece) == len(piece)
        return self.outgoing.read()

    def read_wire_to_end(self):
        with contextlib.suppress(ConnectionError):
            while True:
                before = len(self.wire)
                self.receive()
                if len(self.wire) == before:
                    break

    def close(self):
        self.sock.close()

    def __getattr__(self, name):
        """`await peer.a_read(5)` is peer.read(5) in a thread."""
        if not name.startswith("a_"):
            raise AttributeError(name)
        return functools.partial(asyncio.to_thread, getattr(self, name[2:]))


async def serve_one(protocol=Collector, context=None, peer_context=None, **options):
    """A server's transport of the running loop, its protocol, and the client, hands shaken."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    peer = Peer(theirs, peer_context)
    shaking = asyncio.create_task(peer.a_handshake())
    transport, protocol = await asyncio.get_running_loop().connect_accepted_socket(
        protocol, ours, ssl=context or server_context(), **options
    )
    await shaking
    return transport, protocol, peer


async def connect_one(protocol=Collector, context=None, peer_context=None, **options):
    """A client's transport of the running loop, its protocol, and the server, hands shaken."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    peer = Peer(theirs, peer_context, server_side=True)
    shaking = asyncio.create_task(peer.a_handshake())
    transport, protocol = await asyncio.get_running_loop().create_connection(
        protocol,
        sock=ours,
        ssl=context or client_context(),
        server_hostname=options.pop("server_hostname", "localhost"),
        **options,
    )
    await shaking
    return transport, protocol, peer


async def shut(transport, protocol, peer):
    transport.abort()
    await protocol.ended
    peer.close()


def split_records(wire):
    """[(content type, length)] of bytes that must be nothing but whole TLS records."""
    found = []
    wire = bytes(wire)
    while wire:
        kind, version, length = wire[0], wire[1:3], int.from_bytes(wire[3:5], "big")
        assert 20 <= kind <= 23 and version in (b"\x03\x01", b"\x03\x03")
        assert len(wire) >= 5 + length
        found.append((kind, length))
        wire = wire[5 + length :]
    return found


def pattern(size):
    """Bytes whose position can be told."""
    return b"".join(i.to_bytes(4, "big") for i in range(size // 4 + 1))[:size]


@contextlib.contextmanager
def reported():
    """What is told to the running loop's exception handler meanwhile."""
    contexts = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda loop, context: contexts.append(context))
    try:
        yield contexts
    finally:
        loop.set_exception_handler(None)
