"""What only our own TLS promises: when it is native, how it falls back, what it spares."""

import asyncio
import asyncio.sslproto
import gc
import logging
import random
import ssl
import subprocess
import sys
import threading
import time
import weakref

import pytest
from tls_tools import (
    BufferedCollector,
    Collector,
    client_context,
    connect_one,
    pattern,
    reported,
    serve_one,
    server_context,
    shut,
)

import erlang
from erlang import _loop, tls

NATIVE = _loop.TlsProtocol


@pytest.fixture
def native():
    if tls.WHY_NOT_NATIVE is not None:
        pytest.skip(tls.WHY_NOT_NATIVE)


def run(coroutine):
    return erlang.run(coroutine)


def is_native(transport):
    return isinstance(transport._ssl_protocol, NATIVE)


async def echo_works(context=None):
    """True when a connection was native."""

    class Echo(Collector):
        def data_received(self, data):
            self.transport.write(data)

    transport, protocol, peer = await serve_one(Echo, context)
    native = is_native(transport)
    await peer.a_write(b"hello")
    assert await peer.a_read(5) == b"hello"
    await shut(transport, protocol, peer)
    return native


# --- falling back --------------------------------------------------------------------------------


def test_this_python_is_served_natively():
    """CPython 3.11 to 3.13 with a shared OpenSSL, as every distribution has it."""
    assert tls.WHY_NOT_NATIVE is None and tls.NATIVE
    assert run(echo_works())


def test_asyncio_serves_where_openssl_is_not_reached(monkeypatch):
    monkeypatch.setattr(tls, "NATIVE", False)
    assert not run(echo_works())


def test_asyncio_serves_a_context_with_objects_of_its_own(native):
    class Own(ssl.SSLObject):
        pass

    context = server_context()
    context.sslobject_class = Own
    assert not run(echo_works(context))


def test_asyncio_serves_a_context_whose_messages_are_watched(native):
    seen = []
    context = server_context()
    context._msg_callback = lambda *args: seen.append(args)
    assert not run(echo_works(context))
    assert seen


@pytest.mark.parametrize(
    "path, version, reason",
    [
        ("/nonexistent/_ssl.so", ssl.OPENSSL_VERSION_NUMBER, "not a loaded library"),
        (_loop.__file__, ssl.OPENSSL_VERSION_NUMBER, "does not offer"),
        (None, ssl.OPENSSL_VERSION_NUMBER + 16, "another version"),
    ],
)
def test_another_library_is_refused(path, version, reason):
    """In a process of its own, since a library that was found once is kept."""
    import _ssl

    source = (
        "import ssl, importlib.util as u, sys; "
        f"spec = u.spec_from_file_location('erlang._loop', {_loop.__file__!r}); "
        "loop = u.module_from_spec(spec); spec.loader.exec_module(loop); "
        f"print(loop._load_tls({path or _ssl.__file__!r}, {version}))"
    )
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True)
    assert reason in done.stdout, done.stderr


def test_objects_that_are_not_as_expected_are_refused(native):
    async def main():
        transport, protocol, peer = await serve_one()
        between = transport._ssl_protocol
        context = client_context()
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        socket = context.wrap_bio(incoming, outgoing, server_hostname="localhost")._sslobj
        fresh = NATIVE.__new__(tls.TlsProtocol)
        # Swapped, wrong types, and one that is taken already.
        assert fresh._attach(socket, outgoing, incoming) is False
        assert fresh._attach(context, incoming, outgoing) is False
        assert fresh._attach(socket, context, outgoing) is False
        assert between._attach(socket, incoming, outgoing) is False
        assert fresh._attach(socket, incoming, outgoing) is True
        assert fresh._attach(socket, incoming, outgoing) is False
        await shut(transport, protocol, peer)

    run(main())


# --- what is spared ------------------------------------------------------------------------------


class Below(asyncio.Transport):
    """A transport that notes what it is told."""

    def __init__(self):
        super().__init__()
        self.writes = []

    def write(self, data):
        self.writes.append(data)

    def pause_reading(self):
        pass

    resume_reading = close = abort = pause_reading

    def _force_close(self, exc):
        pass

    def get_extra_info(self, name, default=None):
        return default


