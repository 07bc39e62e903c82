"""Debug mode: slow callbacks, source tracebacks, handle reprs, the wrong thread."""

import asyncio
import logging
import sys
import threading
import time

import pytest


@pytest.fixture
def debug_loop(loop):
    loop.set_debug(True)
    return loop


def a_callback(*args):
    pass


def messages_about(what, caplog):
    """On a busy machine other callbacks may be slow too."""
    messages = [record.getMessage() for record in caplog.records]
    return [message for message in messages if what in message]


def run_briefly(loop):
    loop.call_soon(loop.stop)
    loop.run_forever()


def test_debug_can_be_switched(loop):
    loop.set_debug(True)
    assert loop.get_debug() is True
    loop.set_debug(False)
    assert loop.get_debug() is False


def test_debug_follows_the_environment(run_script):
    """-X dev, which run_script gives, switches debug mode on."""
    done = run_script("print(new_loop().get_debug())")
    assert done.stdout == "True\n"


def test_slow_callbacks_are_logged(debug_loop, caplog):
    debug_loop.slow_callback_duration = 0.01
    debug_loop.call_soon(time.sleep, 0.02)
    with caplog.at_level(logging.WARNING, logger="asyncio"):
        run_briefly(debug_loop)
    (message,) = messages_about("sleep", caplog)
    assert message.startswith("Executing <Handle")
    assert "seconds" in message


def test_slow_tasks_and_timers_are_logged_by_name(debug_loop, caplog):
    debug_loop.slow_callback_duration = 0.01

    async def a_slow_coroutine():
        time.sleep(0.02)

    with caplog.at_level(logging.WARNING, logger="asyncio"):
        debug_loop.run_until_complete(a_slow_coroutine())
        debug_loop.call_later(0, time.sleep, 0.02)
        debug_loop.call_later(0.03, debug_loop.stop)
        debug_loop.run_forever()
    (of_timer,) = messages_about("sleep", caplog)
    assert "TimerHandle" in of_timer
    assert len(messages_about("a_slow_coroutine", caplog)) == 1


def test_fast_callbacks_are_not_logged(debug_loop, caplog):
    debug_loop.slow_callback_duration = 60
    with caplog.at_level(logging.WARNING, logger="asyncio"):
        for _ in range(100):
            debug_loop.call_soon(a_callback)
        run_briefly(debug_loop)
    assert caplog.records == []


def test_slow_callbacks_are_not_logged_without_debug(loop, caplog):
    loop.set_debug(False)
    loop.slow_callback_duration = 0.001
    loop.call_soon(time.sleep, 0.005)
    with caplog.at_level(logging.WARNING, logger="asyncio"):
        run_briefly(loop)
    assert caplog.records == []


def test_slow_callback_duration_is_a_tenth_of_a_second_at_first(loop):
    assert loop.slow_callback_duration == pytest.approx(0.1)


def test_a_handle_tells_where_it_was_made(debug_loop):
    for handle in (
        debug_loop.call_soon(a_callback),
        debug_loop.call_later(10, a_callback),
        debug_loop.call_soon_threadsafe(a_callback),
    ):
        text = repr(handle)
        assert "a_callback" in text
        assert "created at" in text and "test_debug.py" in text
        frames = [frame for frame in handle._source_traceback]
        assert frames[-1].filename == __file__
        assert frames[-1].name == "test_a_handle_tells_where_it_was_made"
        handle.cancel()
        assert "cancelled" in repr(handle)
        # Debug mode keeps the description of a cancelled callback.
        assert "a_callback" in repr(handle)


def test_a_handle_has_no_source_traceback_without_debug(loop):
    loop.set_debug(False)
    handle = loop.call_soon(a_callback)
    assert handle._source_traceback is None
    assert "created at" not in repr(handle)


def test_a_timer_shows_its_deadline(loop):
    handle = loop.call_at(12345.5, a_callback)
    assert "when=12345.5" in repr(handle)
    handle.cancel()


def test_a_handle_shows_its_arguments(debug_loop):
    assert "a_callback(1, 'two')" in repr(debug_loop.call_soon(a_callback, 1, "two"))


def test_a_handle_shows_its_arguments_without_debug_where_asyncio_does(loop):
    """Later releases of Python hide them, as they may be secrets: the control decides."""
    control = asyncio.SelectorEventLoop()
    shown = ["'two'" in repr(each.call_soon(a_callback, 1, "two")) for each in (loop, control)]
    control.close()
    assert shown[0] == shown[1]


def test_the_source_traceback_reaches_the_exception_handler(debug_loop):
    contexts = []
    debug_loop.set_exception_handler(lambda loop, context: contexts.append(context))

    def fail():
        raise ZeroDivisionError

    debug_loop.call_soon(fail)
    run_briefly(debug_loop)
    (context,) = contexts
    assert "fail" in context["message"]
    assert isinstance(context["exception"], ZeroDivisionError)
    assert any(frame.filename == __file__ for frame in context["source_traceback"])


