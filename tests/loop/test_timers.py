"""call_later and call_at: never early, exact, removed when cancelled."""

import asyncio
import random
import threading
import time
import weakref
from fractions import Fraction

import pytest


def test_time_is_the_monotonic_clock_and_moves(loop):
    before = time.monotonic()
    seen = [loop.time() for _ in range(1000)]
    after = time.monotonic()
    assert before <= seen[0] and seen[-1] <= after
    assert seen == sorted(seen)
    assert seen[-1] > seen[0]


def test_time_moves_inside_one_iteration(loop):
    """A cached time would make long callbacks invisible to the timers that they set."""
    seen = []

    def busy():
        seen.append(loop.time())
        time.sleep(0.005)
        seen.append(loop.time())

    loop.call_soon(busy)
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert seen[1] - seen[0] >= 0.005


def test_timers_fire_in_the_order_of_their_deadlines(loop):
    ran = []
    base = loop.time() + 0.01
    deadlines = list(range(200))
    random.Random(1).shuffle(deadlines)
    for i in deadlines:
        loop.call_at(base + i * 1e-5, ran.append, i)
    loop.call_at(base + 0.02, loop.stop)
    loop.run_forever()
    assert ran == list(range(200))


def test_no_timer_fires_early(loop):
    """uvloop rounds deadlines to milliseconds of a cached clock, and fires up to 1.4 ms early."""
    early = []
    left = 2000

    def fire(deadline):
        nonlocal left
        now = time.monotonic()
        if now < deadline:
            early.append(deadline - now)
        left -= 1
        if not left:
            loop.stop()

    rng = random.Random(2)
    for _ in range(left):
        deadline = loop.time() + rng.random() * 0.2
        loop.call_at(deadline, fire, deadline)
    loop.run_forever()
    if type(loop).__module__.startswith("asyncio"):
        # asyncio takes what falls within one clock resolution as due.
        early = [e for e in early if e > loop._clock_resolution]
    assert early == []


def test_call_later_counts_from_the_moment_of_the_call(loop):
    waited = []

    def busy():
        time.sleep(0.02)
        called = time.monotonic()
        loop.call_later(0.01, lambda: (waited.append(time.monotonic() - called), loop.stop()))

    loop.call_soon(busy)
    loop.run_forever()
    assert waited[0] >= 0.01 - 1e-6


def test_sleeps_are_not_rounded_to_milliseconds(erlang_loop):
    """Rounded to milliseconds, no sleep of 200 us would end within 900 us; one does."""

    async def sleep_lengths():
        lengths = []
        for _ in range(500):
            started = time.monotonic()
            await asyncio.sleep(0.0002)
            lengths.append(time.monotonic() - started)
        return lengths

    shortest = min(erlang_loop.run_until_complete(sleep_lengths()))
    assert 0.0002 <= shortest < 0.0009


def test_a_zero_or_negative_delay_fires_on_the_next_iteration(loop):
    ran = []
    loop.call_later(0, ran.append, "zero")
    loop.call_later(-5, ran.append, "negative")
    loop.call_at(0, ran.append, "long past")
    loop.call_later(0.001, loop.stop)
    loop.run_forever()
    assert sorted(ran) == ["long past", "negative", "zero"]


def test_a_timer_set_by_a_timer_fires_in_a_later_iteration(loop):
    """A timer that always sets the next one for now must not starve the loop."""
    order = []

    def again(n):
        order.append(n)
        if n < 5:
            loop.call_later(0, again, n + 1)
            loop.call_soon(order.append, "soon")
        else:
            loop.stop()

    loop.call_later(0, again, 0)
    loop.run_forever()
    assert order[:11] == [0, "soon", 1, "soon", 2, "soon", 3, "soon", 4, "soon", 5]


def test_a_cancelled_timer_does_not_fire(loop):
    ran = []
    handles = [loop.call_later(0.001 + i * 1e-5, ran.append, i) for i in range(100)]
    for handle in handles[::2]:
        handle.cancel()
    loop.call_later(0.02, loop.stop)
    loop.run_forever()
    assert ran == list(range(1, 100, 2))


def test_a_timer_cancelled_by_an_earlier_one_of_the_same_moment_does_not_fire(loop):
    ran = []
    when = loop.time() + 0.002
    loop.call_at(when, lambda: second.cancel())
    second = loop.call_at(when + 1e-7, ran.append, "cancelled")
    loop.call_at(when + 0.005, loop.stop)
    loop.run_forever()
    assert ran == []


def test_cancelling_after_the_timer_fired_changes_nothing(loop):
    ran = []
    handle = loop.call_later(0, ran.append, 1)
    loop.call_later(0.001, loop.stop)
    loop.run_forever()
    handle.cancel()
    other = loop.call_later(0.001, ran.append, 2)
    handle.cancel()
    loop.call_later(0.005, loop.stop)
    loop.run_forever()
    assert ran == [1, 2]
    assert not other.cancelled()


def test_a_cancelled_timer_is_freed_without_waiting_for_its_deadline(erlang_loop):
    """No graveyard: asyncio keeps cancelled timers in its heap until half of it is dead."""
    handle = erlang_loop.call_later(3600, print)
    keeper = [erlang_loop.call_later(3600, print) for _ in range(1000)]
    before = erlang_loop._stats()["timers"]
    handle.cancel()
    assert erlang_loop._stats()["timers"] == before - 1
    for timer in keeper:
        timer.cancel()
    assert erlang_loop._stats()["timers"] == before - 1001


