"""Read and write pipes: FIFOs, sockets and terminals, on our loop and on asyncio's."""

import asyncio
import contextlib
import contextvars
import errno
import gc
import logging
import os
import pty
import random
import socket
import sys
import tty
import warnings
import weakref

import pytest

import erlang


def current():
    return asyncio.get_running_loop()


async def until(condition):
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.001)


class Reader(asyncio.Protocol):
    def __init__(self):
        self.received = bytearray()
        self.events = []
        self.ended = current().create_future()

    def connection_made(self, transport):
        self.transport = transport
        self.events.append("made")

    def data_received(self, data):
        assert type(data) is bytes
        self.received += data

    def eof_received(self):
        self.events.append("eof")
        return True

    def connection_lost(self, exc):
        self.events.append("lost")
        self.ended.set_result(exc)


class Writer(asyncio.BaseProtocol):
    def __init__(self):
        self.events = []
        self.ended = current().create_future()

    def connection_made(self, transport):
        self.transport = transport

    def pause_writing(self):
        self.events.append("pause")

    def resume_writing(self):
        self.events.append("resume")

    def connection_lost(self, exc):
        self.ended.set_result(exc)


async def reader_of(fd, protocol=Reader):
    return await current().connect_read_pipe(protocol, os.fdopen(fd, "rb", 0))


async def writer_of(fd, protocol=Writer):
    return await current().connect_write_pipe(protocol, os.fdopen(fd, "wb", 0))


def a_pipe():
    return os.pipe()


def a_packet_pipe():
    return os.pipe2(os.O_DIRECT)


def a_socketpair():
    reading, writing = socket.socketpair()
    return reading.detach(), writing.detach()


def a_packet_socketpair():
    reading, writing = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return reading.detach(), writing.detach()


def a_terminal():
    reading, writing = pty.openpty()
    tty.setraw(writing)
    return reading, writing


PIPES = (a_pipe, a_packet_pipe, a_socketpair, a_packet_socketpair, a_terminal)
STREAMS = (a_pipe, a_socketpair, a_terminal)


@pytest.mark.asyncio
@pytest.mark.parametrize("make", PIPES)
async def test_all_that_is_written_is_read(make):
    reading, writing = make()
    reader_transport, reader = await reader_of(reading)
    writer_transport, writer = await writer_of(writing)
    expected = b""
    for i in range(200):
        data = b"%d," % i * (1 + 7 * i % 300)
        writer_transport.write(data)
        expected += data
        if i % 20 == 0:
            await asyncio.sleep(0)
    await until(lambda: len(reader.received) == len(expected))
    assert reader.received == expected
    writer_transport.close()
    assert await writer.ended is None
    error = await reader.ended
    assert error is None or error.errno == errno.EIO
    assert reader_transport.is_closing()


@pytest.mark.asyncio
@pytest.mark.parametrize("make", STREAMS)
async def test_a_large_write_arrives_whole_and_flow_is_controlled(make):
    reading, writing = make()
    _, reader = await reader_of(reading)
    transport, writer = await writer_of(writing)
    data = os.urandom(1_000_000)
    transport.write(data)
    assert transport.get_write_buffer_size() > 0
    assert writer.events == ["pause"]
    transport.write(b"end")
    await until(lambda: len(reader.received) == len(data) + 3)
    assert reader.received == data + b"end"
    assert transport.get_write_buffer_size() == 0
    await until(lambda: writer.events == ["pause", "resume"])
    transport.close()
    await writer.ended
    await reader.ended


@pytest.mark.asyncio
async def test_what_was_packed_stays_apart():
    reading, writing = a_packet_pipe()

    class Packets(Reader):
        packets = 0

        def data_received(self, data):
            super().data_received(data)
            self.packets += 1

    # The reader finds them all there at once, and is told once.
    for _ in range(10):
        os.write(writing, b"packet")
    _, reader = await reader_of(reading, Packets)
    await until(lambda: reader.packets == 10)
    os.close(writing)
    await reader.ended


