"""Servers and their connections, on our loop and on asyncio's."""

import asyncio
import socket
import sys

import pytest
from server_tools import (
    Recorder,
    address_of,
    close,
    connect,
    current,
    end_of,
    is_ours,
    recorder_type,
    until,
)

import erlang


@pytest.fixture
def recorder():
    return recorder_type()


@pytest.mark.asyncio
async def test_a_server_is_asyncios():
    server = await current().create_server(Recorder, "127.0.0.1", 0)
    assert isinstance(server, asyncio.Server)
    assert repr(server).startswith("<Server sockets=(<asyncio.TransportSocket fd=")
    assert server.get_loop() is current()
    assert server.is_serving()
    await server.start_serving()
    await close(server)
    assert server.sockets == ()
    assert repr(server) == "<Server sockets=()>"
    server.close()
    await server.wait_closed()
    with pytest.raises(RuntimeError):
        await server.serve_forever()


@pytest.mark.asyncio
async def test_serve_forever_is_awaited_once():
    async with await current().create_server(
        Recorder, "127.0.0.1", 0, start_serving=False
    ) as server:
        task = asyncio.create_task(server.serve_forever())
        await asyncio.sleep(0)
        assert server.is_serving()
        with pytest.raises(RuntimeError, match="already being awaited"):
            await server.serve_forever()
        server.close()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert not server.is_serving()


@pytest.mark.asyncio
async def test_waiting_for_the_end_waits_for_connections(recorder):
    """As in Python 3.13; on ours with every version."""
    if not is_ours() and sys.version_info < (3, 12, 1):
        pytest.skip("returned at once then")
    server = await current().create_server(recorder, "127.0.0.1", 0)
    early = asyncio.create_task(server.wait_closed())
    client = connect(server)
    await until(lambda: recorder.made)
    server.close()
    late = asyncio.create_task(server.wait_closed())
    await asyncio.sleep(0.01)
    assert not early.done()
    assert not late.done()
    client.close()
    await early
    await late
    assert recorder.made[0].events == ["made", "lost"]


def skip_without_clients(server):
    if not hasattr(server, "close_clients"):
        assert type(server) is asyncio.Server
        server.close()
        pytest.skip("this Python's own servers have no close_clients")


@pytest.mark.asyncio
async def test_close_clients_sends_what_is_buffered(recorder):
    server = await current().create_server(recorder, "127.0.0.1", 0)
    skip_without_clients(server)
    client = connect(server)
    await until(lambda: recorder.made)
    transport = recorder.made[0].transport
    size = 0
    while not transport.get_write_buffer_size():
        transport.write(bytes(1 << 18))
        size += 1 << 18
    server.close()
    server.close_clients()
    assert transport.is_closing()
    assert recorder.made[0].events == ["made"]

    def read_all():
        total = 0
        while data := client.recv(1 << 18):
            total += len(data)
        return total

    assert await asyncio.to_thread(read_all) == size
    client.close()
    await server.wait_closed()
    assert await recorder.made[0].lost is None


@pytest.mark.asyncio
async def test_abort_clients_loses_what_is_buffered(recorder):
    server = await current().create_server(recorder, "127.0.0.1", 0)
    skip_without_clients(server)
    clients = [connect(server) for _ in range(3)]
    await until(lambda: len(recorder.made) == 3)
    for one in recorder.made:
        while not one.transport.get_write_buffer_size():
            one.transport.write(bytes(1 << 18))
    server.close()
    server.abort_clients()
    # Nobody has read anything.
    await server.wait_closed()
    for one in recorder.made:
        assert one.events == ["made", "lost"]
        assert one.transport.get_write_buffer_size() == 0
    for client in clients:
        client.close()


@pytest.mark.asyncio
async def test_clients_closed_before_they_are_told_are_told_both(recorder):
    def factory():
        current().call_soon(server.close_clients)
        return recorder()

    server = await current().create_server(factory, "127.0.0.1", 0)
    skip_without_clients(server)
    client = connect(server)
    await until(lambda: recorder.made)
    await recorder.made[0].lost
    assert recorder.made[0].events == ["made", "lost"]
    assert await end_of(client)
    await close(server)


@pytest.mark.asyncio
async def test_connections_by_other_transports_count_too(recorder):
    """A loop that makes its own transports, as asyncio lets it."""
    if not is_ours():
        pytest.skip("only ours makes other transports than asyncio's")
    made = []

    class OwnTransports(erlang.ErlangEventLoop):
        def _make_socket_transport(self, sock, protocol, waiter=None, *, extra=None, server=None):
            made.append(
                asyncio.SelectorEventLoop._make_socket_transport(
                    self, sock, protocol, waiter, extra=extra, server=server
                )
            )
            return made[-1]

    def work():
        with asyncio.Runner(loop_factory=OwnTransports) as runner:
            runner.run(main())

    async def main():
        server = await current().create_server(recorder, "127.0.0.1", 0)
        client = connect(server)
        await until(lambda: recorder.made)
        server.close()
        waiting = asyncio.create_task(server.wait_closed())
        await asyncio.sleep(0.01)
        assert not waiting.done()
        client.close()
        await waiting

    await asyncio.to_thread(work)
    assert len(made) == 1
    assert recorder.made[0].transport is made[0]


@pytest.mark.asyncio
async def test_two_servers_share_a_port(recorder):
    one = await current().create_server(recorder, "127.0.0.1", 0, reuse_port=True)
    port = address_of(one)[1]
    two = await current().create_server(recorder, "127.0.0.1", port, reuse_port=True)
    clients = [connect(one) for _ in range(40)]
    await until(lambda: len(recorder.made) == 40)
    one.close()
    two.close()
    for client in clients:
        client.close()
    for each in recorder.made:
        await each.lost
    await one.wait_closed()
    await two.wait_closed()


@pytest.mark.asyncio
async def test_a_server_on_a_socket_of_its_own_kind_uses_its_accept(recorder):
    class Counting(socket.socket):
        accepted = 0

        def accept(self):
            self.accepted += 1
            return super().accept()

    listening = Counting()
    listening.bind(("127.0.0.1", 0))
    server = await current().create_server(recorder, sock=listening)
    client = connect(server)
    await until(lambda: recorder.made)
    assert listening.accepted > 0
    client.close()
    await recorder.made[0].lost
    await close(server)
