"""Data over TLS, on our loop natively, on ours through asyncio's sslproto, and on asyncio's."""

import asyncio
import os
import socket
import ssl
import subprocess

import pytest
from tls_tools import (
    BufferedCollector,
    Collector,
    Peer,
    authority,
    certificate,
    client_context,
    connect_one,
    pattern,
    serve_one,
    server_context,
    shut,
    split_records,
)

SIZES = [1, 1000, 16384, 16385, 100_000, 1_000_000]


class Echo(Collector):
    def data_received(self, data):
        self.transport.write(data)


@pytest.mark.asyncio
@pytest.mark.parametrize("size", SIZES)
async def test_a_server_echoes(size):
    transport, protocol, peer = await serve_one(Echo)
    data = pattern(size)
    # More than the kernel buffers would block a peer that does one thing at a time.
    for start in range(0, size, 100_000):
        piece = data[start : start + 100_000]
        await peer.a_write(piece)
        assert await peer.a_read(len(piece)) == piece
    await shut(transport, protocol, peer)


@pytest.mark.asyncio
@pytest.mark.parametrize("size", SIZES)
async def test_a_client_sends_and_receives(size):
    transport, protocol, peer = await connect_one()
    data = pattern(size)
    transport.write(data)
    assert await peer.a_read(size) == data
    await peer.a_write(data)
    await protocol.until(size)
    assert protocol.received == data
    await shut(transport, protocol, peer)


@pytest.mark.asyncio
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_the_wire_shows_records_alone(version):
    secret = b"attack at dawn! " * 100
    context = server_context()
    context.minimum_version = context.maximum_version = version
    transport, protocol, peer = await serve_one(Echo, context)
    peer.tls.write(secret)
    sent = peer.outgoing.read()
    await asyncio.to_thread(peer.sock.sendall, sent)
    assert await peer.a_read(len(secret)) == secret
    assert peer.tls.version() == version.name.replace("_", ".")
    transport.write(secret)
    transport.close()
    assert await peer.a_read(len(secret) + 1) == secret
    await peer.a_work(peer.tls.unwrap)
    kinds = {kind for kind, _ in split_records(peer.wire)}
    assert 23 in kinds and b"attack" not in peer.wire and b"attack" not in sent
    assert await protocol.ended is None
    peer.close()


@pytest.mark.asyncio
async def test_nothing_is_sent_in_clear_before_the_handshake_is_done():
    """Writes from connection_made on; asyncio calls it after the handshake."""

    class Greets(Collector):
        def connection_made(self, transport):
            super().connection_made(transport)
            transport.write(b"attack at dawn")
            transport.writelines([b"attack", b" at ", b"noon"])

    transport, protocol, peer = await serve_one(Greets)
    assert await peer.a_read(28) == b"attack at dawnattack at noon"
    split_records(peer.wire)
    assert b"attack" not in peer.wire
    await shut(transport, protocol, peer)


@pytest.mark.asyncio
async def test_many_records_of_one_receive_come_together():
    transport, protocol, peer = await serve_one()
    pieces = [bytes([i]) * (i * 7) for i in range(1, 60)]
    await asyncio.to_thread(peer.sock.sendall, peer.records(*pieces))
    await protocol.until(sum(map(len, pieces)))
    assert protocol.received == b"".join(pieces)
    assert len(protocol.pieces) == 1
    await shut(transport, protocol, peer)


@pytest.mark.asyncio
async def test_records_may_come_byte_by_byte():
    transport, protocol, peer = await serve_one()
    data = peer.records(b"x" * 40, b"y" * 300)
    for i in range(len(data)):
        await asyncio.to_thread(peer.sock.send, data[i : i + 1])
        if i % 50 == 0:
            await asyncio.sleep(0.001)
    await protocol.until(340)
    assert protocol.received == b"x" * 40 + b"y" * 300
    await shut(transport, protocol, peer)


@pytest.mark.asyncio
@pytest.mark.parametrize("size", [1, 7, 1000, 16384, 1_000_000])
async def test_buffered_protocol_gets_all_through_its_buffer(size):
    class Sized(BufferedCollector):
        pass

    Sized.size = size
    transport, protocol, peer = await serve_one(Sized)
    data = pattern(60_000 if size > 10 else 500)
    await peer.a_write(data)
    await protocol.until(len(data))
    assert protocol.received == data
    assert max(protocol.pieces) <= size
    await shut(transport, protocol, peer)


@pytest.mark.asyncio
@pytest.mark.parametrize("first, second", [(Collector, BufferedCollector)] * 2)
async def test_set_protocol_takes_effect_at_once(first, second):
    transport, protocol, peer = await serve_one(first)
    await peer.a_write(b"one")
    await protocol.until(3)
    other = second()
    transport.set_protocol(other)
    assert transport.get_protocol() is other
    await peer.a_write(b"three")
    await other.until(5)
    assert protocol.received == b"one" and other.received == b"three"
    protocol.ended.cancel()
    await shut(transport, other, peer)


