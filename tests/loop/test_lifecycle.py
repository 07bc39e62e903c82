"""A loop from its making to its end: Runner, policy, tasks, async generators, closing."""

import asyncio
import contextvars
import gc
import os
import sys
import threading
import weakref

import pytest

import erlang


def test_our_loop_is_one_of_asyncios(loop):
    assert isinstance(loop, asyncio.AbstractEventLoop)
    assert isinstance(loop, asyncio.BaseEventLoop)
    assert "running=False closed=False debug=" in repr(loop)


def test_no_method_of_the_abstract_loop_is_left_unimplemented():
    loop = erlang.ErlangEventLoop
    abstract = vars(asyncio.AbstractEventLoop)
    missing = [
        name
        for name, function in abstract.items()
        if callable(function) and getattr(loop, name, None) in (None, function)
    ]
    assert missing == []


def test_run_returns_what_the_coroutine_returns():
    async def main():
        assert isinstance(asyncio.get_running_loop(), erlang.ErlangEventLoop)
        await asyncio.sleep(0)
        return 42

    assert erlang.run(main()) == 42


def test_run_passes_exceptions_and_debug_on():
    async def fails():
        raise LookupError("mine")

    async def debug():
        return asyncio.get_running_loop().get_debug()

    with pytest.raises(LookupError, match="mine"):
        erlang.run(fails())
    assert erlang.run(debug(), debug=True) is True
    assert erlang.run(debug(), debug=False) is False


def test_run_refuses_what_is_no_coroutine():
    with pytest.raises(ValueError, match="coroutine"):
        erlang.run(lambda: None)


def test_run_inside_a_running_loop_is_refused(loop):
    async def inner():
        pass

    async def main():
        coroutine = inner()
        with pytest.raises(RuntimeError, match="running"):
            erlang.run(coroutine)
        coroutine.close()

    loop.run_until_complete(main())


def test_run_works_on_several_threads_at_once():
    async def main(number):
        await asyncio.sleep(0.005)
        return number

    results = []
    threads = [
        threading.Thread(target=lambda i=i: results.append(erlang.run(main(i)))) for i in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == list(range(8))


def test_runner_keeps_its_loop_and_context_between_runs(loop_factory):
    async def main():
        return asyncio.get_running_loop()

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        first = runner.run(main())
        assert runner.run(main()) is first is runner.get_loop()
    assert first.is_closed()


def test_the_policy_makes_our_loops():
    before = asyncio.get_event_loop_policy()
    asyncio.set_event_loop_policy(erlang.EventLoopPolicy())
    try:
        loop = asyncio.new_event_loop()
        assert type(loop) is erlang.ErlangEventLoop
        loop.close()

        async def main():
            return type(asyncio.get_running_loop())

        assert asyncio.run(main()) is erlang.ErlangEventLoop
    finally:
        asyncio.set_event_loop_policy(before)


def test_the_policy_runs_subprocesses():
    async def main():
        process = await asyncio.create_subprocess_shell("exit 4")
        return await process.wait()

    before = asyncio.get_event_loop_policy()
    asyncio.set_event_loop_policy(erlang.EventLoopPolicy())
    try:
        assert asyncio.run(main()) == 4
    finally:
        asyncio.set_event_loop_policy(before)


def test_run_cancels_the_tasks_that_are_left(loop_factory):
    cancelled = []

    async def left_behind():
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    async def main():
        task = asyncio.ensure_future(left_behind())
        await asyncio.sleep(0)
        return task

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(main())
    assert cancelled == [True]


def test_async_generators_are_closed_at_shutdown(loop):
    closed = []

    async def generator():
        try:
            yield 1
            yield 2
        finally:
            await asyncio.sleep(0)
            closed.append(True)

    kept = []

    async def main():
        kept.append(generator())
        return await kept[0].__anext__()

    assert loop.run_until_complete(main()) == 1
    assert closed == []
    loop.run_until_complete(loop.shutdown_asyncgens())
    assert closed == [True]


def test_a_dropped_async_generator_is_finalised_by_the_loop(loop):
    closed = []

    async def generator():
        try:
            yield 1
        finally:
            await asyncio.sleep(0)
            closed.append(asyncio.get_running_loop() is loop)

    async def main():
        async for _ in generator():
            break
        gc.collect()
        for _ in range(10):
            await asyncio.sleep(0)

    loop.run_until_complete(main())
    assert closed == [True]


def test_the_async_generator_hooks_are_restored_after_a_run(loop):
    before = sys.get_asyncgen_hooks()
    loop.run_until_complete(asyncio.sleep(0))
    assert sys.get_asyncgen_hooks() == before


CLOSED_CALLS = {
    "call_soon": lambda loop: loop.call_soon(print),
    "call_soon_threadsafe": lambda loop: loop.call_soon_threadsafe(print),
    "call_later": lambda loop: loop.call_later(1, print),
    "call_at": lambda loop: loop.call_at(1, print),
    "run_forever": lambda loop: loop.run_forever(),
    "run_until_complete": lambda loop: loop.run_until_complete(loop.create_future()),
    "add_reader": lambda loop: loop.add_reader(0, print),
    "add_writer": lambda loop: loop.add_writer(0, print),
    "run_in_executor": lambda loop: loop.run_in_executor(None, print),
    "add_signal_handler": lambda loop: loop.add_signal_handler(10, print),
}


@pytest.mark.parametrize("call", CLOSED_CALLS)
def test_a_closed_loop_refuses(loop, call):
    loop.close()
    with pytest.raises(RuntimeError, match="closed"):
        CLOSED_CALLS[call](loop)


def test_a_closed_loop_refuses_coroutines(loop):
    loop.close()
    coroutine = asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="closed"):
        loop.create_task(coroutine)
    coroutine.close()


