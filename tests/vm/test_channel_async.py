"""Channel in coroutines, on ErlangEventLoop and on foreign loops."""

import asyncio
import contextlib
import contextvars
import gc
import inspect
import random
import threading
import time
import weakref

import channel_driver as driver
import pytest

import erlang
from erlang.channel import Channel, ChannelClosed


async def collect(channel):
    return [message async for message in channel]


pytestmark = pytest.mark.usefixtures("nothing_is_left_alive")


async def waiters(ref, count):
    while driver.info(ref)["waiters"] != count:
        await asyncio.sleep(0.001)


def test_async_for_gives_all_in_order(run, poll):
    ref = driver.new_channel(max_size=32 * 100)
    producing = driver.start_call("channel_driver", "produce", ref, 1, 3000)

    async def main():
        channel = Channel(ref, poll=poll)
        received = []
        async for message in channel:
            received.append(message)
            if message == 3000:
                channel.close()
        return received

    assert run(main()) == list(range(1, 3001))
    producing.result()


def test_a_waiting_coroutine_is_woken(run, poll):
    ref = driver.new_channel()

    async def main():
        task = asyncio.create_task(Channel(ref, poll=poll).async_receive())
        await waiters(ref, 1)
        assert not task.done()
        driver.start_call("channel_driver", "send_all", ref, [b"x"])
        return await task

    assert run(main()) == b"x"


def test_none_and_empty_terms_are_messages(run):
    ref = driver.new_channel()
    terms = [None, b"", (), [], {}, False, 0]

    async def main():
        task = asyncio.create_task(collect(Channel(ref)))
        await waiters(ref, 1)
        driver.start_call("channel_driver", "send_and_close", ref, terms)
        return await task

    assert run(main()) == terms


def test_tuples_and_exception_like_values_come_through_send_and_next():
    ref = driver.new_channel()
    driver.call("channel_driver", "send_and_close", ref, [(1, 2), (), b"z"])
    channel = Channel(ref)
    values = []
    for drive in (lambda a: a.send(None), next, lambda a: a.send(None)):
        awaitable = channel.async_receive()
        with pytest.raises(StopIteration) as stop:
            while True:
                drive(awaitable)
        values.append(stop.value.value)
    assert values == [(1, 2), (), b"z"]


def test_closing_drains_then_ends(run):
    ref = driver.new_channel()
    driver.call("channel_driver", "send_and_close", ref, [1, 2])

    async def main():
        channel = Channel(ref)
        assert await channel.async_receive() == 1
        assert await collect(channel) == [2]
        with pytest.raises(ChannelClosed):
            await channel.async_receive()
        assert await collect(channel) == []

    run(main())


def test_close_wakes_those_who_wait(run, poll):
    ref = driver.new_channel()

    async def main():
        channel = Channel(ref, poll=poll)
        loops = [asyncio.create_task(collect(channel)) for _ in range(3)]
        receives = [asyncio.create_task(channel.async_receive()) for _ in range(2)]
        await waiters(ref, 5)
        channel.close()
        assert await asyncio.gather(*loops) == [[], [], []]
        results = await asyncio.gather(*receives, return_exceptions=True)
        assert [type(r) for r in results] == [ChannelClosed, ChannelClosed]

    run(main())


def test_coroutines_are_served_in_the_order_in_which_they_wait(run):
    ref = driver.new_channel()

    async def main():
        channel = Channel(ref)
        tasks = []
        for n in range(10):
            tasks.append(asyncio.create_task(channel.async_receive()))
            await waiters(ref, n + 1)
        driver.start_call("channel_driver", "produce", ref, 0, 9)
        return await asyncio.gather(*tasks)

    assert run(main()) == list(range(10))


def test_many_consumers_on_threads_and_loops_get_each_message_once():
    ref = driver.new_channel(max_size=32 * 20)
    received = []

    async def main():
        channel = Channel(ref)
        for got in await asyncio.gather(*(collect(channel) for _ in range(3))):
            received.extend(got)

    def on_loop(factory):
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(main())

    threads = [
        threading.Thread(target=on_loop, args=(factory,)) for factory in driver.LOOPS.values()
    ]
    threads += [threading.Thread(target=lambda: received.extend(Channel(ref))) for _ in range(2)]
    for thread in threads:
        thread.start()
    driver.call("channel_driver", "produce", ref, 1, 30000)
    Channel(ref).close()
    for thread in threads:
        thread.join(60)
    assert sorted(received) == list(range(1, 30001))


