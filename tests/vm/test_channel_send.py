"""Channel.send, async_send and try_send, and channels that Python makes."""

import asyncio
import contextlib
import gc
import random
import threading
import time
import warnings

import channel_driver as driver
import pytest

import erlang
from erlang import Atom
from erlang.channel import Channel, ChannelClosed, ChannelFull, ChannelRef, MessageTooLarge

OK, ERROR = Atom("ok"), Atom("error")

pytestmark = pytest.mark.usefixtures("nothing_is_left_alive")


def recv(ref, timeout=10000):
    return driver.call("py_channel", "recv", ref, timeout)


def try_recv(ref):
    return driver.call("py_channel", "try_recv", ref)


def to_erlang(ref):
    return driver.info(ref)["to_erlang"]


async def senders(ref, count):
    while sum(to_erlang(ref)["senders"].values()) != count:
        await asyncio.sleep(0.001)


# ---- send ----


def test_send_gives_erlang_the_terms_in_order():
    ref = driver.new_channel()
    channel = Channel(ref)
    terms = [1, None, b"", (), "text", [], {}, False, Atom("x"), 1.5, 1 << 70]
    for term in terms:
        assert channel.send(term) is None
    got = [recv(ref) for _ in terms]
    assert got == [(OK, b"text" if term == "text" else term) for term in terms]
    assert try_recv(ref) == (ERROR, Atom("empty"))


def test_python_does_not_receive_what_python_sends():
    ref = driver.new_channel()
    channel = Channel(ref)
    channel.send(1)
    assert channel.try_receive("nothing") == "nothing"
    assert len(channel) == 0
    assert recv(ref) == (OK, 1)


@pytest.mark.parametrize("term", [object(), {1, 2}, [object()], (1, lambda: None)])
def test_what_is_no_term_is_a_type_error_and_nothing_is_sent(term):
    ref = driver.new_channel()
    channel = Channel(ref)
    for send in (channel.send, channel.try_send, channel.async_send):
        with pytest.raises(TypeError):
            send(term)
    with pytest.raises(ValueError):
        channel.send(float("nan"))
    assert try_recv(ref) == (ERROR, Atom("empty"))


def test_bad_arguments_of_send():
    channel = Channel(driver.new_channel())
    for send in (channel.send, channel.async_send):
        with pytest.raises(TypeError):
            send()
        with pytest.raises(TypeError):
            send(1, "soon")
        with pytest.raises(ValueError):
            send(1, -1)
        with pytest.raises(ValueError):
            send(1, timeout=float("nan"))


def test_try_send_tells_whether_there_was_room():
    ref = driver.new_channel(max_messages=2)
    channel = Channel(ref)
    assert [channel.try_send(n) for n in range(3)] == [True, True, False]
    assert recv(ref) == (OK, 0)
    assert channel.try_send(3) is True
    assert [recv(ref) for _ in range(2)] == [(OK, 1), (OK, 3)]
    assert to_erlang(ref)["busy"] == 1


def test_what_never_fits_is_too_large(run):
    ref = driver.new_channel(max_size=1000)
    channel = Channel(ref)
    large = b"x" * 1001

    async def main():
        with pytest.raises(MessageTooLarge):
            await channel.async_send(large)

    for send in (channel.send, channel.try_send):
        with pytest.raises(MessageTooLarge):
            send(large)
    run(main())
    assert issubclass(MessageTooLarge, ValueError)
    assert to_erlang(ref)["messages"] == 0


def test_after_close_sending_raises(run):
    ref = driver.new_channel()
    channel = Channel(ref)
    channel.send(1)
    channel.close()

    async def main():
        with pytest.raises(ChannelClosed):
            await channel.async_send(2)

    for send in (channel.send, channel.try_send):
        with pytest.raises(ChannelClosed):
            send(2)
    run(main())
    assert recv(ref) == (OK, 1)
    assert recv(ref) == (ERROR, Atom("closed"))


