"""What is known of a connection that a server accepted, and where its callbacks run.

Ours makes nothing before it is asked for; nobody may notice.
"""

import asyncio
import contextvars
import gc
import socket
import warnings

import pytest

VARIABLE = contextvars.ContextVar("VARIABLE", default="unset")

HOSTS = {
    "v4": (socket.AF_INET, "127.0.0.1", "127.0.0.1"),
    "v4 any": (socket.AF_INET, "0.0.0.0", "127.0.0.1"),
    "v6": (socket.AF_INET6, "::1", "::1"),
    "v6 any": (socket.AF_INET6, "::", "::1"),
}


def current():
    return asyncio.get_running_loop()


class Keeper(asyncio.Protocol):
    def __init__(self):
        self.made = current().create_future()
        self.lost = current().create_future()
        self.received = bytearray()

    def connection_made(self, transport):
        self.made.set_result(transport)

    def data_received(self, data):
        self.received += data

    def connection_lost(self, exc):
        self.lost.set_result(exc)


async def served(kind, tmp_path, protocol, bound=None):
    """A server, a client's blocking socket, and the transport of its connection."""
    if kind == "unix":
        path = str(tmp_path / "listening")
        server = await current().create_unix_server(lambda: protocol, path)
        client = socket.socket(socket.AF_UNIX)
        if bound is not None:
            client.bind(bound)
        client.connect(path)
    else:
        family, host, target = HOSTS[kind]
        server = await current().create_server(lambda: protocol, host, 0, family=family)
        client = socket.create_connection((target, server.sockets[0].getsockname()[1]))
    client.settimeout(10)
    return server, client, await protocol.made


async def end(server, client, protocol):
    client.close()
    await protocol.lost
    server.close()
    await server.wait_closed()


@pytest.fixture(params=[*HOSTS, "unix"])
def kind(request):
    if request.param.startswith("v6") and not socket.has_ipv6:
        pytest.skip("no IPv6")
    return request.param


@pytest.mark.asyncio
async def test_both_addresses_are_known(kind, tmp_path):
    protocol = Keeper()
    server, client, transport = await served(kind, tmp_path, protocol)
    assert transport.get_extra_info("peername") == client.getsockname()
    assert transport.get_extra_info("sockname") == client.getpeername()
    assert transport.get_extra_info("peername") is transport.get_extra_info("peername")
    await end(server, client, protocol)


@pytest.mark.asyncio
async def test_both_addresses_are_known_when_it_has_ended(kind, tmp_path):
    protocol = Keeper()
    server, client, transport = await served(kind, tmp_path, protocol)
    names = client.getsockname(), client.getpeername()
    await end(server, client, protocol)
    assert transport.get_extra_info("peername") == names[0]
    assert transport.get_extra_info("sockname") == names[1]


@pytest.mark.parametrize("length", [1, 40])
@pytest.mark.parametrize("abstract", [False, True])
@pytest.mark.asyncio
async def test_the_name_of_a_unix_client_is_known(tmp_path, monkeypatch, length, abstract):
    monkeypatch.chdir(tmp_path)
    protocol = Keeper()
    name = "\0" + str(id(protocol)) if abstract else "c"
    name += "x" * length
    server, client, transport = await served("unix", tmp_path, protocol, name)
    expected = name.encode() if abstract else name
    assert transport.get_extra_info("peername") == expected
    await end(server, client, protocol)
    assert transport.get_extra_info("peername") == expected


@pytest.mark.asyncio
async def test_its_socket_is_a_transport_socket(kind, tmp_path):
    protocol = Keeper()
    server, client, transport = await served(kind, tmp_path, protocol)
    listening = server.sockets[0]
    sock = transport.get_extra_info("socket")
    assert type(sock) is asyncio.trsock.TransportSocket
    assert transport.get_extra_info("socket") is sock
    assert (sock.family, sock.type, sock.proto) == (
        listening.family,
        listening.type,
        listening.proto,
    )
    assert sock.getpeername() == client.getsockname()
    assert sock.getsockname() == client.getpeername()
    assert sock.gettimeout() == 0
    assert not sock.get_inheritable()
    if kind != "unix":
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0
    # It is the connection, and may be asked for while data flows.
    transport.write(b"one ")
    sock.shutdown(socket.SHUT_RD)
    transport.write(b"two")
    transport.close()
    await protocol.lost
    assert client.recv(100) == b"one two"
    assert sock.fileno() == -1
    assert sock.family == listening.family
    assert "fd=-1" in repr(sock)
    await end(server, client, protocol)