def shake_hands(protocol_class):
    """(transport, its protocol, TlsProtocol, transport below, SSLObject of the client), connected
    by hand, through get_buffer() and buffer_updated() as over any foreign transport."""
    loop = asyncio.get_running_loop()
    protocol = protocol_class()
    between = tls.TlsProtocol(loop, protocol, server_context(), None, True)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context().wrap_bio(incoming, outgoing, server_hostname="localhost")
    below = Below()
    between.connection_made(below)
    for _ in range(3):
        try:
            client.do_handshake()
        except ssl.SSLWantReadError:
            pass
        feed(between, outgoing.read())
        incoming.write(b"".join(below.writes))
        below.writes.clear()
    return between._app_transport, protocol, between, below, client, (incoming, outgoing)


def feed(between, data):
    while data:
        buffer = between.get_buffer(-1)
        size = min(len(buffer), len(data))
        buffer[:size] = data[:size]
        between.buffer_updated(size)
        data = data[size:]


def test_what_a_callback_writes_is_one_write_below(native):
    class Replies(Collector):
        def data_received(self, data):
            self.transport.write(b"header")
            self.transport.writelines([b"body", b"body"])
            self.transport.write(bytes(30_000))

    async def main():
        transport, _protocol, between, below, client, (incoming, outgoing) = shake_hands(Replies)
        client.write(b"request")
        feed(between, outgoing.read())
        assert len(below.writes) == 1
        incoming.write(below.writes[0])
        received = bytearray()
        while len(received) < 14 + 30_000:
            received += client.read(65536)
        assert received == b"headerbodybody" + bytes(30_000)
        # Outside of a callback each leaves at once.
        transport.write(b"one")
        transport.write(b"two")
        assert len(below.writes) == 3
        between.connection_lost(None)
        await asyncio.sleep(0)

    run(main())


def test_a_full_transport_below_gets_nothing_more(native):
    async def main():
        transport, _protocol, between, below, client, (incoming, _outgoing) = shake_hands(Collector)
        between.pause_writing()
        transport.write(bytes(100_000))
        transport.write(b"more")
        transport.writelines([b"x" * 40_000, b"y" * 40_000])
        assert below.writes == []
        assert transport.get_write_buffer_size() > 180_000
        between.resume_writing()
        assert len(below.writes) == 1 and transport.get_write_buffer_size() == 0
        incoming.write(below.writes[0])
        received = bytearray()
        while len(received) < 180_004:
            received += client.read(65536)
        assert received == bytes(100_000) + b"more" + b"x" * 40_000 + b"y" * 40_000
        between.connection_lost(None)
        await asyncio.sleep(0)

    run(main())


def test_a_hundred_megabytes_are_written_at_once(native):
    """asyncio copies the rest for each record, which here would be 300 GB."""

    async def main():
        transport, protocol, peer = await serve_one()
        data = memoryview(bytes(range(256)) * (100 * 4096))
        transport.write(data)

        def read():
            left = len(data)
            while left > 0:
                piece = peer.work(peer.tls.read, 65536)
                start = len(data) - left
                if piece != data[start : start + len(piece)]:
                    return start
                left -= len(piece)
                peer.wire.clear()
            return None

        assert await asyncio.to_thread(read) is None
        await shut(transport, protocol, peer)

    run(main())


def test_other_threads_run_while_much_is_encrypted(native):
    counts = []
    stop = threading.Event()

    def count():
        n = 0
        while not stop.is_set():
            n += 1
            counts[:] = [n]
            # It goes on only once the writer lets go of the interpreter by itself.
            time.sleep(0.0001)

    async def main():
        transport, _protocol, between, _below, _client, _bios = shake_hands(Collector)
        counting = threading.Thread(target=count)
        counting.start()
        while not counts:
            await asyncio.sleep(0.001)
        sys.setswitchinterval(100)
        try:
            before = counts[0]
            transport.write(bytes(20_000_000))
            after = counts[0]
        finally:
            sys.setswitchinterval(0.005)
            stop.set()
        counting.join()
        assert after > before
        between.connection_lost(None)
        await asyncio.sleep(0)

    run(main())


