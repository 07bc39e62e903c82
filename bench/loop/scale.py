"""Measurements of what happens at size: many timers, many threads, memory."""

import gc
import os
import random
import threading
import time


def nothing():
    pass


def timers(loop, n):
    """n timers with random deadlines over 2 s: how late they fire, how early, at what cost."""
    late = []
    rng = random.Random(7)
    left = n

    def fire(deadline):
        nonlocal left
        late.append(time.monotonic() - deadline)
        left -= 1
        if not left:
            loop.stop()

    def start():
        base = loop.time() + 0.5
        for _ in range(n):
            deadline = base + rng.random() * 2
            loop.call_at(deadline, fire, deadline)

    loop.call_soon(start)
    cpu = time.thread_time_ns()
    loop.run_forever()
    cpu = time.thread_time_ns() - cpu
    late.sort()
    return {
        "cpu_ns": cpu / n,
        "p50_us": late[n // 2] * 1e6,
        "p99_us": late[n * 99 // 100] * 1e6,
        "max_us": late[-1] * 1e6,
        "early": sum(1 for each in late if each < 0),
        "earliest_us": min(0.0, late[0]) * 1e6,
    }


def threads(loop, n):
    """n posts from four threads: how many ran, the wall time and the longest pause between two."""
    ran = 0
    longest = 0.0
    last = time.monotonic()
    finished = 0

    def count():
        nonlocal ran, longest, last
        now = time.monotonic()
        if now - last > longest:
            longest = now - last
        last = now
        ran += 1

    def end():
        nonlocal finished
        finished += 1
        if finished == 4:
            loop.stop()

    def post():
        for _ in range(n // 4):
            loop.call_soon_threadsafe(count)
        loop.call_soon_threadsafe(end)

    posters = [threading.Thread(target=post) for _ in range(4)]
    start = last
    loop.call_soon(lambda: [poster.start() for poster in posters])
    loop.run_forever()
    for poster in posters:
        poster.join()
    return {"ran": ran, "wall_s": time.monotonic() - start, "longest_pause_ms": longest * 1e3}


def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def memory(loop, n):
    """Resident bytes per idle handle and per idle timer, in a process that did nothing else."""
    kept = [None] * (2 * n)
    loop.call_soon(loop.stop)
    loop.run_forever()
    gc.collect()
    start = resident()
    for i in range(n):
        kept[i] = loop.call_soon(nothing)
    handles = resident() - start
    start = resident()
    for i in range(n, 2 * n):
        kept[i] = loop.call_later(3600, nothing)
    timers = resident() - start
    for handle in kept:
        handle.cancel()
    return {"handle": handles / n, "timer": timers / n}


def hand_off(loop, n):
    """Round trips thread -> sleeping loop -> thread in plain Python, microseconds at p50."""
    lengths = []
    back = threading.Semaphore(0)

    def play():
        for _ in range(n):
            start = time.perf_counter_ns()
            loop.call_soon_threadsafe(back.release)
            back.acquire()
            lengths.append(time.perf_counter_ns() - start)
        loop.call_soon_threadsafe(loop.stop)

    player = threading.Thread(target=play)
    player.start()
    loop.run_forever()
    player.join()
    lengths.sort()
    return {"p50_us": lengths[n // 2] / 1e3, "p99_us": lengths[n * 99 // 100] / 1e3}
