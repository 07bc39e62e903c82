"""sock_recv and its kin: each call, partial transfers, cancellation, bad input."""

import array
import asyncio
import os
import socket
import ssl

import pytest


@pytest.fixture
def pair():
    left, right = socket.socketpair()
    left.setblocking(False)
    right.setblocking(False)
    yield left, right
    left.close()
    right.close()


@pytest.fixture
def udp_pair():
    pair = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2)]
    for sock in pair:
        sock.bind(("127.0.0.1", 0))
        sock.setblocking(False)
    yield pair
    for sock in pair:
        sock.close()


@pytest.fixture
def listener():
    sock = socket.create_server(("127.0.0.1", 0))
    sock.setblocking(False)
    yield sock
    sock.close()


def current():
    return asyncio.get_running_loop()


@pytest.mark.asyncio
async def test_recv_returns_what_is_there(pair):
    left, right = pair
    right.send(b"at once")
    assert await current().sock_recv(left, 100) == b"at once"
    right.send(b"abcdef")
    assert await current().sock_recv(left, 4) == b"abcd"
    assert await current().sock_recv(left, 4) == b"ef"


@pytest.mark.asyncio
async def test_recv_waits_for_data(pair):
    left, right = pair
    current().call_later(0.002, right.send, b"later")
    assert await current().sock_recv(left, 100) == b"later"


@pytest.mark.asyncio
async def test_recv_returns_nothing_at_the_end(pair):
    left, right = pair
    current().call_later(0.002, right.close)
    assert await current().sock_recv(left, 100) == b""


@pytest.mark.asyncio
async def test_recv_of_a_large_buffer_gives_only_what_came(pair):
    left, right = pair
    right.send(b"x" * 1000)
    data = await current().sock_recv(left, 1 << 20)
    assert data == b"x" * 1000 and type(data) is bytes


@pytest.mark.asyncio
async def test_recv_into_fills_the_buffer(pair):
    left, right = pair
    buffer = bytearray(b"-" * 8)
    current().call_later(0.002, right.send, b"12345")
    assert await current().sock_recv_into(left, buffer) == 5
    assert buffer == b"12345---"
    right.send(b"678")
    assert await current().sock_recv_into(left, memoryview(buffer)[5:]) == 3
    assert buffer == b"12345678"
    buffer.extend(b"the buffer is no longer exported")


@pytest.mark.asyncio
async def test_recv_into_a_read_only_buffer_is_refused(pair):
    left, right = pair
    right.send(b"x")
    with pytest.raises(TypeError, match="read-write bytes-like object, not bytes"):
        await current().sock_recv_into(left, b"read only")
    with pytest.raises(TypeError):
        await current().sock_recv_into(left, "text")


@pytest.mark.asyncio
async def test_sendall_sends_everything_through_a_full_socket(pair):
    left, right = pair
    data = os.urandom(3_000_000)
    got = bytearray()

    async def read():
        while len(got) < len(data):
            got.extend(await current().sock_recv(right, 100_000))

    reader = asyncio.ensure_future(read())
    assert await current().sock_sendall(left, data) is None
    await reader
    assert got == data


@pytest.mark.asyncio
@pytest.mark.parametrize("wrap", [bytes, bytearray, memoryview])
async def test_sendall_takes_any_buffer(pair, wrap):
    left, right = pair
    await current().sock_sendall(left, wrap(b"buffer"))
    assert right.recv(100) == b"buffer"
    await current().sock_sendall(left, wrap(b""))
    with pytest.raises(BlockingIOError):
        right.recv(100)


@pytest.mark.asyncio(loop_factories=["erlang"])
async def test_sendall_counts_the_bytes_of_wide_items(pair):
    """asyncio's own loop slices by items where it should by bytes, and never ends."""
    left, right = pair
    numbers = array.array("I", range(1000))
    await current().sock_sendall(left, numbers)
    assert right.recv(100_000) == numbers.tobytes()


@pytest.mark.asyncio
async def test_sendall_of_text_is_a_type_error(pair):
    with pytest.raises(TypeError):
        await current().sock_sendall(pair[0], "text")


@pytest.mark.asyncio
async def test_sendall_to_a_closed_peer_raises(pair):
    left, right = pair
    right.close()
    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        await current().sock_sendall(left, b"x")


