"""What the kinds of load have Python do with channels, calls and tasks."""

import asyncio
import contextlib
import ctypes
import gc
import random
import sys
import time
from typing import ClassVar

import erlang
from erlang import Atom, ByteChannel
from erlang.channel import Channel, ChannelClosed, reply, select, select_sync

# --- what there is in Python and in the C library -------------------------------------------


class _MallInfo(ctypes.Structure):
    _fields_: ClassVar = [
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks"),
            *("uordblks", "fordblks", "keepcost"),
        )
    ]


def memory():
    """Objects that the garbage collector knows, blocks of memory that Python holds, and bytes that
    the C library has given out: what is mapped besides, it keeps for later."""
    bytes_used = 0
    with contextlib.suppress(AttributeError):  # a C library without
        mallinfo = ctypes.CDLL(None).mallinfo2
        mallinfo.restype = _MallInfo
        info = mallinfo()
        bytes_used = info.uordblks + info.hblkhd
    return len(gc.get_objects()), sys.getallocatedblocks(), bytes_used


# --- receivers, for as long as their channel is open --------------------------------------------


def run(name, *args):
    """Calls one of the functions below; a coroutine runs on an event loop of this thread."""
    result = globals()[name.decode()](*args)
    if asyncio.iscoroutine(result):
        erlang.run(result)


async def echo_async(ref):
    channel = Channel(ref)
    async for message in channel:
        await channel.async_send(message)


async def echo_async_many(ref):
    channel = Channel(ref)
    with contextlib.suppress(ChannelClosed):
        while True:
            for message in await channel.async_receive_many(16):
                await channel.async_send(message)


def echo_thread(ref):
    channel = Channel(ref)
    for message in channel:
        channel.send(message)


def echo_thread_many(ref):
    channel = Channel(ref)
    with contextlib.suppress(ChannelClosed):
        while True:
            for message in channel.receive_many(16):
                channel.send(message)


async def select_async(refs, answers):
    channels, answers = [Channel(ref) for ref in refs], Channel(answers)
    with contextlib.suppress(ChannelClosed):
        while True:
            with contextlib.suppress(TimeoutError):
                _, message = await select(*channels, timeout=0.01)
                await answers.async_send(message)


def select_thread(refs, answers):
    channels, answers = [Channel(ref) for ref in refs], Channel(answers)
    with contextlib.suppress(ChannelClosed):
        while True:
            with contextlib.suppress(TimeoutError):
                _, message = select_sync(*channels, timeout=0.01)
                answers.send(message)


async def crowd_async(ref):
    channel = Channel(ref)

    async def impatient(receive):
        while not channel.closed:
            with contextlib.suppress(TimeoutError, ChannelClosed):
                await channel.async_send(await receive(random.uniform(0, 0.004)))

    async def cancelled():
        while not channel.closed:
            task = asyncio.create_task(channel.async_receive())
            await asyncio.sleep(random.uniform(0, 0.004))
            # A task that has its message is not cancelled any more.
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, ChannelClosed):
                await channel.async_send(await task)

    await asyncio.gather(
        impatient(lambda timeout: channel.async_receive(timeout)),
        impatient(lambda timeout: asyncio.wait_for(channel.async_receive(), timeout)),
        cancelled(),
    )


def crowd_thread(ref):
    channel = Channel(ref)
    while not channel.closed:
        with contextlib.suppress(TimeoutError, ChannelClosed):
            channel.send(channel.receive(timeout=random.uniform(0, 0.004)))


# --- channels of one turn -----------------------------------------------------------------------


async def produce(ref, turn, count):
    channel = Channel(ref)
    for number in range(count):
        if number % 3 or not channel.try_send((turn, number)):
            await channel.async_send((turn, number))


async def count(ref):
    counted = 0
    async for _ in Channel(ref):
        counted += 1
    return counted


async def own_channel(to, turn):
    channel = Channel(max_messages=10)
    reply(to, (Atom("own_channel"), channel, turn))
    await channel.async_send(turn)
    channel.close_write()
    return turn


# --- byte channels ------------------------------------------------------------------------------


async def echo_bytes(ref):
    channel = ByteChannel(ref)
    async for chunk in channel:
        await channel.async_send_bytes(chunk)


async def echo_views(ref):
    channel = ByteChannel(ref)
    with contextlib.suppress(ChannelClosed):
        while True:
            view = await channel.async_receive_view()
            await channel.async_send_bytes(view)


def echo_bytes_thread(ref):
    channel = ByteChannel(ref)
    for chunk in channel:
        channel.send_bytes(chunk)


async def echo_frames(ref):
    channel = ByteChannel(ref)
    with contextlib.suppress(ChannelClosed, asyncio.IncompleteReadError):
        while line := await channel.async_readline():
            await channel.async_send_bytes(await channel.async_readexactly(int(line)))


async def echo_transport(ref):
    reader, writer = await erlang.open_byte_channel(ref)
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()


async def count_bytes(ref):
    """Answers an empty chunk with the number of bytes that came before it."""
    channel, counted = ByteChannel(ref), 0
    async for chunk in channel:
        counted += len(chunk)
        if not chunk:
            await channel.async_send_bytes(counted.to_bytes(8, "big"))
            counted = 0


# --- calls and tasks ----------------------------------------------------------------------------


def same(term):
    return term


class Counter:
    def __init__(self, value):
        self.value = value

    def add(self, number):
        self.value += number
        return self.value


def wait(ref):
    return Channel(ref).receive()


def sleep():
    time.sleep(0.05)


def spin():
    while True:
        pass


async def raising():
    raise RuntimeError("of a coroutine")


async def async_same(term):
    await asyncio.sleep(0)
    return term


async def answer(to, number):
    await asyncio.sleep(0.001)
    reply(to, (Atom("answer"), number))


async def timers(number):
    """About half are cancelled; whether the others fired, and how many of them early."""
    loop = asyncio.get_running_loop()
    fired = early = 0

    def fire(when):
        nonlocal fired, early
        fired += 1
        early += loop.time() < when

    handles = []
    for _ in range(number):
        when = loop.time() + random.uniform(0, 0.02)
        handles.append(loop.call_at(when, fire, when))
        # Timers for long after are cancelled too.
        loop.call_later(1000, fire, 0).cancel()
    for handle in handles[::2]:
        if not handle.cancelled() and handle.when() > loop.time():
            handle.cancel()
    waiting = sum(not handle.cancelled() for handle in handles)
    while fired < waiting:
        await asyncio.sleep(0.002)
    await asyncio.sleep(0.025)
    return fired == waiting, early


async def subprocess(text):
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-S",
        "-c",
        "import sys; sys.stdout.write(sys.stdin.read())",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await child.communicate(text)
    return child.returncode, output
