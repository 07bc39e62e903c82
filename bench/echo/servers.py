"""The servers under measurement: servers.py LOOP KIND [CERTIFICATE], each as people write them.

Prints the port and serves until it is killed.  In the Erlang VM, `serve` is called instead.
"""

import asyncio
import os
import socket
import ssl
import sys

LIMIT = 1 << 20  # of the streams: more than a message
BUFFER = 256 * 1024


class Echo(asyncio.Protocol):
    __slots__ = ("transport",)

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.transport.write(data)


class BufferedEcho(asyncio.BufferedProtocol):
    def connection_made(self, transport):
        self.transport = transport
        self.buffer = bytearray(BUFFER)
        self.view = memoryview(self.buffer)

    def get_buffer(self, sizehint):
        return self.buffer

    def buffer_updated(self, nbytes):
        # A copy: the transport may keep what it cannot send at once, and the buffer is used again.
        self.transport.write(bytes(self.view[:nbytes]))


class TwoWrites(Echo):
    """A header and a body in answer to each piece."""

    def data_received(self, data):
        self.transport.write(data[:16])
        self.transport.write(data[16:])


class Close(asyncio.Protocol):
    def connection_made(self, transport):
        transport.close()


class DatagramEcho(asyncio.DatagramProtocol):
    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, address):
        self.transport.sendto(data, address)


class PipeEcho(asyncio.Protocol):
    def __init__(self, writer):
        self.writer = writer

    def data_received(self, data):
        self.writer.write(data)

    def connection_lost(self, error):
        self.writer.close()


async def read(reader, writer):
    while data := await reader.read(LIMIT):
        writer.write(data)
        await writer.drain()
    writer.close()


async def readline(reader, writer):
    while data := await reader.readline():
        writer.write(data)
        await writer.drain()
    writer.close()


PROTOCOLS = {"protocol": Echo, "buffered": BufferedEcho, "two": TwoWrites, "churn": Close}
STREAMS = {"read": read, "readline": readline}


async def serve_aiohttp():
    from aiohttp import web

    async def hello(request):
        return web.Response(text="hello, world")

    app = web.Application()
    app.router.add_get("/", hello)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024).start()
    return runner.addresses[0][1]


async def serve_uvicorn():
    import uvicorn

    async def hello(scope, receive, send):
        headers = [(b"content-type", b"text/plain"), (b"content-length", b"12")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"hello, world"})

    config = uvicorn.Config(
        hello, host="127.0.0.1", port=0, log_level="error", lifespan="off", access_log=False
    )
    server = uvicorn.Server(config)
    server.install_signal_handlers = lambda: None
    server.keep = asyncio.ensure_future(server._serve())
    while not server.started:
        await asyncio.sleep(0.01)
    return server.servers[0].sockets[0].getsockname()[1]


async def serve_pipes(listener):
    """Echo through the pipes whose ends come through connections to a Unix socket."""
    loop = asyncio.get_running_loop()
    while True:
        control, _ = await loop.sock_accept(listener)
        with control:
            control.setblocking(True)
            while True:
                _, fds, _, _ = await asyncio.to_thread(socket.recv_fds, control, 1, 2)
                if not fds:
                    break
                reading, writing = fds
                writer, _ = await loop.connect_write_pipe(
                    asyncio.BaseProtocol, os.fdopen(writing, "wb", 0)
                )
                await loop.connect_read_pipe(
                    lambda writer=writer: PipeEcho(writer), os.fdopen(reading, "rb", 0)
                )


async def open_server(kind, certificate):
    """The port."""
    loop = asyncio.get_running_loop()
    if kind == "aiohttp":
        return await serve_aiohttp()
    if kind == "uvicorn":
        return await serve_uvicorn()
    if kind == "udp":
        transport, _ = await loop.create_datagram_endpoint(
            DatagramEcho, local_addr=("127.0.0.1", 0)
        )
        return transport.get_extra_info("sockname")[1]
    if kind in STREAMS:
        server = await asyncio.start_server(
            STREAMS[kind], "127.0.0.1", 0, limit=LIMIT, backlog=1024
        )
    elif kind == "tls":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_cert_chain(certificate)
        server = await loop.create_server(Echo, "127.0.0.1", 0, backlog=1024, ssl=context)
    elif kind == "pipe":
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(f"\0bench-{os.getpid()}")
        listener.listen()
        listener.setblocking(False)
        loop.bench_server = asyncio.ensure_future(serve_pipes(listener))
        return os.getpid()
    elif kind == "churn_unix":
        name = f"\0bench-{os.getpid()}"
        loop.bench_server = await loop.create_unix_server(Close, name, backlog=1024)
        return os.getpid()
    else:
        server = await loop.create_server(PROTOCOLS[kind], "127.0.0.1", 0, backlog=1024)
    loop.bench_server = server
    return server.sockets[0].getsockname()[1]


async def serve(kind, certificate=""):
    # As in a process that has done something: malloc no longer maps memory for each large piece.
    # asyncio, which receives into 256 KB, would pay three system calls for every one.
    del [bytes(1 << 20)][0]
    print(await open_server(kind, certificate), flush=True)
    await asyncio.get_running_loop().create_future()


def main():
    from loops import new_loop

    name, kind, *certificate = sys.argv[1:]
    with asyncio.Runner(loop_factory=lambda: new_loop(name)) as runner:
        runner.run(serve(kind, *certificate))


if __name__ == "__main__":
    main()
