"""The Python half of promises_SUITE."""

import erlang
from erlang.channel import Channel, reply


async def _count(channel_ref, starter):
    """Counts `(producer, number, filler)` messages; each producer's numbers must be 0, 1, 2, ..."""
    reply(starter, erlang.Atom("waiting"))
    counted = {}
    async for producer, number, filler in Channel(channel_ref):
        expected = counted.get(producer, 0)
        if number != expected or len(filler) != 64:
            raise AssertionError(f"producer {producer}: {number} came, {expected} was next")
        counted[producer] = expected + 1
    return counted


def count_in_order(channel_ref, starter):
    return erlang.run(_count(channel_ref, starter))