def test_close_write_closes_one_direction():
    ref = driver.new_channel()
    channel = Channel(ref)
    channel.close_write()
    channel.close_write()
    assert not channel.closed
    with pytest.raises(ChannelClosed):
        channel.send(1)
    driver.call("channel_driver", "send_all", ref, [1])
    assert channel.receive() == 1


def test_send_waits_for_room_without_the_interpreter():
    ref = driver.new_channel(max_messages=1)
    channel = Channel(ref)
    channel.send(1)
    thread = threading.Thread(target=channel.send, args=(2,))
    thread.start()
    while to_erlang(ref)["senders"]["thread"] == 0:
        time.sleep(0.001)
    assert recv(ref) == (OK, 1)
    thread.join(10)
    assert recv(ref) == (OK, 2)


def test_send_times_out_and_leaves_nothing_behind():
    ref = driver.new_channel(max_messages=1)
    channel = Channel(ref)
    channel.send(1)
    started = time.monotonic()
    with pytest.raises(TimeoutError):
        channel.send(2, timeout=0.02)
    assert time.monotonic() - started >= 0.02
    assert to_erlang(ref)["senders"]["thread"] == 0
    assert recv(ref) == (OK, 1)
    assert channel.send(3, 0.02) is None
    assert recv(ref) == (OK, 3)


def test_close_wakes_a_thread_that_waits_for_room():
    ref = driver.new_channel(max_messages=1)
    channel = Channel(ref)
    channel.send(1)
    outcomes = []

    def wait():
        try:
            channel.send(2)
        except ChannelClosed:
            outcomes.append("closed")

    threads = [threading.Thread(target=wait) for _ in range(3)]
    for thread in threads:
        thread.start()
    while to_erlang(ref)["senders"]["thread"] < 3:
        time.sleep(0.001)
    driver.call("py_channel", "close", ref)
    for thread in threads:
        thread.join(10)
    assert outcomes == ["closed"] * 3
    assert recv(ref) == (OK, 1)
    assert recv(ref) == (ERROR, Atom("closed"))


def test_threads_and_coroutines_are_served_in_the_order_in_which_they_wait():
    ref = driver.new_channel(max_messages=1)
    channel = Channel(ref)
    channel.send(0)

    async def main():
        waiting = []
        for n in range(1, 7):
            if n % 2:
                waiting.append(asyncio.create_task(channel.async_send(n)))
            else:
                waiting.append(asyncio.create_task(asyncio.to_thread(channel.send, n)))
            await senders(ref, n)
        receiving = driver.start_call("channel_driver", "receive_count", ref, 7)
        await asyncio.gather(*waiting)
        return receiving

    assert erlang.run(main()).result() == list(range(7))


# ---- on a thread whose loop runs ----


def test_send_does_not_stop_a_running_loop(run):
    ref = driver.new_channel(max_messages=1)
    channel = Channel(ref)

    async def main():
        channel.send(1)
        with pytest.raises(ChannelFull):
            channel.send(2)
        with pytest.raises(ChannelFull):
            channel.send(2, timeout=1)

    run(main())
    assert recv(ref) == (OK, 1)
    assert try_recv(ref) == (ERROR, Atom("empty"))