@pytest.mark.asyncio
async def test_its_socket_when_it_has_ended_is_a_closed_one(kind, tmp_path):
    protocol = Keeper()
    server, client, transport = await served(kind, tmp_path, protocol)
    family = server.sockets[0].family
    await end(server, client, protocol)
    sock = transport.get_extra_info("socket")
    assert type(sock) is asyncio.trsock.TransportSocket
    assert sock.fileno() == -1
    assert (sock.family, sock.type) == (family, socket.SOCK_STREAM)
    with pytest.raises(OSError):
        sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


@pytest.mark.asyncio
async def test_delay_is_off_once_it_is_connected(tmp_path):
    """What asyncio does to each connection happens without anybody asking."""
    protocol = Keeper()
    server, client, transport = await served("v4", tmp_path, protocol)
    await asyncio.sleep(0.001)
    with socket.fromfd(transport._sock_fd, socket.AF_INET, socket.SOCK_STREAM) as same:
        assert same.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0
    await end(server, client, protocol)


@pytest.mark.asyncio
async def test_other_names_have_their_default(tmp_path):
    protocol = Keeper()
    server, client, transport = await served("v4", tmp_path, protocol)
    assert transport.get_extra_info("sslcontext") is None
    assert transport.get_extra_info("sslcontext", 5) == 5
    assert transport.get_extra_info("peername", default=5) == client.getsockname()
    assert transport.get_extra_info(name="nothing", default=5) == 5
    assert transport.get_extra_info(7) is None
    with pytest.raises(TypeError):
        transport.get_extra_info()
    with pytest.raises(TypeError):
        transport.get_extra_info([])
    await end(server, client, protocol)


@pytest.mark.asyncio
async def test_attributes_that_asyncio_itself_uses(tmp_path):
    protocol = Keeper()
    server, client, transport = await served("v4", tmp_path, protocol)
    assert sorted(transport._extra) == ["peername", "socket", "sockname"]
    assert type(transport._sock) is socket.socket
    assert transport._sock.fileno() == transport._sock_fd
    assert transport._sock.gettimeout() == 0
    assert transport._server is server
    assert transport._loop is current()
    assert current()._transports[transport._sock_fd] is transport
    await end(server, client, protocol)
    assert transport._sock is None
    assert transport._server is None


@pytest.mark.asyncio
async def test_its_descriptor_is_the_transports(tmp_path):
    protocol = Keeper()
    server, client, transport = await served("v4", tmp_path, protocol)
    fd = transport._sock_fd
    for call in (current().add_reader, current().add_writer):
        with pytest.raises(RuntimeError, match=f"File descriptor {fd} is used by transport"):
            call(fd, print)
    for call in (current().remove_reader, current().remove_writer):
        with pytest.raises(RuntimeError, match="is used by transport"):
            call(fd)
    same = socket.socket(fileno=fd)
    same.setblocking(False)
    try:
        with pytest.raises(RuntimeError, match="is used by transport"):
            await current().sock_recv(same, 10)
    finally:
        same.detach()
    await end(server, client, protocol)
    assert current().remove_reader(fd) is False


@pytest.mark.asyncio
async def test_a_file_is_sent_to_a_client(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"a file\n" * 100_000)
    protocol = Keeper()
    server, client, transport = await served("v4", tmp_path, protocol)

    def read_all():
        data = bytearray()
        while piece := client.recv(1 << 16):
            data += piece
        return bytes(data)

    reading = asyncio.ensure_future(asyncio.to_thread(read_all))
    transport.write(b"head ")
    with path.open("rb") as file:
        assert await current().sendfile(transport, file) == 700_000
    transport.write_eof()
    assert await reading == b"head " + path.read_bytes()
    assert current()._transports[transport._sock_fd] is transport
    await end(server, client, protocol)


