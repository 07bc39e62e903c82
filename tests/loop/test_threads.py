"""call_soon_threadsafe, wake-ups, and several loops on several threads."""

import asyncio
import concurrent.futures
import functools
import socket
import threading
import time

import pytest


def run_in_threads(*targets):
    threads = [threading.Thread(target=target) for target in targets]
    for thread in threads:
        thread.start()
    return threads


def test_posts_from_four_threads_all_run_in_order_per_thread(loop):
    """A smaller form of the 1,000,000 posts in bench/loop: nothing lost, no stall."""
    per_thread = 20_000
    seen = [[] for _ in range(4)]
    left = 4

    def finished():
        nonlocal left
        left -= 1
        if not left:
            loop.stop()

    def post(mine):
        for i in range(per_thread):
            loop.call_soon_threadsafe(mine.append, i)
        loop.call_soon_threadsafe(finished)

    threads = run_in_threads(*[lambda mine=mine: post(mine) for mine in seen])
    loop.run_forever()
    for thread in threads:
        thread.join()
    assert all(mine == list(range(per_thread)) for mine in seen)


def test_a_post_wakes_a_sleeping_loop(loop):
    """Each round the loop is asleep without any timer: a lost wake-up would hang the test."""
    rounds = 300
    woken = threading.Semaphore(0)

    def poke():
        for i in range(rounds):
            if i % 3 == 0:
                time.sleep(0.0003)  # Long enough for the loop to have gone to sleep.
            loop.call_soon_threadsafe(woken.release)
            assert woken.acquire(timeout=10)
        loop.call_soon_threadsafe(loop.stop)

    (thread,) = run_in_threads(poke)
    loop.run_forever()
    thread.join()


def test_a_post_wakes_a_loop_that_sleeps_in_the_poller(loop):
    """With a descriptor watched the loop sleeps in another place than without one."""
    left, right = socket.socketpair()
    loop.add_reader(left, lambda: None)
    rounds = 300
    woken = threading.Semaphore(0)

    def poke():
        for i in range(rounds):
            if i % 3 == 0:
                time.sleep(0.0003)
            loop.call_soon_threadsafe(woken.release)
            assert woken.acquire(timeout=10)
        loop.call_soon_threadsafe(loop.stop)

    (thread,) = run_in_threads(poke)
    loop.run_forever()
    thread.join()
    loop.remove_reader(left)
    left.close()
    right.close()