def test_receive_warns_in_debug_mode_on_a_running_loop(run):
    ref = driver.new_channel()
    channel = Channel(ref)

    async def main():
        with pytest.raises(TimeoutError):
            channel.receive(0.001)

    with pytest.warns(RuntimeWarning, match="async_receive"):
        run(main(), debug=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(main())
        with pytest.raises(TimeoutError):
            channel.receive(0.001)
        driver.call("channel_driver", "send_all", ref, [1])

        async def receive_what_is_there():
            assert channel.receive() == 1

        run(receive_what_is_there(), debug=True)


# ---- async_send ----


def test_async_send_gives_all_in_order(run, poll):
    ref = driver.new_channel(max_size=32 * 20)
    receiving = driver.start_call("channel_driver", "receive_all", ref)

    async def main():
        channel = Channel(ref, poll=poll)
        for n in range(3000):
            assert await channel.async_send(n) is None
        channel.close_write()

    run(main())
    assert receiving.result() == list(range(3000))


def test_a_coroutine_waits_for_room(run, poll):
    ref = driver.new_channel(max_messages=1)

    async def main():
        channel = Channel(ref, poll=poll)
        await channel.async_send(1)
        task = asyncio.create_task(channel.async_send(2))
        await senders(ref, 1)
        assert not task.done() and to_erlang(ref)["senders"]["coroutine"] == 1
        assert recv(ref) == (OK, 1)
        await task
        assert recv(ref) == (OK, 2)

    run(main())


def test_close_wakes_coroutines_that_wait_for_room(run, poll):
    ref = driver.new_channel(max_messages=1)

    async def main():
        channel = Channel(ref, poll=poll)
        channel.send(0)
        tasks = [asyncio.create_task(channel.async_send(n)) for n in (1, 2)]
        await senders(ref, 2)
        channel.close_write()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(r) for r in results] == [ChannelClosed] * 2

    run(main())
    assert recv(ref) == (OK, 0)
    assert recv(ref) == (ERROR, Atom("closed"))


def test_async_send_times_out(run, poll):
    ref = driver.new_channel(max_messages=1)

    async def main():
        channel = Channel(ref, poll=poll)
        channel.send(0)
        for timeout in (0, 0.01):
            with pytest.raises(TimeoutError):
                await channel.async_send(1, timeout)
        assert sum(to_erlang(ref)["senders"].values()) == 0
        assert recv(ref) == (OK, 0)
        await channel.async_send(2, timeout=10)

    run(main())
    assert recv(ref) == (OK, 2)


def test_the_term_is_taken_when_async_send_is_called():
    ref = driver.new_channel()
    channel = Channel(ref)

    async def main():
        term = [1]
        sending = channel.async_send(term)
        term.append(2)
        await sending

    erlang.run(main())
    assert recv(ref) == (OK, [1])


def test_a_cancelled_send_sends_nothing_and_gives_up_its_place(run, poll):
    ref = driver.new_channel(max_messages=1)

    async def main():
        channel = Channel(ref, poll=poll)
        channel.send(0)
        first = asyncio.create_task(channel.async_send(1))
        await senders(ref, 1)
        second = asyncio.create_task(channel.async_send(2))
        await senders(ref, 2)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        await senders(ref, 1)
        assert recv(ref) == (OK, 0)
        await second

    run(main())
    assert recv(ref) == (OK, 2)
    assert try_recv(ref) == (ERROR, Atom("empty"))


def test_a_send_cancelled_after_it_got_room_gives_the_room_to_the_next():
    ref = driver.new_channel(max_messages=1)
    channel = Channel(ref)

    async def main():
        channel.send(0)
        first = asyncio.create_task(channel.async_send(1))
        await senders(ref, 1)
        second = asyncio.create_task(channel.async_send(2))
        await senders(ref, 2)
        assert recv(ref) == (OK, 0)
        # The loop has not run since: room is reserved for the first, which does not know yet.
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        await second

    erlang.run(main())
    assert recv(ref) == (OK, 2)


def test_the_coroutine_protocol_of_async_send():
    ref = driver.new_channel(max_messages=1)
    channel = Channel(ref)
    sending = channel.async_send(1)
    with pytest.raises(StopIteration) as stop:
        while sending.send(None) is None:
            pass
    assert stop.value.value is None
    sending = channel.async_send(2)
    assert "async_send" in repr(sending) and "async_send" in sending.__qualname__
    with pytest.raises(KeyError):
        sending.throw(KeyError())
    with pytest.raises(RuntimeError):
        sending.send(None)
    channel.async_send(3).close()
    del sending
    assert recv(ref) == (OK, 1)
    assert try_recv(ref) == (ERROR, Atom("empty"))