# --- against a model -----------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(30))
def test_random_pieces_both_ways(native, seed):
    """Records cut anywhere, pauses at any time, two kinds of protocol: nothing is lost."""
    rng = random.Random(seed)

    class Small(BufferedCollector):
        size = rng.choice([1, 100, 5000, 70_000])

    async def main():
        kinds = rng.choice([Collector, Small])
        transport, protocol, between, below, client, (incoming, outgoing) = shake_hands(kinds)
        sent, written, received = bytearray(), bytearray(), bytearray()
        wire = bytearray()
        for _ in range(120):
            step = rng.randrange(7)
            data = rng.randbytes(rng.choice([1, 50, 3000, 40_000]))
            if step == 0:
                client.write(data)
                sent += data
                wire += outgoing.read()
            elif step == 1:
                n = rng.randrange(len(wire) + 1)
                feed(between, bytes(wire[:n]))
                del wire[:n]
            elif step == 2:
                transport.write(rng.choice([bytes, bytearray, memoryview])(data))
                written += data
            elif step == 3:
                transport.writelines([data, data[:3]])
                written += data + data[:3]
            elif step == 4:
                rng.choice([transport.pause_reading, transport.resume_reading])()
                await asyncio.sleep(0)
            elif step == 5 and not between._ssl_writing_paused:
                between.pause_writing()
            elif between._ssl_writing_paused:
                between.resume_writing()
            incoming.write(b"".join(below.writes))
            below.writes.clear()
        transport.resume_reading()
        if between._ssl_writing_paused:
            between.resume_writing()
        feed(between, bytes(wire + outgoing.read()))
        for _ in range(10):
            await asyncio.sleep(0)
        incoming.write(b"".join(below.writes))
        try:
            while True:
                received += client.read(65536)
        except ssl.SSLWantReadError:
            pass
        assert protocol.received == sent
        assert received == written
        between.connection_lost(None)
        await asyncio.sleep(0)

    run(main())


# --- life ----------------------------------------------------------------------------------------


def test_an_ended_connection_is_forgotten(native):
    async def main():
        transport, protocol, peer = await serve_one()
        seen = weakref.ref(transport._ssl_protocol), weakref.ref(transport)
        await shut(transport, protocol, peer)
        return seen

    seen = run(main())
    gc.collect()
    assert [ref() for ref in seen] == [None, None]


def test_the_ssl_object_outlives_its_connection(native):
    async def main():
        transport, protocol, peer = await connect_one()
        sslobj = transport.get_extra_info("ssl_object")
        await shut(transport, protocol, peer)
        return sslobj

    sslobj = run(main())
    gc.collect()
    assert sslobj.version() == "TLSv1.3" and sslobj.getpeercert()
    with pytest.raises(ssl.SSLError):
        sslobj.write(b"to nobody")
    with pytest.raises((ssl.SSLError, OSError)):
        sslobj.read(10)


def test_loops_of_several_threads_speak_tls(native):
    failures = []

    async def some():
        for _ in range(5):
            transport, protocol, peer = await serve_one()
            await peer.a_write(pattern(50_000))
            await protocol.until(50_000)
            transport.write(pattern(50_000))
            if await peer.a_read(50_000) != pattern(50_000):
                failures.append("wrong data")
            await shut(transport, protocol, peer)

    def work():
        try:
            run(some())
        except BaseException as exc:
            failures.append(exc)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_debug_mode_tells_of_handshakes(native, caplog):
    async def main():
        transport, protocol, peer = await serve_one()
        await peer.a_write(b"x")
        await protocol.until(1)
        await shut(transport, protocol, peer)

    with caplog.at_level(logging.DEBUG, "asyncio"):
        erlang.run(main(), debug=True)
    assert "SSL handshake took" in caplog.text


def test_what_came_before_a_broken_record_is_delivered(native):
    """asyncio drops what it has decrypted in the same call."""

    async def main():
        _transport, protocol, peer = await serve_one()
        data = bytearray(peer.records(b"good", b"evil" * 100))
        data[-5] ^= 1
        with reported():
            await asyncio.to_thread(peer.sock.sendall, data)
            assert isinstance(await protocol.ended, ssl.SSLError)
        assert protocol.received == b"good"
        peer.close()

    run(main())
