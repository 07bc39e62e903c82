"""receive_many() and async_receive_many(); and waits by number that are withdrawn."""

import asyncio
import contextlib
import gc
import random
import threading

import channel_driver as driver
import pytest

import erlang
from erlang.channel import Channel, ChannelClosed

pytestmark = pytest.mark.usefixtures("nothing_is_left_alive")


async def until_waiting(ref):
    while driver.info(ref)["waiters"] != 1:
        await asyncio.sleep(0.001)


def test_receive_many_takes_what_is_there_up_to_max():
    ref = driver.new_channel()
    channel = Channel(ref)
    driver.call("channel_driver", "send_and_close", ref, [1, None, b"", (), 5])
    assert channel.receive_many(3) == [1, None, b""]
    assert channel.receive_many(max=100) == [(), 5]
    with pytest.raises(ChannelClosed):
        channel.receive_many(1)


def test_receive_many_waits_for_the_first():
    ref = driver.new_channel()
    channel = Channel(ref)
    with pytest.raises(TimeoutError):
        channel.receive_many(10, 0.01)
    with pytest.raises(TimeoutError):
        channel.receive_many(10, timeout=0)
    got = []
    thread = threading.Thread(target=lambda: got.append(channel.receive_many(10)))
    thread.start()
    asyncio.run(until_waiting(ref))
    driver.call("channel_driver", "send_all", ref, [7])
    thread.join(10)
    assert got == [[7]]
    assert driver.info(ref)["size"] == 0


@pytest.mark.parametrize("bad", [0, -1])
def test_a_max_below_one_is_a_value_error(bad):
    channel = Channel(driver.new_channel())
    with pytest.raises(ValueError):
        channel.receive_many(bad)
    with pytest.raises(ValueError):
        channel.async_receive_many(bad)


def test_a_max_of_a_wrong_type_is_a_type_error():
    channel = Channel(driver.new_channel())
    for bad in 1.5, "2", None:
        with pytest.raises(TypeError):
            channel.receive_many(bad)
        with pytest.raises(TypeError):
            channel.async_receive_many(bad)


def test_async_receive_many_takes_waits_and_ends(run, poll):
    ref = driver.new_channel()

    async def main():
        channel = Channel(ref, poll=poll)
        with pytest.raises(TimeoutError):
            await channel.async_receive_many(5, timeout=0.01)
        task = asyncio.create_task(channel.async_receive_many(5))
        await until_waiting(ref)
        driver.call("channel_driver", "send_and_close", ref, [1, 2, 3, 4, 5, 6])
        assert await task == [1, 2, 3, 4, 5]
        assert await channel.async_receive_many(5) == [6]
        with pytest.raises(ChannelClosed):
            await channel.async_receive_many(5)

    run(main())


def test_a_message_without_a_python_value_keeps_its_place():
    ref = driver.new_channel()
    channel = Channel(ref)
    driver.call("channel_driver", "send_all", ref, [1, 2])
    driver.call("channel_driver", "send_map_with_equal_keys", ref)
    driver.call("channel_driver", "send_and_close", ref, [3])
    assert channel.receive_many(10) == [1, 2]
    assert len(channel) == 2
    with pytest.raises(erlang.TermError):
        channel.receive_many(10)
    assert channel.receive_many(10) == [3]
    with pytest.raises(ChannelClosed):
        channel.receive_many(10)


def test_batches_cancelled_at_random_instants_lose_nothing(run):
    ref = driver.new_channel(max_size=32 * 50)
    count = 20000
    producing = driver.start_call("channel_driver", "produce_paced", ref, 1, count, 1)
    received = []

    async def consume(channel, rng):
        while True:
            with contextlib.suppress(TimeoutError):
                received.extend(await channel.async_receive_many(rng.randint(1, 40), 1e-3))

    async def main():
        channel = Channel(ref)
        rng = random.Random(5)
        while received[-1:] != [b"end"]:
            task = asyncio.create_task(consume(channel, rng))
            await asyncio.sleep(rng.choice((0, 1e-4, 1e-3)))
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    run(main())
    producing.result()
    assert received == [*range(1, count + 1), b"end"]


def test_batches_on_threads_get_each_message_once():
    ref = driver.new_channel(max_size=32 * 100)
    got = []

    def consume():
        with contextlib.suppress(ChannelClosed):
            while True:
                got.extend(Channel(ref).receive_many(17))

    threads = [threading.Thread(target=consume) for _ in range(3)]
    for thread in threads:
        thread.start()
    driver.call("channel_driver", "produce", ref, 1, 20000)
    Channel(ref).close()
    for thread in threads:
        thread.join(30)
    assert sorted(got) == list(range(1, 20001))


# --- _channel_wait -------------------------------------------------------------------------------


@pytest.fixture
def loop():
    loop = erlang.new_event_loop()
    yield loop
    loop.close()


def test_a_wait_by_number_ends_with_its_handle(loop):
    ref = driver.new_channel()
    channel = Channel(ref)
    loop._timers[7] = asyncio.Handle(print, (), loop)
    channel._channel_wait(7, loop)
    assert driver.info(ref)["waiters"] == 1
    del loop._timers[7]
    assert driver.info(ref)["waiters"] == 0
    driver.call("channel_driver", "send_all", ref, [1])
    assert loop._run_once_native_for(0) == []
    assert channel.receive() == 1


def test_a_wait_by_number_can_be_cancelled(loop):
    ref = driver.new_channel()
    channel = Channel(ref)
    wait = channel._channel_wait(7, loop)
    assert driver.info(ref)["waiters"] == 1
    wait.cancel()
    wait.cancel()
    assert driver.info(ref)["waiters"] == 0
    done = channel._channel_wait(8, loop)
    driver.call("channel_driver", "send_all", ref, [1])
    done.cancel()
    assert loop._run_once_native_for(1000) == [(8, 3)]


def test_a_wait_by_number_lasts_without_its_object_and_runs_its_handle(loop):
    ref = driver.new_channel()
    channel = Channel(ref)
    ran = []
    loop._timers[9] = asyncio.Handle(ran.append, (1,), loop)
    channel._channel_wait(9, loop)
    gc.collect()
    driver.call("channel_driver", "send_all", ref, [1])
    for event in loop._run_once_native_for(1000):
        loop._dispatch(*event)
    assert ran == [1] and loop._timers == {}


def test_waits_by_number_end_with_their_loop():
    ref = driver.new_channel()
    channel = Channel(ref)
    loop = erlang.new_event_loop()
    loop._timers[7] = asyncio.Handle(print, (), loop)
    channel._channel_wait(7, loop)
    loop.close()
    del loop
    gc.collect()
    driver.call("channel_driver", "send_all", ref, [1])
    assert channel.receive() == 1
    assert driver.info(ref)["waiters"] == 0