@pytest.mark.parametrize("loop", driver.LOOPS)
def test_a_loop_closed_under_a_send_leaves_the_channel_to_others(loop):
    ref = driver.new_channel(max_messages=1)
    channel = Channel(ref)
    channel.send(0)
    loop = driver.LOOPS[loop]()

    async def main():
        task = asyncio.ensure_future(channel.async_send(1))
        await senders(ref, 1)
        return task

    task = loop.run_until_complete(main())
    task._log_destroy_pending = False
    loop.close()
    del task, loop
    gc.collect()
    assert sum(to_erlang(ref)["senders"].values()) == 0
    assert recv(ref) == (OK, 0)
    assert channel.try_send(2)
    assert recv(ref) == (OK, 2)


def test_cancelled_at_random_instants_each_message_is_sent_or_not_as_told(run):
    """10,000 messages; a cancelled one is sent again."""
    count = 10_000
    ref = driver.new_channel(max_messages=5)
    receiving = driver.start_call("channel_driver", "receive_all_paced", ref, 40)

    async def main():
        channel = Channel(ref)
        randomness = random.Random(1)
        cancelled = 0
        for n in range(count):
            while True:
                task = asyncio.create_task(channel.async_send(n))
                chosen = randomness.random()
                if chosen < 0.3:
                    for _ in range(randomness.randrange(4)):
                        await asyncio.sleep(0)
                    task.cancel()
                elif chosen < 0.4:
                    asyncio.get_running_loop().call_later(0.00005, task.cancel)
                try:
                    await task
                    break
                except asyncio.CancelledError:
                    cancelled += 1
        channel.close_write()
        return cancelled

    assert run(main()) > 100
    assert receiving.result() == list(range(count))


def test_wait_for_racing_with_room_loses_and_doubles_nothing():
    count = 3000
    ref = driver.new_channel(max_messages=2)
    receiving = driver.start_call("channel_driver", "receive_all_paced", ref, 10)

    async def main():
        channel = Channel(ref)
        for n in range(count):
            while True:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(channel.async_send(n), random.random() * 0.002)
                    break
        channel.close_write()

    erlang.run(main())
    assert receiving.result() == list(range(count))


