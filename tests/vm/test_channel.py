"""Channel on threads: receiving, closing, and what the objects are."""

import asyncio
import resource
import threading
import time

import channel_driver as driver
import pytest

import erlang
from erlang import Atom
from erlang.channel import Channel, ChannelClosed, ChannelRef

pytestmark = pytest.mark.usefixtures("nothing_is_left_alive")


def test_receive_gives_messages_in_order():
    ref = driver.new_channel()
    channel = Channel(ref)
    driver.call("channel_driver", "send_and_close", ref, [1, None, b"", (), "text", []])
    assert [channel.receive() for _ in range(6)] == [1, None, b"", (), b"text", []]
    with pytest.raises(ChannelClosed):
        channel.receive()


def test_iteration_ends_when_closed_and_drained():
    ref = driver.new_channel()
    driver.call("channel_driver", "send_and_close", ref, [1, 2, 3])
    assert list(Channel(ref)) == [1, 2, 3]
    assert list(Channel(ref)) == []


def test_try_receive_tells_empty_from_none():
    ref = driver.new_channel()
    channel = Channel(ref)
    empty = object()
    assert channel.try_receive() is None
    assert channel.try_receive(empty) is empty
    driver.call("channel_driver", "send_and_close", ref, [None])
    assert channel.try_receive(default=empty) is None
    with pytest.raises(ChannelClosed):
        channel.try_receive()


@pytest.mark.parametrize("timeout", [0, 0.02, 1e-9])
def test_receive_times_out_and_leaves_nothing_behind(timeout):
    ref = driver.new_channel()
    channel = Channel(ref)
    started = time.monotonic()
    with pytest.raises(TimeoutError):
        channel.receive(timeout)
    assert time.monotonic() - started >= timeout
    assert driver.info(ref)["waiters"] == 0
    driver.call("channel_driver", "send_all", ref, [7])
    assert channel.receive(timeout) == 7


@pytest.mark.parametrize("timeout", [-1, float("nan")])
def test_a_bad_timeout_is_a_value_error(timeout):
    channel = Channel(driver.new_channel())
    with pytest.raises(ValueError):
        channel.receive(timeout)
    with pytest.raises(ValueError):
        channel.async_receive(timeout)


def test_a_timeout_of_a_wrong_type_is_a_type_error():
    with pytest.raises(TypeError):
        Channel(driver.new_channel()).receive("soon")


def test_a_waiting_thread_does_not_hold_the_interpreter():
    ref = driver.new_channel()
    got = []
    thread = threading.Thread(target=lambda: got.append(Channel(ref).receive()))
    thread.start()
    while driver.info(ref)["waiters"] == 0:
        time.sleep(0.001)
    driver.call("channel_driver", "send_all", ref, ["go"])
    thread.join(10)
    assert got == [b"go"]


def test_threads_are_served_in_the_order_in_which_they_wait():
    ref = driver.new_channel()
    got = {}
    threads = []
    for n in range(5):
        thread = threading.Thread(target=lambda n=n: got.update({n: Channel(ref).receive()}))
        thread.start()
        threads.append(thread)
        while driver.info(ref)["waiters"] <= n:
            time.sleep(0.001)
    driver.call("channel_driver", "produce", ref, 0, 4)
    for thread in threads:
        thread.join(10)
    assert got == {n: n for n in range(5)}


def test_close_wakes_all_who_wait():
    ref = driver.new_channel()
    outcomes = []

    def wait():
        try:
            Channel(ref).receive()
        except ChannelClosed:
            outcomes.append("closed")

    threads = [threading.Thread(target=wait) for _ in range(3)]
    for thread in threads:
        thread.start()
    while driver.info(ref)["waiters"] < 3:
        time.sleep(0.001)
    Channel(ref).close()
    for thread in threads:
        thread.join(10)
    assert outcomes == ["closed"] * 3
    assert driver.call("channel_driver", "send_all", ref, [1]) == [(Atom("error"), Atom("closed"))]


def test_with_closes():
    ref = driver.new_channel()
    with Channel(ref) as channel:
        assert not channel.closed
    assert channel.closed
    channel.close()
    assert driver.info(ref)["closed"] is True


def test_size_repr_and_truth():
    ref = driver.new_channel()
    channel = Channel(ref)
    assert len(channel) == 0 and channel
    driver.call("channel_driver", "send_all", ref, [1, 2])
    assert len(channel) == 2
    assert "2 queued" in repr(channel) and "64 bytes" in repr(channel)
    channel.close()
    assert "closed" in repr(channel)


def test_refs_and_channels_compare_by_what_they_refer_to():
    ref = driver.new_channel()
    other = driver.new_channel()
    again = driver.call("erlang", "hd", [ref])
    assert isinstance(again, ChannelRef)
    assert ref == again and hash(ref) == hash(again) and ref != other
    assert Channel(ref) == Channel(again) and Channel(ref) != Channel(other)
    assert len({Channel(ref), Channel(again), Channel(other)}) == 2
    assert ref != Channel(ref)
    assert "ChannelRef" in repr(ref)


def test_what_is_no_ref_makes_no_channel():
    with pytest.raises(TypeError):
        Channel("channel")
    with pytest.raises(TypeError):
        ChannelRef()
    ref = driver.new_channel()
    with pytest.raises(TypeError):
        Channel(ref, True)


def test_channel_is_generic_and_can_be_subclassed():
    class Named(Channel[int]):
        name = "mine"

    channel = Named(driver.new_channel())
    channel.extra = 1
    assert channel.name == "mine" and "Named" in repr(channel)


def test_a_message_without_a_python_value_is_an_error_and_the_channel_goes_on():
    ref = driver.new_channel()
    channel = Channel(ref)
    equal_keys = {1: Atom("a"), 2: Atom("b")}
    driver.call("channel_driver", "send_all", ref, [equal_keys])
    assert channel.receive() == equal_keys
    bad = driver.call("channel_driver", "send_map_with_equal_keys", ref)
    assert bad == "ok"
    driver.call("channel_driver", "send_all", ref, [2])
    with pytest.raises(erlang.TermError):
        channel.receive()
    assert channel.receive() == 2


def test_many_threads_share_a_channel_and_miss_nothing():
    ref = driver.new_channel(max_size=32 * 20)
    got = []
    threads = [threading.Thread(target=lambda: got.extend(Channel(ref))) for _ in range(4)]
    for thread in threads:
        thread.start()
    driver.call("channel_driver", "produce", ref, 1, 20000)
    Channel(ref).close()
    for thread in threads:
        thread.join(30)
    assert sorted(got) == list(range(1, 20001))


def test_receive_on_a_thread_beside_a_running_loop():
    ref = driver.new_channel()

    async def main():
        received = asyncio.to_thread(Channel(ref).receive)
        task = asyncio.ensure_future(received)
        await asyncio.sleep(0.01)
        driver.start_call("channel_driver", "send_all", ref, [5])
        return await task

    assert erlang.run(main()) == 5


def switches():
    """How often this thread has given up its processor to wait for something."""
    return resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw


def test_a_waiting_thread_sleeps():
    ref = driver.new_channel()
    channel = Channel(ref)
    before = switches()
    with pytest.raises(TimeoutError):
        channel.receive(0.3)
    assert switches() - before < 50


def test_a_waiting_coroutine_sleeps():
    ref = driver.new_channel()
    channel = Channel(ref)

    async def main():
        before = switches()
        with pytest.raises(TimeoutError):
            await channel.async_receive(0.3)
        return switches() - before

    assert erlang.run(main()) < 50