def test_a_closed_loop_still_answers_what_it_can(loop):
    loop.close()
    loop.close()
    assert loop.is_closed() and not loop.is_running()
    assert loop.time() > 0
    assert loop.remove_reader(0) is False
    assert loop.remove_writer(0) is False
    assert loop.remove_signal_handler(10) is False
    assert "closed=True" in repr(loop)
    loop.stop()


def test_a_running_loop_may_not_be_closed(loop):
    async def main():
        with pytest.raises(RuntimeError, match="running"):
            loop.close()
        return True

    assert loop.run_until_complete(main())


def test_a_loop_that_is_dropped_unclosed_warns_and_is_freed(loop_factory):
    loop = loop_factory()
    loop.run_until_complete(asyncio.sleep(0))
    loop.call_later(100, loop.stop)
    reference = weakref.ref(loop)
    with pytest.warns(ResourceWarning, match="unclosed event loop"):
        del loop
        gc.collect()
    assert reference() is None


def test_a_loop_can_be_closed_with_everything_still_open(loop_factory):
    """Handles, timers, readers and tasks that are left do not crash the end of the loop."""
    loop = loop_factory()
    loop.set_exception_handler(lambda loop, context: None)
    reading, writing = os.pipe()

    async def forever():
        await loop.create_future()

    task = loop.create_task(forever())
    loop.call_soon(loop.stop)
    loop.run_forever()
    loop.add_reader(reading, print)
    loop.call_soon(print)
    handle = loop.call_later(10, print)
    loop.close()
    handle.cancel()
    assert not task.done()
    del task
    gc.collect()
    os.close(reading)
    os.close(writing)


def test_a_task_factory_is_used(loop):
    made = []

    def factory(loop, coroutine, **options):
        made.append(coroutine.__name__)
        return asyncio.Task(coroutine, loop=loop, **options)

    async def child():
        return 1

    async def main():
        return await asyncio.create_task(child(), name="a name")

    assert loop.get_task_factory() is None
    loop.set_task_factory(factory)
    assert loop.get_task_factory() is factory
    assert loop.run_until_complete(main()) == 1
    assert made == ["main", "child"]
    loop.set_task_factory(None)
    assert loop.get_task_factory() is None
    with pytest.raises(TypeError):
        loop.set_task_factory("no callable")


def test_create_task_takes_name_and_context(loop):
    var = contextvars.ContextVar("var", default="outside")
    context = contextvars.copy_context()
    context.run(var.set, "inside")

    async def child():
        return var.get()

    async def main():
        task = loop.create_task(child(), name="mine", context=context)
        assert task.get_name() == "mine"
        return await task

    assert loop.run_until_complete(main()) == "inside"


def test_eager_tasks_run_until_they_first_wait(loop):
    """Python 3.12 and later; earlier ones have no eager_task_factory."""
    ran = []

    async def child():
        ran.append("eager")
        await asyncio.sleep(0)
        ran.append("later")

    async def main():
        task = loop.create_task(child())
        ran.append("created")
        await task

    factory = getattr(asyncio, "eager_task_factory", None)
    loop.set_task_factory(factory)
    loop.run_until_complete(main())
    first = "created" if factory is None else "eager"
    assert ran[0] == first and ran[-1] == "later" and len(ran) == 3