def test_producers_on_several_loops_and_threads_send_each_message_once():
    ref = driver.new_channel(max_messages=10)
    receiving = [driver.start_call("channel_driver", "receive_all", ref) for _ in range(3)]

    def on_loop(factory, first):
        async def send(start):
            channel = Channel(ref)
            for n in range(start, start + 1000):
                await channel.async_send(n)

        async def main():
            await asyncio.gather(send(first), send(first + 1000))

        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(main())

    def on_thread(first):
        channel = Channel(ref)
        for n in range(first, first + 2000):
            channel.send(n)

    threads = [
        threading.Thread(target=on_loop, args=(factory, 2000 * n))
        for n, factory in enumerate(driver.LOOPS.values())
    ]
    threads += [threading.Thread(target=on_thread, args=(2000 * n,)) for n in (3, 4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    Channel(ref).close()
    got = [n for pending in receiving for n in pending.result()]
    assert sorted(got) == list(range(10_000))


def test_both_directions_at_once():
    ref = driver.new_channel(max_messages=10)
    receiving = driver.start_call("channel_driver", "receive_all", ref)
    driver.start_call("channel_driver", "produce", ref, 1, 5000)

    async def main():
        channel = Channel(ref)
        async for message in channel:
            await channel.async_send([message])
            if message == 5000:
                channel.close()

    erlang.run(main())
    assert receiving.result() == [[n] for n in range(1, 5001)]


def test_a_flood_of_sends_lets_other_coroutines_run(run):
    ref = driver.new_channel()

    async def main():
        channel = Channel(ref)
        done = False

        async def flood():
            while not done:
                await channel.async_send(b"x")

        task = asyncio.create_task(flood())
        for _ in range(20):
            await asyncio.sleep(0.001)
        done = True
        await task

    run(main())


# ---- channels that Python makes ----


def test_a_channel_made_by_python_works_in_both_directions():
    channel = Channel()
    channel.send(1)
    back = driver.call("channel_driver", "use", channel)
    assert back == (OK, 1)
    assert channel.receive() == b"from erlang"


def test_a_channel_keeps_its_identity():
    channel = Channel()
    first = driver.call("erlang", "hd", [channel])
    second = driver.call("erlang", "hd", [channel])
    assert isinstance(first, ChannelRef)
    assert first == second and hash(first) == hash(second)
    assert Channel(first) == channel and len({Channel(second), channel}) == 1
    assert driver.call("erlang", "=:=", channel, first) is True
    assert driver.call("erlang", "=:=", channel, Channel()) is False


def test_options_of_a_new_channel():
    channel = Channel(max_size=1000, max_messages=3, high_watermark=500, binaries="str")
    info = driver.info(channel)
    for direction in (info, info["to_erlang"]):
        assert direction["max_size"] == 1000 and direction["max_messages"] == 3
    driver.call("channel_driver", "send_all", channel, ["text"])
    assert channel.receive() == "text"
    assert driver.info(Channel(max_size=None))["max_size"] == Atom("infinity")


@pytest.mark.parametrize(
    "options",
    [
        {"max_size": 0},
        {"max_size": -1},
        {"max_messages": 0},
        {"high_watermark": 10, "low_watermark": 10},
        {"max_size": 10, "high_watermark": 100, "low_watermark": 20},
        {"binaries": "text"},
        {"binaries": b"str"},
    ],
)
def test_bad_options_are_value_errors(options):
    with pytest.raises(ValueError):
        Channel(**options)


def test_options_of_a_wrong_type_are_type_errors():
    ref = driver.new_channel()
    for options in ({"max_size": "10"}, {"max_size": 1.5}, {"size": 1}):
        with pytest.raises(TypeError):
            Channel(**options)
    with pytest.raises(TypeError):
        Channel(ref, max_size=10)
    with pytest.raises(TypeError):
        Channel(None)


def test_a_new_channel_closes_when_erlang_has_dropped_it_but_not_before_it_was_given():
    channel = Channel()
    channel.send(1)
    with pytest.raises(TypeError):
        channel.send([channel, object()])
    gc.collect()
    assert not channel.closed
    other = Channel(max_messages=1)
    other.send(0)
    assert other.try_send(channel) is False
    driver.call("channel_driver", "collect")
    assert not channel.closed
    driver.call("erlang", "is_reference", channel)
    for _ in range(500):
        driver.call("channel_driver", "collect")
        if channel.closed:
            break
        time.sleep(0.01)
    assert channel.closed
    with pytest.raises(ChannelClosed):
        channel.send(2)


def test_a_channel_sent_through_itself_before_it_is_given_stays_the_same():
    channel = Channel()
    for message in (channel, [channel, b"x" * 9000]):
        channel.send(message)
    gc.collect()
    assert not channel.closed
    assert driver.call("channel_driver", "receive_itself", channel) is True
    lost = Channel()
    lost.send(lost)


def test_a_channel_is_passed_in_messages_and_replies():
    outer, inner = Channel(), Channel()
    inner.send(7)
    outer.send({"inner": inner, "list": [inner, inner]})
    assert driver.call("channel_driver", "receive_inner", outer) == (OK, 7)


def test_a_ref_outlives_its_channel_object_and_can_be_stored():
    ref = driver.new_channel()
    stored = {ref: "first"}
    again = driver.call("erlang", "hd", [ref])
    assert stored[again] == "first"
    assert driver.call("py_channel", "send", again, 1) == "ok"
    assert Channel(ref).receive() == 1
