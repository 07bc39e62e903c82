"""Nothing leaks over repeats: objects, memory, file descriptors."""

import asyncio
import gc
import os
import socket
import sys
import tracemalloc

import pytest

import erlang


def grown_by(work, rounds=5):
    """Bytes that are still allocated per repeat of work, the lowest of several rounds.

    The first call fills caches and free lists.  One leaked object per repeat would show in every
    round, so that the lowest decides.
    """
    for _ in range(2):
        work()
    growth = []
    tracemalloc.start()
    try:
        for _ in range(rounds):
            before = memory_in_use()
            work()
            growth.append(memory_in_use() - before)
    finally:
        tracemalloc.stop()
    return min(growth)


def memory_in_use():
    """Traced bytes without cyclic garbage and without what CPython's own caches hold."""
    gc.collect()
    getattr(sys, "_clear_internal_caches", sys._clear_type_cache)()
    return tracemalloc.get_traced_memory()[0]


REPEATS = 300
ONE_OBJECT_EACH = REPEATS * 40  # The smallest object that could leak in each repeat.


def run_briefly(loop):
    loop.call_soon(loop.stop)
    loop.run_forever()


def callbacks(loop):
    for i in range(REPEATS):
        loop.call_soon(int, i)
        loop.call_soon(int, "7", 8)
        loop.call_soon(max, 1, 2, 3, 4, 5, 6)
        loop.call_soon(int).cancel()
        loop.call_soon_threadsafe(int)
    run_briefly(loop)


def timers(loop):
    for i in range(REPEATS):
        loop.call_later(60, int, i).cancel()
        loop.call_later(0, int)
        loop.call_at(0, max, 1, 2, 3, 4, 5, 6)
    loop.call_later(0.001, loop.stop)
    loop.run_forever()


def failing_callbacks(loop):
    loop.set_exception_handler(lambda loop, context: None)
    for _ in range(REPEATS):
        loop.call_soon(int, "no number")
        with pytest.raises(TypeError):
            loop.call_later("soon", int)
        with pytest.raises(TypeError):
            loop.call_soon()
    run_briefly(loop)


def readers(loop):
    left, right = socket.socketpair()
    for _ in range(REPEATS):
        loop.add_reader(left, int)
        loop.add_reader(left, int)
        loop.add_writer(left, int)
        loop.remove_reader(left)
        loop.remove_writer(left)
        with pytest.raises(OSError):
            loop.add_reader(987654, int)
    left.close()
    right.close()


def sock_calls(loop):
    left, right = socket.socketpair()
    left.setblocking(False)
    right.setblocking(False)

    async def main():
        for i in range(REPEATS):
            if i % 2:
                loop.call_soon(right.send, b"x")
            else:
                right.send(b"x")
            await loop.sock_recv(left, 10)
            await loop.sock_sendall(left, b"x")
            await loop.sock_recv_into(right, bytearray(10))
            task = loop.create_task(wait(left))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])

    async def wait(sock):
        await loop.sock_recv(sock, 10)

    loop.run_until_complete(main())
    left.close()
    right.close()


def abandoned_sock_calls(loop):
    """Awaitables that nobody awaits, and tasks that nobody finishes."""
    left, right = socket.socketpair()
    left.setblocking(False)
    for _ in range(REPEATS):
        awaitable = loop.sock_recv(left, 10)
        if asyncio.iscoroutine(awaitable):
            awaitable.close()
    left.close()
    right.close()


def tasks(loop):
    async def child():
        await asyncio.sleep(0)
        return 1

    async def main():
        await asyncio.gather(*[child() for _ in range(REPEATS)])

    loop.run_until_complete(main())


def datagrams_and_streams(loop):
    async def main():
        for _ in range(REPEATS // 30):
            server = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 0)
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            await reader.read()
            writer.close()
            await writer.wait_closed()
            server.close()
            await server.wait_closed()
            transport, _ = await loop.create_datagram_endpoint(
                asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0)
            )
            transport.close()
            await asyncio.sleep(0)

    loop.run_until_complete(main())


WORK = [callbacks, timers, failing_callbacks, readers, sock_calls, abandoned_sock_calls, tasks]


@pytest.mark.parametrize("work", WORK, ids=lambda work: work.__name__)
def test_repeats_leave_nothing_behind(loop, work):
    assert grown_by(lambda: work(loop)) < ONE_OBJECT_EACH


def test_streams_leave_nothing_behind(loop):
    assert grown_by(lambda: datagrams_and_streams(loop)) < REPEATS // 30 * 100


def test_loops_leave_nothing_behind(loop_factory):
    def make_and_close():
        for _ in range(50):
            loop = loop_factory()
            loop.call_later(60, int)
            loop.call_soon(int)
            loop.run_until_complete(asyncio.sleep(0))
            loop.close()

    assert grown_by(make_and_close) < 50 * 100


def test_loops_give_back_their_descriptors(loop_factory):
    def descriptors():
        return len(os.listdir("/proc/self/fd"))

    before = descriptors()
    for _ in range(50):
        loop = loop_factory()
        loop.run_until_complete(asyncio.sleep(0.0001))
        loop.close()
    assert descriptors() == before


def test_ten_thousand_pending_handles_and_timers_are_freed_on_close():
    def fill_and_close():
        loop = erlang.new_event_loop()
        for i in range(10_000):
            loop.call_soon(int, i)
            loop.call_later(60 + i, int, i)
        loop.close()

    assert grown_by(fill_and_close, rounds=3) < 10_000


def test_the_ready_queue_and_the_heap_shrink_again(erlang_loop):
    """A burst must not hold its memory for ever."""

    def burst(count):
        timers = [erlang_loop.call_later(60, int) for _ in range(count)]
        for _ in range(count):
            erlang_loop.call_soon(int)
        for timer in timers:
            timer.cancel()
        run_briefly(erlang_loop)
        erlang_loop.run_until_complete(asyncio.sleep(0.001))

    burst(100)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        burst(50_000)
        gc.collect()
        after = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert after - before < 1_000_000
