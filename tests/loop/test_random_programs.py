"""Random programs of callbacks, timers and cancellations run alike on our loop and asyncio's."""

import asyncio
import random

import pytest

import erlang


class Program:
    """Schedules and cancels at random, by a seed alone, and notes what runs in which order."""

    def __init__(self, loop, seed, steps=400):
        self.loop, self.rng, self.left = loop, random.Random(seed), steps
        self.trace, self.handles, self.number = [], [], 0
        # Deadlines long past and all different: due at once, in an order that no clock decides.
        self.deadlines = self.rng.sample(range(1, 10**6), steps * 5)
        loop.set_exception_handler(lambda loop, context: self.trace.append("error"))

    def schedule(self):
        self.number += 1
        number, kind = self.number, self.rng.randrange(5)
        args = tuple(range(self.rng.randrange(6)))
        if kind == 0:
            handle = self.loop.call_at(self.deadlines.pop() * 1e-6, self.step, number, *args)
        elif kind == 1:
            handle = self.loop.call_at(1e12 + number, self.step, number, *args)
        elif kind == 2:
            handle = self.loop.call_soon_threadsafe(self.step, number, *args)
            # A post may run an iteration later than in asyncio: keep them out of the order.
            handle.cancel()
        else:
            handle = self.loop.call_soon(self.step, number, *args)
        self.handles.append(handle)

    def step(self, number, *args):
        self.trace.append((number, args))
        self.left -= 1
        if self.left <= 0:
            self.loop.stop()
            return
        for _ in range(self.rng.randrange(2, 4)):
            self.schedule()
        if self.handles and self.rng.random() < 0.3:
            victim = self.rng.choice(self.handles)
            self.trace.append(victim.cancelled())
            victim.cancel()
        if self.rng.random() < 0.05:
            raise ValueError(number)

    def run(self):
        for _ in range(10):
            self.schedule()
            self.loop.call_soon(self.step, -1)
        self.loop.run_forever()
        self.trace.append([handle.cancelled() for handle in self.handles])
        self.loop.close()
        return self.trace


@pytest.mark.parametrize("seed", range(40))
def test_a_random_program_runs_as_on_asyncio(seed):
    ours = Program(erlang.new_event_loop(), seed).run()
    theirs = Program(asyncio.SelectorEventLoop(), seed).run()
    assert ours == theirs
