"""What happens to exceptions: the handler, and those that must end the run."""

import asyncio
import contextvars
import gc
import logging

import pytest


def run_briefly(loop):
    loop.call_soon(loop.stop)
    loop.run_forever()


def fail(error):
    raise error


def test_an_exception_goes_to_the_handler_and_the_loop_goes_on(loop):
    contexts, ran = [], []
    loop.set_exception_handler(lambda loop, context: contexts.append(context))
    error = ValueError("mine")
    handle = loop.call_soon(fail, error)
    loop.call_soon(ran.append, "next")
    run_briefly(loop)
    (context,) = contexts
    assert context["exception"] is error
    assert context["handle"] is handle
    assert context["message"].startswith("Exception in callback fail(")
    assert ran == ["next"]


@pytest.mark.parametrize("how", ["call_later", "call_soon_threadsafe"])
def test_timers_and_posts_report_alike(loop, how):
    contexts = []
    loop.set_exception_handler(lambda loop, context: contexts.append(context))
    error = ValueError("mine")
    args = (0, fail, error) if how == "call_later" else (fail, error)
    getattr(loop, how)(*args)
    loop.call_later(0.002, loop.stop)
    loop.run_forever()
    assert [context["exception"] for context in contexts] == [error]


def test_without_a_handler_the_exception_is_logged(loop, caplog):
    loop.call_soon(fail, ValueError("mine"))
    with caplog.at_level(logging.ERROR, logger="asyncio"):
        run_briefly(loop)
    (record,) = caplog.records
    assert "Exception in callback fail(" in record.getMessage()
    assert record.exc_info[0] is ValueError


def test_a_failing_handler_is_logged_and_the_loop_goes_on(loop, caplog):
    def handler(loop, context):
        raise KeyError("handler")

    ran = []
    loop.set_exception_handler(handler)
    loop.call_soon(fail, ValueError("mine"))
    loop.call_soon(ran.append, 1)
    with caplog.at_level(logging.ERROR, logger="asyncio"):
        run_briefly(loop)
    assert ran == [1]
    assert "Unhandled error in exception handler" in caplog.text


def test_the_handler_can_be_read_and_reset(loop):
    def handler(loop, context):
        pass

    assert loop.get_exception_handler() is None
    loop.set_exception_handler(handler)
    assert loop.get_exception_handler() is handler
    loop.set_exception_handler(None)
    assert loop.get_exception_handler() is None
    with pytest.raises(TypeError):
        loop.set_exception_handler("no callable")


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
@pytest.mark.parametrize("how", ["call_soon", "call_later", "call_soon_threadsafe"])
def test_system_exit_and_keyboard_interrupt_end_the_run(loop, kind, how):
    ran = []
    if how == "call_later":
        loop.call_later(0, fail, kind("mine"))
    else:
        getattr(loop, how)(fail, kind("mine"))
    loop.call_later(0.003, ran.append, "later")
    with pytest.raises(kind, match="mine"):
        loop.run_forever()
    assert not loop.is_running()
    assert asyncio._get_running_loop() is None
    # What was not run yet is still there.
    loop.call_later(0.01, loop.stop)
    loop.run_forever()
    assert ran == ["later"]


def test_callbacks_behind_a_system_exit_are_not_lost(loop):
    ran = []
    loop.call_soon(fail, SystemExit())
    loop.call_soon(ran.append, 1)
    loop.call_soon(ran.append, 2)
    with pytest.raises(SystemExit):
        loop.run_forever()
    run_briefly(loop)
    assert ran == [1, 2]


class MineAlone(BaseException):
    pass


def test_other_base_exceptions_are_reported_like_exceptions(loop):
    contexts = []
    loop.set_exception_handler(lambda loop, context: contexts.append(context))
    loop.call_soon(fail, MineAlone())
    run_briefly(loop)
    assert isinstance(contexts[0]["exception"], MineAlone)


def test_an_exception_of_the_main_coroutine_reaches_the_caller(loop):
    async def main():
        await asyncio.sleep(0)
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        loop.run_until_complete(main())
    assert not loop.is_running()


def test_a_forgotten_exception_of_a_task_is_reported(loop):
    contexts = []
    loop.set_exception_handler(lambda loop, context: contexts.append(context))

    async def lost():
        raise LookupError("mine")

    async def main():
        task = loop.create_task(lost())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert task.done()

    loop.run_until_complete(main())
    gc.collect()
    assert "never retrieved" in contexts[0]["message"]


def test_stopping_before_the_future_is_done_is_a_runtime_error(loop):
    async def main():
        loop.stop()
        await asyncio.sleep(30)

    task = loop.create_task(main())
    with pytest.raises(RuntimeError, match="stopped before Future completed"):
        loop.run_until_complete(task)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(task)


def test_a_recursion_error_in_a_callback_is_contained(loop):
    contexts, ran = [], []
    loop.set_exception_handler(lambda loop, context: contexts.append(context))

    def deep():
        deep()

    loop.call_soon(deep)
    loop.call_soon(ran.append, 1)
    run_briefly(loop)
    assert isinstance(contexts[0]["exception"], RecursionError)
    assert ran == [1]


def test_the_handler_runs_in_the_context_in_which_asyncio_runs_it(loop):
    """Whether that is the callback's context depends on the Python release: the control decides."""
    control = asyncio.SelectorEventLoop()
    seen = []
    var = contextvars.ContextVar("var", default="outside")
    context = contextvars.copy_context()
    context.run(var.set, "inside")
    for each in (loop, control):
        each.set_exception_handler(lambda loop, context: seen.append(var.get()))
        each.call_soon(fail, ValueError(), context=context)
        run_briefly(each)
    control.close()
    assert seen[0] == seen[1]