@pytest.mark.asyncio
@pytest.mark.parametrize("protocol", [Collector, BufferedCollector])
async def test_a_paused_reader_gets_nothing_and_bounds_the_peer(protocol):
    transport, protocol, peer = await serve_one(protocol)
    transport.pause_reading()
    assert not transport.is_reading()
    data = pattern(6_000_000)
    writing = asyncio.create_task(peer.a_write(data))
    await asyncio.sleep(0.2)
    assert not writing.done() and not protocol.received
    assert transport.get_read_buffer_size() < 1_000_000
    transport.resume_reading()
    assert transport.is_reading()
    await protocol.until(len(data))
    await writing
    assert protocol.received == data
    await shut(transport, protocol, peer)


@pytest.mark.asyncio
@pytest.mark.parametrize("protocol", [Collector, BufferedCollector])
async def test_pausing_within_a_callback_holds_back_the_next_one(protocol):
    class Pauses(protocol):
        def data_received(self, data):
            super().data_received(data)
            self.transport.pause_reading()

    transport, protocol, peer = await serve_one(Pauses)
    await asyncio.to_thread(peer.sock.sendall, peer.records(b"a" * 1000, b"b" * 1000))
    await protocol.until(1)
    seen = len(protocol.received)
    await asyncio.to_thread(peer.sock.sendall, peer.records(b"c" * 1000))
    await asyncio.sleep(0.05)
    assert len(protocol.received) == seen
    while len(protocol.received) < 3000:
        transport.resume_reading()
        await asyncio.sleep(0.001)
    assert protocol.received == b"a" * 1000 + b"b" * 1000 + b"c" * 1000
    await shut(transport, protocol, peer)


