"""The Python half of the channel examples: each function serves a channel until it is closed."""

import asyncio
import hashlib
import zlib

import erlang
from erlang.channel import Channel, ChannelClosed, reply

# --- request and response ------------------------------------------------------------------------


def handle_requests(channel_ref):
    """Answers `{request, Sender, Data}` with `{response, Crc32}`; the number of requests."""
    response = erlang.Atom("response")
    served = 0
    for kind, sender, data in Channel(channel_ref):
        if kind == "request":
            reply(sender, (response, zlib.crc32(data)))
            served += 1
    return served


# --- a stream ------------------------------------------------------------------------------------


async def read_stream(channel_ref):
    """(lines, bytes, MD5 digest) of a stream of binaries."""
    lines = size = 0
    digest = hashlib.md5(usedforsecurity=False)
    async for line in Channel(channel_ref):
        lines += 1
        size += len(line)
        digest.update(line)
    return lines, size, digest.digest()


def run_stream(channel_ref):
    return erlang.run(read_stream(channel_ref))


# --- a pool of workers ---------------------------------------------------------------------------


async def worker(channel_ref):
    """Takes `{work, {Number, Line}}`, sends back `{Number, Words}`; the number of lines taken."""
    channel = Channel(channel_ref)
    taken = 0
    async for _, (number, line) in channel:
        await channel.async_send((number, len(line.split())))
        taken += 1
        await asyncio.sleep(0)
    return taken


async def pool(channel_ref, workers):
    return await asyncio.gather(*(worker(channel_ref) for _ in range(workers)))


def run_pool(channel_ref, workers):
    return erlang.run(pool(channel_ref, workers))


# --- backpressure --------------------------------------------------------------------------------


async def slow_reader(channel_ref):
    """(lines, bytes, batches), pausing after each batch of at most 20 lines."""
    channel = Channel(channel_ref)
    lines = size = batches = 0
    try:
        while True:
            batch = await channel.async_receive_many(20)
            lines += len(batch)
            size += sum(map(len, batch))
            batches += 1
            await asyncio.sleep(0.001)
    except ChannelClosed:
        return lines, size, batches


def run_slow_reader(channel_ref):
    return erlang.run(slow_reader(channel_ref))
