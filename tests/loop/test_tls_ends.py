"""How TLS connections begin and end badly, and well: alike on all loops."""

import asyncio
import contextlib
import gc
import logging
import os
import socket
import ssl
import warnings

import pytest
from tls_tools import (
    BufferedCollector,
    Collector,
    Peer,
    authority,
    client_context,
    pattern,
    reported,
    serve_one,
    server_context,
    shut,
    split_records,
)


def reason_of(exception):
    assert isinstance(exception, ssl.SSLError)
    return exception.reason


async def accept(theirs_does, context=None, **options):
    """Serves a client that does theirs_does(socket) in a thread; the error of the handshake."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.settimeout(20)
    doing = asyncio.create_task(asyncio.to_thread(theirs_does, theirs))
    try:
        with pytest.raises(Exception) as caught:
            await asyncio.get_running_loop().connect_accepted_socket(
                Collector, ours, ssl=context or server_context(), **options
            )
        with contextlib.suppress(OSError):
            await doing
    finally:
        theirs.close()
    return caught.value


async def connect(server, context=None, hostname="localhost", **options):
    """Connects to a server of that context in a thread; the error of the handshake."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    peer = Peer(theirs, server, server_side=True)
    shaking = asyncio.create_task(peer.a_handshake())
    try:
        with pytest.raises(Exception) as caught:
            await asyncio.get_running_loop().create_connection(
                Collector,
                sock=ours,
                ssl=context or client_context(),
                server_hostname=hostname,
                **options,
            )
        with contextlib.suppress(OSError):
            await shaking
    finally:
        peer.close()
    return caught.value


# --- beginnings ----------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_an_unknown_authority_is_refused():
    strict = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    error = await connect(server_context(), strict)
    assert isinstance(error, ssl.SSLCertVerificationError)
    assert reason_of(error) == "CERTIFICATE_VERIFY_FAILED"


@pytest.mark.asyncio
async def test_a_wrong_hostname_is_refused():
    error = await connect(server_context(), hostname="elsewhere.example")
    assert isinstance(error, ssl.SSLCertVerificationError)
    assert "elsewhere.example" in str(error)


@pytest.mark.asyncio
async def test_a_missing_client_certificate_is_refused():
    context = server_context()
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_REQUIRED
    authority().configure_trust(context)
    error = await accept(lambda sock: Peer(sock).handshake(), context)
    assert reason_of(error) == "PEER_DID_NOT_RETURN_A_CERTIFICATE"


@pytest.mark.asyncio
async def test_versions_that_do_not_overlap_are_refused():
    old, new = server_context(), client_context()
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    new.minimum_version = ssl.TLSVersion.TLSv1_3
    error = await accept(lambda sock: Peer(sock, new).handshake(), old)
    assert reason_of(error) == "UNSUPPORTED_PROTOCOL"


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "greeting, reason",
    [
        (b"GET / HTTP/1.0\r\n\r\n", "HTTP_REQUEST"),
        (b"\x16\x03\x01\xff\xff" + bytes(300), None),
        (bytes(range(256)), None),
    ],
)
async def test_what_is_not_a_handshake_is_refused(greeting, reason):
    def speak(sock):
        sock.sendall(greeting)
        while sock.recv(1000):
            pass

    error = await accept(speak)
    assert reason in (None, reason_of(error))
    assert isinstance(error, ssl.SSLError)


@pytest.mark.asyncio
@pytest.mark.parametrize("size", [0, 1, 4, 100])
async def test_a_handshake_that_breaks_off_is_a_reset(size):
    def begin(sock):
        peer = Peer(sock)
        with contextlib.suppress(ssl.SSLWantReadError):
            peer.tls.do_handshake()
        sock.sendall(peer.outgoing.read()[:size])
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(1000):
            pass

    assert isinstance(await accept(begin), ConnectionResetError)


@pytest.mark.asyncio
async def test_a_handshake_in_which_nothing_comes_times_out():
    error = await accept(lambda sock: sock.recv(1), ssl_handshake_timeout=0.1)
    assert isinstance(error, ConnectionAbortedError)
    assert "SSL handshake is taking longer than 0.1 seconds" in str(error)


@pytest.mark.asyncio
@pytest.mark.parametrize("name", ["ssl_handshake_timeout", "ssl_shutdown_timeout"])
async def test_time_outs_must_be_positive(name):
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        with pytest.raises(ValueError, match=name):
            await loop.connect_accepted_socket(Collector, ours, ssl=server_context(), **{name: -1})