def test_cancel_in_any_order_keeps_the_heap_right(loop):
    rng = random.Random(3)
    ran, expected, handles = [], [], []
    base = loop.time() + 0.05
    for i in range(3000):
        when = base + rng.random() * 0.05
        handles.append((when, i, loop.call_at(when, ran.append, i)))
    rng.shuffle(handles)
    for _, _, handle in handles[:2000]:
        handle.cancel()
    expected = [i for _, i, _ in sorted(handles[2000:], key=lambda item: item[:2])]
    loop.call_at(base + 0.1, loop.stop)
    loop.run_forever()
    assert ran == expected


def test_a_heap_that_grew_and_shrank_keeps_its_timers(loop):
    rng = random.Random(4)
    ran = []
    base = loop.time() + 0.2
    handles = [(i, loop.call_at(base + rng.random() * 1e-3, ran.append, i)) for i in range(20_000)]
    rng.shuffle(handles)
    for _, handle in handles[300:]:
        handle.cancel()
    more = [(i, loop.call_at(base + rng.random() * 1e-3, ran.append, i)) for i in range(-300, 0)]
    left = [pair for pair in handles[:300] + more if rng.random() < 0.5 or pair[1].cancel()]
    loop.call_at(base + 0.01, loop.stop)
    loop.run_forever()
    left.sort(key=lambda pair: pair[1].when())
    assert ran == [i for i, _ in left]


def test_equal_deadlines_fire_in_the_order_they_were_set_in(erlang_loop):
    ran = []
    base = erlang_loop.time() + 0.05
    for i in range(1000):
        erlang_loop.call_at(base, ran.append, i)
    erlang_loop.call_at(base, erlang_loop.stop)
    erlang_loop.run_forever()
    assert ran == list(range(1000))


def test_when_gives_the_deadline(loop):
    when = loop.time() + 12.345
    handle = loop.call_at(when, print)
    assert handle.when() == pytest.approx(when, abs=1e-6)
    handle.cancel()
    assert handle.when() == pytest.approx(when, abs=1e-6)


def test_timer_handles_compare_by_deadline_and_hash(loop):
    now = loop.time()
    sooner, later = loop.call_at(now + 10, print), loop.call_at(now + 20, print)
    assert sooner < later and later > sooner
    assert sooner <= later and later >= sooner
    assert sooner == sooner and sooner != later
    assert len({sooner, later}) == 2


def test_a_delay_of_none_is_a_type_error(loop):
    with pytest.raises(TypeError):
        loop.call_later(None, print)
    with pytest.raises(TypeError):
        loop.call_at(None, print)


@pytest.mark.parametrize("delay", ["1", b"1", [], object()])
def test_a_delay_that_is_no_number_is_a_type_error(loop, delay):
    with pytest.raises(TypeError):
        loop.call_later(delay, print)


def test_a_nan_delay_is_refused(erlang_loop):
    """In asyncio a NaN in the heap silently breaks the order of all other timers."""
    with pytest.raises(ValueError):
        erlang_loop.call_later(float("nan"), print)
    with pytest.raises(ValueError):
        erlang_loop.call_at(float("nan"), print)


@pytest.mark.parametrize("delay", [1e9, 1e12, 1e18, 1e300, float("inf")])
def test_a_timer_beyond_all_clocks_never_fires_and_can_be_cancelled(loop, delay):
    ran = []
    handle = loop.call_later(delay, ran.append, "fired")
    loop.call_later(0.005, loop.stop)
    loop.run_forever()
    handle.cancel()
    assert ran == []


def test_an_integer_or_a_fraction_is_a_delay_too(loop):
    ran = []
    loop.call_later(True, ran.append, "a second").cancel()
    loop.call_later(Fraction(1, 1000), ran.append, "fraction")
    loop.call_later(0, ran.append, "integer")
    loop.call_later(0.01, loop.stop)
    loop.run_forever()
    assert sorted(ran) == ["fraction", "integer"]


def test_a_sooner_timer_set_from_another_thread_wakes_the_loop(loop):
    """The loop sleeps for a long timer; a post must end that sleep, not wait for it."""
    started = time.monotonic()
    guard = loop.call_later(30, loop.stop)

    def poke():
        time.sleep(0.02)
        loop.call_soon_threadsafe(lambda: loop.call_later(0.001, loop.stop))

    thread = threading.Thread(target=poke)
    thread.start()
    loop.run_forever()
    thread.join()
    guard.cancel()
    assert time.monotonic() - started < 10


def test_a_fired_timer_drops_its_callback(loop):
    class Thing:
        def method(self):
            pass

    thing = Thing()
    reference = weakref.ref(thing)
    loop.call_later(0, thing.method)
    del thing
    loop.call_later(0.001, loop.stop)
    loop.run_forever()
    assert reference() is None


def test_a_timer_fires_although_the_ready_queue_is_never_empty(loop):
    """Otherwise this does not end."""

    def spin():
        loop.call_soon(spin)

    loop.call_soon(spin)
    loop.call_later(0.01, loop.stop)
    loop.run_forever()


def test_wait_for_and_timeout_cut_a_sleep_short(loop):
    async def main():
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.sleep(30), 0.001)
        with pytest.raises(asyncio.TimeoutError):
            async with asyncio.timeout(0.001):
                await asyncio.sleep(30)
        return True

    assert loop.run_until_complete(main())


def test_timers_left_by_one_run_fire_in_the_next(loop):
    ran = []
    loop.call_later(0.005, ran.append, 1)
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert ran == []
    time.sleep(0.006)
    loop.call_later(0, loop.stop)
    loop.run_forever()
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert ran == [1]
