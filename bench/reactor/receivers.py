"""Python's side of compare.escript: what receives from Erlang, through a channel or a reactor.

`result` is (nanoseconds from the first message to the last, the process's CPU time meanwhile,
messages after the first).
"""

import asyncio
import struct
import time

import erlang
from erlang import reactor

HEADER = struct.Struct("!I")


class Measure:
    def __init__(self, count):
        self.left = count
        self.count = count
        self.done = asyncio.get_running_loop().create_future()

    def received(self, messages):
        if self.left == self.count:
            self._began = time.perf_counter_ns(), time.process_time_ns()
            self._first = messages
        self.left -= messages
        if self.left <= 0:
            elapsed = time.perf_counter_ns() - self._began[0]
            spent = time.process_time_ns() - self._began[1]
            self.done.set_result((elapsed, spent, self.count - self._first))


measures = {}


async def measure(name, count):
    """Begins; `result` waits."""
    measures[name] = Measure(count)


async def result(name):
    return await measures.pop(name).done


async def drain(name, channel):
    received = measures[name].received
    async for _ in erlang.Channel(channel):
        received(1)


class Messages(reactor.Protocol):
    """Messages behind a length of four bytes, each as a bytes object."""

    def connection_made(self, fd, info):
        self.received = measures[info].received
        self.rest = b""

    def data_received(self, data):
        if self.rest:
            data = memoryview(self.rest + bytes(data))
        at, end, count = 0, len(data), 0
        while at + 4 <= end:
            (size,) = HEADER.unpack_from(data, at)
            if at + 4 + size > end:
                break
            bytes(data[at + 4 : at + 4 + size])
            at += 4 + size
            count += 1
        self.rest = bytes(data[at:])
        if count:
            self.received(count)


class Stream(reactor.Protocol):
    """A stream without bounds, of messages of the size that info tells."""

    def connection_made(self, fd, info):
        name, self.size = info
        self.received = measures[name].received
        self.rest = 0

    def data_received(self, data):
        count, self.rest = divmod(self.rest + len(data), self.size)
        if count:
            self.received(count)


class Echo(reactor.Protocol):
    def data_received(self, data):
        self.write(data)


async def answer(channel):
    async for _, pid, data in erlang.Channel(channel):
        erlang.reply(pid, ("response", data))
