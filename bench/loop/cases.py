"""What is measured: each case runs about n operations on a loop that does not run yet.

A case returns the CPU time that the loop's thread used, in nanoseconds, and how many operations
that was.  Waiting costs nothing on that clock.
"""

import asyncio
import random
import socket
from time import thread_time_ns

BURST = 1000


def nothing():
    pass


def run_bursts(loop, n, burst):
    """Runs burst() once per iteration, n // BURST times, and measures all of it."""
    left = n // BURST

    def again():
        nonlocal left
        if not left:
            loop.stop()
            return
        left -= 1
        burst()
        loop.call_soon(again)

    loop.call_soon(again)
    start = thread_time_ns()
    loop.run_forever()
    return thread_time_ns() - start, n // BURST * BURST


def run_coroutine(loop, coroutine, operations):
    start = thread_time_ns()
    loop.run_until_complete(coroutine)
    return thread_time_ns() - start, operations


def call_soon_burst(loop, n):
    call_soon = loop.call_soon

    def burst():
        for _ in range(BURST):
            call_soon(nothing)

    return run_bursts(loop, n, burst)


def call_soon_chain(loop, n):
    call_soon, left = loop.call_soon, n

    def step():
        nonlocal left
        left -= 1
        if left:
            call_soon(step)
        else:
            loop.stop()

    call_soon(step)
    start = thread_time_ns()
    loop.run_forever()
    return thread_time_ns() - start, n


def call_soon_threadsafe(loop, n):
    post = loop.call_soon_threadsafe

    def burst():
        for _ in range(BURST):
            post(nothing)

    return run_bursts(loop, n, burst)


def call_later_cancel(loop, n):
    call_later = loop.call_later

    def burst():
        for _ in range(BURST):
            call_later(60, nothing).cancel()

    return run_bursts(loop, n, burst)


def call_later_fire(loop, n):
    """Delays from 1 to 3 ms: uvloop makes shorter ones a call_soon."""
    call_later, uniform = loop.call_later, random.Random(1).uniform
    delays = [uniform(0.001, 0.003) for _ in range(BURST)]
    rounds = n // BURST

    def burst():
        nonlocal rounds
        if not rounds:
            loop.stop()
            return
        rounds -= 1
        for delay in delays:
            call_later(delay, nothing)
        call_later(0.005, burst)

    loop.call_soon(burst)
    start = thread_time_ns()
    loop.run_forever()
    return thread_time_ns() - start, n // BURST * BURST


def sleep_zero(loop, n):
    async def main():
        for _ in range(n):
            await asyncio.sleep(0)

    return run_coroutine(loop, main(), n)


def future_await(loop, n):
    async def main():
        for _ in range(n):
            future = loop.create_future()
            loop.call_soon(future.set_result, None)
            await future

    return run_coroutine(loop, main(), n)


def gather_100(loop, n):
    async def child():
        return 1

    async def main():
        for _ in range(n // 100):
            await asyncio.gather(*[child() for _ in range(100)])

    return run_coroutine(loop, main(), n // 100 * 100)


def sock_1k(loop, n):
    left, right = socket.socketpair()
    left.setblocking(False)
    right.setblocking(False)
    data = b"x" * 1024

    async def main():
        for _ in range(n):
            await loop.sock_sendall(left, data)
            await loop.sock_recv(right, 1024)

    result = run_coroutine(loop, main(), n)
    left.close()
    right.close()
    return result


# name: (what it is, operations per measurement, the target against uvloop or asyncio)
CASES = {
    "call_soon_burst": ("call_soon, burst", 100_000, ("uvloop", 0.6)),
    "call_soon_chain": ("call_soon, chain", 50_000, ("uvloop", 0.5)),
    "call_soon_threadsafe": ("call_soon_threadsafe", 100_000, ("uvloop", 0.85)),
    "call_later_cancel": ("call_later + cancel", 50_000, ("uvloop", 0.35)),
    "call_later_fire": ("call_later + fire", 30_000, ("uvloop", 0.35)),
    "sleep_zero": ("asyncio.sleep(0)", 50_000, ("uvloop", 0.65)),
    "future_await": ("future + call_soon + await", 30_000, ("uvloop", 0.85)),
    "gather_100": ("gather of 100, per task", 30_000, ("uvloop", 0.85)),
    "sock_1k": ("sock_sendall + sock_recv, 1 KB", 15_000, ("asyncio", 1.0)),
}