def test_current_task_and_all_tasks_know_our_tasks(loop):
    async def main():
        assert asyncio.current_task().get_coro().__name__ == "main"
        other = asyncio.ensure_future(asyncio.sleep(0))
        assert asyncio.all_tasks() == {asyncio.current_task(), other}
        await other
        return True

    assert loop.run_until_complete(main())


def test_futures_are_asyncios(loop):
    assert type(loop.create_future()) is asyncio.Future
    assert loop.create_future().get_loop() is loop


def test_a_future_of_another_loop_is_refused(loop, loop_factory):
    other = loop_factory()
    with pytest.raises((ValueError, RuntimeError)):
        loop.run_until_complete(other.create_future())
    other.close()


@pytest.mark.asyncio
async def test_synchronisation_primitives_work_on_the_loop():
    lock, event, condition = asyncio.Lock(), asyncio.Event(), asyncio.Condition()
    order = []

    async def waiter(number):
        await event.wait()
        async with lock:
            order.append(number)
        async with condition:
            condition.notify_all()

    tasks = [asyncio.ensure_future(waiter(i)) for i in range(10)]
    await asyncio.sleep(0)
    event.set()
    async with condition:
        await condition.wait_for(lambda: len(order) == 10)
    await asyncio.gather(*tasks)
    assert order == list(range(10))


@pytest.mark.asyncio
async def test_sleep_zero_gives_everybody_a_turn():
    order = []

    async def worker(name):
        for _ in range(3):
            order.append(name)
            await asyncio.sleep(0)

    await asyncio.gather(worker("a"), worker("b"), worker("c"))
    assert order == list("abcabcabc")


SUB_INTERPRETER = """
import sys
sys.path[:] = {path}
import asyncio
async def main():
    await asyncio.sleep(0.001)
    return sum(await asyncio.gather(*[asyncio.sleep(0, i) for i in range(10)]))
if {name} == "erlang":
    from erlang.loop import new_event_loop
else:
    new_event_loop = asyncio.SelectorEventLoop
loop = new_event_loop()
print(loop.run_until_complete(main()), flush=True)
loop.close()
"""


def test_the_loop_runs_in_a_sub_interpreter(run_script, loop_name):
    """Module state, types and free lists are per interpreter."""
    source = SUB_INTERPRETER.format(path=sys.path, name=repr(loop_name))
    done = run_script(
        f"""
        try:
            import _interpreters as interpreters
            options = ["legacy"]
        except ImportError:
            import _xxsubinterpreters as interpreters
            options = []
        loop = new_loop()
        for _ in range(3):
            identity = interpreters.create(*options)
            failed = interpreters.run_string(identity, {source!r})
            if failed is not None:
                print(failed)
            interpreters.destroy(identity)
            loop.run_until_complete(asyncio.sleep(0.001))
        loop.close()
        # CPython 3.12.1 corrupts its memory at exit after a sub-interpreter that ran asyncio.
        sys.stdout.flush()
        os._exit(0)
        """
    )
    assert done.stdout == "45\n" * 3, done.stderr


def test_no_fork_hook_is_installed(run_script, loop_name):
    if loop_name == "asyncio":
        pytest.skip("not ours")
    result = run_script(
        """
        import concurrent.futures.thread, logging, random
        for name in [name for name in sys.modules if name.startswith("erlang")]:
            del sys.modules[name]
        hooks = []
        os.register_at_fork = lambda **kinds: hooks.append(kinds)
        import erlang, erlang._loop
        erlang.run(asyncio.sleep(0.001))
        assert hooks == []
        with open(erlang._loop.__file__, "rb") as file:
            assert b"atfork" not in file.read()
        """
    )
    assert result.returncode == 0, result.stderr


def test_a_program_may_end_with_loops_that_nobody_closed(run_script):
    ended = run_script(
        """
        import socket

        class Echo(asyncio.Protocol):
            def connection_made(self, transport):
                self.transport = transport

            def data_received(self, data):
                self.transport.write(data)

        def serve_briefly():
            loop = new_loop()
            ours, theirs = socket.socketpair()
            theirs.setblocking(False)
            transport = loop.run_until_complete(loop.connect_accepted_socket(Echo, theirs))
            send, receive, once = ours.send, ours.recv, loop._run_once
            for _ in range(20):
                send(b"x")
                once()
                assert receive(1) == b"x"

        for _ in range(8):
            serve_briefly()
        """
    )
    assert ended.returncode == 0, ended.stderr
