"""call_soon and its handles: order, arguments, contexts, cancellation, bad input."""

import asyncio
import contextvars
import weakref

import pytest


def run_briefly(loop):
    """Runs what is ready now, and nothing that this makes ready."""
    loop.call_soon(loop.stop)
    loop.run_forever()


def test_callbacks_run_in_the_order_of_their_calls(loop):
    ran = []
    for i in range(1000):
        loop.call_soon(ran.append, i)
    run_briefly(loop)
    assert ran == list(range(1000))


def test_a_callback_scheduled_by_a_callback_waits_for_the_next_iteration(loop):
    ran = []

    def first():
        ran.append("first")
        loop.call_soon(ran.append, "next iteration")

    loop.call_soon(first)
    loop.call_soon(ran.append, "second")
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert ran == ["first", "second"]
    run_briefly(loop)
    assert ran == ["first", "second", "next iteration"]


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5, 8, 40])
def test_a_callback_gets_all_its_arguments(loop, count):
    got = []
    loop.call_soon(lambda *args: got.append(args), *range(count))
    loop.call_later(0, lambda *args: got.append(args), *range(count))
    loop.call_soon_threadsafe(lambda *args: got.append(args), *range(count))
    loop.call_later(0.001, loop.stop)
    loop.run_forever()
    assert got == [tuple(range(count))] * 3


def test_a_cancelled_callback_does_not_run(loop):
    ran = []
    loop.call_soon(ran.append, 1)
    handle = loop.call_soon(ran.append, 2)
    loop.call_soon(ran.append, 3)
    assert handle.cancelled() is False
    handle.cancel()
    handle.cancel()
    assert handle.cancelled() is True
    run_briefly(loop)
    assert ran == [1, 3]


def test_a_callback_may_cancel_one_of_the_same_iteration(loop):
    ran = []
    loop.call_soon(lambda: later.cancel())
    later = loop.call_soon(ran.append, "cancelled")
    run_briefly(loop)
    assert ran == []


def test_a_callback_may_cancel_itself(loop):
    ran = []

    def callback():
        handle.cancel()
        ran.append(handle.cancelled())

    handle = loop.call_soon(callback)
    run_briefly(loop)
    assert ran == [True]


def test_cancel_drops_the_callback_and_its_arguments_at_once(loop):
    class Thing:
        def method(self):
            pass

    argument, callee = Thing(), Thing()
    references = [weakref.ref(argument), weakref.ref(callee)]
    handles = [
        loop.call_soon(callee.method, argument),
        loop.call_later(100, callee.method, argument),
    ]
    del argument, callee
    assert all(ref() is not None for ref in references)
    for handle in handles:
        handle.cancel()
    assert all(ref() is None for ref in references)


def test_arguments_are_dropped_once_the_callback_has_run(loop):
    class Thing:
        pass

    argument = Thing()
    reference = weakref.ref(argument)
    loop.call_soon(lambda thing: None, argument)
    del argument
    run_briefly(loop)
    assert reference() is None


def test_a_callback_sees_the_context_of_its_call_to_call_soon(loop):
    var = contextvars.ContextVar("var", default="outside")
    seen = []

    def in_context():
        var.set("inside")
        loop.call_soon(lambda: seen.append(var.get()))
        loop.call_later(0, lambda: seen.append(var.get()))
        loop.call_soon_threadsafe(lambda: seen.append(var.get()))

    contextvars.copy_context().run(in_context)
    loop.call_soon(lambda: seen.append(var.get()))
    loop.call_later(0.001, loop.stop)
    loop.run_forever()
    assert sorted(seen) == ["inside", "inside", "inside", "outside"]


def test_the_context_keyword_chooses_the_context(loop):
    var = contextvars.ContextVar("var", default="outside")
    context = contextvars.copy_context()
    context.run(var.set, "chosen")
    seen = []

    def look():
        seen.append(var.get())
        var.set("changed")

    loop.call_soon(look, context=context)
    run_briefly(loop)
    loop.call_later(0, look, context=context)
    loop.call_at(loop.time(), look, context=context)
    loop.call_soon_threadsafe(look, context=context)
    loop.call_later(0.001, loop.stop)
    loop.run_forever()
    assert seen == ["chosen", "changed", "changed", "changed"]
    assert var.get() == "outside"


def test_context_none_means_the_current_context(loop):
    var = contextvars.ContextVar("var", default="outside")
    seen = []
    token = var.set("current")
    loop.call_soon(lambda: seen.append(var.get()), context=None)
    var.reset(token)
    run_briefly(loop)
    assert seen == ["current"]


@pytest.mark.parametrize("method", ["call_soon", "call_soon_threadsafe"])
def test_an_unknown_keyword_is_a_type_error(loop, method):
    with pytest.raises(TypeError):
        getattr(loop, method)(print, contxt=None)


@pytest.mark.parametrize("method", ["call_soon", "call_soon_threadsafe"])
def test_a_call_without_a_callback_is_a_type_error(loop, method):
    with pytest.raises(TypeError):
        getattr(loop, method)()


def test_handles_are_what_asyncio_code_expects_of_them(loop):
    handle = loop.call_soon(print)
    assert handle.cancelled() is False
    assert "print" in repr(handle)
    handle.cancel()
    assert "cancelled" in repr(handle)


def test_a_call_soon_from_within_a_huge_burst_keeps_the_order(loop):
    """The ready queue grows while it is being drained."""
    ran = []

    def spawn(i):
        ran.append(i)
        for j in range(3):
            loop.call_soon(ran.append, (i, j))

    for i in range(500):
        loop.call_soon(spawn, i)
    run_briefly(loop)
    run_briefly(loop)
    assert ran == list(range(500)) + [(i, j) for i in range(500) for j in range(3)]


def test_stop_before_run_runs_one_iteration(loop):
    ran = []
    loop.call_soon(ran.append, 1)
    loop.stop()
    loop.run_forever()
    assert ran == [1]


def test_handles_left_at_close_are_dropped(loop):
    class Thing:
        def method(self):
            pass

    thing = Thing()
    reference = weakref.ref(thing)
    loop.call_soon(thing.method)
    loop.call_later(10, thing.method)
    del thing
    loop.close()
    assert reference() is None


def test_a_callback_may_drop_the_last_reference_to_the_loop(loop_factory):
    """The iteration holds the loop, whatever its callbacks do to it."""
    loop = loop_factory()
    box = [loop]
    done = []

    def drop():
        box.clear()
        done.append(True)

    loop.call_soon(drop)
    loop.call_soon(loop.stop)
    run = loop.run_forever
    del loop
    run()
    assert done == [True]
    run.__self__.close()


def test_a_task_steps_through_its_own_context(loop):
    var = contextvars.ContextVar("var", default=0)

    async def child():
        var.set(var.get() + 1)
        await asyncio.sleep(0)
        return var.get()

    async def main():
        var.set(10)
        return await asyncio.gather(child(), child()), var.get()

    assert loop.run_until_complete(main()) == ([11, 11], 10)
