"""select() and select_sync(): one message of several channels."""

import asyncio
import contextlib
import gc
import random
import threading
import time
from collections import Counter

import channel_driver as driver
import pytest

import erlang
from erlang.channel import Channel, ChannelClosed, select, select_sync

pytestmark = pytest.mark.usefixtures("nothing_is_left_alive")


def waiting(ref):
    return driver.info(ref)["waiters"]


async def until_waiting(*refs, count=1):
    while any(waiting(ref) != count for ref in refs):
        await asyncio.sleep(0.001)


def test_select_takes_what_is_there_and_names_the_channel(run):
    refs = [driver.new_channel() for _ in range(3)]
    driver.call("channel_driver", "send_all", refs[1], [None])

    async def main():
        channels = [Channel(ref) for ref in refs]
        channel, message = await select(*channels)
        assert channel is channels[1] and message is None
        with pytest.raises(TimeoutError):
            await select(*channels, timeout=0)

    run(main())


def test_select_waits_on_all_and_leaves_no_waiter_behind(run, poll):
    refs = [driver.new_channel() for _ in range(3)]

    async def main():
        channels = [Channel(ref, poll=poll) for ref in refs]
        for n, ref in enumerate(refs):
            task = asyncio.create_task(select(*channels))
            await until_waiting(*refs)
            assert "select" in repr(task)
            driver.start_call("channel_driver", "send_all", ref, [n])
            assert await task == (channels[n], n)
            assert [waiting(r) for r in refs] == [0, 0, 0]

    run(main())


def test_select_times_out_and_leaves_nothing_behind(run, poll):
    refs = [driver.new_channel() for _ in range(2)]

    async def main():
        channels = [Channel(ref, poll=poll) for ref in refs]
        started = time.monotonic()
        with pytest.raises(TimeoutError):
            await select(*channels, timeout=0.03)
        assert time.monotonic() - started >= 0.03
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(select(*channels), 0.01)

    run(main())
    assert [waiting(ref) for ref in refs] == [0, 0]


def test_closed_channels_are_left_out_until_all_are(run):
    refs = [driver.new_channel() for _ in range(2)]
    driver.call("channel_driver", "send_and_close", refs[0], [1])

    async def main():
        one, two = channels = [Channel(ref) for ref in refs]
        assert await select(*channels) == (one, 1)
        task = asyncio.create_task(select(*channels))
        await until_waiting(refs[1])
        driver.start_call("channel_driver", "send_all", refs[1], [2])
        assert await task == (two, 2)
        task = asyncio.create_task(select(*channels))
        await until_waiting(refs[1])
        two.close()
        with pytest.raises(ChannelClosed):
            await task
        with pytest.raises(ChannelClosed):
            await select(*channels)

    run(main())


def test_bad_arguments_of_select():
    channel = Channel(driver.new_channel())
    for function in select, select_sync:
        with pytest.raises(ValueError):
            function()
        with pytest.raises(TypeError):
            function(channel, 1)
        with pytest.raises(ValueError):
            function(channel, timeout=-1)
        with pytest.raises(TypeError):
            function(channel, bad=1)


