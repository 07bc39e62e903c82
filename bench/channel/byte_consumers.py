"""The Python side of bench/channel for byte channels."""

import asyncio
import gc
import time

import erlang
from erlang import ByteChannel, ByteChannelClosed


def _without_gc(function, *args):
    gc.collect()
    gc.disable()
    try:
        return function(*args)
    finally:
        gc.enable()


async def _iterate(channel):
    """Nanoseconds from the first to the last chunk, and how many came between."""
    await channel.async_receive_bytes()
    started = time.perf_counter_ns()
    count = 0
    async for _ in channel:
        count += 1
    return time.perf_counter_ns() - started, count


def _iterate_views(channel):
    channel.receive_view()
    started = time.perf_counter_ns()
    count = 0
    try:
        while True:
            channel.receive_view()
            count += 1
    except ByteChannelClosed:
        return time.perf_counter_ns() - started, count


def _send(channel, data, count):
    for _ in range(count):
        channel.send_bytes(data)


def drain_async(ref):
    return _without_gc(erlang.run, _iterate(ByteChannel(ref)))


def drain_views(ref):
    return _without_gc(_iterate_views, ByteChannel(ref))


def send_thread(ref, size, count):
    _without_gc(_send, ByteChannel(ref), b"x" * size, count)


class _Echo(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport
        self.ended = asyncio.get_running_loop().create_future()

    def data_received(self, data):
        self.transport.write(data)

    def connection_lost(self, exc):
        self.ended.set_result(None)


async def _echo_on_channel(ref):
    _, protocol = await erlang.connect_byte_channel(_Echo, ref)
    await protocol.ended


async def _echo_on_socket(port):
    loop = asyncio.get_running_loop()
    _, protocol = await loop.create_connection(_Echo, "127.0.0.1", port)
    await protocol.ended


async def _echo_chunks(channel):
    async for chunk in channel:
        await channel.async_send_bytes(chunk)


def echo_transport(ref):
    _without_gc(erlang.run, _echo_on_channel(ref))


def echo_socket(port):
    _without_gc(erlang.run, _echo_on_socket(port))


def echo_iterator(ref):
    _without_gc(erlang.run, _echo_chunks(ByteChannel(ref)))
