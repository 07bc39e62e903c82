"""Writes that are wrong, empty, late or enormous: what asyncio's own transports make of them."""

import array
import asyncio
import contextlib
import logging
import mmap
import os
import socket
import struct
import sys
import threading

import pytest

import erlang

FACTORIES = (asyncio.SelectorEventLoop, erlang.new_event_loop)


class Ends(asyncio.Protocol, asyncio.DatagramProtocol):
    def __init__(self):
        self.events = []
        self.ended = asyncio.get_running_loop().create_future()

    def pause_writing(self):
        self.events.append("pause")

    def resume_writing(self):
        self.events.append("resume")

    def error_received(self, exc):
        self.events.append(exc)

    def connection_lost(self, exc):
        self.ended.set_result(exc)


async def stream():
    ours, peer = socket.socketpair()
    made = await asyncio.get_running_loop().connect_accepted_socket(Ends, ours)
    return *made, peer


async def datagram():
    peer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    peer.bind(("127.0.0.1", 0))
    made = await asyncio.get_running_loop().create_datagram_endpoint(
        Ends, remote_addr=peer.getsockname()
    )
    return *made, peer


async def write_pipe():
    reading, writing = os.pipe()
    made = await asyncio.get_running_loop().connect_write_pipe(Ends, os.fdopen(writing, "wb", 0))
    return *made, os.fdopen(reading, "rb", 0)


def released():
    view = memoryview(b"x")
    view.release()
    return view


class Buffer:
    """Has `__buffer__` from Python 3.12 on; no bytes-like object of asyncio's all the same."""

    def __buffer__(self, flags):
        return memoryview(b"x")

    def __repr__(self):
        return "Buffer()"


WRITES = {
    "text": lambda: "text",
    "None": lambda: None,
    "a number": lambda: 7,
    "a list": lambda: [b"x"],
    "an array": lambda: array.array("B", b"x"),
    "a Buffer": Buffer,
    "a released view": released,
    "every other byte": lambda: memoryview(b"abcdef")[::2],
    "numbers of four bytes": lambda: memoryview(array.array("I", [1, 2])),
    "two dimensions": lambda: memoryview(bytes(6)).cast("B", (2, 3)),
    "nothing": lambda: b"",
    "an empty view": lambda: memoryview(b""),
}

