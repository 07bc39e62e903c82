"""Properties of timers, for any set of deadlines and cancellations."""

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

import erlang

# Milliseconds; few different ones, so that many deadlines are equal.
delays = st.sampled_from([0, 0.01, 0.5, 1, 1, 1, 2.5])


@st.composite
def programs(draw):
    """[(delay, [timers that its callback cancels])], and those cancelled before the loop runs."""
    count = draw(st.integers(0, 40))
    numbers = st.integers(0, max(count - 1, 0))
    few = st.lists(numbers, max_size=3)
    timers = [
        (draw(delays), draw(few) if draw(st.integers(0, 3)) == 0 else []) for _ in range(count)
    ]
    return timers, draw(st.lists(numbers, max_size=10)) if count else []


def expected(deadlines, timers, cancelled):
    """Which timers fire, in order: by deadline, and of equal ones the one that was set first."""
    cancelled, fired = set(cancelled), []
    for number in sorted(range(len(timers)), key=lambda number: (deadlines[number], number)):
        if number not in cancelled:
            fired.append(number)
            cancelled.update(timers[number][1])
    return fired


@settings(max_examples=150, deadline=None)
@given(programs())
def test_those_that_are_not_cancelled_fire_in_order_and_never_early(program):
    timers, cancelled = program
    fired, early = [], []

    async def main():
        loop = asyncio.get_running_loop()
        start = loop.time()

        def fire(number):
            fired.append(number)
            if loop.time() < handles[number].when():
                early.append(number)
            for other in timers[number][1]:
                handles[other].cancel()

        handles = [
            loop.call_at(start + delay / 1000, fire, number)
            for number, (delay, _) in enumerate(timers)
        ]
        for number in cancelled:
            handles[number].cancel()
        end = loop.create_future()
        loop.call_at(start + 0.003, end.set_result, None)
        await end
        return [handle.when() for handle in handles]

    deadlines = erlang.run(main())
    assert fired == expected(deadlines, timers, cancelled)
    assert early == []