def test_cancelling_at_random_instants_loses_nothing(run):
    ref = driver.new_channel(max_size=32 * 50)
    count = 100000
    producing = driver.start_call("channel_driver", "produce_paced", ref, 1, count, 1)
    received = []

    async def consume(channel):
        while True:
            message = await channel.async_receive()
            received.append(message)
            if message == b"end":
                return

    async def main():
        channel = Channel(ref)
        rng = random.Random(1)
        while not received or received[-1] != b"end":
            task = asyncio.create_task(consume(channel))
            await asyncio.sleep(rng.choice((0, 0, 1e-5, 1e-4, 1e-3)))
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    run(main())
    producing.result()
    assert received == [*range(1, count + 1), b"end"]


def test_wait_for_racing_the_send_loses_nothing(run):
    ref = driver.new_channel(max_size=32 * 50)
    count = 5000
    producing = driver.start_call("channel_driver", "produce_paced", ref, 1, count, 1)
    received = []

    async def main():
        channel = Channel(ref)
        rng = random.Random(2)
        while not received or received[-1] != b"end":
            try:
                timeout = rng.choice((1e-5, 1e-4, 1e-3))
                received.append(await asyncio.wait_for(channel.async_receive(), timeout))
            except TimeoutError:
                pass

    run(main())
    producing.result()
    assert received == [*range(1, count + 1), b"end"]


def test_own_timeouts_racing_the_send_lose_nothing(run, poll):
    ref = driver.new_channel(max_size=32 * 50)
    count = 2000
    producing = driver.start_call("channel_driver", "produce_paced", ref, 1, count, 1)
    received = []

    async def main():
        channel = Channel(ref, poll=poll)
        rng = random.Random(3)
        while not received or received[-1] != b"end":
            with contextlib.suppress(TimeoutError):
                received.append(await channel.async_receive(rng.choice((0, 1e-5, 1e-4, 1e-3))))

    run(main())
    producing.result()
    assert received == [*range(1, count + 1), b"end"]


def test_a_timeout_is_kept_and_leaves_nothing_behind(run, poll):
    ref = driver.new_channel()

    async def main():
        channel = Channel(ref, poll=poll)
        started = time.monotonic()
        with pytest.raises(TimeoutError):
            await channel.async_receive(timeout=0.05)
        assert 0.05 <= time.monotonic() - started < 2
        with pytest.raises(TimeoutError):
            await channel.async_receive(0)

    run(main())
    assert driver.info(ref)["waiters"] == 0


def test_what_was_handed_to_a_cancelled_task_goes_to_the_next(run):
    ref = driver.new_channel()

    async def main():
        channel = Channel(ref)
        first = asyncio.create_task(channel.async_receive())
        second = asyncio.create_task(channel.async_receive())
        await waiters(ref, 2)
        # The loop does not run in between: the message is handed, then the task is cancelled.
        driver.call("channel_driver", "send_all", ref, [1])
        assert driver.info(ref)["messages"] == 1
        first.cancel("why")
        with pytest.raises(asyncio.CancelledError):
            await first
        assert await second == 1

    run(main())


def test_a_cancelled_task_gets_its_message_text(run):
    ref = driver.new_channel()

    async def wait(channel):
        try:
            await channel.async_receive()
        except asyncio.CancelledError as error:
            return error.args

    async def main():
        task = asyncio.create_task(wait(Channel(ref)))
        await waiters(ref, 1)
        task.cancel("enough")
        return await task

    assert run(main()) == ("enough",)


@pytest.mark.parametrize("factory", driver.LOOPS.values(), ids=driver.LOOPS.keys())
def test_a_loop_closed_under_waiters_leaves_the_channel_usable(factory):
    ref = driver.new_channel()
    loop = factory()
    tasks = [loop.create_task(Channel(ref).async_receive()) for _ in range(3)]
    loop.run_until_complete(waiters(ref, 3))
    # One is handed a message that its loop, closed, will never let it claim.
    driver.call("channel_driver", "send_all", ref, [1])
    for task in tasks:
        task._log_destroy_pending = False
    loop.close()
    del loop, task, tasks
    gc.collect()
    assert driver.info(ref)["waiters"] == 0
    assert Channel(ref).receive(10) == 1