@pytest.mark.asyncio
async def test_a_peer_that_does_not_read_pauses_the_writer():
    transport, protocol, peer = await serve_one()
    transport.set_write_buffer_limits(high=100_000, low=1000)
    data = pattern(50_000)
    written = 0
    while "pause" not in protocol.events:
        transport.write(data)
        written += len(data)
        await asyncio.sleep(0)
    assert transport.get_write_buffer_size() >= 100_000
    assert written < 5_000_000
    assert await peer.a_read(written) == data * (written // len(data))
    while "resume" not in protocol.events:
        await asyncio.sleep(0.001)
    assert protocol.events == ["made", "pause", "resume"]
    await shut(transport, protocol, peer)


@pytest.mark.asyncio
async def test_a_large_write_arrives_whole():
    transport, protocol, peer = await serve_one()
    data = pattern(8_000_000)
    transport.write(data)
    transport.write(b"end")
    assert await peer.a_read(len(data) + 3) == data + b"end"
    await shut(transport, protocol, peer)


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
async def test_what_is_sent_is_what_was_written(kind):
    transport, protocol, peer = await serve_one()
    data = bytearray(pattern(70_000))
    transport.write(kind(data) if kind is not bytearray else data)
    if kind is bytearray:
        data[:] = bytes(len(data))
    assert await peer.a_read(70_000) == pattern(70_000)
    await shut(transport, protocol, peer)


@pytest.mark.asyncio
async def test_writelines_sends_all_in_order():
    transport, protocol, peer = await serve_one()
    transport.writelines([b"one", bytearray(b"two"), memoryview(b"three"), b""])
    transport.writelines(piece for piece in (b"four", b"five"))
    transport.writelines([])
    transport.writelines([b"a" * 50_000, b"b" * 50_000])
    wanted = b"onetwothreefourfive" + b"a" * 50_000 + b"b" * 50_000
    assert await peer.a_read(len(wanted)) == wanted
    await shut(transport, protocol, peer)


@pytest.mark.asyncio
async def test_write_refuses_what_is_not_bytes():
    transport, protocol, peer = await serve_one()
    for bad in ("text", 7, None, [b"x"]):
        with pytest.raises(TypeError, match="expecting a bytes-like instance"):
            transport.write(bad)
    with pytest.raises(TypeError):
        transport.writelines(None)
    transport.write(b"")
    transport.write(memoryview(b""))
    transport.write(b"still there")
    assert await peer.a_read(11) == b"still there"
    assert not transport.can_write_eof()
    with pytest.raises(NotImplementedError):
        transport.write_eof()
    await shut(transport, protocol, peer)


@pytest.mark.asyncio
async def test_extra_info_is_there_after_the_handshake():
    transport, protocol, peer = await connect_one()
    info = transport.get_extra_info
    assert isinstance(transport, asyncio.sslproto._SSLProtocolTransport)
    assert info("ssl_object").version() == "TLSv1.3"
    assert ("DNS", "localhost") in info("peercert")["subjectAltName"]
    assert info("cipher") == info("ssl_object").cipher()
    assert info("sslcontext").verify_mode is ssl.CERT_REQUIRED
    assert info("socket").family == socket.AF_UNIX
    assert info("sockname") == "" and info("nothing", 3) == 3
    await shut(transport, protocol, peer)


@pytest.mark.asyncio
async def test_unix_sockets_carry_tls(tmp_path):
    path = str(tmp_path / "socket")

    async def upper(reader, writer):
        writer.write((await reader.readline()).upper())
        writer.close()

    server = await asyncio.start_unix_server(upper, path, ssl=server_context())
    reader, writer = await asyncio.open_unix_connection(
        path, ssl=client_context(), server_hostname="localhost"
    )
    writer.write(b"hello\n")
    assert await reader.read() == b"HELLO\n"
    writer.close()
    await writer.wait_closed()
    server.close()
    await server.wait_closed()


@pytest.mark.asyncio
async def test_application_protocols_are_agreed_on():
    server, client = server_context(), client_context()
    server.set_alpn_protocols(["h2", "http/1.1"])
    client.set_alpn_protocols(["http/1.1"])
    transport, protocol, peer = await serve_one(context=server, peer_context=client)
    agreed = transport.get_extra_info("ssl_object").selected_alpn_protocol()
    assert agreed == peer.tls.selected_alpn_protocol() == "http/1.1"
    await shut(transport, protocol, peer)


@pytest.mark.asyncio
async def test_a_server_name_callback_changes_the_context():
    asked = []
    other = server_context("other.example")
    context = server_context()

    def choose(sslobj, name, old):
        asked.append(name)
        sslobj.context = other

    context.sni_callback = choose
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    peer = Peer(theirs, hostname="other.example")
    shaking = asyncio.create_task(peer.a_handshake())
    transport, protocol = await asyncio.get_running_loop().connect_accepted_socket(
        Echo, ours, ssl=context
    )
    await shaking
    assert asked == ["other.example"]
    await peer.a_write(b"hello")
    assert await peer.a_read(5) == b"hello"
    await shut(transport, protocol, peer)


@pytest.mark.asyncio
async def test_a_client_certificate_is_asked_for_and_seen():
    server, client = server_context(), client_context()
    server.verify_mode = ssl.CERT_REQUIRED
    authority().configure_trust(server)
    certificate("client.example").configure_cert(client)
    transport, protocol, peer = await serve_one(context=server, peer_context=client)
    names = transport.get_extra_info("peercert")["subjectAltName"]
    assert names == (("DNS", "client.example"),)
    await shut(transport, protocol, peer)


@pytest.mark.asyncio
async def test_a_session_is_resumed():
    server, client = server_context(), client_context()
    transport, protocol, peer = await serve_one(Echo, server, client)
    await peer.a_write(b"ticket")
    assert await peer.a_read(6) == b"ticket"
    session = peer.tls.session
    await shut(transport, protocol, peer)
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    peer = Peer(theirs, client)
    peer.tls.session = session
    shaking = asyncio.create_task(peer.a_handshake())
    transport, protocol = await asyncio.get_running_loop().connect_accepted_socket(
        Echo, ours, ssl=server
    )
    await shaking
    assert peer.tls.session_reused
    assert transport.get_extra_info("ssl_object").session_reused
    await peer.a_write(b"again")
    assert await peer.a_read(5) == b"again"
    await shut(transport, protocol, peer)


@pytest.mark.asyncio
async def test_tickets_reach_a_client():
    transport, protocol, peer = await connect_one()
    await peer.a_write(b"x")
    await protocol.until(1)
    session = transport.get_extra_info("ssl_object").session
    assert session.has_ticket
    await shut(transport, protocol, peer)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "version, order",
    [pytest.param("-tls1_3", b"K\n", id="keys"), pytest.param("-tls1_2", b"R\n", id="handshake")],
)
async def test_keys_and_handshakes_are_renewed_mid_stream(version, order):
    """`openssl s_client` takes K as the order to update all keys, R to shake hands again."""
    context = server_context()
    context.options |= 1 << 8  # SSL_OP_ALLOW_CLIENT_RENEGOTIATION
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Echo, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    client = await asyncio.create_subprocess_exec(
        "openssl", "s_client", "-quiet", "-connect", f"127.0.0.1:{port}", version, "-no_ign_eof",
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, "OPENSSL_CONF": os.devnull},
    )  # fmt: skip
    for line in (b"before\n", order, b"after\n", order, b"end\n"):
        client.stdin.write(line)
        await client.stdin.drain()
        if line != order:
            assert await asyncio.wait_for(client.stdout.readline(), 20) == line
        else:
            # Orders are recognised by being read alone.
            await asyncio.sleep(0.05)
    client.stdin.close()
    client.terminate()
    told = await client.stderr.read()
    await client.wait()
    assert (b"KEYUPDATE" if order == b"K\n" else b"RENEGOTIATING") in told
    server.close()
    await server.wait_closed()