def test_calls_from_the_wrong_thread_are_refused(debug_loop):
    outcomes = []

    def wrong_thread():
        for call in (
            lambda: debug_loop.call_soon(a_callback),
            lambda: debug_loop.call_later(1, a_callback),
            lambda: debug_loop.call_at(1, a_callback),
        ):
            try:
                call()
            except RuntimeError as error:
                outcomes.append("Non-thread-safe operation" in str(error))
        debug_loop.call_soon_threadsafe(debug_loop.stop)

    thread = threading.Thread(target=wrong_thread)
    debug_loop.call_soon(thread.start)
    debug_loop.run_forever()
    thread.join()
    assert outcomes == [True, True, True]


def test_other_threads_may_prepare_a_loop_that_does_not_run(debug_loop):
    ran = []
    thread = threading.Thread(target=lambda: debug_loop.call_soon(ran.append, 1))
    thread.start()
    thread.join()
    run_briefly(debug_loop)
    assert ran == [1]


@pytest.mark.parametrize("method", ["call_soon", "call_soon_threadsafe"])
@pytest.mark.parametrize("wrong", [None, 1, "text", object()])
def test_what_cannot_be_called_is_refused(debug_loop, method, wrong):
    with pytest.raises(TypeError, match="callable"):
        getattr(debug_loop, method)(wrong)


@pytest.mark.parametrize("wrong", [None, 1, "text", object()])
def test_what_cannot_be_called_is_refused_as_a_timer(debug_loop, wrong):
    with pytest.raises(TypeError, match="callable"):
        debug_loop.call_later(1, wrong)
    with pytest.raises(TypeError, match="callable"):
        debug_loop.call_at(1, wrong)


@pytest.mark.parametrize("method", ["call_soon", "call_soon_threadsafe"])
def test_coroutines_are_refused_as_callbacks(debug_loop, method):
    async def coroutine_function():
        pass

    coroutine = coroutine_function()
    for wrong in (coroutine_function, coroutine):
        with pytest.raises(TypeError, match="coroutines cannot be used"):
            getattr(debug_loop, method)(wrong)
    with pytest.raises(TypeError, match="coroutines cannot be used"):
        debug_loop.run_in_executor(None, coroutine_function)
    coroutine.close()


def test_a_run_once_patched_on_the_instance_is_used(loop):
    """Test helpers of asyncio and of others count iterations this way."""
    iterations = []
    original = loop._run_once

    def counting():
        iterations.append(1)
        original()

    loop._run_once = counting
    loop.run_until_complete(asyncio.sleep(0.001))
    assert len(iterations) >= 2
    del loop._run_once


def test_a_run_once_overridden_in_a_subclass_is_used(loop):
    class Counting(type(loop)):
        iterations = 0

        def _run_once(self):
            type(self).iterations += 1
            super()._run_once()

    counting = Counting()
    counting.run_until_complete(asyncio.sleep(0.001))
    counting.close()
    assert Counting.iterations >= 2


def test_a_call_soon_overridden_in_a_subclass_is_used(loop):
    """Instrumented loops (tracers, test clocks) override the scheduling calls."""
    calls = []

    class Instrumented(type(loop)):
        def call_soon(self, callback, *args, context=None):
            calls.append(callback)
            return super().call_soon(callback, *args, context=context)

        def call_at(self, when, callback, *args, context=None):
            calls.append("call_at")
            return super().call_at(when, callback, *args, context=context)

    instrumented = Instrumented()
    instrumented.run_until_complete(asyncio.sleep(0.001))
    instrumented.close()
    assert "call_at" in calls and len(calls) >= 3


def test_a_time_overridden_in_a_subclass_or_instance_drives_call_later(loop):
    """A loop whose clock is replaced computes deadlines from that clock."""
    loop.time = lambda: 1000.0
    handle = loop.call_later(5, a_callback)
    assert handle.when() == pytest.approx(1005.0)
    handle.cancel()
    del loop.time


def test_debug_mode_may_be_switched_while_the_loop_runs(loop, caplog):
    loop.slow_callback_duration = 0.005

    async def main():
        loop.set_debug(True)
        await asyncio.sleep(0)
        loop.call_soon(time.sleep, 0.01)
        await asyncio.sleep(0.02)
        loop.set_debug(False)
        return True

    with caplog.at_level(logging.WARNING, logger="asyncio"):
        assert loop.run_until_complete(main())
    assert any("sleep" in record.getMessage() for record in caplog.records)


def test_set_debug_reports_unawaited_coroutine_origins(loop):
    """Debug mode sets the origin tracking depth while the loop runs, and restores it after."""
    loop.set_debug(True)
    depths = []
    loop.call_soon(lambda: depths.append(sys.get_coroutine_origin_tracking_depth()))
    run_briefly(loop)
    assert depths[0] > 0
    assert sys.get_coroutine_origin_tracking_depth() == 0
