"""Python's side of shortage_SUITE."""

import asyncio
import gc
import os
import random
import resource
import subprocess

import erlang
from erlang import reactor
from erlang.channel import Channel


async def receive_one(ref):
    return await Channel(ref).async_receive()


def receive_on_thread(ref):
    return Channel(ref).receive()


def send_back(ref, message):
    Channel(ref).send((1, message))


def same(what):
    return what


async def async_same(what):
    await asyncio.sleep(0)
    return what


async def tell(pid, what):
    erlang.send(pid, what)


# ---- descriptors ----

_filling = []
_limit = resource.getrlimit(resource.RLIMIT_NOFILE)


def count_descriptors():
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


def fill(spare):
    """Leave so many descriptors."""
    highest = max(map(int, os.listdir("/proc/self/fd")))
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 50, _limit[1]))
    try:
        while True:
            _filling.append(os.open("/dev/null", os.O_RDONLY))
    except OSError:
        pass
    for _ in range(spare):
        os.close(_filling.pop())


def release():
    resource.setrlimit(resource.RLIMIT_NOFILE, _limit)
    while _filling:
        os.close(_filling.pop())


async def _watch():
    reading, writing = os.pipe()
    loop = asyncio.get_running_loop()
    ready = loop.create_future()
    try:
        loop.add_reader(reading, ready.set_result, None)
        os.write(writing, b"x")
        await ready
        loop.remove_reader(reading)
    finally:
        os.close(reading)
        os.close(writing)


def run_loop():
    erlang.run(_watch())


async def _echo(reader, writer):
    writer.write(await reader.read(100))
    writer.close()


async def _serve():
    """asyncio's: a connection that finds no descriptor waits until there is one."""
    server = await asyncio.start_server(_echo, "127.0.0.1", 0)
    async with server:
        if not server.sockets:  # asyncio passes over what it finds no descriptor for
            raise OSError("no socket")
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        try:
            writer.write(b"hello")
            try:
                async with asyncio.timeout(0.5):
                    assert await reader.read(100) == b"hello"
            except TimeoutError:
                raise OSError("it was not accepted") from None
        finally:
            writer.close()


def serve():
    erlang.run(_serve())


async def _connect():
    try:
        await asyncio.open_connection("127.0.0.1", 1)
    except ConnectionRefusedError:
        pass


def connect():
    erlang.run(_connect())


async def _child():
    process = await asyncio.create_subprocess_exec("true", stdout=subprocess.PIPE)
    assert await process.communicate() == (b"", None)
    assert process.returncode == 0


def run_child():
    erlang.run(_child())


async def _datagram():
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(
        asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0)
    )
    transport.close()


def datagram():
    erlang.run(_datagram())


class Echo(reactor.Protocol):
    def data_received(self, data):
        self.write(data)
        return reactor.CONTINUE


# ---- timers ----


async def timers():
    """Each fires once, in order, and never early; so do timeouts."""
    loop = asyncio.get_running_loop()
    rng = random.Random(20261124)
    fired = []
    begin = loop.time()
    delays = [rng.random() * 2 for _ in range(500)]
    for delay in delays:
        loop.call_at(begin + delay, lambda due: fired.append((due, loop.time())), begin + delay)

    async def time_out(delay):
        started = loop.time()
        try:
            await Channel().async_receive(timeout=delay)
        except TimeoutError:
            assert loop.time() - started >= delay
        else:
            raise AssertionError("it received something")

    await asyncio.gather(*(time_out(rng.random() * 2) for _ in range(50)), asyncio.sleep(2.1))
    assert [due for due, _ in fired] == sorted(begin + delay for delay in delays)
    assert all(when >= due for due, when in fired)