LINES = {
    "a number": lambda: 7,
    "None": lambda: None,
    "text": lambda: "text",
    "bytes": lambda: b"abc",
    "a list with text": lambda: [b"x", "text"],
    "a list with None": lambda: [None],
    "a list with a number": lambda: [b"a", 7],
    "a list with an array": lambda: [array.array("B", b"abc")],
    "a generator": lambda: (bytes([i]) for i in b"abc"),
    "a raising generator": lambda: (bytes([1 // i]) for i in (1, 0)),
    "a dict": lambda: {b"a": 1, b"b": 2},
    "nothing": list,
    "an empty line": lambda: [b""],
    "views": lambda: [memoryview(b"ab"), bytearray(b"cd")],
}


def outcome(factory, make, method, argument):
    """What a call comes to: the exception that it raises, what is sent and reported, the end."""
    reported = []

    async def main():
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda loop, context: reported.append(context))
        transport, protocol, peer = await make()
        with peer:
            try:
                result = getattr(transport, method)(argument())
            except Exception as error:
                result = type(error), str(error)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            os.set_blocking(peer.fileno(), False)
            try:
                sent = os.read(peer.fileno(), 100)
            except BlockingIOError:
                sent = None
            ended = protocol.ended.done()
            if not ended:
                transport.abort()
            error = await protocol.ended
        told = [(c["message"], type(c["exception"]), str(c["exception"])) for c in reported]
        return result, sent, ended, type(error), str(error), told, protocol.events

    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(main())


@pytest.mark.parametrize("data", WRITES)
@pytest.mark.parametrize(
    ("make", "method"), [(stream, "write"), (datagram, "sendto"), (write_pipe, "write")]
)
def test_a_write_comes_to_what_it_does_in_asyncio(make, method, data):
    if make is write_pipe and data in ("numbers of four bytes", "two dimensions"):
        pytest.skip("asyncio counts what was written in numbers and rows, and writes on and on")
    if make is datagram and data in ("nothing", "an empty view"):
        pytest.skip("asyncio sends them from 3.13 on, we always")
    theirs, ours = (outcome(factory, make, method, WRITES[data]) for factory in FACTORIES)
    assert ours == theirs


@pytest.mark.parametrize("lines", LINES)
@pytest.mark.parametrize("make", [stream, write_pipe])
def test_lines_come_to_what_they_do_in_asyncio(make, lines):
    theirs, ours = (outcome(factory, make, "writelines", LINES[lines]) for factory in FACTORIES)
    assert ours == theirs


@pytest.mark.parametrize(
    ("make", "method"),
    [(stream, "write"), (stream, "writelines"), (datagram, "sendto"), (write_pipe, "write")],
)
def test_the_number_of_arguments_is_checked(make, method):
    async def main():
        transport, protocol, peer = await make()
        with peer:
            for arguments in ((), (b"x", None, None)):
                with pytest.raises(TypeError, match=method):
                    getattr(transport, method)(*arguments)
            with pytest.raises(TypeError):
                getattr(transport, method)(nonsense=b"x")
            transport.abort()
            await protocol.ended

    erlang.run(main())


@pytest.mark.parametrize("make", [stream, datagram, write_pipe])
@pytest.mark.parametrize("end", ["close", "abort"])
def test_writes_after_the_end_are_counted_and_told_alike(make, end, caplog):
    caplog.set_level(logging.WARNING, "asyncio")

    async def main():
        transport, protocol, peer = await make()
        write = transport.sendto if make is datagram else transport.write
        counts = []
        with peer:
            getattr(transport, end)()
            for data in [b"x"] * 5 + [b""] * 5 + [b"x"] * 3:
                # A datagram endpoint of asyncio's fails where its socket is gone.
                with contextlib.suppress(AttributeError):
                    write(data)
                counts.append(len(caplog.records))
            await protocol.ended
        return counts, [r.getMessage() for r in caplog.records]

    def run(factory):
        caplog.clear()
        with asyncio.Runner(loop_factory=factory) as runner:
            return runner.run(main())

    theirs, ours = map(run, FACTORIES)
    if make is datagram:
        # asyncio forgets an empty one, and sends a few others all the same.
        assert set(ours[1]) == {"socket.send() raised exception."} >= set(theirs[1])
    else:
        assert ours == theirs
        assert ours[0][-1] > 0


@pytest.mark.asyncio
async def test_lines_are_flow_controlled():
    transport, protocol, peer = await stream()
    with peer:
        transport.set_write_buffer_limits(high=1000)
        while not transport.get_write_buffer_size():
            transport.write(bytes(500))
        protocol.events.clear()
        if not transport.get_protocol().events and not transport._protocol_paused:
            transport.writelines([b"x" * 600, b"y" * 600])
            if isinstance(asyncio.get_running_loop(), erlang.ErlangEventLoop):
                assert protocol.events == ["pause"]
        transport.abort()
        await protocol.ended


def test_lines_into_an_empty_buffer_pause_too(erlang_loop):
    async def main():
        transport, protocol, peer = await stream()
        with peer:
            transport.writelines([bytes(100_000)] * 50)
            assert transport.get_write_buffer_size() > 65536
            assert protocol.events == ["pause"]
            peer.setblocking(False)
            while transport.get_write_buffer_size():
                with contextlib.suppress(BlockingIOError):
                    peer.recv(1_000_000)
                await asyncio.sleep(0)
            assert protocol.events == ["pause", "resume"]
            transport.abort()
            await protocol.ended

    erlang_loop.run_until_complete(main())


@pytest.mark.parametrize("kind", [bytearray, memoryview])
def test_what_the_kernel_does_not_take_is_a_copy(erlang_loop, kind):
    async def main():
        transport, protocol, peer = await stream()
        owner = bytearray(b"x" * 3_000_000)
        with peer:
            transport.write(kind(owner) if kind is memoryview else owner)
            assert transport.get_write_buffer_size() > 0
            owner[:] = b"y" * 3_000_000
            # Nothing exports its buffer any more.
            owner.clear()
            transport.close()
            received = bytearray()

            def work():
                while piece := peer.recv(1_000_000):
                    received.extend(piece)

            await asyncio.to_thread(work)
            assert received == b"x" * 3_000_000
            await protocol.ended

    erlang_loop.run_until_complete(main())


@pytest.mark.asyncio
async def test_a_file_is_sent_by_the_kernel(tmp_path, monkeypatch):
    sent = []
    real = os.sendfile

    def sendfile(*args):
        count = real(*args)
        sent.append(count)
        return count

    monkeypatch.setattr(os, "sendfile", sendfile)
    data = os.urandom(1_000_000)
    path = tmp_path / "file"
    path.write_bytes(data)
    transport, protocol, peer = await stream()
    received = bytearray()

    def work():
        while piece := peer.recv(1_000_000):
            received.extend(piece)

    thread = threading.Thread(target=work)
    thread.start()
    with peer, path.open("rb") as file:
        transport.write(b"head")
        assert await asyncio.get_running_loop().sendfile(transport, file) == len(data)
        assert file.tell() == len(data)
        transport.write(b"tail")
        transport.close()
        await protocol.ended
        await asyncio.to_thread(thread.join)
    assert received == b"head" + data + b"tail"
    assert sum(sent) == len(data)


def available_memory():
    with open("/proc/meminfo") as file:
        for line in file:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return 0


@pytest.mark.timeout(300)
@pytest.mark.skipif(available_memory() < 6 << 30, reason="needs 6 GB of memory")
@pytest.mark.parametrize("make", [stream, write_pipe])
def test_more_than_two_gigabytes_are_written_at_once(erlang_loop, make):
    size = (2 << 30) + 12_345
    count = 0

    def work(fd):
        nonlocal count
        room = bytearray(1 << 20)
        with os.fdopen(os.dup(fd), "rb", 0) as file:
            while n := file.readinto(room):
                assert room.startswith(b"\0" * 16)
                count += n

    async def main():
        transport, protocol, peer = await make()
        # Pages that were never written are no memory.
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        with peer, mmap.mmap(-1, size, flags=flags, prot=mmap.PROT_READ) as sparse:
            with memoryview(sparse) as view:
                transport.write(view)
            assert size - transport.get_write_buffer_size() < size // 2
            transport.close()
            await asyncio.to_thread(work, peer.fileno())
            assert await protocol.ended is None

    erlang_loop.run_until_complete(main())
    assert count == size


def route_dump():
    """A request of netlink's for the list of network interfaces."""
    body = struct.pack("=BxHiII", socket.AF_UNSPEC, 0, 0, 0, 0)
    return struct.pack("=IHHII", 16 + len(body), 18, 0x301, 1, 0) + body


@pytest.mark.skipif(sys.platform != "linux", reason="netlink")
@pytest.mark.asyncio
async def test_datagrams_of_a_family_that_only_the_socket_module_knows():
    answers = asyncio.Queue()

    class Answers(Ends):
        def datagram_received(self, data, address):
            answers.put_nowait((data, address))

    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, 0)
    sock.bind((0, 0))
    sock.setblocking(False)
    transport, protocol = await asyncio.get_running_loop().create_datagram_endpoint(
        Answers, sock=sock
    )
    for _ in range(3):
        transport.sendto(route_dump(), (0, 0))
        data, address = await asyncio.wait_for(answers.get(), 10)
        assert address == (0, 0)
        kind = struct.unpack_from("=IHHII", data)[1]
        # An interface.
        assert kind == 16
        while kind != 3:
            # Until the end of the list.
            data, _ = await asyncio.wait_for(answers.get(), 10)
            kind = struct.unpack_from("=IHHII", data)[1]
    with contextlib.suppress(TypeError):
        transport.sendto(b"x", ("127.0.0.1", 1))
    transport.close()
    await protocol.ended