@pytest.mark.asyncio
async def test_a_cancelled_recv_loses_no_data(pair):
    left, right = pair
    for i in range(20):
        task = asyncio.ensure_future(current().sock_recv(left, 100))
        await asyncio.sleep(0)
        task.cancel()
        right.send(b"%d" % i)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await current().sock_recv(left, 100) == b"%d" % i


@pytest.mark.asyncio
async def test_a_recv_that_times_out_leaves_no_reader_behind(pair):
    left, right = pair
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(current().sock_recv(left, 100), 0.002)
    assert current().remove_reader(left) is False
    right.send(b"later")
    assert await current().sock_recv(left, 100) == b"later"


@pytest.mark.asyncio
async def test_a_cancelled_sendall_leaves_no_writer_behind(pair):
    left, _ = pair
    task = asyncio.ensure_future(current().sock_sendall(left, b"x" * 10_000_000))
    await asyncio.sleep(0.002)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert current().remove_writer(left) is False


@pytest.mark.asyncio
async def test_the_awaitables_work_with_tasks_gather_and_wait_for(pair):
    left, right = pair
    right.send(b"1")
    assert await asyncio.create_task(_as_coroutine(current().sock_recv(left, 1))) == b"1"
    right.send(b"2")
    assert await asyncio.wait_for(current().sock_recv(left, 1), 5) == b"2"
    right.send(b"3")
    got, sent = await asyncio.gather(
        current().sock_recv(left, 1), current().sock_sendall(left, b"4")
    )
    assert (got, sent, right.recv(1)) == (b"3", None, b"4")


async def _as_coroutine(awaitable):
    return await awaitable


@pytest.mark.asyncio
async def test_create_task_takes_a_sock_call_itself(pair):
    left, right = pair
    right.send(b"1")
    assert await asyncio.create_task(current().sock_recv(left, 1)) == b"1"


@pytest.mark.asyncio
async def test_recv_and_sendall_of_one_socket_wait_at_the_same_time(pair):
    left, right = pair
    try:
        while True:
            left.send(b"x" * 65536)
    except BlockingIOError:
        pass
    receiving = asyncio.ensure_future(current().sock_recv(left, 100))
    sending = asyncio.ensure_future(current().sock_sendall(left, b"end"))
    await asyncio.sleep(0.002)
    right.send(b"hello")
    assert await receiving == b"hello"
    assert not sending.done()
    got = b""
    while not got.endswith(b"end"):
        got = await current().sock_recv(right, 1 << 20)
    await sending


@pytest.mark.asyncio
async def test_recvfrom_and_sendto(udp_pair):
    left, right = udp_pair
    current().call_later(0.002, right.sendto, b"one", left.getsockname())
    assert await current().sock_recvfrom(left, 100) == (b"one", right.getsockname())
    assert await current().sock_sendto(left, b"two!", right.getsockname()) == 4
    assert await current().sock_recvfrom(right, 100) == (b"two!", left.getsockname())


@pytest.mark.asyncio
async def test_recvfrom_keeps_empty_datagrams_and_boundaries(udp_pair):
    left, right = udp_pair
    for data in (b"", b"first", b"second"):
        await current().sock_sendto(right, data, left.getsockname())
    got = [(await current().sock_recvfrom(left, 100))[0] for _ in range(3)]
    assert got == [b"", b"first", b"second"]


@pytest.mark.asyncio
async def test_recvfrom_into_fills_the_buffer(udp_pair):
    left, right = udp_pair
    buffer = bytearray(10)
    current().call_later(0.002, right.sendto, b"12345", left.getsockname())
    assert await current().sock_recvfrom_into(left, buffer) == (5, right.getsockname())
    right.sendto(b"abc", left.getsockname())
    assert await current().sock_recvfrom_into(left, buffer, 2) == (2, right.getsockname())
    assert buffer[:5] == b"ab345"
    with pytest.raises(ValueError):
        await current().sock_recvfrom_into(left, buffer, 11)


@pytest.mark.asyncio
async def test_connect_and_accept(listener):
    client = socket.socket()
    client.setblocking(False)
    accepting = asyncio.ensure_future(current().sock_accept(listener))
    assert await current().sock_connect(client, listener.getsockname()) is None
    server, address = await accepting
    assert address == client.getsockname()
    assert server.gettimeout() == 0
    await current().sock_sendall(server, b"hello")
    assert await current().sock_recv(client, 100) == b"hello"
    client.close()
    server.close()


