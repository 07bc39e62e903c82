"""asyncio's protocols and streams over byte channels."""

import asyncio
import contextlib
import gc
import os
import ssl
import subprocess
import sys
import tempfile
import threading
import types
import warnings

import aiohttp
import channel_driver as driver
import pytest
from aiohttp import web

import erlang
from erlang import ByteChannel, connect_byte_channel, open_byte_channel

pytestmark = pytest.mark.usefixtures("nothing_is_left_alive")

# A transport, or a loop, that nobody closes is told of.
dropped = pytest.mark.filterwarnings("ignore::ResourceWarning")


class Recorder(asyncio.Protocol):
    """Keeps what happens to it."""

    def __init__(self):
        self.events = []
        self.data = bytearray()
        self.lost = asyncio.get_running_loop().create_future()
        self.transport = None

    def connection_made(self, transport):
        self.transport = transport
        self.events.append("made")

    def data_received(self, data):
        assert type(data) is bytes and data
        self.data += data

    def eof_received(self):
        self.events.append("eof")

    def pause_writing(self):
        self.events.append("pause")

    def resume_writing(self):
        self.events.append("resume")

    def connection_lost(self, error):
        self.events.append("lost")
        self.lost.set_result(error)

    async def until(self, condition):
        async with asyncio.timeout(30):
            while not condition(self):
                await asyncio.sleep(0.001)


async def connect(ref, factory=Recorder):
    transport, protocol = await connect_byte_channel(factory, ref)
    return transport, protocol


# --- streams -------------------------------------------------------------------------------------


def test_streams_echo_and_end(run):
    ref = driver.new_byte_channel(max_size=1000)
    echo = driver.start_call("channel_driver", "echo_chunks", ref)

    async def main():
        reader, writer = await open_byte_channel(ref)
        assert writer.get_extra_info("byte_channel") == ByteChannel(ref)
        assert writer.get_extra_info("socket") is None
        writer.write(b"one\ntwo\n")
        await writer.drain()
        assert await reader.readline() == b"one\n"
        assert await reader.readuntil(b"o\n") == b"two\n"
        data = os.urandom(100_000)
        writer.write(data)
        received, _ = await asyncio.gather(reader.readexactly(len(data)), writer.drain())
        assert received == data
        writer.write(b"last")
        writer.write_eof()
        assert await reader.read() == b"last"
        assert reader.at_eof()
        writer.close()
        await writer.wait_closed()

    run(main())
    echo.result()
    assert driver.byte_info(ref)["closed"]


def test_the_loop_has_it_as_a_method():
    ref = driver.new_byte_channel()

    async def main():
        loop = asyncio.get_running_loop()
        transport, protocol = await loop.connect_byte_channel(Recorder, ref)
        assert protocol.transport is transport
        assert transport.get_extra_info("byte_channel") == ByteChannel(ref)
        transport.close()
        assert await protocol.lost is None

    erlang.run(main())


def test_what_is_no_byte_channel_is_refused(run):
    async def main():
        for bad in (None, b"", driver.new_channel()):
            with pytest.raises(TypeError):
                await open_byte_channel(bad)

    run(main())


# --- reading -------------------------------------------------------------------------------------


def test_pausing_and_resuming(run):
    ref = driver.new_byte_channel()

    async def main():
        transport, protocol = await connect(ref)
        assert transport.is_reading()
        transport.pause_reading()
        transport.pause_reading()
        assert not transport.is_reading()
        await asyncio.to_thread(
            driver.call, "channel_driver", "send_chunks", ref, [b"a", b"", b"b"]
        )
        await asyncio.sleep(0.02)
        assert protocol.data == b""
        transport.resume_reading()
        transport.resume_reading()
        await protocol.until(lambda p: p.data == b"ab")
        transport.pause_reading()
        driver.start_call("py_byte_channel", "close", ref)
        await asyncio.sleep(0.02)
        assert protocol.events == ["made"]
        transport.resume_reading()
        assert await protocol.lost is None
        assert protocol.events == ["made", "eof", "lost"]

    run(main())


