"""TCP streams and transports: delivery, flow control, closing, TLS, sendfile, Unix sockets."""

import asyncio
import os
import socket
import ssl

import pytest


def current():
    return asyncio.get_running_loop()


class Recorder(asyncio.Protocol):
    """Remembers everything that the transport tells it, in order."""

    def __init__(self):
        self.calls = []
        self.data = bytearray()
        self.closed = current().create_future()
        self.connected = current().create_future()

    def connection_made(self, transport):
        self.transport = transport
        self.calls.append("connection_made")
        self.connected.set_result(None)

    def data_received(self, data):
        self.data += data

    def eof_received(self):
        self.calls.append("eof_received")

    def connection_lost(self, exc):
        self.calls.append("connection_lost")
        self.closed.set_result(exc)

    def pause_writing(self):
        self.calls.append("pause_writing")

    def resume_writing(self):
        self.calls.append("resume_writing")


async def echo(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()
    await writer.wait_closed()


@pytest.mark.asyncio
async def test_a_stream_server_echoes():
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with server:
        host, port = server.sockets[0].getsockname()
        data = os.urandom(2_000_000)

        async def client():
            reader, writer = await asyncio.open_connection(host, port)
            writer.write(data)
            writer.write_eof()
            got = await reader.read()
            writer.close()
            await writer.wait_closed()
            return got == data

        assert await asyncio.gather(client(), client(), client()) == [True] * 3


async def connected_pair(first=Recorder, second=Recorder):
    left, right = socket.socketpair()
    _, one = await current().create_connection(first, sock=left)
    _, two = await current().create_connection(second, sock=right)
    return one, two


@pytest.mark.asyncio
async def test_a_protocol_is_told_everything_in_order():
    one, two = await connected_pair()
    one.transport.write(b"hello ")
    one.transport.writelines([b"wor", b"ld"])
    one.transport.close()
    assert await two.closed is None
    assert two.data == b"hello world"
    assert two.calls == ["connection_made", "eof_received", "connection_lost"]
    assert await one.closed is None
    assert one.calls == ["connection_made", "connection_lost"]


@pytest.mark.asyncio
async def test_transports_are_instances_of_asyncios_classes():
    one, two = await connected_pair()
    assert isinstance(one.transport, asyncio.Transport)
    assert one.transport.get_extra_info("socket") is not None
    assert one.transport.get_extra_info("no such thing", 7) == 7
    assert one.transport.get_protocol() is one
    assert one.transport.is_closing() is False
    one.transport.abort()
    assert one.transport.is_closing() is True
    await asyncio.gather(one.closed, two.closed)


@pytest.mark.asyncio
async def test_a_write_on_a_closed_transport_is_dropped():
    one, two = await connected_pair()
    one.transport.close()
    one.transport.write(b"too late")
    await asyncio.gather(one.closed, two.closed)
    one.transport.write(b"much too late")
    assert two.data == b""


@pytest.mark.asyncio
async def test_close_sends_what_is_buffered_and_abort_does_not():
    one, two = await connected_pair()
    data = b"x" * 5_000_000
    one.transport.write(data)
    assert one.transport.get_write_buffer_size() > 0
    one.transport.close()
    await two.closed
    assert len(two.data) == len(data)
    three, four = await connected_pair()
    three.transport.write(data)
    three.transport.abort()
    await four.closed
    assert len(four.data) < len(data)
    assert three.transport.get_write_buffer_size() == 0


@pytest.mark.asyncio
async def test_flow_control_pauses_and_resumes_the_writer():
    one, two = await connected_pair()
    one.transport.set_write_buffer_limits(high=1000, low=100)
    assert one.transport.get_write_buffer_limits() == (100, 1000)
    two.transport.pause_reading()
    one.transport.write(b"x" * 5_000_000)
    assert one.calls == ["connection_made", "pause_writing"]
    two.transport.resume_reading()
    while "resume_writing" not in one.calls:
        await asyncio.sleep(0.001)
    one.transport.close()
    await two.closed
    assert len(two.data) == 5_000_000
    assert one.calls == ["connection_made", "pause_writing", "resume_writing", "connection_lost"]


@pytest.mark.asyncio
async def test_pause_reading_stops_data_and_resume_brings_it():
    one, two = await connected_pair()
    two.transport.pause_reading()
    assert two.transport.is_reading() is False
    one.transport.write(b"held")
    await asyncio.sleep(0.005)
    assert two.data == b""
    two.transport.resume_reading()
    assert two.transport.is_reading() is True
    while two.data != b"held":
        await asyncio.sleep(0.001)
    one.transport.abort()
    await two.closed


@pytest.mark.asyncio
async def test_pausing_inside_data_received_stops_at_once():
    """Nothing that was read ahead may be delivered after the pause."""

    class OneChunk(Recorder):
        def data_received(self, data):
            super().data_received(data)
            self.calls.append("data")
            self.transport.pause_reading()

    one, two = await connected_pair(second=OneChunk)
    for _ in range(50):
        one.transport.write(b"x" * 100_000)
    while "data" not in two.calls:
        await asyncio.sleep(0.001)
    await asyncio.sleep(0.01)
    assert two.calls.count("data") == 1
    one.transport.abort()
    two.transport.abort()
    await two.closed


@pytest.mark.asyncio
async def test_write_eof_closes_one_direction_only():
    class KeepsOpen(Recorder):
        def eof_received(self):
            super().eof_received()
            return True

    one, two = await connected_pair(second=KeepsOpen)
    assert one.transport.can_write_eof()
    one.transport.write(b"question")
    one.transport.write_eof()
    while "eof_received" not in two.calls:
        await asyncio.sleep(0.001)
    two.transport.write(b"answer")
    two.transport.close()
    assert await one.closed is None
    assert (two.data, one.data) == (b"question", b"answer")


@pytest.mark.asyncio
async def test_data_and_end_in_one_event_are_both_delivered():
    for i in range(50):
        size = 100_000 if i % 2 else 1
        left, right = socket.socketpair()
        right.send(b"x" * size)
        right.close()
        _, protocol = await current().create_connection(Recorder, sock=left)
        await protocol.closed
        assert len(protocol.data) == size
        assert protocol.calls == ["connection_made", "eof_received", "connection_lost"]


@pytest.mark.asyncio
async def test_a_reset_connection_is_reported():
    listener = socket.create_server(("127.0.0.1", 0))
    _, protocol = await current().create_connection(Recorder, *listener.getsockname())
    connection, _ = listener.accept()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    connection.close()
    listener.close()
    assert isinstance(await protocol.closed, ConnectionResetError)


@pytest.mark.asyncio
async def test_a_buffered_protocol_reads_into_its_own_buffer():
    class Buffered(asyncio.BufferedProtocol):
        def __init__(self):
            self.buffer = bytearray(10)
            self.got = b""
            self.closed = current().create_future()

        def get_buffer(self, sizehint):
            return self.buffer

        def buffer_updated(self, nbytes):
            self.got += self.buffer[:nbytes]

        def connection_lost(self, exc):
            self.closed.set_result(exc)

    left, right = socket.socketpair()
    _, protocol = await current().create_connection(Buffered, sock=left)
    right.send(b"0123456789abcdefghijk")
    right.close()
    await protocol.closed
    assert protocol.got == b"0123456789abcdefghijk"


@pytest.mark.asyncio
async def test_a_protocol_can_be_changed():
    one, two = await connected_pair()
    other = Recorder()
    two.transport.set_protocol(other)
    one.transport.write(b"for the other")
    one.transport.close()
    await other.closed
    assert (two.data, other.data) == (b"", b"for the other")


@pytest.mark.asyncio
async def test_an_exception_in_data_received_closes_the_connection():
    errors = []
    current().set_exception_handler(lambda loop, context: errors.append(context["exception"]))

    class Fails(Recorder):
        def data_received(self, data):
            raise ZeroDivisionError

    one, two = await connected_pair(second=Fails)
    one.transport.write(b"x")
    assert isinstance(await two.closed, ZeroDivisionError)
    await one.closed
    assert isinstance(errors[0], ZeroDivisionError)


@pytest.mark.asyncio
@pytest.mark.parametrize("wrong", ["text", None, 1])
async def test_writing_what_is_no_buffer_is_a_type_error(wrong):
    one, two = await connected_pair()
    with pytest.raises(TypeError):
        one.transport.write(wrong)
    one.transport.abort()
    await two.closed


@pytest.mark.asyncio
async def test_tls_both_ways(server_tls, client_tls):
    server = await asyncio.start_server(echo, "localhost", 0, ssl=server_tls)
    async with server:
        port = server.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("localhost", port, ssl=client_tls)
        data = os.urandom(1_000_000)
        writer.write(data)
        assert await reader.readexactly(len(data)) == data
        assert writer.get_extra_info("ssl_object") is not None
        assert writer.get_extra_info("cipher")
        writer.close()
        await writer.wait_closed()


@pytest.mark.asyncio
async def test_tls_is_never_silently_ignored(server_tls):
    """A client that does not trust the server must fail, not fall back to plain text."""
    current().set_exception_handler(lambda loop, context: None)
    server = await asyncio.start_server(echo, "localhost", 0, ssl=server_tls)
    async with server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(ssl.SSLCertVerificationError):
            await asyncio.open_connection("localhost", port, ssl=True)
        await asyncio.sleep(0.01)


@pytest.mark.asyncio
async def test_start_tls_upgrades_a_connection(server_tls, client_tls):
    async def serve(reader, writer):
        writer.write(await reader.readexactly(5))
        await writer.start_tls(server_tls)
        writer.write(await reader.readexactly(6))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "localhost", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("localhost", port)
        writer.write(b"plain")
        assert await reader.readexactly(5) == b"plain"
        await writer.start_tls(client_tls, server_hostname="localhost")
        writer.write(b"secret")
        assert await reader.readexactly(6) == b"secret"
        writer.close()
        await writer.wait_closed()
        await asyncio.sleep(0.01)


@pytest.mark.asyncio
async def test_sendfile_over_a_transport(tmp_path):
    path = tmp_path / "file"
    data = os.urandom(900_000)
    path.write_bytes(data)
    listener = socket.create_server(("127.0.0.1", 0))
    two = Recorder()
    server = await current().create_server(lambda: two, sock=listener)
    _, one = await current().create_connection(Recorder, *listener.getsockname())
    with open(path, "rb") as file:
        one.transport.write(b"head ")
        assert await current().sendfile(one.transport, file) == len(data)
        one.transport.write(b" tail")
    one.transport.close()
    await two.closed
    assert two.data == b"head " + data + b" tail"
    server.close()
    await server.wait_closed()


@pytest.mark.asyncio
async def test_a_server_stops_accepting_when_closed():
    server = await current().create_server(Recorder, "127.0.0.1", 0)
    assert server.is_serving()
    address = server.sockets[0].getsockname()
    server.close()
    await server.wait_closed()
    assert not server.is_serving()
    with pytest.raises(ConnectionRefusedError):
        await current().create_connection(Recorder, *address)


@pytest.mark.asyncio
async def test_a_server_may_start_serving_later():
    server = await current().create_server(Recorder, "127.0.0.1", 0, start_serving=False)
    assert not server.is_serving()
    await server.start_serving()
    _, protocol = await current().create_connection(Recorder, *server.sockets[0].getsockname())
    protocol.transport.abort()
    await protocol.closed
    server.close()
    await server.wait_closed()
    await asyncio.sleep(0.005)


@pytest.mark.asyncio
async def test_serve_forever_ends_when_cancelled():
    server = await current().create_server(Recorder, "127.0.0.1", 0)
    task = asyncio.ensure_future(server.serve_forever())
    await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not server.is_serving()


@pytest.mark.asyncio
async def test_two_hundred_connections_at_once():
    server = await asyncio.start_server(echo, "127.0.0.1", 0, backlog=500)
    async with server:
        address = server.sockets[0].getsockname()

        async def client(number):
            reader, writer = await asyncio.open_connection(*address)
            for i in range(5):
                writer.write(b"%d-%d\n" % (number, i))
                assert await reader.readline() == b"%d-%d\n" % (number, i)
            writer.close()
            await writer.wait_closed()
            return number

        assert await asyncio.gather(*map(client, range(200))) == list(range(200))
        await asyncio.sleep(0.01)


@pytest.mark.asyncio
async def test_happy_eyeballs_and_local_address():
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        _, writer = await asyncio.open_connection(
            "localhost", port, happy_eyeballs_delay=0.05, interleave=1
        )
        writer.close()
        await writer.wait_closed()
        _, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=("127.0.0.1", 0))
        writer.close()
        await writer.wait_closed()
        await asyncio.sleep(0.005)


