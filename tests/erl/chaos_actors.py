"""Python's side of chaos_SUITE: producers and consumers that keep account of every message.

What is received is noted without a step of Python between the receive and the note: nothing but a
loss of the channel's can lose a message, however the code is interrupted.
"""

import asyncio
import collections
import contextlib
import gc
import itertools
import random
import socket
import struct
import sys
import threading
import time

from erlang import ByteChannel, reactor
from erlang.channel import Channel, ChannelClosed, ChannelFull, select

HEADER = struct.Struct(">III")


class Account:
    """What the producers and consumers of one flow did."""

    def __init__(self):
        self.sent = []  # (producer, number) that were acknowledged
        self.refused = []  # those of which the producer was told that they are not sent
        self.received = []  # a list of messages for each consumer
        self.at_work = 0

    def consumer(self):
        self.received.append([])
        return self.received[-1]

    @contextlib.contextmanager
    def working(self):
        with _lock:
            self.at_work += 1
        try:
            yield
        finally:
            with _lock:
                self.at_work -= 1


_lock = threading.Lock()
_accounts = collections.defaultdict(Account)


def size_of(number):
    if number % 64 == 63:
        return 70_000
    return 5000 if number % 16 == 15 else number * 37 % 300


class Terms:
    """A channel of terms as the actors use it."""

    def __init__(self, ref):
        self.channel = ch = Channel(ref)
        self.try_send, self.send, self.async_send = ch.try_send, ch.send, ch.async_send
        self.try_receive, self.async_receive = ch.try_receive, ch.async_receive
        self.receive_many, self.async_receive_many = ch.receive_many, ch.async_receive_many

    @staticmethod
    def message(flow, producer, number):
        return flow, producer, number, bytes([number & 255]) * size_of(number)

    @staticmethod
    def read(message):
        return message


class Bytes:
    """A byte channel as the actors use it."""

    def __init__(self, ref):
        self.channel = ch = ByteChannel(ref)
        self.try_send, self.send = ch.try_send_bytes, ch.send_bytes
        self.async_send = ch.async_send_bytes
        self.try_receive, self.async_receive = ch.try_receive_bytes, ch.async_receive_bytes
        self.receive_many = self.async_receive_many = None

    @staticmethod
    def message(flow, producer, number):
        return HEADER.pack(flow, producer, number) + bytes([number & 255]) * size_of(number)

    @staticmethod
    def read(message):
        return *HEADER.unpack_from(message), message[HEADER.size :]


KINDS = {"terms": Terms, "bytes": Bytes}


def checked(kind, flow, message):
    """(producer, number) of a message that is whole and of this flow."""
    its_flow, producer, number, filler = KINDS[kind].read(message)
    if its_flow != flow or filler != bytes([number & 255]) * size_of(number):
        raise AssertionError(f"flow {flow} got what was sent as {its_flow, producer, number}")
    return producer, number


# ---- what disturbs the loops ------------------------------------------------------------------


class Boom(Exception):
    pass


def boom(*_):
    raise Boom


def on_exception(loop, context):
    if not isinstance(context.get("exception"), Boom):
        loop.default_exception_handler(context)


async def raising():
    boom()


def disturb(loop, rng):
    """Something on the loop raises, or goes away."""
    loop.set_exception_handler(on_exception)
    way = rng.randrange(5)
    if way == 0:
        loop.call_soon(boom)
    elif way == 1:
        loop.call_later(rng.random() / 100, boom)
    elif way == 2:
        loop.create_task(asyncio.sleep(1)).cancel()
    elif way == 3:
        loop.create_task(raising()).add_done_callback(lambda task: task.exception())
    else:
        loop.create_future().add_done_callback(boom)


# ---- producers --------------------------------------------------------------------------------


async def produce(kind, ref, flow, producer, seed):
    rng = random.Random(seed)
    ch = KINDS[kind](ref)
    account = _accounts[flow]
    with account.working():
        for number in itertools.count():
            message = ch.message(flow, producer, number)
            try:
                if rng.random() < 0.2:
                    sent = ch.try_send(message)
                elif rng.random() < 0.2:
                    await ch.async_send(message, timeout=rng.random() / 100)
                    sent = True
                else:
                    await ch.async_send(message)
                    sent = True
            except (TimeoutError, ChannelFull):
                sent = False
            except ChannelClosed:
                account.refused.append((producer, number))
                return
            except asyncio.CancelledError:
                account.refused.append((producer, number))
                raise
            (account.sent if sent else account.refused).append((producer, number))
            if rng.random() < 0.3:
                await asyncio.sleep(rng.random() / 500)
            elif rng.random() < 0.01:
                disturb(asyncio.get_running_loop(), rng)


def produce_on_thread(kind, ref, flow, producer, seed):
    """Interrupted within a send it does not know whether that was done."""
    rng = random.Random(seed)
    ch = KINDS[kind](ref)
    account = _accounts[flow]
    with account.working():
        for number in itertools.count():
            message = ch.message(flow, producer, number)
            try:
                if rng.random() < 0.2:
                    sent = ch.try_send(message)
                else:
                    ch.send(message, timeout=rng.choice((None, 0.001, 0.01)))
                    sent = True
            except (TimeoutError, ChannelFull):
                sent = False
            except ChannelClosed:
                account.refused.append((producer, number))
                return
            (account.sent if sent else account.refused).append((producer, number))
            if rng.random() < 0.3:
                time.sleep(rng.random() / 500)


