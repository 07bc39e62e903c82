"""A program on channels with types, which mypy --strict finds nothing wrong with."""

import asyncio
import socket
from typing import Literal, assert_type

import erlang
from erlang.channel import Channel, ChannelClosed, ChannelRef, reply, select, select_sync

Request = tuple[erlang.Atom, erlang.Pid, bytes]


class Requests(Channel[Request]):
    """A channel of requests."""


def serve(channel_ref: ChannelRef) -> int:
    served = 0
    with Channel[Request](channel_ref) as channel:
        for kind, sender, data in channel:
            assert_type(data, bytes)
            if kind == "request":
                reply(sender, (erlang.Atom("response"), data.upper()))
                served += 1
    return served


async def serve_on_a_loop(channel_ref: ChannelRef) -> None:
    async with Requests(channel_ref) as channel:
        assert_type(channel, Requests)
        assert_type(await channel.async_receive(timeout=1.5), Request)
        assert_type(await channel.async_receive_many(10), list[Request])
        task = asyncio.create_task(channel.async_receive())
        assert_type(await asyncio.wait_for(task, 1), Request)
        async for _, sender, data in channel:
            await channel.async_send({sender: data})


async def merge(first: Channel[bytes], second: Channel[bytes]) -> list[bytes]:
    got = []
    try:
        while True:
            channel, message = await select(first, second, timeout=10)
            assert_type(channel, Channel[bytes])
            got.append(message)
    except ChannelClosed:
        return got


def poll(channel: Channel[int]) -> int:
    assert_type(channel.try_receive(), int | None)
    assert_type(channel.try_receive("none"), int | str)
    assert_type(channel.receive_many(5), list[int])
    assert_type(select_sync(channel)[1], int)
    return len(channel) if not channel.closed else 0


def start() -> Channel[int]:
    channel = Channel[int](max_size=10_000, binaries="str")
    channel.send([1, 2.5, None], timeout=1)
    assert_type(channel.try_send("text"), bool)
    return channel


def run(ref: ChannelRef) -> None:
    assert_type(erlang.run(merge(Channel(ref), Channel(ref))), list[bytes])


async def serve_bytes(channel_ref: ChannelRef) -> None:
    async with erlang.ByteChannel(channel_ref, poll=True) as channel:
        assert_type(channel, erlang.ByteChannel)
        assert_type(await channel.async_receive_bytes(timeout=1.5), bytes)
        assert_type(channel.try_receive_bytes(), bytes | None)
        assert_type(await channel.async_readexactly(4), bytes)
        assert_type(await asyncio.wait_for(channel.async_readline(), 1), bytes)
        async for chunk in channel:
            assert_type(chunk, bytes)
            await channel.async_send_bytes(memoryview(chunk))
        assert_type(await select(channel), tuple[erlang.ByteChannel, bytes])


def drain_bytes(channel_ref: ChannelRef) -> bytes:
    with erlang.ByteChannel(channel_ref) as channel:
        assert_type(channel.receive_bytes(), bytes)
        channel.send_bytes(bytearray(b"x"), timeout=1)
        assert_type(channel.receive_into(bytearray(10)), int)
        assert_type(channel.receive_view(1), memoryview)
        assert_type(channel.readuntil(b"\r\n", timeout=1), bytes)
        return b"".join(channel)


async def serve_as_a_stream(channel_ref: ChannelRef) -> None:
    reader, writer = await erlang.open_byte_channel(channel_ref, limit=1000)
    assert_type(await reader.readline(), bytes)
    writer.close()
    transport, protocol = await erlang.connect_byte_channel(asyncio.Protocol, channel_ref)
    assert_type(protocol, asyncio.Protocol)
    transport.write(b"data")


class Echo(erlang.reactor.Protocol):
    def connection_made(self, fd: int, info: object) -> None:
        self.info = info

    def data_received(self, data: memoryview) -> Literal["write_pending"]:
        assert_type(self.write(data[1:]), int)
        assert_type(self.read(10), bytes | None)
        return "write_pending"


async def serve_connection(sock: socket.socket) -> None:
    served = erlang.reactor.Reactor(erlang.new_event_loop(), Echo, max_connections=10)
    assert_type(served.adopt(sock, {"any": "thing"}), erlang.reactor.Protocol)
    assert_type(await served.stop(timeout=1.5), int)