@pytest.mark.asyncio
async def test_connection_refused_is_reported():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = probe.getsockname()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(*address)


@pytest.mark.asyncio
async def test_a_unix_server_echoes(tmp_path):
    path = str(tmp_path / "socket")
    server = await asyncio.start_unix_server(echo, path)
    async with server:
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b"x" * 300_000)
        assert await reader.readexactly(300_000) == b"x" * 300_000
        writer.close()
        await writer.wait_closed()
        await asyncio.sleep(0.005)


@pytest.mark.asyncio
async def test_an_accepted_socket_can_be_taken_over():
    listener = socket.create_server(("127.0.0.1", 0))
    client = socket.create_connection(listener.getsockname())
    accepted, _ = listener.accept()
    _, protocol = await current().connect_accepted_socket(Recorder, accepted)
    client.send(b"taken over")
    client.close()
    listener.close()
    await protocol.closed
    assert protocol.data == b"taken over"


def test_a_server_out_of_descriptors_accepts_again_later(run_script):
    """accept() fails with EMFILE; the server backs off and serves the waiting client after that."""
    done = run_script(
        """
        import resource, socket
        from asyncio import constants
        constants.ACCEPT_RETRY_DELAY = 0.05
        async def serve(reader, writer):
            writer.write(b"served")
            writer.close()
        async def main():
            loop = asyncio.get_running_loop()
            loop.set_exception_handler(lambda loop, context: None)
            server = await asyncio.start_server(serve, "127.0.0.1", 0)
            client = socket.socket()
            client.connect(server.sockets[0].getsockname())
            client.setblocking(False)
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (client.fileno() + 1, hard))
            await asyncio.sleep(0.1)
            try:
                print(client.recv(10))
            except BlockingIOError:
                print("not served")
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            print(await loop.sock_recv(client, 10))
            client.close()
            server.close()
        with asyncio.Runner(loop_factory=new_loop, debug=False) as runner:
            runner.run(main())
        """
    )
    assert done.stdout == "not served\nb'served'\n", done.stderr


def test_close_clients_and_abort_clients(loop):
    """asyncio's own servers have them from Python 3.13 on."""

    async def main():
        server = await loop.create_server(Recorder, "127.0.0.1", 0)
        if not hasattr(server, "close_clients"):
            server.close()
            return type(server) is asyncio.Server
        _, one = await loop.create_connection(Recorder, *server.sockets[0].getsockname())
        await asyncio.sleep(0.01)
        server.close()
        server.close_clients()
        await one.closed
        await server.wait_closed()
        return True

    assert loop.run_until_complete(main())