def test_a_paused_transport_leaves_the_channel_alone(run):
    """Whoever pauses may go on with the channel itself, and nothing is lost by an end meanwhile."""

    async def main():
        ref = driver.new_byte_channel()
        channel = ByteChannel(ref)
        transport, protocol = await connect(ref)
        await asyncio.sleep(0.01)  # it waits in the channel
        transport.pause_reading()
        driver.call("channel_driver", "send_chunks", ref, [b"1", b"2", b"3"])
        assert await channel.async_receive_bytes(timeout=10) == b"1"
        transport.resume_reading()
        await protocol.until(lambda p: p.data == b"23")
        transport.pause_reading()
        transport.resume_reading()
        driver.call("channel_driver", "send_chunks", ref, [b"4"])
        await protocol.until(lambda p: p.data == b"234")
        transport.pause_reading()
        driver.call("channel_driver", "send_chunks", ref, [b"5", b"6"])
        await asyncio.sleep(0.01)
        transport.close()
        assert await protocol.lost is None
        assert [chunk async for chunk in channel] == [b"5", b"6"]

    run(main())


def test_a_paused_reader_that_is_cancelled_loses_nothing(run):
    async def main():
        ref = driver.new_byte_channel()
        transport, protocol = await connect(ref)
        await asyncio.sleep(0.01)
        transport.pause_reading()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        driver.call("channel_driver", "send_chunks", ref, [b"1", b"2"])
        assert await protocol.lost is None
        assert protocol.data == b""
        assert [chunk async for chunk in ByteChannel(ref)] == [b"1", b"2"]

    run(main())


def test_a_protocol_that_pauses_is_given_one_piece_at_a_time(run):
    ref = driver.new_byte_channel()
    chunks = [b"%d" % n for n in range(100)]

    class OneByOne(Recorder):
        def data_received(self, data):
            assert self.transport.is_reading()
            self.events.append(data)
            self.transport.pause_reading()
            asyncio.get_running_loop().call_soon(self.transport.resume_reading)

    async def main():
        _transport, protocol = await connect(ref, OneByOne)
        driver.start_call("channel_driver", "send_chunks_and_close", ref, chunks)
        assert await protocol.lost is None
        assert protocol.events == ["made", *chunks, "eof", "lost"]

    run(main())


@pytest.mark.parametrize("size", [1, 7, 65536])
def test_buffered_protocols(run, size):
    ref = driver.new_byte_channel()
    data = os.urandom(3000)

    class Buffered(Recorder, asyncio.BufferedProtocol):
        def get_buffer(self, hint):
            self.buffer = bytearray(size)
            return self.buffer

        def buffer_updated(self, count):
            self.data += self.buffer[:count]

    async def main():
        _transport, protocol = await connect(ref, Buffered)
        driver.start_call("channel_driver", "send_chunks_and_close", ref, [data, b"", data])
        assert await protocol.lost is None
        assert protocol.data == data + data

    run(main())


def test_a_protocol_that_raises_is_told_of_and_loses_the_connection(run):
    ref = driver.new_byte_channel()

    class Raises(Recorder):
        def data_received(self, data):
            raise ZeroDivisionError

    async def main():
        contexts = []
        asyncio.get_running_loop().set_exception_handler(
            lambda _, context: contexts.append(context)
        )
        _transport, protocol = await connect(ref, Raises)
        driver.start_call("py_byte_channel", "send", ref, b"x")
        assert isinstance(await protocol.lost, ZeroDivisionError)
        (context,) = contexts
        assert context["protocol"] is protocol
        assert isinstance(context["exception"], ZeroDivisionError)

    run(main())
    assert driver.byte_info(ref)["closed"]