@pytest.mark.asyncio
async def test_an_exception_of_a_server_name_callback_ends_the_handshake():
    context = server_context()
    context.sni_callback = lambda sslobj, name, old: ssl.ALERT_DESCRIPTION_INTERNAL_ERROR
    error = await accept(lambda sock: Peer(sock).handshake(), context)
    assert isinstance(error, ssl.SSLError)


# --- ends ----------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_close_sends_what_was_written_and_then_the_end():
    transport, protocol, peer = await serve_one()
    data = pattern(2_000_000)
    transport.write(data)
    transport.close()
    assert transport.is_closing()
    assert await peer.a_read(len(data) + 1) == data
    await peer.a_work(peer.tls.unwrap)
    assert await protocol.ended is None
    assert protocol.events[0] == "made" and protocol.events[-1] == "lost"
    peer.close()


@pytest.mark.asyncio
async def test_the_peers_end_is_reported_and_answered():
    transport, protocol, peer = await serve_one()
    await peer.a_write(b"last words")
    await peer.a_work(peer.tls.unwrap)
    assert await protocol.ended is None
    assert protocol.received == b"last words"
    assert protocol.events == ["made", "eof", "lost"]
    assert transport.is_closing()
    peer.close()


@pytest.mark.asyncio
async def test_data_and_end_may_come_in_one_piece():
    _transport, protocol, peer = await serve_one()
    data = peer.records(b"last", b"words")
    with contextlib.suppress(ssl.SSLWantReadError):
        peer.tls.unwrap()
    await asyncio.to_thread(peer.sock.sendall, data + peer.outgoing.read())
    assert await protocol.ended is None
    assert protocol.received == b"lastwords"
    assert protocol.events == ["made", "eof", "lost"]
    peer.close()


@pytest.mark.asyncio
async def test_a_reply_to_the_last_words_is_sent():
    class Replies(Collector):
        def data_received(self, data):
            self.transport.write(b"re: " + data)
            self.transport.close()

    _transport, protocol, peer = await serve_one(Replies)
    await peer.a_write(b"hello")
    assert await peer.a_read(100) == b"re: hello"
    await peer.a_work(peer.tls.unwrap)
    assert await protocol.ended is None
    peer.close()


@pytest.mark.asyncio
async def test_what_is_written_before_abort_in_a_callback_leaves():
    class Replies(Collector):
        def data_received(self, data):
            self.transport.write(b"bye")
            self.transport.abort()

    _transport, protocol, peer = await serve_one(Replies)
    await peer.a_write(b"hello")
    assert await protocol.ended is None
    await peer.a_read_wire_to_end()
    assert await peer.a_work(peer.tls.read, 100) == b"bye"
    peer.close()


@pytest.mark.asyncio
@pytest.mark.parametrize("protocol", [Collector, BufferedCollector])
async def test_an_end_without_notice(protocol):
    _transport, protocol, peer = await serve_one(protocol)
    await peer.a_write(b"last words")
    peer.sock.shutdown(socket.SHUT_WR)
    assert await protocol.ended is None
    assert protocol.received == b"last words"
    peer.close()


@pytest.mark.asyncio
async def test_a_truncated_record_ends_the_connection():
    _transport, protocol, peer = await serve_one()
    data = peer.records(b"whole", b"truncated")
    await asyncio.to_thread(peer.sock.sendall, data[:-3])
    peer.sock.shutdown(socket.SHUT_WR)
    await protocol.ended
    assert protocol.received == b"whole"
    peer.close()


@pytest.mark.asyncio
async def test_abort_ends_at_once():
    transport, protocol, peer = await serve_one()
    transport.write(pattern(3_000_000))
    transport.abort()
    assert await protocol.ended is None
    await peer.a_read_wire_to_end()
    assert len(peer.wire) < 3_000_000
    transport.abort()
    peer.close()


@pytest.mark.asyncio
async def test_a_reset_is_an_error():
    server = socket.create_server(("127.0.0.1", 0))
    loop = asyncio.get_running_loop()

    def serve():
        peer = Peer(server.accept()[0], server_side=True)
        peer.handshake()
        peer.write(b"x")
        return peer

    serving = asyncio.create_task(asyncio.to_thread(serve))
    _transport, protocol = await loop.create_connection(
        Collector, *server.getsockname(), ssl=client_context(), server_hostname="localhost"
    )
    peer = await serving
    await protocol.until(1)
    peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    peer.close()
    assert isinstance(await protocol.ended, ConnectionResetError)
    server.close()


