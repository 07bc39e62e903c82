"""ByteChannel on threads and in coroutines, on ErlangEventLoop and on foreign loops."""

import array
import asyncio
import random
import threading
import time

import channel_driver as driver
import pytest

import erlang
from erlang import ByteChannel, ByteChannelClosed
from erlang.channel import Channel, ChannelClosed, ChannelFull, MessageTooLarge, select

pytestmark = pytest.mark.usefixtures("nothing_is_left_alive")

# One for each way that a chunk may take.
CHUNKS = [b"", b"x", b"", bytes(range(256)), b"y" * 4096, b"z" * 4097, b"w" * 300_000, b""]


async def collect(channel):
    return [chunk async for chunk in channel]


def wait_until(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


async def waiters(ref, count):
    while driver.byte_info(ref)["waiters"] != count:
        await asyncio.sleep(0.001)


# --- receiving -----------------------------------------------------------------------------------


def test_boundaries_are_kept_and_what_was_sent_is_drained_after_close():
    ref = driver.new_byte_channel()
    driver.call("channel_driver", "send_chunks_and_close", ref, CHUNKS)
    assert list(ByteChannel(ref)) == CHUNKS
    with pytest.raises(ByteChannelClosed):
        ByteChannel(ref).receive_bytes()


def test_async_for_gives_all_in_order(run, poll):
    ref = driver.new_byte_channel(max_size=32 * 100)
    producing = driver.start_call("channel_driver", "produce_chunks", ref, 1, 3000)

    async def main():
        channel = ByteChannel(ref, poll=poll)
        received = []
        async for chunk in channel:
            received.append(int(chunk))
            if received[-1] == 3000:
                channel.close()
        return received

    assert run(main()) == list(range(1, 3001))
    producing.result()


def test_a_waiting_coroutine_is_woken_by_each_kind_of_chunk(run, poll):
    ref = driver.new_byte_channel()

    async def main():
        channel = ByteChannel(ref, poll=poll)
        for chunk in CHUNKS:
            task = asyncio.create_task(channel.async_receive_bytes())
            await waiters(ref, 1)
            assert not task.done()
            driver.start_call("py_byte_channel", "send", ref, chunk)
            assert await task == chunk

    run(main())


def test_a_waiting_thread_is_woken_by_each_kind_of_chunk():
    ref = driver.new_byte_channel()
    received = []
    thread = threading.Thread(target=lambda: received.extend(ByteChannel(ref)))
    thread.start()
    for chunk in CHUNKS:
        wait_until(lambda: driver.byte_info(ref)["waiters"] == 1)
        driver.call("py_byte_channel", "send", ref, chunk)
    driver.call("py_byte_channel", "close", ref)
    thread.join(30)
    assert received == CHUNKS


def test_try_receive_bytes_does_not_wait():
    ref = driver.new_byte_channel()
    channel = ByteChannel(ref)
    assert channel.try_receive_bytes() is None
    driver.call("channel_driver", "send_chunks_and_close", ref, [b"", b"a"])
    assert channel.try_receive_bytes() == b""
    assert channel.try_receive_bytes() == b"a"
    with pytest.raises(ByteChannelClosed):
        channel.try_receive_bytes()


def test_timeouts(run):
    channel = ByteChannel()
    with pytest.raises(TimeoutError):
        channel.receive_bytes(0)
    with pytest.raises(TimeoutError):
        channel.receive_bytes(timeout=0.01)

    async def main():
        for timeout in (0, 0.01):
            with pytest.raises(TimeoutError):
                await channel.async_receive_bytes(timeout)

    run(main())


@pytest.mark.parametrize("bad", ["soon", -1, float("nan")])
def test_bad_timeouts_are_refused(bad):
    channel = ByteChannel()
    for call in (channel.receive_bytes, channel.async_receive_bytes):
        with pytest.raises((TypeError, ValueError)):
            call(bad)
        with pytest.raises((TypeError, ValueError)):
            call(timeout=bad)
    with pytest.raises((TypeError, ValueError)):
        channel.send_bytes(b"", bad)


def test_wrong_arguments_are_type_errors():
    channel = ByteChannel()
    for call in (
        lambda: channel.receive_bytes(1, 2),
        lambda: channel.receive_bytes(seconds=1),
        lambda: channel.async_receive_bytes(1, timeout=1),
        lambda: channel.send_bytes(),
        lambda: channel.send_bytes(timeout=1),
        lambda: channel.send_bytes(b"", 1, 2),
        lambda: channel.send_bytes(b"", within=1),
        lambda: channel.async_send_bytes(),
    ):
        with pytest.raises(TypeError):
            call()


def test_cancelling_at_random_instants_loses_nothing(run):
    ref = driver.new_byte_channel(max_size=32 * 50)
    count = 20000
    producing = driver.start_call("channel_driver", "produce_chunks", ref, 1, count)
    received = []

    async def consume(channel):
        while not received or received[-1] != count:
            received.append(int(await channel.async_receive_bytes()))

    async def main():
        channel = ByteChannel(ref)
        rng = random.Random(1)
        while not received or received[-1] != count:
            task = asyncio.create_task(consume(channel))
            await asyncio.sleep(rng.choice((0, 0, 1e-5, 1e-4, 1e-3)))
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    run(main())
    producing.result()
    assert received == list(range(1, count + 1))


def test_close_wakes_those_who_wait(run, poll):
    ref = driver.new_byte_channel()

    async def main():
        channel = ByteChannel(ref, poll=poll)
        loops = [asyncio.create_task(collect(channel)) for _ in range(2)]
        receives = [asyncio.create_task(channel.async_receive_bytes()) for _ in range(2)]
        await waiters(ref, 4)
        channel.close()
        assert await asyncio.gather(*loops) == [[], []]
        results = await asyncio.gather(*receives, return_exceptions=True)
        assert [type(r) for r in results] == [ByteChannelClosed, ByteChannelClosed]

    run(main())


def test_a_blocking_receive_in_a_loop_in_debug_mode_is_warned_of():
    ref = driver.new_byte_channel()

    async def main():
        with (
            pytest.warns(RuntimeWarning, match="await async_receive_bytes"),
            pytest.raises(TimeoutError),
        ):
            ByteChannel(ref).receive_bytes(0.001)

    with asyncio.Runner(loop_factory=erlang.new_event_loop, debug=True) as runner:
        runner.run(main())


def test_select_takes_byte_channels(run):
    first, second = driver.new_byte_channel(), driver.new_byte_channel()

    async def main():
        channels = ByteChannel(first), ByteChannel(second)
        task = asyncio.create_task(select(*channels))
        await waiters(second, 1)
        driver.start_call("py_byte_channel", "send", second, b"two")
        assert await task == (channels[1], b"two")

    run(main())


# --- sending -------------------------------------------------------------------------------------


def test_every_kind_of_chunk_reaches_erlang(run):
    ref = driver.new_byte_channel()

    async def main(channel):
        for chunk in CHUNKS:
            await channel.async_send_bytes(chunk)

    channel = ByteChannel(ref)
    for chunk in CHUNKS:
        channel.send_bytes(chunk)
    for chunk in CHUNKS:
        assert channel.try_send_bytes(chunk) is True
    run(main(channel))
    channel.close()
    assert driver.call("channel_driver", "receive_chunks", ref) == 3 * CHUNKS


@pytest.mark.parametrize("size", [0, 6, 10000])
def test_any_buffer_is_sent(size):
    ref = driver.new_byte_channel()
    data = bytes(range(256)) * 100
    buffers = [bytearray(data[:size]), memoryview(data)[:size], array.array("b", data[:size])]
    channel = ByteChannel(ref)
    for buffer in buffers:
        channel.send_bytes(buffer)
        channel.try_send_bytes(buffer)
    channel.close()
    sent = driver.call("channel_driver", "receive_chunks", ref)
    assert sent == [data[:size]] * 6


@pytest.mark.parametrize("bad", ["text", None, 3, [1], memoryview(b"abcd")[::2]])
def test_what_is_no_buffer_is_refused(bad):
    ref = driver.new_byte_channel()
    channel = ByteChannel(ref)
    for send in (channel.send_bytes, channel.try_send_bytes, channel.async_send_bytes):
        with pytest.raises((TypeError, BufferError)):
            send(bad)
    assert driver.byte_info(ref)["to_erlang"]["total_in"] == 0


@pytest.mark.parametrize("size", [6, 10000])
def test_async_send_takes_the_data_as_it_is_when_it_is_called(size):
    ref = driver.new_byte_channel(max_messages=1)
    data = bytearray(b"a" * size)

    async def main():
        channel = ByteChannel(ref)
        assert channel.try_send_bytes(b"first")
        sending = asyncio.create_task(channel.async_send_bytes(data))
        operation = channel.async_send_bytes(data)
        data[:] = b"b" * size
        await asyncio.sleep(0)
        receiving = driver.start_call("channel_driver", "receive_chunks", ref)
        await sending
        await operation
        channel.close()
        return receiving

    receiving = erlang.run(main())
    assert receiving.result() == [b"first", b"a" * size, b"a" * size]


def test_a_full_channel():
    ref = driver.new_byte_channel(max_messages=1)
    channel = ByteChannel(ref)
    channel.send_bytes(b"1")
    assert channel.try_send_bytes(b"2") is False
    with pytest.raises(TimeoutError):
        channel.send_bytes(b"2", timeout=0.01)

    async def main():
        with pytest.raises(ChannelFull, match="async_send_bytes"):
            channel.send_bytes(b"2")
        with pytest.raises(TimeoutError):
            await channel.async_send_bytes(b"2", timeout=0.01)

    erlang.run(main())
    assert driver.byte_info(ref)["to_erlang"]["total_in"] == 1


def test_senders_wait_for_room(run):
    ref = driver.new_byte_channel(max_size=64)
    chunks = [b"%d" % n for n in range(500)] + [b""]
    receiving = driver.start_call("channel_driver", "receive_chunks", ref)
    channel = ByteChannel(ref)
    for chunk in chunks:
        channel.send_bytes(chunk)

    async def main():
        for chunk in chunks:
            await channel.async_send_bytes(chunk)

    run(main())
    channel.close_write()
    assert receiving.result() == 2 * chunks
    assert not channel.closed


def test_what_never_fits_is_told():
    channel = ByteChannel(max_size=100)
    channel.send_bytes(bytes(100))
    for send in (channel.send_bytes, channel.try_send_bytes):
        for size in (101, 10000):
            with pytest.raises(MessageTooLarge):
                send(bytes(size))


def test_sending_on_a_closed_channel_raises(run):
    channel = ByteChannel()
    channel.close()
    channel.close()
    for send in (channel.send_bytes, channel.try_send_bytes):
        for size in (0, 10, 10000):
            with pytest.raises(ByteChannelClosed):
                send(bytes(size))

    async def main():
        with pytest.raises(ByteChannelClosed):
            await channel.async_send_bytes(b"x")

    run(main())


def test_what_python_sends_python_does_not_receive():
    channel = ByteChannel()
    channel.send_bytes(b"x")
    assert channel.try_receive_bytes() is None
    channel.close()
    with pytest.raises(ByteChannelClosed):
        channel.receive_bytes()


# --- the object ----------------------------------------------------------------------------------


def test_terms_and_bytes_are_different_things():
    terms, chunks = driver.new_channel(), driver.new_byte_channel()
    with pytest.raises(TypeError, match="ByteChannel"):
        Channel(chunks)
    with pytest.raises(TypeError, match="Channel"):
        ByteChannel(terms)
    for bad in (None, b"", object(), ByteChannel(chunks)):
        with pytest.raises(TypeError):
            ByteChannel(bad)
    for module, ref in (("py_channel", chunks), ("py_byte_channel", terms)):
        for function, *rest in (("send", b""), ("info",), ("close",), ("recv", 0)):
            with pytest.raises(RuntimeError, match="badarg"):
                driver.call(module, function, ref, *rest)
    assert "of bytes" in repr(chunks) and "of bytes" not in repr(terms)


def test_closed_errors_are_of_both_kinds():
    assert issubclass(ByteChannelClosed, ChannelClosed)
    channel = ByteChannel()
    channel.close()
    with pytest.raises(ChannelClosed):
        channel.receive_bytes()


def test_a_channel_that_python_makes_has_limits_and_goes_to_erlang():
    channel = ByteChannel(max_messages=1)
    outer = Channel()
    outer.send(channel)
    assert channel.try_send_bytes(b"from python")
    assert not channel.try_send_bytes(b"more")
    with pytest.raises(ValueError):
        ByteChannel(max_size=0)
    with pytest.raises(TypeError):
        ByteChannel(binaries="str")
    with pytest.raises(TypeError):
        ByteChannel(driver.new_byte_channel(), max_size=1)


def test_with_closes_at_the_end(run):
    ref = driver.new_byte_channel()
    with ByteChannel(ref) as channel:
        assert not channel.closed
    assert channel.closed and driver.byte_info(ref)["closed"]

    # The reference stays: a channel whose last handle goes away closes by itself.
    other_ref = driver.new_byte_channel()

    async def main():
        async with ByteChannel(other_ref) as other:
            assert not other.closed
        assert other.closed

    run(main())


def test_length_truth_equality_and_repr():
    ref = driver.new_byte_channel()
    channel = ByteChannel(ref)
    assert len(channel) == 0 and channel
    driver.call("channel_driver", "send_chunks", ref, [b"", bytes(100)])
    assert len(channel) == 2
    assert "2 queued, 132 bytes" in repr(channel)
    assert channel == ByteChannel(ref) and hash(channel) == hash(ByteChannel(ref))
    assert channel != ByteChannel(driver.new_byte_channel())
    assert channel != Channel(driver.new_channel())
    assert repr(channel.async_receive_bytes()).startswith("<ByteChannel.async_receive_bytes")
    assert repr(channel.async_send_bytes(b"")).startswith("<ByteChannel.async_send_bytes")


def test_a_wait_by_number_is_reported_once():
    ref = driver.new_byte_channel()
    loop = erlang.new_event_loop()
    ByteChannel(ref)._channel_wait(7, loop)
    driver.call("py_byte_channel", "send", ref, b"")
    events = []
    while not events:
        events = loop._run_once_native_for(1000)
    assert events == [(7, 3)]
    loop.close()
