"""UDP and Unix datagram transports."""

import asyncio
import socket

import pytest


def current():
    return asyncio.get_running_loop()


class Datagrams(asyncio.DatagramProtocol):
    def __init__(self):
        self.got = asyncio.Queue()
        self.errors = asyncio.Queue()
        self.closed = current().create_future()

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, addr):
        self.got.put_nowait((data, addr))

    def error_received(self, exc):
        self.errors.put_nowait(exc)

    def connection_lost(self, exc):
        self.closed.set_result(exc)


async def endpoint(**options):
    options = options or {"local_addr": ("127.0.0.1", 0)}
    transport, protocol = await current().create_datagram_endpoint(Datagrams, **options)
    return transport, protocol, transport.get_extra_info("sockname")


async def close(*protocols):
    for protocol in protocols:
        protocol.transport.close()
        assert await protocol.closed is None


@pytest.mark.asyncio
async def test_datagrams_keep_their_boundaries_and_senders():
    one_transport, one, one_address = await endpoint()
    two_transport, two, two_address = await endpoint()
    assert isinstance(one_transport, asyncio.BaseTransport)
    for i in range(50):
        one_transport.sendto(b"%d" % i * (i + 1), two_address)
    for i in range(50):
        assert await two.got.get() == (b"%d" % i * (i + 1), one_address)
    two_transport.sendto(b"back", one_address)
    assert await one.got.get() == (b"back", two_address)
    await close(one, two)


@pytest.mark.asyncio
async def test_an_empty_datagram_is_received():
    _, one, address = await endpoint()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"", address)
        sender.sendto(b"x", address)
    assert (await one.got.get())[0] == b""
    assert (await one.got.get())[0] == b"x"
    await close(one)


@pytest.mark.asyncio
async def test_a_connected_endpoint_sends_without_an_address():
    _, one, address = await endpoint()
    transport, two, two_address = await endpoint(remote_addr=address)
    transport.sendto(b"connected")
    assert await one.got.get() == (b"connected", two_address)
    with pytest.raises(ValueError):
        transport.sendto(b"x", ("127.0.0.1", 1))
    await close(one, two)


@pytest.mark.asyncio
async def test_a_refused_datagram_is_an_error_received():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        address = probe.getsockname()
    transport, one, _ = await endpoint(remote_addr=address)
    transport.sendto(b"to nobody")
    assert isinstance(await asyncio.wait_for(one.errors.get(), 5), ConnectionRefusedError)
    await close(one)


@pytest.mark.asyncio
async def test_text_is_no_datagram():
    transport, one, address = await endpoint()
    with pytest.raises(TypeError):
        transport.sendto("text", address)
    await close(one)


@pytest.mark.asyncio
async def test_nothing_is_received_after_close():
    _, one, address = await endpoint()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"x", address)
    await close(one)
    await asyncio.sleep(0.005)
    assert one.got.empty()


@pytest.mark.asyncio
async def test_unix_datagrams(tmp_path):
    path = str(tmp_path / "socket")
    _, one, _ = await endpoint(local_addr=path, family=socket.AF_UNIX)
    transport, two, _ = await endpoint(remote_addr=path, family=socket.AF_UNIX)
    transport.sendto(b"unix")
    assert (await one.got.get())[0] == b"unix"
    await close(one, two)