@pytest.mark.asyncio
@pytest.mark.parametrize("protocol", [Collector, BufferedCollector])
async def test_a_broken_record_ends_the_connection(protocol):
    _transport, protocol, peer = await serve_one(protocol)
    await peer.a_write(b"good")
    await protocol.until(4)
    record = bytearray(peer.records(b"evil" * 100))
    record[50] ^= 1
    with reported() as contexts:
        await asyncio.to_thread(peer.sock.sendall, record)
        error = await protocol.ended
    assert reason_of(error) == "DECRYPTION_FAILED_OR_BAD_RECORD_MAC"
    assert protocol.received == b"good"
    assert [context["message"] for context in contexts] == []
    peer.close()


@pytest.mark.asyncio
@pytest.mark.parametrize("seed", range(5))
async def test_random_bytes_end_the_connection(seed):
    _transport, protocol, peer = await serve_one()
    garbage = bytes((i * i * 7 + seed * 131 + i) % 251 for i in range(5000))
    await asyncio.to_thread(peer.sock.sendall, garbage)
    peer.sock.shutdown(socket.SHUT_WR)
    assert isinstance(await protocol.ended, ssl.SSLError)
    assert not protocol.received
    peer.close()


@pytest.mark.asyncio
async def test_a_peer_that_does_not_answer_the_end_is_not_waited_for_for_ever():
    transport, protocol, peer = await serve_one(ssl_shutdown_timeout=0.1)
    transport.close()
    assert isinstance(await protocol.ended, TimeoutError)
    peer.close()


@pytest.mark.asyncio
@pytest.mark.parametrize("name", ["data_received", "get_buffer", "buffer_updated"])
async def test_an_exception_of_the_protocol_ends_the_connection(name):
    class Fails(Collector if name == "data_received" else BufferedCollector):
        pass

    def fail(self, argument):
        if name != "get_buffer" or "made" in self.events:
            raise ZeroDivisionError(name)

    setattr(Fails, name, fail)
    with reported() as contexts:
        _, protocol, peer = await serve_one(Fails)
        # The first buffer is asked for as soon as the hands are shaken.
        if name != "get_buffer":
            await peer.a_write(b"x")
        assert isinstance(await protocol.ended, ZeroDivisionError)
    assert [context["message"] for context in contexts] == ["Fatal error on SSL protocol"]
    peer.close()


@pytest.mark.asyncio
async def test_writes_after_the_end_are_dropped_and_told_of(caplog):
    transport, protocol, peer = await serve_one()
    transport.abort()
    await protocol.ended
    with caplog.at_level(logging.WARNING, "asyncio"):
        for _ in range(10):
            transport.write(b"lost")
            transport.writelines([b"lost"])
    assert "SSL connection is closed" in caplog.text
    peer.close()


@pytest.mark.asyncio
async def test_a_connection_that_has_ended_needs_no_close():
    transport, protocol, peer = await serve_one()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        peer.close()
        await protocol.ended
        del transport, protocol
        gc.collect()
    assert [str(w.message) for w in caught if w.category is ResourceWarning] == []


# --- going over to TLS ---------------------------------------------------------------------------