def test_a_post_wakes_a_loop_on_a_thread_of_its_own(loop):
    """Off the main thread there are no signals to wait for: the sleep is another one again."""
    rounds = 300
    woken = threading.Semaphore(0)
    (thread,) = run_in_threads(loop.run_forever)
    for i in range(rounds):
        if i % 3 == 0:
            time.sleep(0.0003)
        loop.call_soon_threadsafe(woken.release)
        assert woken.acquire(timeout=10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()


def test_posts_before_the_loop_runs_are_kept(loop):
    ran = []
    (thread,) = run_in_threads(
        lambda: [loop.call_soon_threadsafe(ran.append, i) for i in range(100)]
    )
    thread.join()
    loop.call_soon_threadsafe(loop.stop)
    loop.run_forever()
    assert ran == list(range(100))


def test_a_post_from_the_loops_own_thread_runs_in_order(loop):
    ran = []
    loop.call_soon(ran.append, 1)
    loop.call_soon_threadsafe(ran.append, 2)
    loop.call_soon(loop.stop)
    loop.run_forever()
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert sorted(ran) == [1, 2]


def test_a_post_can_be_cancelled(loop):
    ran = []
    loop.call_soon_threadsafe(ran.append, 1)
    handle = loop.call_soon_threadsafe(ran.append, 2)
    loop.call_soon_threadsafe(ran.append, 3)
    handle.cancel()
    loop.call_later(0.001, loop.stop)
    loop.run_forever()
    assert ran == [1, 3]


def test_a_post_to_a_closed_loop_is_a_runtime_error(loop):
    loop.close()
    with pytest.raises(RuntimeError, match="closed"):
        loop.call_soon_threadsafe(print)


def test_posting_while_another_thread_closes_the_loop_is_safe(loop_factory):
    """Each post either is accepted or raises RuntimeError; nothing crashes or hangs."""
    for _ in range(30):
        loop = loop_factory()
        started = threading.Event()
        outcomes = []

        def post(loop=loop, started=started, outcomes=outcomes):
            while True:
                try:
                    loop.call_soon_threadsafe(int)
                except RuntimeError as error:
                    outcomes.append(str(error))
                    return
                started.set()

        threads = run_in_threads(post, post)
        started.wait()
        loop.call_soon(loop.stop)
        loop.run_forever()
        loop.close()
        for thread in threads:
            thread.join(10)
            assert not thread.is_alive()
        assert outcomes == ["Event loop is closed"] * 2


def test_several_loops_run_at_once_each_on_its_thread(loop_factory):
    count = 6
    results = {}
    all_run = threading.Barrier(count)

    async def main(number):
        all_run.wait(30)
        for _ in range(20):
            await asyncio.sleep(0.0005)
        return number, threading.get_ident()

    def run(number):
        loop = loop_factory()
        try:
            results[number] = loop.run_until_complete(main(number))
        finally:
            loop.close()

    threads = run_in_threads(*[lambda i=i: run(i) for i in range(count)])
    for thread in threads:
        thread.join()
    assert sorted(results) == list(range(count))
    assert [results[i][0] for i in range(count)] == list(range(count))
    assert len({ident for _, ident in results.values()}) == count


def test_loops_hand_work_to_each_other(loop_factory):
    """Two loops on two threads play ping-pong through run_coroutine_threadsafe."""
    loops = [loop_factory(), loop_factory()]
    threads = run_in_threads(*[loop.run_forever for loop in loops])

    async def ping(depth):
        if depth == 0:
            return threading.get_ident()
        other = loops[depth % 2]
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(ping(depth - 1), other))

    result = asyncio.run_coroutine_threadsafe(ping(20), loops[0]).result(20)
    assert result in [thread.ident for thread in threads]
    for loop, thread in zip(loops, threads, strict=True):
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def test_a_second_loop_may_not_run_on_a_thread_that_runs_one(loop_factory):
    outer, inner = loop_factory(), loop_factory()

    async def main():
        with pytest.raises(RuntimeError, match="another loop is running"):
            inner.run_forever()
        return True

    coroutine = main()
    assert outer.run_until_complete(coroutine)
    outer.close()
    inner.close()


def test_a_running_loop_may_not_run_again(loop):
    async def main():
        with pytest.raises(RuntimeError, match="already running"):
            loop.run_forever()
        return True

    assert loop.run_until_complete(main())


def test_a_loop_may_move_to_another_thread_between_runs(loop):
    idents = []
    for _ in range(3):
        (thread,) = run_in_threads(
            lambda: (
                loop.run_until_complete(asyncio.sleep(0.001))
                or idents.append(threading.get_ident())
            )
        )
        thread.join()
    loop.run_until_complete(asyncio.sleep(0.001))
    assert len(idents) == 3


@pytest.mark.parametrize("callback", ["a Python function", "C alone"])
def test_other_threads_run_while_the_loop_is_never_idle(loop, callback):
    """A ready queue that never empties still gives up the GIL when another thread asks for it."""
    loop.set_debug(False)
    if callback == "C alone":
        again = functools.partial(loop.call_soon)
        again.__setstate__((loop.call_soon, (again,), {}, None))
    else:

        def again():
            loop.call_soon(again)

    def work():
        for _ in range(3):
            time.sleep(0.002)  # Gives the GIL to the loop; only the loop can give it back.
        loop.call_soon_threadsafe(loop.stop)

    loop.call_soon(again)
    (thread,) = run_in_threads(work)
    loop.run_forever()
    thread.join()


def test_wrap_future_brings_results_from_threads(loop):
    async def main():
        futures = [concurrent.futures.Future() for _ in range(50)]
        threads = run_in_threads(lambda: [future.set_result(i) for i, future in enumerate(futures)])
        results = await asyncio.gather(*map(asyncio.wrap_future, futures))
        threads[0].join()
        return results

    assert loop.run_until_complete(main()) == list(range(50))