@pytest.mark.asyncio
async def test_its_end_is_told_to_both_sides_of_the_half_closed(tmp_path):
    protocol = Keeper()
    protocol.eof_received = lambda: True
    server, client, transport = await served("unix", tmp_path, protocol)
    client.sendall(b"last words")
    client.shutdown(socket.SHUT_WR)
    while protocol.received != b"last words":
        await asyncio.sleep(0.001)
    transport.write(b"answer")
    transport.write_eof()
    assert client.recv(100) == b"answer"
    assert client.recv(100) == b""
    transport.close()
    assert await protocol.lost is None
    await end(server, client, protocol)


# --- contexts ------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_each_connection_has_a_context_of_its_own():
    seen = []

    class Watching(asyncio.Protocol):
        def __init__(self, number):
            self.number = number
            seen.append((number, "factory", VARIABLE.get()))
            VARIABLE.set(f"factory {number}")

        def connection_made(self, transport):
            self.transport = transport
            seen.append((self.number, "made", VARIABLE.get()))
            VARIABLE.set(f"made {self.number}")

        def data_received(self, data):
            seen.append((self.number, "data", VARIABLE.get()))
            VARIABLE.set(f"data {self.number}")
            self.transport.close()

        def connection_lost(self, exc):
            seen.append((self.number, "lost", VARIABLE.get()))
            if self.number == 1:
                over.set_result(None)

    numbers = iter(range(2))
    over = current().create_future()
    VARIABLE.set("serving")
    server = await current().create_server(lambda: Watching(next(numbers)), "127.0.0.1", 0)
    VARIABLE.set("later")
    for _ in range(2):
        client = socket.create_connection(server.sockets[0].getsockname())
        client.sendall(b"data")
        assert await current().run_in_executor(None, client.recv, 1) == b""
        client.close()
    await over
    for number in range(2):
        assert [step[1:] for step in seen if step[0] == number] == [
            ("factory", "serving"),
            ("made", f"factory {number}"),
            ("data", f"factory {number}"),
            # It was closed by data_received(), after that had set the variable.
            ("lost", f"data {number}"),
        ]
    assert VARIABLE.get() == "later"
    server.close()
    await server.wait_closed()


@pytest.mark.asyncio
async def test_the_end_is_told_in_the_context_of_who_closed(tmp_path):
    seen = []

    class Watching(Keeper):
        def connection_lost(self, exc):
            seen.append(VARIABLE.get())
            super().connection_lost(exc)

    protocol = Watching()
    server, client, transport = await served("v4", tmp_path, protocol)
    VARIABLE.set("closing")
    transport.abort()
    VARIABLE.set("closed")
    await protocol.lost
    assert seen == ["closing"]
    await end(server, client, protocol)


@pytest.mark.asyncio
async def test_the_end_comes_after_what_was_scheduled_before(tmp_path):
    order = []

    class Watching(Keeper):
        def connection_lost(self, exc):
            order.append("lost")
            super().connection_lost(exc)

    protocol = Watching()
    server, client, transport = await served("v4", tmp_path, protocol)
    current().call_soon(order.append, "before")
    transport.close()
    current().call_soon(order.append, "after")
    transport.abort()
    transport.close()
    await protocol.lost
    await asyncio.sleep(0)
    assert order == ["before", "lost", "after"]
    await end(server, client, protocol)


# --- nobody closes it ----------------------------------------------------------------------------


def test_a_connection_that_outlives_its_loop_warns(loop_factory):
    loop = loop_factory()

    async def main():
        protocol = Keeper()
        server = await loop.create_server(lambda: protocol, "127.0.0.1", 0)
        client = socket.create_connection(server.sockets[0].getsockname())
        await protocol.made
        server.close()
        return client

    client = loop.run_until_complete(main())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loop.close()
        gc.collect()
    assert [str(each.message) for each in caught if "unclosed transport" in str(each.message)]
    with client:
        client.settimeout(10)
        assert client.recv(10) == b""