@pytest.mark.asyncio
async def test_a_small_write_is_a_system_call_of_its_own():
    reading, writing = a_packet_pipe()
    transport, writer = await writer_of(writing)
    for i in range(5):
        transport.write(b"%d" % i)
    assert [os.read(reading, 100) for _ in range(5)] == [b"0", b"1", b"2", b"3", b"4"]
    transport.close()
    await writer.ended
    os.close(reading)


@pytest.mark.asyncio
@pytest.mark.parametrize("make", PIPES)
async def test_a_paused_reader_gets_nothing_more(make):
    reading, writing = make()
    transport, reader = await reader_of(reading)
    assert transport.is_reading()
    transport.pause_reading()
    transport.pause_reading()
    assert not transport.is_reading()
    os.write(writing, b"later")
    for _ in range(5):
        await asyncio.sleep(0.001)
    assert not reader.received
    transport.resume_reading()
    transport.resume_reading()
    await until(lambda: reader.received == b"later")
    os.write(writing, b" on")
    await until(lambda: reader.received == b"later on")
    transport.close()
    await reader.ended
    os.close(writing)


@pytest.mark.asyncio
async def test_a_pause_inside_data_received_holds_at_once():
    reading, writing = a_packet_pipe()

    class Pauses(Reader):
        def data_received(self, data):
            super().data_received(data)
            self.transport.pause_reading()

    transport, reader = await reader_of(reading, Pauses)
    os.write(writing, b"a")
    os.write(writing, b"b")
    await until(lambda: reader.received)
    for _ in range(5):
        await asyncio.sleep(0)
    assert reader.received == b"a"
    transport.resume_reading()
    await until(lambda: reader.received == b"ab")
    os.close(writing)
    transport.resume_reading()
    assert await reader.ended is None


@pytest.mark.asyncio
async def test_data_and_the_end_that_come_together_are_both_seen():
    reading, writing = a_pipe()
    os.write(writing, b"x" * 60_000)
    os.close(writing)
    _, reader = await reader_of(reading)
    assert await reader.ended is None
    assert len(reader.received) == 60_000
    # What eof_received() returns does not matter.
    assert reader.events == ["made", "eof", "lost"]