def test_a_flooded_channel_lets_others_run(run):
    ref = driver.new_channel()
    driver.call("channel_driver", "produce", ref, 1, 200000)
    Channel(ref).close()
    late = []

    async def tick():
        while True:
            started = time.monotonic()
            await asyncio.sleep(0.001)
            late.append(time.monotonic() - started)

    async def main():
        ticker = asyncio.create_task(tick())
        count = 0
        async for _ in Channel(ref):
            count += 1
        ticker.cancel()
        return count

    assert run(main()) == 200000
    late.sort()
    # The median: one turn may meet a busy machine.
    assert late and late[len(late) // 2] < 0.01


def test_receives_are_coroutines_to_asyncio(run):
    ref = driver.new_channel()

    async def main():
        channel = Channel(ref)
        awaitable = channel.async_receive()
        assert asyncio.iscoroutine(awaitable) and inspect.isawaitable(awaitable)
        assert not asyncio.isfuture(awaitable)
        driver.start_call("channel_driver", "produce", ref, 1, 6)
        got = [await awaitable]
        got += await asyncio.gather(channel.async_receive(), channel.async_receive())
        got.append(await asyncio.wait_for(asyncio.shield(channel.async_receive()), 10))
        got.append(await asyncio.ensure_future(channel.async_receive()))
        async with asyncio.TaskGroup() as group:
            task = group.create_task(channel.async_receive())
        got.append(task.result())
        return got

    # Which of two that run side by side is first is not said.
    assert sorted(run(main())) == [1, 2, 3, 4, 5, 6]


def test_a_receive_can_be_run_by_itself(run):
    ref = driver.new_channel()
    driver.start_call("channel_driver", "send_all", ref, [3])
    assert run(Channel(ref).async_receive()) == 3


def test_debug_mode_and_slow_callbacks(run):
    ref = driver.new_channel()

    async def main():
        task = asyncio.create_task(Channel(ref).async_receive())
        await waiters(ref, 1)
        assert "async_receive" in repr(task)
        driver.start_call("channel_driver", "send_all", ref, [1])
        return await task

    assert run(main(), debug=True) == 1


def test_a_receive_is_awaited_once(run):
    ref = driver.new_channel()
    driver.call("channel_driver", "send_all", ref, [1, 2])

    async def main():
        awaitable = Channel(ref).async_receive()
        assert await awaitable == 1
        with pytest.raises(RuntimeError):
            await awaitable
        waiting = Channel(ref).async_receive()
        waiting.close()
        with pytest.raises(RuntimeError):
            await waiting
        assert await Channel(ref).async_receive() == 2

    run(main())


def test_two_tasks_cannot_await_the_same_receive(run):
    ref = driver.new_channel()

    async def wait(awaitable):
        return await awaitable

    async def main():
        awaitable = Channel(ref).async_receive()
        first = asyncio.create_task(wait(awaitable))
        await waiters(ref, 1)
        second = asyncio.create_task(wait(awaitable))
        with pytest.raises(RuntimeError):
            await second
        driver.start_call("channel_driver", "send_all", ref, [1])
        return await first

    assert run(main()) == 1


def test_waiting_without_a_loop_is_an_error():
    ref = driver.new_channel()
    channel = Channel(ref)
    with pytest.raises(RuntimeError, match="no running event loop"):
        for _ in range(3):
            channel.async_receive().send(None)


def test_a_task_keeps_its_context(run):
    ref = driver.new_channel()
    variable = contextvars.ContextVar("variable", default=0)

    async def wait(channel, value):
        variable.set(value)
        await channel.async_receive()
        return variable.get()

    async def main():
        channel = Channel(ref)
        tasks = [asyncio.create_task(wait(channel, value)) for value in (1, 2)]
        await waiters(ref, 2)
        driver.start_call("channel_driver", "send_all", ref, [b"", b""])
        return await asyncio.gather(*tasks), variable.get()

    assert run(main()) == ([1, 2], 0)


def test_a_waiting_task_is_kept_though_nobody_refers_to_it(run):
    ref = driver.new_channel()
    done = []

    async def wait(channel):
        done.append(await channel.async_receive())

    async def main():
        kept = weakref.ref(asyncio.create_task(wait(Channel(ref))))
        await waiters(ref, 1)
        gc.collect()
        assert kept() is not None
        driver.start_call("channel_driver", "send_all", ref, [9])
        while not done:
            await asyncio.sleep(0.001)
        gc.collect()
        assert kept() is None

    run(main())
    assert done == [9]


def test_async_with_closes(run):
    ref = driver.new_channel()

    async def main():
        async with Channel(ref) as channel:
            assert not channel.closed
        assert channel.closed

    run(main())


def test_an_exception_after_a_wait_reaches_the_awaiter(run):
    ref = driver.new_channel()

    async def main():
        task = asyncio.create_task(Channel(ref).async_receive())
        await waiters(ref, 1)
        driver.start_call("channel_driver", "send_map_with_equal_keys", ref)
        with pytest.raises(erlang.TermError):
            await task
        driver.start_call("channel_driver", "send_all", ref, [1])
        assert await Channel(ref).async_receive() == 1

    run(main())


class NoReaders(asyncio.SelectorEventLoop):
    """A loop that cannot watch descriptors."""

    def add_reader(self, fd, callback, *args):
        raise NotImplementedError


def test_a_loop_without_add_reader_is_polled():
    ref = driver.new_channel()

    async def main():
        task = asyncio.create_task(collect(Channel(ref)))
        await waiters(ref, 1)
        driver.start_call("channel_driver", "send_and_close", ref, [1, 2])
        return await task

    with asyncio.Runner(loop_factory=NoReaders) as runner:
        assert runner.run(main()) == [1, 2]


def test_a_channel_wait_reports_its_number_through_the_loop():
    ref = driver.new_channel()
    channel = Channel(ref)
    loop = erlang.new_event_loop()
    try:
        channel._channel_wait(7, loop)
        assert driver.info(ref)["waiters"] == 1
        driver.call("channel_driver", "send_all", ref, [1])
        assert (7, 3) in loop._run_once_native_for(1000)
        assert channel.try_receive() == 1
        channel._channel_wait(8, loop)
        channel.close()
        assert (8, 3) in loop._run_once_native_for(1000)
        channel._channel_wait(9, loop)
        assert (9, 3) in loop._run_once_native_for(1000)
    finally:
        loop.close()
    with pytest.raises(TypeError):
        channel._channel_wait(1, object())


@pytest.mark.parametrize("error", [KeyError, SystemExit, KeyboardInterrupt])
def test_what_a_woken_task_raises_goes_where_asyncio_sends_it(run, error):
    ref = driver.new_channel()

    async def fail(channel):
        await channel.async_receive()
        raise error("from the task")

    async def main():
        task = asyncio.create_task(fail(Channel(ref)))
        await waiters(ref, 1)
        driver.start_call("channel_driver", "send_all", ref, [1])
        await task

    with pytest.raises(error, match="from the task"):
        run(main())


@pytest.mark.parametrize("how", ["close", "throw", "drop"])
def test_a_receive_ended_by_hand_gives_back_what_it_was_handed(how):
    ref = driver.new_channel()

    async def main():
        channel = Channel(ref)
        receive = channel.async_receive()
        # The first time a channel may give the loop a turn before it waits.
        while receive.send(None) is None:
            pass
        driver.call("channel_driver", "send_all", ref, [1])
        assert driver.info(ref)["messages"] == 1 and driver.info(ref)["waiters"] == 0
        if how == "close":
            receive.close()
        elif how == "throw":
            with pytest.raises(KeyError):
                receive.throw(KeyError)
        else:
            # Nobody drives it any more; the loop keeps what waits there until it is closed.
            del receive
            await asyncio.sleep(0.01)
            return
        assert channel.try_receive() == 1

    with asyncio.Runner(loop_factory=erlang.new_event_loop) as runner:
        runner.run(main())
    gc.collect()
    if how == "drop":
        assert Channel(ref).receive(10) == 1
