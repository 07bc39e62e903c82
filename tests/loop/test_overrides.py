"""A loop whose methods are replaced, on the instance or in a subclass, calls the replacements.

Ours keeps its bound methods for the calls that asyncio's futures and tasks make from C; each way of
replacing a method must be noticed after it was called already.
"""

import asyncio
import gc
import threading
import types
from unittest import mock

import pytest

import erlang


async def two_steps():
    await asyncio.sleep(0)


def noting_call_soon(loop, seen):
    """A call_soon that notes what it is asked for, on top of the loop's own."""
    original = type(loop).call_soon

    def call_soon(callback, *args, context=None):
        seen.append(callback)
        return original(loop, callback, *args, context=context)

    return call_soon


def warm(loop):
    for _ in range(3):
        loop.run_until_complete(two_steps())


def by_setattr(loop, method):
    loop.call_soon = method
    return lambda: delattr(loop, "call_soon")


def by_dict(loop, method):
    loop.__dict__["call_soon"] = method
    return lambda: loop.__dict__.pop("call_soon")


def by_kept_dict(loop, method):
    attributes = vars(loop)
    warm(loop)
    attributes["call_soon"] = method
    return lambda: attributes.pop("call_soon")


def by_new_dict(loop, method):
    old = vars(loop)
    loop.__dict__ = {**old, "call_soon": method}

    def undo():
        loop.__dict__ = old

    return undo


def by_mock(loop, method):
    patch = mock.patch.object(loop, "call_soon", method)
    patch.start()
    return patch.stop


@pytest.mark.parametrize("replace", [by_setattr, by_dict, by_kept_dict, by_new_dict, by_mock])
def test_tasks_use_a_method_that_the_instance_was_given(loop, replace):
    seen = []
    warm(loop)
    undo = replace(loop, noting_call_soon(loop, seen))
    warm(loop)
    assert len(seen) >= 6
    undo()
    seen.clear()
    warm(loop)
    assert seen == []


def test_tasks_use_a_method_that_the_class_was_given_later(loop):
    class Counting(type(loop)):
        pass

    loop = Counting()
    try:
        warm(loop)
        seen = []

        def call_soon(self, callback, *args, context=None):
            seen.append(callback)
            return super(Counting, self).call_soon(callback, *args, context=context)

        Counting.call_soon = call_soon
        warm(loop)
        assert len(seen) >= 6
        del Counting.call_soon
        seen.clear()
        warm(loop)
        assert seen == []
    finally:
        loop.close()


def test_tasks_use_the_methods_of_a_class_that_was_assigned(loop):
    class Plain(type(loop)):
        pass

    seen = []

    class Counting(type(loop)):
        def call_soon(self, callback, *args, context=None):
            seen.append(callback)
            return super().call_soon(callback, *args, context=context)

    loop = Plain()
    try:
        warm(loop)
        loop.__class__ = Counting
        warm(loop)
        assert len(seen) >= 6
    finally:
        loop.close()


def test_a_property_that_gives_a_method_is_asked_each_time(loop):
    asked = []

    class Asking(type(loop)):
        @property
        def call_soon(self):
            asked.append(self)
            return super().call_soon

    loop = Asking()
    try:
        warm(loop)
        assert len(asked) >= 6
    finally:
        loop.close()


def test_getattribute_of_a_subclass_is_called(loop):
    asked = []

    class Asking(type(loop)):
        def __getattribute__(self, name):
            if name == "call_soon":
                asked.append(name)
            return super().__getattribute__(name)

    loop = Asking()
    try:
        warm(loop)
        assert len(asked) >= 6
    finally:
        loop.close()


def test_getattr_of_a_subclass_is_called_for_what_is_missing(loop):
    class Answering(type(loop)):
        def __getattr__(self, name):
            if name == "answer":
                return 42
            raise AttributeError(name)

    loop = Answering()
    try:
        warm(loop)
        assert loop.answer == 42
        with pytest.raises(AttributeError):
            loop.question  # noqa: B018
    finally:
        loop.close()


def test_an_attribute_that_is_no_method_is_never_kept(loop):
    for value in range(3):
        loop.number = value
        assert loop.number == value
        loop.also = loop.call_soon
        assert loop.also == loop.call_soon
        del loop.also
        with pytest.raises(AttributeError):
            loop.also  # noqa: B018


def test_attribute_names_are_strings(loop):
    with pytest.raises(TypeError):
        getattr(loop, 1)
    with pytest.raises(TypeError):
        setattr(loop, 1, 2)


@pytest.mark.parametrize("how", ["a call from another thread", "a call", "a timer"])
def test_what_comes_while_an_overridden_clock_is_asked_is_not_slept_over(how):
    class Loop(erlang.ErlangEventLoop):
        armed = False

        def time(self):
            if self.armed:
                self.armed = False
                if how == "a timer":
                    self.call_at(0.0, self.stop)
                elif how == "a call":
                    self.call_soon(self.stop)
                else:
                    thread = threading.Thread(target=self.call_soon_threadsafe, args=(self.stop,))
                    thread.start()
                    thread.join()
            return super().time()

    loop = Loop()
    loop.call_soon(setattr, loop, "armed", True)
    loop.run_forever()
    assert not loop.armed
    loop.close()


def test_an_instance_that_was_given_run_once_is_driven_by_it(loop):
    original, turns = loop._run_once, []

    def run_once():
        turns.append(1)
        original()

    loop._run_once = run_once
    warm(loop)
    del loop._run_once
    assert len(turns) >= 6
    vars(loop)["_run_once"] = run_once
    turns.clear()
    warm(loop)
    assert len(turns) >= 6
    del vars(loop)["_run_once"]
    turns.clear()
    warm(loop)
    assert turns == []


def test_a_closed_loop_keeps_no_methods(erlang_loop):
    def kept():
        return [r for r in gc.get_referrers(erlang_loop) if isinstance(r, types.BuiltinMethodType)]

    warm(erlang_loop)
    assert kept()
    erlang_loop.close()
    assert erlang_loop.is_closed() and erlang_loop.is_closed()
    assert not kept()