# ---- consumers --------------------------------------------------------------------------------


async def consume(kind, ref, flow, seed):
    """Receives in every way there is until the channel is closed."""
    rng = random.Random(seed)
    ch = KINDS[kind](ref)
    idle = type(ch.channel)()
    account = _accounts[flow]
    got = account.consumer()
    with account.working(), contextlib.suppress(ChannelClosed), idle:
        while True:
            await _consume_some(ch, idle, got, rng)
            if rng.random() < 0.3:
                await asyncio.sleep(rng.random() / 300)
            elif rng.random() < 0.02:
                disturb(asyncio.get_running_loop(), rng)


async def _consume_some(ch, idle, got, rng):
    way = rng.randrange(6)
    if way == 0:
        async for message in ch.channel:
            got.append(message)
            if rng.random() < 0.05:
                break
    elif way == 1:
        got.append(await ch.async_receive())
    elif way == 2 and ch.async_receive_many:
        with contextlib.suppress(TimeoutError):
            got.extend(await ch.async_receive_many(rng.randint(1, 20), timeout=rng.random() / 200))
    elif way == 3:
        with contextlib.suppress(TimeoutError):
            got.append(await ch.async_receive(timeout=rng.random() / 200))
    elif way == 4:
        with contextlib.suppress(TimeoutError):
            got.append((await select(idle, ch.channel, timeout=rng.random() / 200))[1])
    elif (message := ch.try_receive()) is not None:
        got.append(message)


def consume_on_thread(kind, ref, flow, seed):
    """Whatever the iterator gives is in the list before Python looks for an interruption."""
    rng = random.Random(seed)
    ch = KINDS[kind](ref)
    account = _accounts[flow]
    got = account.consumer()
    with account.working(), contextlib.suppress(ChannelClosed):
        if rng.random() < 0.3:
            got.extend(ch.channel)
        elif rng.random() < 0.5 and ch.receive_many:
            batches = map(ch.receive_many, itertools.repeat(rng.randint(1, 10)))
            got.extend(itertools.chain.from_iterable(batches))
        else:
            for _ in map(got.append, ch.channel):
                if rng.random() < 0.2:
                    time.sleep(rng.random() / 300)


def drain(kind, ref, flow):
    """What is queued; how much that was."""
    ch = KINDS[kind](ref)
    got = _accounts[flow].consumer()
    with contextlib.suppress(ChannelClosed):
        got.extend(iter(ch.try_receive, None))
    return len(got)


def close(kind, ref, write):
    channel = KINDS[kind](ref).channel
    if write:
        channel.close_write()
    else:
        channel.close()


# ---- the accounts -----------------------------------------------------------------------------


def at_work(flow):
    return _accounts[flow].at_work


def take(kind, flow):
    """(sent, refused, received by each consumer) of a flow, which is over."""
    account = _accounts.pop(flow)
    received = [[checked(kind, flow, message) for message in one] for one in account.received]
    return account.sent, account.refused, received


# ---- calls ------------------------------------------------------------------------------------

ran = collections.defaultdict(list)


def echo(seconds, what):
    if seconds:
        time.sleep(seconds)
    return what


async def async_echo(seconds, what):
    await asyncio.sleep(seconds)
    return what


async def run_once(caller, what):
    ran[caller].append(what)


def take_ran(caller):
    taken = []
    while ran[caller]:
        taken.append(ran[caller].pop())
    return taken


# ---- connections ------------------------------------------------------------------------------


class Lines(reactor.Protocol):
    """Answers each line with itself; some lines are misfortunes."""

    live = 0

    def __init__(self):
        self.rest = b""

    def connection_made(self, fd, info):
        Lines.live += 1

    def data_received(self, data):
        *lines, self.rest = (self.rest + data).split(b"\n")
        for line in lines:
            if line == b"boom":
                boom()
            elif line == b"close":
                return reactor.CLOSE
            elif line == b"later":
                self.pause_reading()
                asyncio.get_running_loop().call_later(0.002, self.later)
            self.write(line + b"\n")
        return reactor.CONTINUE

    def later(self):
        if not self.is_closing():
            self.resume_reading()

    def connection_lost(self, exc):
        Lines.live -= 1


def live_connections():
    return Lines.live


async def prepare():
    """What a loop makes once stays: it is there before anything is counted."""
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(on_exception)
    with contextlib.suppress(TimeoutError):
        await Channel().async_receive(timeout=0.001)
    one, other = socket.socketpair()
    with one, other:
        loop.add_reader(one, boom)
        await asyncio.sleep(0.001)
        loop.remove_reader(one)


# ---- pressure ---------------------------------------------------------------------------------

_pressing = threading.Event()


def press(switch_interval, seconds):
    """Threads that keep the interpreter busy, collect garbage and switch as often as they may."""
    previous = sys.getswitchinterval()
    sys.setswitchinterval(switch_interval)
    _pressing.set()
    threads = [threading.Thread(target=burn, args=(way,)) for way in (0, 0, 1)]
    for thread in threads:
        thread.start()
    try:
        time.sleep(seconds)
    finally:
        _pressing.clear()
        for thread in threads:
            thread.join()
        sys.setswitchinterval(previous)


def burn(way):
    while _pressing.is_set():
        if way == 0:
            sum(i * i for i in range(500))
        else:
            rings = [[] for _ in range(100)]
            for ring in rings:
                ring.append(ring)
            del ring, rings
            gc.collect(1)