@pytest.mark.asyncio
async def test_a_fifo_without_a_writer_waits_for_one(tmp_path):
    path = tmp_path / "fifo"
    os.mkfifo(path)
    transport, reader = await reader_of(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
    await asyncio.sleep(0.01)
    assert not transport.is_closing()
    with open(path, "wb", 0) as writing:
        writing.write(b"here")
        await until(lambda: reader.received)
    assert await reader.ended is None
    assert reader.received == b"here"


@pytest.mark.asyncio
@pytest.mark.parametrize("buffered", [False, True])
@pytest.mark.parametrize("make", [a_pipe, a_socketpair])
async def test_a_writer_learns_that_its_reader_is_gone(make, buffered):
    reading, writing = make()
    transport, writer = await writer_of(writing)
    if buffered:
        transport.write(bytes(2_000_000))
    os.close(reading)
    error = await asyncio.wait_for(writer.ended, 30)
    assert type(error) is (BrokenPipeError if buffered else type(None))
    assert transport.is_closing()


@pytest.mark.asyncio
async def test_a_writer_that_closes_learns_it_too():
    reading, writing = a_pipe()
    transport, writer = await writer_of(writing)
    transport.write(bytes(2_000_000))
    transport.close()
    await asyncio.sleep(0)
    assert not writer.ended.done()
    os.close(reading)
    assert type(await asyncio.wait_for(writer.ended, 30)) is BrokenPipeError


@pytest.mark.asyncio
async def test_a_broken_pipe_is_quiet_and_later_writes_are_counted(caplog):
    reported = []
    current().set_exception_handler(lambda loop, context: reported.append(context))
    reading, writing = a_pipe()
    transport, writer = await writer_of(writing)
    os.close(reading)
    for _ in range(4):
        transport.write(b"x")
    assert not caplog.records
    for _ in range(3):
        transport.write(b"x")
    warned = [r.getMessage() for r in caplog.records]
    expected = "pipe closed by peer or os.write(pipe, data) raised exception."
    assert warned == [expected] * len(warned)
    assert transport._conn_lost == 7
    assert len(warned) == 2
    assert isinstance(await writer.ended, BrokenPipeError)
    assert not reported


@pytest.mark.asyncio
async def test_a_closed_writer_drops_what_is_written(caplog):
    reading, writing = a_pipe()
    transport, writer = await writer_of(writing)
    transport.write(b"before")
    transport.close()
    for _ in range(6):
        transport.write(b"after")
    assert len(caplog.records) == 1
    assert await writer.ended is None
    transport.close()
    transport.write(b"at last")
    assert os.read(reading, 100) == b"before"
    assert os.read(reading, 100) == b""
    os.close(reading)


@pytest.mark.asyncio
async def test_closing_sends_what_is_buffered_first():
    for end in ("close", "write_eof"):
        reading, writing = a_pipe()
        transport, writer = await writer_of(writing)
        data = os.urandom(500_000)
        transport.write(data)
        assert transport.can_write_eof()
        getattr(transport, end)()
        getattr(transport, end)()
        assert transport.is_closing()
        _, reader = await reader_of(reading)
        assert await writer.ended is None
        assert await reader.ended is None
        assert reader.received == data


@pytest.mark.asyncio
async def test_aborting_drops_what_is_buffered():
    reading, writing = a_pipe()
    transport, writer = await writer_of(writing)
    transport.write(bytes(500_000))
    transport.abort()
    assert transport.get_write_buffer_size() == 0
    assert await writer.ended is None
    assert 0 < len(os.read(reading, 500_000)) < 500_000
    os.close(reading)


@pytest.mark.asyncio
async def test_limits_and_lines():
    reading, writing = a_pipe()
    transport, writer = await writer_of(writing)
    assert transport.get_write_buffer_limits() == (16384, 65536)
    transport.set_write_buffer_limits(high=100)
    assert transport.get_write_buffer_limits() == (25, 100)
    while not transport.get_write_buffer_size():
        transport.writelines([b"a" * 1000, bytearray(b"b" * 1000), memoryview(b"c" * 1000)])
    transport.write(b"d" * 101)
    assert writer.events == ["pause"]
    transport.set_write_buffer_limits(high=0)
    assert writer.events == ["pause"]
    with pytest.raises(ValueError):
        transport.set_write_buffer_limits(high=1, low=2)
    transport.abort()
    await writer.ended
    os.close(reading)


@pytest.mark.asyncio
async def test_a_bytearray_may_change_once_it_is_written():
    reading, writing = a_pipe()
    transport, writer = await writer_of(writing)
    data = bytearray(b"x" * 200_000)
    transport.write(data)
    data[:] = b"y" * 200_000
    _, reader = await reader_of(reading)
    transport.close()
    await reader.ended
    if isinstance(current(), erlang.ErlangEventLoop):
        assert reader.received == b"x" * 200_000
    assert len(reader.received) == 200_000
    await writer.ended


@pytest.mark.asyncio
@pytest.mark.parametrize("data", ["text", None, 7, [b"x"]])
async def test_only_bytes_are_written(data):
    reading, writing = a_pipe()
    transport, writer = await writer_of(writing)
    with pytest.raises(AssertionError) as caught:
        transport.write(data)
    assert str(caught.value) == repr(data)
    released = memoryview(b"x")
    released.release()
    with pytest.raises(ValueError):
        transport.write(released)
    for empty in (b"", bytearray(), memoryview(b"")):
        transport.write(empty)
    transport.close()
    await writer.ended
    os.close(reading)


@pytest.mark.asyncio
async def test_data_that_is_no_flat_buffer_breaks_the_transport():
    reported = []
    current().set_exception_handler(lambda loop, context: reported.append(context))
    reading, writing = a_pipe()
    transport, writer = await writer_of(writing)
    transport.write(memoryview(b"abcdef")[::2])
    assert isinstance(await writer.ended, BufferError)
    assert [c["message"] for c in reported] == ["Fatal write error on pipe transport"]
    assert reported[0]["transport"] is transport
    os.close(reading)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.asyncio
@pytest.mark.parametrize("connect", ["connect_read_pipe", "connect_write_pipe"])
async def test_a_regular_file_is_refused(tmp_path, connect):
    path = tmp_path / "file"
    path.write_bytes(b"x")
    with open(path, "r+b", 0) as file:
        with pytest.raises(ValueError, match="Pipe transport is"):
            await getattr(current(), connect)(asyncio.Protocol, file)
        assert not file.closed
        assert os.get_blocking(file.fileno())
    with pytest.raises(ValueError):
        await getattr(current(), connect)(asyncio.Protocol, file)
    with pytest.raises(AttributeError):
        await getattr(current(), connect)(asyncio.Protocol, object())


@pytest.mark.asyncio
async def test_attributes():
    reading, writing = a_pipe()
    reading_file, writing_file = os.fdopen(reading, "rb", 0), os.fdopen(writing, "wb", 0)
    read_transport, reader = await current().connect_read_pipe(Reader, reading_file)
    write_transport, writer = await current().connect_write_pipe(Writer, writing_file)
    assert isinstance(read_transport, asyncio.ReadTransport)
    assert not isinstance(read_transport, asyncio.WriteTransport)
    assert not hasattr(read_transport, "abort")
    assert isinstance(write_transport, asyncio.WriteTransport)
    for transport, file in ((read_transport, reading_file), (write_transport, writing_file)):
        assert transport.get_extra_info("pipe") is file
        assert transport.get_extra_info("socket") is None
        assert transport.get_extra_info("nothing", 7) == 7
        assert transport._fileno == file.fileno()
        assert transport._pipe is file
        assert not os.get_blocking(file.fileno())
        transport.note = "users may keep notes on it"
        assert weakref.ref(transport)() is transport
    assert read_transport.get_protocol() is reader
    with pytest.raises(NotImplementedError):
        write_transport.is_reading()
    read_transport.close()
    write_transport.close()
    await reader.ended
    await writer.ended
    assert reading_file.closed and writing_file.closed
    assert read_transport.get_protocol() is None
    assert read_transport._pipe is None
    read_transport.pause_reading()
    read_transport.resume_reading()
    read_transport.close()


def shape(transport):
    return repr(transport).split(" ", 1)[1].replace(str(transport._fileno), "N")


@pytest.mark.asyncio
async def test_representations():
    reading, writing = a_pipe()
    read_transport, reader = await reader_of(reading)
    write_transport, writer = await writer_of(writing)
    await asyncio.sleep(0)
    assert shape(read_transport) == "fd=N polling>"
    read_transport.pause_reading()
    assert shape(read_transport) == "fd=N idle>"
    assert shape(write_transport) == "fd=N idle bufsize=0>"
    write_transport.write(bytes(100_000))
    size = write_transport.get_write_buffer_size()
    assert shape(write_transport) == f"fd=N polling bufsize={size}>"
    write_transport.close()
    assert shape(write_transport) == f"closing fd=N polling bufsize={size}>"
    write_transport.abort()
    read_transport.close()
    assert shape(read_transport) == "closing fd=N idle>"
    await reader.ended
    await writer.ended
    assert shape(read_transport) == "closed fd=N closed>"
    assert shape(write_transport) == "closed fd=N closed>"


@pytest.mark.asyncio
async def test_another_protocol_can_take_over():
    reading, writing = a_pipe()
    transport, first = await reader_of(reading)
    second = Reader()
    os.write(writing, b"one")
    await until(lambda: first.received == b"one")
    transport.set_protocol(second)
    assert transport.get_protocol() is second
    os.write(writing, b"two")
    await until(lambda: second.received == b"two")
    os.close(writing)
    assert await second.ended is None
    assert second.events == ["eof", "lost"]
    assert first.events == ["made"]


@pytest.mark.asyncio
async def test_what_data_received_raises_does_not_end_the_transport():
    reported = []
    current().set_exception_handler(lambda loop, context: reported.append(context))
    reading, writing = a_pipe()

    class Raises(Reader):
        def data_received(self, data):
            super().data_received(data)
            raise ZeroDivisionError

    transport, reader = await reader_of(reading, Raises)
    for i in range(3):
        os.write(writing, b"x")
        await until(lambda n=i + 1: len(reader.received) == n)
    await until(lambda: len(reported) == 3)
    assert all(isinstance(c["exception"], ZeroDivisionError) for c in reported)
    assert "_read_ready" in reported[0]["message"]
    assert not transport.is_closing()
    transport.close()
    await reader.ended
    os.close(writing)


@pytest.mark.asyncio
@pytest.mark.parametrize("number", [errno.EIO, errno.EBADF])
async def test_a_read_error_is_reported_unless_the_terminal_hung_up(number):
    reported = []
    current().set_exception_handler(lambda loop, context: reported.append(context))
    if number == errno.EIO:
        reading, other = a_terminal()
        _, reader = await reader_of(reading)
        os.close(other)
    else:
        reading, other = a_pipe()
        other_end = os.dup(other)
        # Reading from the writing end of a pipe fails as soon as it is tried.
        _, reader = await reader_of(other_end)
        os.close(reading)
        os.close(other)
    error = await asyncio.wait_for(reader.ended, 30)
    assert error.errno == number
    messages = [c["message"] for c in reported]
    assert messages == ([] if number == errno.EIO else ["Fatal read error on pipe transport"])


@pytest.mark.asyncio
async def test_one_terminal_is_read_and_written_through_the_same_descriptor():
    main, other = pty.openpty()
    tty.setraw(other)
    file = os.fdopen(main, "r+b", 0)
    read_transport, reader = await current().connect_read_pipe(Reader, file)
    write_transport, writer = await current().connect_write_pipe(Writer, file)
    os.write(other, b"to the reader")
    await until(lambda: reader.received == b"to the reader")
    data = b"from the writer" * 10_000
    write_transport.write(data)
    received = b""
    while len(received) < len(data):
        received += await asyncio.to_thread(os.read, other, 65536)
        os.write(other, b".")
    assert received == data
    await until(lambda: reader.received.endswith(b"."))
    write_transport.abort()
    read_transport.close()
    await writer.ended
    await reader.ended
    os.close(other)


@pytest.mark.asyncio
@pytest.mark.parametrize("first", ["reader", "writer"])
async def test_add_reader_may_share_a_descriptor_with_a_write_pipe(first):
    main, other = pty.openpty()
    tty.setraw(other)
    file = os.fdopen(main, "r+b", 0)
    received = bytearray()

    def readable():
        # One byte of what there is: it is told again.
        received.extend(os.read(main, 1))

    if first == "reader":
        current().add_reader(main, readable)
    transport, writer = await current().connect_write_pipe(Writer, file)
    data = b"x" * 100_000
    transport.write(data)
    assert transport.get_write_buffer_size()
    if first == "writer":
        current().add_reader(main, readable)
    os.write(other, b"several")
    await until(lambda: received == b"several")
    got = b""
    while len(got) < len(data):
        got += await asyncio.to_thread(os.read, other, 65536)
    await until(lambda: not transport.get_write_buffer_size())
    os.write(other, b" times")
    await until(lambda: received == b"several times")
    assert current().remove_reader(main)
    os.write(other, b" lost")
    await asyncio.sleep(0.005)
    assert received == b"several times"
    transport.close()
    await writer.ended
    os.close(other)


@pytest.mark.asyncio
async def test_a_device_that_cannot_be_watched_is_written_all_the_same():
    transport, writer = await writer_of(os.open(os.devnull, os.O_WRONLY))
    transport.write(b"x" * 1_000_000)
    assert transport.get_write_buffer_size() == 0
    transport.close()
    assert await writer.ended is None


@pytest.mark.asyncio
async def test_contexts_are_those_of_asyncio():
    variable = contextvars.ContextVar("variable", default="none")
    seen = []

    class Notes(Reader):
        def data_received(self, data):
            super().data_received(data)
            seen.append(variable.get())

        def eof_received(self):
            seen.append(variable.get())

    reading, writing = a_pipe()
    variable.set("connected")
    transport, reader = await reader_of(reading, Notes)
    variable.set("later")
    os.write(writing, b"x")
    await until(lambda: len(seen) == 1)
    transport.pause_reading()
    variable.set("resumed")
    transport.resume_reading()
    variable.set("at last")
    os.write(writing, b"y")
    await until(lambda: len(seen) == 2)
    os.close(writing)
    await reader.ended
    assert seen == ["connected", "resumed", "resumed"]


@pytest.mark.asyncio
async def test_debug_mode_tells_of_pausing_and_of_the_end(caplog):
    current().set_debug(True)
    caplog.set_level(logging.DEBUG, "asyncio")
    reading, writing = a_pipe()
    transport, reader = await reader_of(reading)
    transport.pause_reading()
    transport.resume_reading()
    os.close(writing)
    await reader.ended
    told = [(r.levelname, r.getMessage().rsplit("> ", 1)[-1]) for r in caplog.records]
    assert told[-3:] == [
        ("DEBUG", "pauses reading"),
        ("DEBUG", "resumes reading"),
        ("INFO", "was closed by peer"),
    ]


@pytest.mark.parametrize("end", ["reader", "paused reader", "writer", "device"])
def test_one_that_is_dropped_is_closed_with_a_warning(loop, end):
    """Only one that waits for something is held by the loop."""
    kept = []

    async def main():
        reading, writing = a_terminal() if end == "device" else a_pipe()
        if end in ("writer", "device"):
            transport, _ = await writer_of(writing, asyncio.BaseProtocol)
            kept.append(os.fdopen(reading, "rb", 0))
        else:
            transport, _ = await reader_of(reading, asyncio.Protocol)
            kept.append(os.fdopen(writing, "wb", 0))
        await asyncio.sleep(0)
        if end == "paused reader":
            transport.pause_reading()
        if end == "device":
            transport.write(b"x")
        return weakref.ref(transport), transport._fileno

    def is_open(fd):
        try:
            return bool(os.fstat(fd))
        except OSError:
            return False

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        transport, fd = loop.run_until_complete(main())
        gc.collect()
        dropped = end in ("paused reader", "device")
        assert is_open(fd) != dropped
        if not dropped:
            if end == "writer":
                transport().abort()
            transport().close()
            loop.run_until_complete(asyncio.sleep(0))
        loop.run_until_complete(asyncio.sleep(0))
    kept.pop().close()
    told = [str(w.message) for w in caught if w.category is ResourceWarning]
    assert len(told) == dropped
    assert all("unclosed transport <" in text and f"fd={fd}" in text for text in told)
    assert not is_open(fd)


def test_a_connection_that_is_cancelled_closes_the_pipe(loop):
    async def main():
        reading, writing = a_pipe()
        file = os.fdopen(reading, "rb", 0)
        task = asyncio.ensure_future(current().connect_read_pipe(asyncio.Protocol, file))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert file.closed
        os.close(writing)

    loop.run_until_complete(main())


@pytest.mark.asyncio
async def test_streams_over_pipes():
    reading, writing = a_pipe()
    stream = asyncio.StreamReader()
    transport, _ = await reader_of(reading, lambda: asyncio.StreamReaderProtocol(stream))
    write_transport, protocol = await writer_of(writing, asyncio.streams.FlowControlMixin)
    writer = asyncio.StreamWriter(write_transport, protocol, None, current())
    task = asyncio.ensure_future(stream.readexactly(500_000))
    for _ in range(50):
        writer.write(b"z" * 10_000)
        await writer.drain()
    assert await task == b"z" * 500_000
    writer.write(b"line\n")
    assert await stream.readline() == b"line\n"
    write_transport.close()
    assert await stream.read() == b""
    transport.close()
    await asyncio.sleep(0)


def test_repeated_use_leaves_nothing_behind(erlang_loop):
    async def once():
        reading, writing = a_pipe()
        _, reader = await reader_of(reading)
        write_transport, writer = await writer_of(writing)
        write_transport.write(bytes(100_000))
        await until(lambda: len(reader.received) == 100_000)
        write_transport.close()
        await writer.ended
        await reader.ended

    async def main(times):
        for _ in range(times):
            await once()

    def counts():
        gc.collect()
        return len(gc.get_objects()), len(os.listdir("/proc/self/fd"))

    erlang_loop.run_until_complete(main(20))
    references, descriptors = counts()
    erlang_loop.run_until_complete(main(200))
    more_references, more_descriptors = counts()
    assert more_descriptors == descriptors
    assert more_references - references < 100
    assert erlang_loop._stats()["watched"] <= 1


@pytest.mark.parametrize("kind", ["ReadPipeTransport", "WritePipeTransport"])
def test_a_transport_that_was_not_initialized_refuses_to_work(kind):
    made = getattr(erlang._loop, kind)
    empty = made.__new__(made)
    assert kind in repr(empty)
    empty.close()
    assert empty.get_protocol() is None
    with pytest.raises(RuntimeError, match="not initialized"):
        empty._fatal_error(OSError())
    if kind == "WritePipeTransport":
        with pytest.raises(RuntimeError, match="not initialized"):
            empty.write(b"x")
        empty.abort()
    with pytest.raises(TypeError):
        made(asyncio.SelectorEventLoop, None, None)


@pytest.mark.skipif(sys.platform != "linux", reason="O_DIRECT pipes")
@pytest.mark.asyncio
async def test_a_full_packet_pipe_is_written_on():
    reading, writing = a_packet_pipe()
    transport, writer = await writer_of(writing)
    for _ in range(100):
        transport.write(b"p" * 100)
    assert transport.get_write_buffer_size()
    with contextlib.suppress(BlockingIOError):
        os.set_blocking(reading, False)
        while os.read(reading, 4096):
            pass
    await until(lambda: not transport.get_write_buffer_size())
    transport.close()
    await writer.ended
    os.close(reading)


async def one_random_life(rng):
    """A pipe of any kind with both ends here, and random steps at both."""
    make = rng.choice(PIPES)
    reading, writing = make()
    reader_transport, reader = await reader_of(reading)
    writer_transport, writer = await writer_of(writing)
    written, crashed, reader_closed = bytearray(), False, False

    for _ in range(rng.randrange(30)):
        step = rng.random()
        if step < 0.5:
            data = rng.randbytes(rng.choice((0, 1, 100, 4096, 5000, 70_000)))
            if not writer_transport.is_closing():
                written += data
            writer_transport.write(rng.choice((bytes, bytearray, memoryview))(data))
        elif step < 0.6:
            reader_transport.pause_reading()
        elif step < 0.75:
            reader_transport.resume_reading()
        elif step < 0.78:
            writer_transport.close()
        elif step < 0.8:
            writer_transport.abort()
            crashed = True
        elif step < 0.82:
            reader_transport.close()
            reader_closed = True
        else:
            await asyncio.sleep(rng.choice((0, 0, 0.0001)))
    writer_transport.close()
    reader_transport.resume_reading()
    await asyncio.wait_for(writer.ended, 30)
    await asyncio.wait_for(reader.ended, 30)
    assert written.startswith(reader.received)
    # A terminal forgets what was not read when its other end is closed; a datagram has a limit.
    if not crashed and not reader_closed and make in (a_pipe, a_packet_pipe, a_socketpair):
        assert reader.received == written


@pytest.mark.parametrize("seed", range(6))
def test_random_lives(erlang_loop, seed):
    """asyncio's writer fails when it is aborted after its end."""

    async def main():
        rng = random.Random(seed)
        for _ in range(25):
            await one_random_life(rng)
        assert erlang_loop._stats()["watched"] <= 2

    erlang_loop.run_until_complete(main())


@pytest.mark.asyncio
async def test_a_large_packet_after_smaller_ones_is_whole():
    reading, writing = a_packet_socketpair()
    _, reader = await reader_of(reading)
    for size in (40_000, 40_000, 100_000, 33_000, 120_000):
        reader.received.clear()
        os.write(writing, bytes(size))
        await until(lambda: reader.received)
        assert len(reader.received) == size
    os.close(writing)
    await reader.ended
