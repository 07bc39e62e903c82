"""The Python side of bench/channel: what receives and sends, and asyncio.Queue to compare with."""

import asyncio
import gc
import time

import erlang
from erlang.channel import Channel, reply


def _without_gc(function, *args):
    gc.collect()
    gc.disable()
    try:
        return function(*args)
    finally:
        gc.enable()


def _iterate(channel):
    """Nanoseconds from the first to the last message, and how many came between."""
    iterator = iter(channel)
    next(iterator)
    started = time.perf_counter_ns()
    count = 0
    for _ in iterator:
        count += 1
    return time.perf_counter_ns() - started, count


async def _iterate_async(channel):
    await channel.async_receive()
    started = time.perf_counter_ns()
    count = 0
    async for _ in channel:
        count += 1
    return time.perf_counter_ns() - started, count


def drain_thread(ref):
    return _without_gc(_iterate, Channel(ref))


def drain_async(ref):
    return _without_gc(erlang.run, _iterate_async(Channel(ref)))


async def _serve(channel):
    async for _, sender, data in channel:
        reply(sender, ("response", data))


def serve(ref):
    return _without_gc(erlang.run, _serve(Channel(ref)))


def _send(channel, data, count):
    for _ in range(count):
        channel.send(data)


async def _send_async(channel, data, count):
    for _ in range(count):
        await channel.async_send(data)


def _send_trying(channel, data, count):
    while count > 0:
        if channel.try_send(data):
            count -= 1
        else:
            time.sleep(0)


def send_thread(ref, size, count):
    _without_gc(_send, Channel(ref), b"x" * size, count)


def send_async(ref, size, count):
    _without_gc(erlang.run, _send_async(Channel(ref), b"x" * size, count))


def send_trying(ref, size, count):
    _without_gc(_send_trying, Channel(ref), b"x" * size, count)


async def _queue(count):
    queue = asyncio.Queue()
    started = time.perf_counter_ns()
    for _ in range(count):
        queue.put_nowait(None)
        await queue.get()
    return (time.perf_counter_ns() - started) / count


def asyncio_queue(count):
    """Nanoseconds for one put_nowait and get in one thread, where nobody is woken."""
    return asyncio.run(_queue(count))