def test_a_flooded_channel_does_not_keep_others_waiting(run):
    flooded, quiet = driver.new_channel(), driver.new_channel()
    driver.call("channel_driver", "produce", flooded, 1, 20000)
    driver.call("channel_driver", "produce", quiet, 1, 20)
    late = []

    async def tick():
        while True:
            started = time.monotonic()
            await asyncio.sleep(0.001)
            late.append(time.monotonic() - started)

    async def main():
        one, two = Channel(flooded), Channel(quiet)
        ticker = asyncio.create_task(tick())
        # In a row of 1000 a fair choice takes all 20 of the quiet one.
        early = Counter([(await select(one, two))[0] for _ in range(1000)])
        assert early[two] == 20
        for _ in range(20000 - early[one]):
            await select(one, two)
        ticker.cancel()

    run(main())
    late.sort()
    assert late and late[len(late) // 2] < 0.02


def test_what_a_cancelled_select_was_handed_goes_to_the_next(run):
    refs = [driver.new_channel() for _ in range(2)]

    async def main():
        channels = [Channel(ref) for ref in refs]
        first = asyncio.create_task(select(*channels))
        second = asyncio.create_task(select(*channels))
        await until_waiting(*refs, count=2)
        # The loop does not run in between: the message is handed, then the task is cancelled.
        driver.call("channel_driver", "send_all", refs[1], [1])
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert await second == (channels[1], 1)

    run(main())


def test_only_one_channel_hands_a_message_to_a_select(run):
    refs = [driver.new_channel() for _ in range(2)]

    async def main():
        one, two = channels = [Channel(ref) for ref in refs]
        task = asyncio.create_task(select(*channels))
        await until_waiting(*refs)
        for ref in refs:
            driver.call("channel_driver", "send_all", ref, [1])
        assert (await task)[1] == 1
        assert len(one) + len(two) == 1

    run(main())


def test_a_channel_may_be_named_twice(run):
    ref = driver.new_channel()

    async def main():
        channel = Channel(ref)
        task = asyncio.create_task(select(channel, channel))
        await until_waiting(ref, count=2)
        driver.start_call("channel_driver", "send_all", ref, [1, 2])
        assert await task == (channel, 1)
        assert await channel.async_receive() == 2

    run(main())


def consume_selecting(channels, got):
    with contextlib.suppress(ChannelClosed):
        while True:
            got.append(select_sync(*channels)[1])


async def consume_awaiting(channels, got):
    with contextlib.suppress(ChannelClosed):
        while True:
            got.append((await select(*channels))[1])


def test_selects_on_loops_and_threads_get_each_message_once():
    refs = [driver.new_channel(max_size=32 * 20) for _ in range(3)]
    got = []

    def on_loop(factory):
        channels = [Channel(ref) for ref in refs]

        async def main():
            await asyncio.gather(*(consume_awaiting(channels, got) for _ in range(3)))

        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(main())

    threads = [
        threading.Thread(target=on_loop, args=(factory,))
        for factory in (erlang.new_event_loop, asyncio.SelectorEventLoop)
    ]
    channels = [Channel(ref) for ref in refs]
    threads += [threading.Thread(target=consume_selecting, args=(channels, got)) for _ in range(2)]
    threads += [threading.Thread(target=lambda: got.extend(channels[0]))]
    for thread in threads:
        thread.start()
    producing = [
        driver.start_call("channel_driver", "produce", ref, 10000 * n + 1, 10000 * (n + 1))
        for n, ref in enumerate(refs)
    ]
    for pending in producing:
        pending.result()
    for channel in channels:
        channel.close()
    for thread in threads:
        thread.join(60)
    assert sorted(got) == list(range(1, 30001))


@pytest.mark.parametrize("how", ["cancel", "timeout", "wait_for"])
def test_giving_up_at_random_instants_loses_nothing(run, how):
    refs = [driver.new_channel(max_size=32 * 50) for _ in range(2)]
    count = 5000
    producing = [driver.start_call("channel_driver", "produce_paced", r, 1, count, 1) for r in refs]
    rng = random.Random(4)

    async def receive(channels, got):
        delay = rng.choice((1e-5, 1e-4, 1e-3))
        if how == "timeout":
            channel, message = await select(*channels, timeout=delay)
        elif how == "wait_for":
            channel, message = await asyncio.wait_for(select(*channels), delay)
        else:
            channel, message = await select(*channels)
        got[channel].append(message)

    async def main():
        channels = [Channel(ref) for ref in refs]
        got = {channel: [] for channel in channels}
        while not all(messages[-1:] == [b"end"] for messages in got.values()):
            if how == "cancel":
                task = asyncio.create_task(receive(channels, got))
                await asyncio.sleep(rng.choice((0, 0, 1e-5, 1e-4)))
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
            else:
                with contextlib.suppress(TimeoutError):
                    await receive(channels, got)
        return list(got.values())

    for messages in run(main()):
        assert messages == [*range(1, count + 1), b"end"]
    for pending in producing:
        pending.result()


def test_a_loop_closed_under_a_select_leaves_the_channels_to_others():
    refs = [driver.new_channel() for _ in range(2)]
    loop = erlang.new_event_loop()
    task = loop.create_task(select(*map(Channel, refs)))
    loop.run_until_complete(until_waiting(*refs))
    driver.call("channel_driver", "send_all", refs[0], [1])
    task._log_destroy_pending = False
    loop.close()
    del loop, task
    gc.collect()
    assert [waiting(ref) for ref in refs] == [0, 0]
    assert Channel(refs[0]).receive(10) == 1


def test_a_select_dropped_unawaited_or_closed_leaves_nothing():
    channels = [Channel(driver.new_channel()) for _ in range(2)]
    select(*channels)
    awaitable = select(*channels)
    awaitable.close()
    with pytest.raises(RuntimeError):
        awaitable.send(None)


# --- on a thread ---------------------------------------------------------------------------------


def test_select_sync_takes_waits_and_times_out():
    refs = [driver.new_channel() for _ in range(2)]
    one, two = channels = [Channel(ref) for ref in refs]
    with pytest.raises(TimeoutError):
        select_sync(*channels, timeout=0.02)
    assert [waiting(ref) for ref in refs] == [0, 0]
    got = []
    thread = threading.Thread(target=lambda: got.append(select_sync(*channels)))
    thread.start()
    while not all(waiting(ref) for ref in refs):
        time.sleep(0.001)
    driver.call("channel_driver", "send_all", refs[1], [()])
    thread.join(10)
    assert got == [(two, ())]
    driver.call("channel_driver", "send_and_close", refs[0], [1])
    two.close()
    assert select_sync(*channels) == (one, 1)
    with pytest.raises(ChannelClosed):
        select_sync(*channels)


def test_closing_the_last_wakes_a_thread_that_selects():
    refs = [driver.new_channel() for _ in range(2)]
    channels = [Channel(ref) for ref in refs]
    outcome = []
    thread = threading.Thread(target=consume_selecting, args=(channels, outcome))
    thread.start()
    while not all(waiting(ref) for ref in refs):
        time.sleep(0.001)
    for channel in channels:
        channel.close()
    thread.join(10)
    assert not thread.is_alive() and outcome == []


def test_select_sync_warns_in_debug_mode_on_a_running_loop():
    ref = driver.new_channel()

    async def main():
        with pytest.warns(RuntimeWarning, match="select_sync"), pytest.raises(TimeoutError):
            select_sync(Channel(ref), timeout=0.01)

    with asyncio.Runner(loop_factory=erlang.new_event_loop, debug=True) as runner:
        runner.run(main())
