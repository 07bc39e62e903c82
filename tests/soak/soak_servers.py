"""Servers on a loop of ours, with their clients on the same loop; and a reactor's protocol."""

import asyncio
import functools
import os
import ssl
import tempfile

import trustme

from erlang import reactor

WAIT = 30


class Echo(reactor.Protocol):
    def data_received(self, data):
        self.write(data)
        return reactor.CONTINUE


class EchoProtocol(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.transport.write(data)


class EchoDatagrams(asyncio.DatagramProtocol):
    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, address):
        self.transport.sendto(data, address)


class Client(asyncio.Protocol):
    """Sends pieces, each when the one before has come back."""

    def __init__(self, pieces):
        self.pieces = iter(pieces)
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport):
        self.transport = transport
        self.send_next()

    def send_next(self):
        self.piece, self.received = next(self.pieces, None), bytearray()
        if self.piece is None:
            self.transport.close()
        else:
            self.transport.write(self.piece)

    def data_received(self, data):
        self.received += data
        if len(self.received) >= len(self.piece):
            if self.received != self.piece:
                self.done.set_exception(AssertionError("not what was sent"))
                self.transport.abort()
            else:
                self.send_next()

    def connection_lost(self, exc):
        if not self.done.done():
            if exc is None and self.piece is None:
                self.done.set_result(None)
            else:
                self.done.set_exception(exc or EOFError("the connection ended before its time"))


class DatagramClient(asyncio.DatagramProtocol):
    def __init__(self):
        self.received = asyncio.Queue()

    def datagram_received(self, data, address):
        self.received.put_nowait(data)


def pieces(turn):
    return [
        bytes([turn % 256]) * size for size in (1, 100, 1 + turn * 7919 % 5000, 1 << 16 + turn % 3)
    ]


@functools.cache
def contexts():
    """Of a server and its clients, who check its certificate."""
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.issue_cert("localhost").configure_cert(server)
    authority.configure_trust(client)
    return server, client


class ProtocolServer:
    """TCP or TLS; a turn is three connections at a time."""

    def __init__(self, tls=False):
        self.contexts = contexts() if tls else (None, None)

    async def start(self):
        loop = asyncio.get_running_loop()
        self.server = await loop.create_server(EchoProtocol, "127.0.0.1", 0, ssl=self.contexts[0])

    async def connect(self, client):
        port = self.server.sockets[0].getsockname()[1]
        name = "localhost" if self.contexts[1] else None
        loop = asyncio.get_running_loop()
        await loop.create_connection(
            lambda: client, "127.0.0.1", port, ssl=self.contexts[1], server_hostname=name
        )

    async def talk(self, turn):
        client = Client(pieces(turn))
        await self.connect(client)
        await asyncio.wait_for(client.done, WAIT)

    async def turn(self, turn):
        await asyncio.gather(*(self.talk(turn + i) for i in range(3)))
        return 3

    async def close(self):
        self.server.close()
        await self.server.wait_closed()


class UnixServer(ProtocolServer):
    async def start(self):
        self.folder = tempfile.TemporaryDirectory()
        self.path = os.path.join(self.folder.name, "socket")
        loop = asyncio.get_running_loop()
        self.server = await loop.create_unix_server(EchoProtocol, self.path)

    async def connect(self, client):
        loop = asyncio.get_running_loop()
        await loop.create_unix_connection(lambda: client, self.path)

    async def close(self):
        await super().close()
        self.folder.cleanup()


class StreamServer:
    async def start(self):
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0)

    async def serve(self, reader, writer):
        while line := await reader.readline():
            writer.write(line)
            writer.write(await reader.readexactly(int(line)))
            await writer.drain()
        writer.close()
        await writer.wait_closed()

    async def turn(self, turn):
        reader, writer = await asyncio.open_connection(*self.server.sockets[0].getsockname())
        for piece in pieces(turn):
            writer.write(b"%d\n" % len(piece))
            writer.write(piece)
            assert await reader.readline() == b"%d\n" % len(piece)
            assert await reader.readexactly(len(piece)) == piece
        writer.write_eof()
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
        return 1

    async def close(self):
        self.server.close()
        await self.server.wait_closed()


class DatagramServer:
    async def start(self):
        loop = asyncio.get_running_loop()
        self.transport, _ = await loop.create_datagram_endpoint(
            EchoDatagrams, local_addr=("127.0.0.1", 0)
        )

    async def turn(self, turn):
        """Datagrams one at a time: none is lost on the way for want of room."""
        loop = asyncio.get_running_loop()
        transport, client = await loop.create_datagram_endpoint(
            DatagramClient, remote_addr=self.transport.get_extra_info("sockname")
        )
        for number in range(10):
            datagram = b"%d %d" % (turn, number) * (1 + number * 50)
            transport.sendto(datagram)
            assert await asyncio.wait_for(client.received.get(), WAIT) == datagram
        assert client.received.empty()
        transport.close()
        return 10

    async def close(self):
        self.transport.close()


async def start(name):
    servers = {
        "tcp": ProtocolServer,
        "tls": functools.partial(ProtocolServer, tls=True),
        "unix": UnixServer,
        "udp": DatagramServer,
        "streams": StreamServer,
    }
    server = servers[name]()
    await server.start()
    return server