@pytest.mark.asyncio
async def test_connect_resolves_names(listener):
    client = socket.socket()
    client.setblocking(False)
    await current().sock_connect(client, ("localhost", listener.getsockname()[1]))
    server, _ = await current().sock_accept(listener)
    client.close()
    server.close()


@pytest.mark.asyncio
async def test_connect_to_a_port_without_listener_is_refused():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = probe.getsockname()
    with socket.socket() as client:
        client.setblocking(False)
        with pytest.raises(ConnectionRefusedError):
            await current().sock_connect(client, address)


@pytest.mark.asyncio
async def test_a_unix_socket_can_be_connected(tmp_path):
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind(path)
        server.listen()
        server.setblocking(False)
        client.setblocking(False)
        await current().sock_connect(client, path)
        connection, _ = await current().sock_accept(server)
        connection.close()


@pytest.mark.asyncio
async def test_a_cancelled_accept_leaves_the_connection_to_the_next(listener):
    task = asyncio.ensure_future(current().sock_accept(listener))
    await asyncio.sleep(0)
    task.cancel()
    client = socket.socket()
    client.setblocking(False)
    await current().sock_connect(client, listener.getsockname())
    with pytest.raises(asyncio.CancelledError):
        await task
    server, _ = await asyncio.wait_for(current().sock_accept(listener), 5)
    server.close()
    client.close()


@pytest.mark.asyncio
async def test_a_blocking_socket_is_refused_in_debug_mode():
    left, right = socket.socketpair()
    loop = current()
    loop.set_debug(True)
    calls = [
        lambda: loop.sock_recv(left, 1),
        lambda: loop.sock_recv_into(left, bytearray(1)),
        lambda: loop.sock_recvfrom(left, 1),
        lambda: loop.sock_recvfrom_into(left, bytearray(1)),
        lambda: loop.sock_sendall(left, b"x"),
        lambda: loop.sock_sendto(left, b"x", ("127.0.0.1", 9)),
        lambda: loop.sock_connect(left, ("127.0.0.1", 9)),
        lambda: loop.sock_accept(left),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="non-blocking"):
            await call()
    left.close()
    right.close()


@pytest.mark.asyncio
async def test_a_tls_socket_is_refused():
    plain, other = socket.socketpair()
    wrapped = ssl.create_default_context().wrap_socket(
        plain, server_hostname="x", do_handshake_on_connect=False
    )
    wrapped.setblocking(False)
    for call in (
        lambda: current().sock_recv(wrapped, 1),
        lambda: current().sock_sendall(wrapped, b"x"),
        lambda: current().sock_accept(wrapped),
    ):
        with pytest.raises(TypeError, match="SSLSocket"):
            await call()
    wrapped.close()
    other.close()


@pytest.mark.asyncio
async def test_a_closed_socket_raises_and_does_not_hang(pair):
    left, _ = pair
    left.close()
    with pytest.raises((OSError, ValueError)):
        await current().sock_recv(left, 1)
    with pytest.raises((OSError, ValueError)):
        await current().sock_sendall(left, b"x")


@pytest.mark.asyncio
async def test_two_receivers_in_turn_on_one_socket(pair):
    """sock_recv after sock_recv without waiting between must keep the registration right."""
    left, right = pair
    got = []
    for i in range(100):
        if i % 2:
            current().call_soon(right.send, b"%02d" % i)
        else:
            right.send(b"%02d" % i)
        got.append(await current().sock_recv(left, 2))
    assert got == [b"%02d" % i for i in range(100)]


@pytest.mark.asyncio
async def test_sock_sendfile_sends_a_file(pair, tmp_path):
    left, right = pair
    data = os.urandom(700_000)
    path = tmp_path / "file"
    path.write_bytes(data)
    got = bytearray()

    async def read():
        while len(got) < len(data) - 1000:
            got.extend(await current().sock_recv(right, 100_000))

    reader = asyncio.ensure_future(read())
    with open(path, "rb") as file:
        assert await current().sock_sendfile(left, file, offset=1000) == len(data) - 1000
        assert file.tell() == len(data)
    await reader
    assert got == data[1000:]