async def plain_pair():
    """A transport without TLS, its protocol and the other end's socket."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.settimeout(20)
    transport, protocol = await asyncio.get_running_loop().connect_accepted_socket(Collector, ours)
    return transport, protocol, theirs


@pytest.mark.asyncio
@pytest.mark.parametrize("server_side", [True, False])
async def test_a_connection_goes_over_to_tls(server_side):
    loop = asyncio.get_running_loop()
    plain, protocol, sock = await plain_pair()
    plain.write(b"STARTTLS")
    assert await asyncio.to_thread(sock.recv, 8) == b"STARTTLS"
    peer = Peer(sock, server_side=not server_side)
    shaking = asyncio.create_task(peer.a_handshake())
    transport = await loop.start_tls(
        plain,
        protocol,
        server_context() if server_side else client_context(),
        server_side=server_side,
        server_hostname=None if server_side else "localhost",
    )
    await shaking
    assert protocol.events == ["made"]
    transport.write(b"secret")
    assert await peer.a_read(6) == b"secret"
    await peer.a_write(b"answer")
    await protocol.until(6)
    other = BufferedCollector()
    transport.set_protocol(other)
    await peer.a_write(b"more")
    await other.until(4)
    split_records(peer.wire)
    transport.close()
    assert await peer.a_read(1) == b""
    await peer.a_work(peer.tls.unwrap)
    assert await other.ended is None
    protocol.ended.cancel()
    peer.close()


@pytest.mark.asyncio
async def test_tls_within_tls():
    loop = asyncio.get_running_loop()
    outer, protocol, peer = await serve_one()
    inner = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context().wrap_bio(*inner, server_hostname="localhost")

    def work(operation, *args):
        while True:
            try:
                result = operation(*args)
            except ssl.SSLWantReadError:
                result = None
            if inner[1].pending:
                peer.write(inner[1].read())
            if result is not None:
                return result
            inner[0].write(peer.work(peer.tls.read, 65536))

    shaking = asyncio.create_task(asyncio.to_thread(work, lambda: client.do_handshake() or 1))
    transport = await loop.start_tls(outer, protocol, server_context(), server_side=True)
    await shaking
    data = pattern(50_000)
    transport.write(data)
    received = bytearray()
    while len(received) < len(data):
        received += await asyncio.to_thread(work, client.read, 65536)
    assert received == data
    await asyncio.to_thread(work, client.write, b"inner")
    await protocol.until(5)
    assert protocol.received == b"inner"
    await shut(transport, protocol, peer)


@pytest.mark.asyncio
async def test_going_over_to_tls_can_fail():
    loop = asyncio.get_running_loop()
    plain, protocol, sock = await plain_pair()
    with pytest.raises(TypeError, match=r"ssl\.SSLContext"):
        await loop.start_tls(plain, protocol, None)
    with pytest.raises(TypeError, match="not supported by start_tls"):
        await loop.start_tls(object(), protocol, server_context())
    sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
    with pytest.raises(ssl.SSLError, match="HTTP_REQUEST"):
        await loop.start_tls(plain, protocol, server_context(), server_side=True)
    sock.close()
    # As asyncio has it, the protocol is not told: who called start_tls is.
    await asyncio.sleep(0.01)
    protocol.ended.cancel()


@pytest.mark.asyncio
async def test_going_over_to_tls_can_be_cancelled():
    loop = asyncio.get_running_loop()
    plain, protocol, sock = await plain_pair()
    going = asyncio.create_task(loop.start_tls(plain, protocol, server_context(), server_side=True))
    await asyncio.sleep(0.01)
    going.cancel()
    with pytest.raises(asyncio.CancelledError):
        await going
    assert plain.is_closing()
    assert await asyncio.to_thread(sock.recv, 1) == b""
    sock.close()
    await asyncio.sleep(0.01)
    protocol.ended.cancel()


@pytest.mark.asyncio
async def test_stream_writers_go_over_to_tls():
    async def serve(reader, writer):
        assert await reader.readline() == b"STARTTLS\n"
        writer.write(b"OK\n")
        await writer.drain()
        await writer.start_tls(server_context())
        writer.write((await reader.readline()).upper())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(b"STARTTLS\n")
    assert await reader.readline() == b"OK\n"
    await writer.start_tls(client_context(), server_hostname="localhost")
    writer.write(b"hello\n")
    assert await reader.readline() == b"HELLO\n"
    writer.close()
    await writer.wait_closed()
    server.close()
    await server.wait_closed()


# --- leaks ---------------------------------------------------------------------------------------


def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.asyncio
async def test_many_connections_leave_no_memory():
    """An SSL object alone is over 10 KB, its buffers 30 KB more."""

    async def one(i):
        transport, protocol, peer = await serve_one(peer_context=client)
        await peer.a_write(bytes(1000))
        await protocol.until(1000)
        transport.write(bytes(2000))
        if i % 3 == 0:
            transport.abort()
        elif i % 3 == 1:
            await asyncio.to_thread(peer.sock.sendall, b"broken record" * 10)
        peer.close()
        await protocol.ended

    client = client_context()
    for i in range(60):
        await one(i)
    gc.collect()
    before = resident()
    for i in range(300):
        await one(i)
    gc.collect()
    assert resident() - before < 300 * 10_000