def test_a_factory_or_connection_made_that_raises(run):
    ref = driver.new_byte_channel()

    class Raises(Recorder):
        def connection_made(self, transport):
            raise ZeroDivisionError

    async def main():
        with pytest.raises(ZeroDivisionError):
            await connect(ref, lambda: 1 // 0)
        with pytest.raises(ZeroDivisionError):
            await connect(ref, Raises)
        await asyncio.sleep(0.01)

    run(main())


# --- writing -------------------------------------------------------------------------------------


@pytest.mark.parametrize("limits", [{}, {"max_size": 1000}, {"max_messages": 3}], ids=str)
def test_what_erlang_does_not_receive_pauses_the_protocol(run, limits):
    ref = driver.new_byte_channel(**limits)

    async def main():
        transport, protocol = await connect(ref)
        transport.set_write_buffer_limits(high=5000, low=2000)
        assert transport.get_write_buffer_limits() == (2000, 5000)
        sent = bytearray()
        while "pause" not in protocol.events:
            transport.write(b"x" * 500)
            sent += b"x" * 500
        assert len(sent) == 5500 and transport.get_write_buffer_size() >= 5500
        await asyncio.sleep(0.02)
        assert protocol.events == ["made", "pause"]
        transport.write(bytearray(b"y" * 3000))
        transport.writelines([b"z", memoryview(b"zz")])
        sent += b"y" * 3000 + b"zzz"
        receiving = driver.start_call("channel_driver", "receive_chunks", ref)
        await protocol.until(lambda p: "resume" in p.events)
        assert transport.get_write_buffer_size() <= 2000
        transport.close()
        assert await protocol.lost is None
        assert protocol.events == ["made", "pause", "resume", "lost"]
        assert b"".join(receiving.result()) == sent

    run(main())


def test_close_lets_what_was_written_leave(run):
    ref = driver.new_byte_channel(max_size=100)

    async def main():
        transport, protocol = await connect(ref)
        transport.write(b"a" * 10_000)
        transport.close()
        transport.close()
        assert transport.is_closing() and not protocol.lost.done()
        transport.write(b"b")
        await asyncio.sleep(0.02)
        assert not protocol.lost.done()
        receiving = driver.start_call("channel_driver", "receive_chunks", ref)
        assert await protocol.lost is None
        assert b"".join(receiving.result()) == b"a" * 10_000 + b"b"

    run(main())


def test_abort_does_not_wait(run):
    ref = driver.new_byte_channel(max_size=100)

    async def main():
        transport, protocol = await connect(ref)
        transport.write(b"a" * 10_000)
        transport.abort()
        transport.abort()
        assert await protocol.lost is None
        assert b"".join(driver.call("channel_driver", "receive_chunks", ref)) == b"a" * 100

    run(main())


def test_write_eof_ends_one_direction(run):
    ref = driver.new_byte_channel(max_size=100)

    async def main():
        transport, protocol = await connect(ref)
        assert transport.can_write_eof()
        transport.write(b"a" * 1000)
        transport.write_eof()
        transport.write_eof()
        with pytest.raises(RuntimeError):
            transport.write(b"b")
        receiving = driver.start_call("channel_driver", "receive_chunks", ref)
        assert b"".join(await asyncio.to_thread(receiving.result)) == b"a" * 1000
        assert not protocol.lost.done() and not driver.byte_info(ref)["closed"]
        driver.start_call("py_byte_channel", "send", ref, b"still here")
        await protocol.until(lambda p: p.data == b"still here")
        transport.close()
        await protocol.lost

    run(main())


def test_an_end_that_keeps_writing(run):
    ref = driver.new_byte_channel()

    class KeepsWriting(Recorder):
        def eof_received(self):
            super().eof_received()
            return True

    async def main():
        transport, protocol = await connect(ref, KeepsWriting)
        driver.start_call("py_byte_channel", "close", ref, erlang.Atom("write"))
        await protocol.until(lambda p: "eof" in p.events)
        transport.write(b"after")
        transport.close()
        await protocol.lost

    run(main())
    assert driver.call("channel_driver", "receive_chunks", ref) == [b"after"]


def test_writing_to_a_channel_that_erlang_closed_is_a_broken_pipe(run):
    ref = driver.new_byte_channel(max_size=100)

    async def main():
        transport, protocol = await connect(ref)
        transport.pause_reading()
        transport.write(b"a" * 1000)
        driver.start_call("py_byte_channel", "close", ref)
        assert isinstance(await protocol.lost, BrokenPipeError)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for _ in range(10):
                transport.write(b"b")
        assert any(w.category is RuntimeWarning for w in caught)

    run(main())


@pytest.mark.parametrize("gone", ["closed", "dropped"])
def test_a_paused_writer_ends_when_erlang_will_not_receive(run, gone):
    async def main():
        ref = driver.new_byte_channel()
        reader, writer = await open_byte_channel(ref)
        transport = writer.transport
        writer.write(b"a" * 200_000)
        draining = asyncio.create_task(writer.drain())
        await asyncio.sleep(0.01)
        assert not draining.done()
        if gone == "closed":
            driver.start_call("py_byte_channel", "close", ref)
        del ref
        while gone == "dropped" and not transport.is_closing():
            await asyncio.to_thread(driver.call, "channel_driver", "collect")
        with pytest.raises(ConnectionError):
            await draining
        # Erlang's close has ended the reading side too.
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
        assert transport.is_closing()

    run(main())


def test_the_end_of_writing_ends_the_pause(run):
    ref = driver.new_byte_channel()

    async def main():
        transport, protocol = await connect(ref)
        transport.write(b"a" * 200_000)
        assert protocol.events == ["made", "pause"]
        transport.write_eof()
        assert protocol.events == ["made", "pause", "resume"]
        assert transport.get_write_buffer_size() == 0
        await asyncio.sleep(0.01)
        assert not transport.is_closing()
        receiving = driver.start_call("channel_driver", "receive_chunks", ref)
        assert b"".join(await asyncio.to_thread(receiving.result)) == b"a" * 200_000
        transport.close()
        assert await protocol.lost is None

    run(main())


@pytest.mark.parametrize("bad", ["text", None, 1, [b"x"]])
def test_what_is_no_data_is_refused(bad):
    ref = driver.new_byte_channel()

    async def main():
        transport, protocol = await connect(ref)
        with pytest.raises(TypeError):
            transport.write(bad)
        transport.write(b"")
        transport.close()
        await protocol.lost

    erlang.run(main())
    assert driver.byte_info(ref)["to_erlang"]["total_in"] == 0


def test_cancelling_all_tasks_closes_the_channel(run):
    ref = driver.new_byte_channel(max_size=100)

    async def main():
        transport, protocol = await connect(ref)
        transport.write(b"x" * 1000)
        await asyncio.sleep(0.01)
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        assert await protocol.lost is None

    run(main())
    assert driver.byte_info(ref)["closed"]


@dropped
def test_a_transport_that_is_dropped_with_its_loop_leaves_nothing(run):
    ref = driver.new_byte_channel()

    async def main():
        await open_byte_channel(ref)

    run(main())
    gc.collect()


@dropped
@pytest.mark.parametrize("factory", driver.LOOPS.values(), ids=driver.LOOPS)
def test_a_loop_that_is_closed_under_a_transport_ends_it_in_silence(factory, monkeypatch):
    ref = driver.new_byte_channel(max_size=100)
    unraisable = []
    monkeypatch.setattr(sys, "unraisablehook", unraisable.append)

    async def main():
        _reader, writer = await open_byte_channel(ref)
        writer.write(b"x" * 1000)
        await asyncio.sleep(0.01)

    loop = factory()
    loop.run_until_complete(main())
    for task in asyncio.all_tasks(loop):
        task._log_destroy_pending = False
    loop.close()
    del loop, task
    gc.collect()
    assert unraisable == []


# --- over a relay in Erlang ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate():
    """(server context, client context) of a fresh certificate."""
    with tempfile.TemporaryDirectory() as folder:
        cert, key = f"{folder}/cert.pem", f"{folder}/key.pem"
        command = (
            f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 "
            f"-subj /CN=localhost -addext subjectAltName=DNS:localhost -keyout {key} -out {cert}"
        )
        subprocess.run(command.split(), check=True, capture_output=True)
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.load_cert_chain(cert, key)
        yield server, ssl.create_default_context(cafile=cert)


def relayed(**limits):
    """Two ChannelRefs; what is sent to one comes from the other.  And the call that relays."""
    first, second = driver.new_byte_channel(**limits), driver.new_byte_channel(**limits)
    return first, second, driver.start_call("channel_driver", "relay", first, second)


# uvloop does both on transports of its own only.
all_but_uvloop = pytest.mark.parametrize(
    "loop_factory", [erlang.new_event_loop, asyncio.SelectorEventLoop]
)


@all_but_uvloop
@pytest.mark.parametrize("limits", [{}, {"max_size": 5000}], ids=str)
def test_tls_runs_over_channels(loop_factory, certificate, limits):
    server_context, client_context = certificate
    first, second, relay = relayed(**limits)
    data = os.urandom(300_000)

    async def main():
        loop = asyncio.get_running_loop()
        echoed = bytearray()

        class Echo(asyncio.Protocol):
            def connection_made(self, transport):
                transport.pause_reading()  # what comes first is TLS
                self.transport = transport

            def data_received(self, chunk):
                self.transport.write(chunk)

        class Collect(Recorder):
            def data_received(self, chunk):
                echoed.extend(chunk)
                if len(echoed) == len(data):
                    self.transport.close()

        async def serve():
            transport, protocol = await connect(first, Echo)
            protocol.transport = await loop.start_tls(
                transport, protocol, server_context, server_side=True
            )

        async def ask():
            transport, protocol = await connect(second, Collect)
            protocol.transport = await loop.start_tls(
                transport, protocol, client_context, server_hostname="localhost"
            )
            return protocol

        _, protocol = await asyncio.gather(serve(), ask())
        protocol.transport.write(data)
        assert await protocol.lost is None
        assert echoed == data

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(main())
    relay.result()


@all_but_uvloop
def test_a_file_is_sent(loop_factory):
    first, second, relay = relayed(max_size=5000)
    data = os.urandom(200_000)

    async def main():
        loop = asyncio.get_running_loop()
        transport, protocol = await connect(first)
        reader, writer = await open_byte_channel(second)
        with tempfile.TemporaryFile() as file:
            file.write(data)
            file.flush()
            sending = asyncio.create_task(loop.sendfile(transport, file, 10, 150_000))
            assert await reader.readexactly(150_000) == data[10:150_010]
            assert await sending == 150_000
        transport.close()
        writer.close()
        await protocol.lost
        await writer.wait_closed()

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(main())
    relay.result()


# --- aiohttp behind gen_tcp ----------------------------------------------------------------------


class Site:
    """aiohttp's server on a loop of its own thread; Erlang brings it connections."""

    def __init__(self, factory):
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(factory,))
        self._thread.start()
        self._ready.wait()

    def _run(self, factory):
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(self._main())

    async def _main(self):
        self._loop = asyncio.get_running_loop()
        self._end = asyncio.Event()
        app = web.Application(client_max_size=1 << 24)
        app.router.add_get("/hello/{name}", self._hello)
        app.router.add_post("/echo", self._echo)
        app.router.add_get("/websocket", self._websocket)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        self._ready.set()
        await self._end.wait()
        await self._runner.cleanup()

    def serve(self, ref):
        connecting = connect_byte_channel(self._runner.server, ref)
        asyncio.run_coroutine_threadsafe(connecting, self._loop).result()

    def stop(self):
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join()

    @staticmethod
    async def _hello(request):
        return web.json_response({"hello": request.match_info["name"]})

    @staticmethod
    async def _echo(request):
        response = web.StreamResponse()
        await response.prepare(request)
        async for chunk in request.content.iter_any():
            await response.write(chunk)
        return response

    @staticmethod
    async def _websocket(request):
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            await socket.send_str(message.data.upper())
        return socket


@pytest.fixture(params=driver.LOOPS)
def site(request):
    site = Site(driver.LOOPS[request.param])
    module = sys.modules["channel_site"] = types.ModuleType("channel_site")
    module.serve = site.serve
    yield site
    del sys.modules["channel_site"]
    module.serve = None
    site.stop()


def test_aiohttp_serves_over_channels_that_gen_tcp_feeds(site):
    port = driver.call("channel_driver", "serve_http", 3)
    url = f"http://127.0.0.1:{port}"
    body = os.urandom(1_000_000)

    async def main():
        connector = aiohttp.TCPConnector(limit=3)
        timeout = aiohttp.ClientTimeout(total=30)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:

            async def hello(n):
                async with session.get(f"{url}/hello/{n}") as response:
                    return await response.json()

            answers = await asyncio.gather(*map(hello, range(50)))
            assert answers == [{"hello": str(n)} for n in range(50)]
            async with session.post(f"{url}/echo", data=body) as response:
                assert await response.read() == body
            async with session.ws_connect(f"{url}/websocket") as socket:
                for n in range(20):
                    await socket.send_str(f"message {n}")
                    assert await socket.receive_str() == f"MESSAGE {n}"

    asyncio.run(main())
