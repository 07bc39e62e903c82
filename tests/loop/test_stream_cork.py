"""Writes that leave together: one system call, and nothing that anybody could tell otherwise."""

import asyncio
import socket
import struct

import pytest
from test_stream_transport import Collector, read_all, shut, wrap

DATA_SEGMENTS_OUT = 156  # the place of tcpi_data_segs_out in struct tcp_info


def segments_sent(transport):
    """How many segments with data a TCP connection has sent: one for each small send."""
    sock = transport.get_extra_info("socket")
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 192)
    return struct.unpack_from("I", info, DATA_SEGMENTS_OUT)[0]


async def connect(protocol=Collector):
    """As wrap(), over TCP."""
    listener = socket.create_server(("127.0.0.1", 0))
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.create_connection(protocol, *listener.getsockname())
    peer, _ = listener.accept()
    peer.settimeout(10)
    listener.close()
    return transport, protocol, peer


class Replying(Collector):
    def data_received(self, data):
        self.transport.write(b"header ")
        self.transport.writelines([b"body", bytearray(b" and"), memoryview(b" tail")])
        super().data_received(data)


REPLY = b"header body and tail"


def test_a_reply_of_several_writes_is_one_send(erlang_loop):
    async def main():
        transport, protocol, peer = await connect(Replying)
        for round in range(1, 4):
            peer.sendall(b"?")
            assert await read_all(peer, len(REPLY)) == REPLY
            assert segments_sent(transport) == round
        await shut(transport, protocol, peer)

    erlang_loop.run_until_complete(main())


def test_what_tasks_write_leaves_at_the_end_of_the_batch(erlang_loop):
    async def main():
        transport, protocol, peer = await connect()
        for part in (b"one ", b"two ", b"three"):
            erlang_loop.call_soon(transport.write, part)
        await asyncio.sleep(0)
        assert await read_all(peer, 13) == b"one two three"
        assert segments_sent(transport) == 1
        await shut(transport, protocol, peer)

    erlang_loop.run_until_complete(main())


def test_what_one_connection_writes_to_another_leaves_before_the_loop_waits(erlang_loop):
    async def main():
        outer, collector, outer_peer = await connect()

        class Proxy(Collector):
            def data_received(self, data):
                outer.write(data)
                outer.write(data)

        inner, proxy, inner_peer = await wrap(Proxy)
        inner_peer.sendall(b"pass ")
        assert await read_all(outer_peer, 10) == b"pass pass "
        assert segments_sent(outer) == 1
        await shut(inner, proxy, inner_peer)
        await shut(outer, collector, outer_peer)

    erlang_loop.run_until_complete(main())


@pytest.mark.asyncio
@pytest.mark.parametrize("end", ["close", "abort", "write_eof"])
async def test_what_was_written_before_the_end_arrives(end):
    transport, protocol, peer = await connect()
    transport.write(b"first ")
    transport.write(b"second")
    getattr(transport, end)()
    assert await read_all(peer, 100) == b"first second"
    transport.abort()
    assert await protocol.ended is None
    peer.close()


@pytest.mark.asyncio
async def test_what_was_written_before_an_exception_arrives():
    class Failing(Collector):
        def data_received(self, data):
            self.transport.write(b"before ")
            self.transport.write(b"it failed")
            raise ZeroDivisionError

    reported = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda loop, context: reported.append(context["exception"]))
    _, protocol, peer = await connect(Failing)
    peer.sendall(b"?")
    assert await read_all(peer, 100) == b"before it failed"
    assert isinstance(await protocol.ended, ZeroDivisionError)
    assert [type(exception) for exception in reported] == [ZeroDivisionError]
    peer.close()


@pytest.mark.parametrize("where", ["callback", "protocol"])
def test_what_was_written_before_the_loop_is_ended_by_an_exception_arrives(loop, where):
    class Exiting(Collector):
        def data_received(self, data):
            leave(self.transport)

    def leave(transport):
        transport.write(b"last words")
        raise SystemExit(3)

    async def main():
        return await connect(Exiting)

    transport, protocol, peer = loop.run_until_complete(main())
    if where == "callback":
        loop.call_soon(leave, transport)
    else:
        peer.sendall(b"?")
    with pytest.raises(SystemExit):
        loop.run_forever()
    assert peer.recv(100) == b"last words"
    loop.run_until_complete(shut(transport, protocol, peer))


@pytest.mark.asyncio
async def test_the_size_of_the_buffer_counts_only_what_the_kernel_refused():
    transport, protocol, peer = await connect()
    transport.write(b"small")
    assert transport.get_write_buffer_size() == 0
    assert await read_all(peer, 5) == b"small"
    await shut(transport, protocol, peer)


@pytest.mark.asyncio
@pytest.mark.parametrize("high", [0, 100, None])
async def test_a_writer_that_never_yields_is_paused(high):
    transport, protocol, peer = await connect()
    transport.set_write_buffer_limits(high)
    written = 0
    while not protocol.pauses:
        transport.write(bytes(1000))
        written += 1000
    assert transport.get_write_buffer_size() <= (64 * 1024 if high is None else high) + 1000
    assert len(await read_all(peer, written)) == written
    await asyncio.sleep(0.01)
    assert protocol.pauses == ["pause", "resume"]
    await shut(transport, protocol, peer)


@pytest.mark.asyncio
async def test_order_holds_between_pieces_of_all_sizes_and_kinds():
    transport, protocol, peer = await connect()
    sizes = [1, 3000, 70000, 5, 20000, 40000, 0, 65536, 17, 200000, 2]
    pieces = [bytes([n]) * size for n, size in enumerate(sizes)]
    for n, piece in enumerate(pieces * 3):
        transport.write((bytes, bytearray, memoryview)[n % 3](piece))
    whole = b"".join(pieces * 3)
    assert await read_all(peer, len(whole)) == whole
    await shut(transport, protocol, peer)


@pytest.mark.asyncio
async def test_a_changed_bytearray_is_sent_as_it_was_when_written():
    transport, protocol, peer = await connect()
    data = bytearray(b"original")
    transport.write(data)
    data[:] = b"modified"
    assert await read_all(peer, 8) == b"original"
    await shut(transport, protocol, peer)


@pytest.mark.asyncio
async def test_protocols_replaced_by_buffered_ones_answer_too():
    class Buffered(asyncio.BufferedProtocol):
        def __init__(self, transport, ended):
            self.transport = transport
            self.buffer = bytearray(10)
            self.ended = ended

        def get_buffer(self, sizehint):
            return self.buffer

        def buffer_updated(self, nbytes):
            view = memoryview(self.buffer)[:nbytes]
            self.transport.write(view)
            self.transport.write(view)
            self.buffer[:nbytes] = b"x" * nbytes

        def connection_lost(self, exc):
            self.ended.set_result(exc)

    transport, protocol, peer = await connect()
    transport.set_protocol(Buffered(transport, protocol.ended))
    peer.sendall(b"abc")
    assert await read_all(peer, 6) == b"abcabc"
    await shut(transport, protocol, peer)
