"""Subprocesses, the default executor, name resolution."""

import asyncio
import concurrent.futures
import errno
import os
import signal
import socket
import sys
import threading

import pytest


def current():
    return asyncio.get_running_loop()


@pytest.mark.asyncio
async def test_a_child_process_reads_and_writes_through_pipes():
    process = await asyncio.create_subprocess_exec(
        "cat", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    data = b"x" * 1_000_000
    out, _ = await process.communicate(data)
    assert out == data
    assert process.returncode == 0


@pytest.mark.asyncio
async def test_a_child_process_gives_its_exit_status():
    process = await asyncio.create_subprocess_exec("sh", "-c", "exit 5")
    assert await process.wait() == 5


@pytest.mark.asyncio
async def test_a_child_process_can_be_terminated_and_killed():
    for send, number in (("terminate", signal.SIGTERM), ("kill", signal.SIGKILL)):
        process = await asyncio.create_subprocess_exec("sleep", "30")
        getattr(process, send)()
        assert await process.wait() == -number


@pytest.mark.asyncio
async def test_standard_error_can_be_read_apart():
    process = await asyncio.create_subprocess_shell(
        "echo out; echo err >&2", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    assert await process.communicate() == (b"out\n", b"err\n")


@pytest.mark.asyncio
async def test_many_children_at_once():
    async def child(number):
        process = await asyncio.create_subprocess_shell(f"exit {number}")
        return await process.wait()

    assert await asyncio.gather(*map(child, range(20))) == list(range(20))


@pytest.mark.asyncio
async def test_a_child_that_does_not_exist_is_reported():
    with pytest.raises(FileNotFoundError):
        await asyncio.create_subprocess_exec("/does/not/exist")


@pytest.mark.asyncio
async def test_cancelling_the_wait_leaves_the_child_to_another_wait():
    process = await asyncio.create_subprocess_exec("sleep", "30")
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(process.wait(), 0.01)
    process.kill()
    assert await process.wait() == -signal.SIGKILL


def test_a_loop_on_another_thread_runs_subprocesses(loop_factory):
    results = []

    async def main():
        process = await asyncio.create_subprocess_shell("exit 3")
        return await process.wait()

    def run():
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            results.append(runner.run(main()))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(30)
    assert results == [3]


def test_children_of_several_loops_on_several_threads(loop_factory):
    results = {}

    async def main(number):
        async def child(status):
            process = await asyncio.create_subprocess_shell(f"exit {status}")
            return await process.wait()

        return await asyncio.gather(*(child(10 * number + i) for i in range(8)))

    def run(number):
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            results[number] = runner.run(main(number))

    threads = [threading.Thread(target=run, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert results == {n: [10 * n + i for i in range(8)] for n in range(4)}


@pytest.fixture
def no_threads(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a thread was made")

    monkeypatch.setattr(threading, "Thread", refuse)


@pytest.mark.parametrize("set_event_loop", [False, True])
def test_a_child_needs_no_thread_and_its_descriptor_goes(erlang_loop, no_threads, set_event_loop):
    async def main():
        children = [await asyncio.create_subprocess_exec("sleep", "60") for _ in range(3)]
        assert len(erlang_loop._child_descriptors) == 3
        for child in children:
            child.kill()
        statuses = [await child.wait() for child in children]
        assert not erlang_loop._child_descriptors
        return statuses

    asyncio.set_event_loop(erlang_loop if set_event_loop else None)
    try:
        assert erlang_loop.run_until_complete(main()) == [-signal.SIGKILL] * 3
    finally:
        asyncio.set_event_loop(None)


def pidfd_fails(monkeypatch):
    def fail(pid, flags=0):
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(os, "pidfd_open", fail)


def pidfd_is_missing(monkeypatch):
    monkeypatch.delattr(os, "pidfd_open")


@pytest.mark.parametrize("spoil", [pidfd_fails, pidfd_is_missing])
def test_a_thread_waits_where_no_descriptor_can(erlang_loop, monkeypatch, spoil):
    async def main():
        process = await asyncio.create_subprocess_shell("exit 7")
        return await process.wait()

    spoil(monkeypatch)
    assert erlang_loop.run_until_complete(main()) == 7
    assert not erlang_loop._child_descriptors


def test_a_thread_that_waits_outlives_its_loop(erlang_loop, monkeypatch, caplog):
    async def main():
        return await asyncio.create_subprocess_exec("sleep", "60")

    pidfd_is_missing(monkeypatch)
    process = erlang_loop.run_until_complete(main())
    waiting = [t for t in threading.enumerate() if t.name == f"waitpid-{process.pid}"]
    erlang_loop.close()
    process.kill()
    for thread in waiting:
        thread.join(30)
        assert not thread.is_alive()
    assert len(waiting) == 1
    assert not caplog.records
    process._transport.close()


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_loop_can_be_closed_while_a_child_lives(erlang_loop):
    async def main():
        return await asyncio.create_subprocess_exec("sleep", "60")

    process = erlang_loop.run_until_complete(main())
    descriptors = set(erlang_loop._child_descriptors)
    assert len(descriptors) == 1
    erlang_loop.close()
    for fd in descriptors:
        with pytest.raises(OSError):
            os.fstat(fd)
    popen = process._transport.get_extra_info("subprocess")
    assert popen.poll() is None
    process._transport.close()
    assert popen.wait(30) == -signal.SIGKILL


def test_a_running_loop_is_not_closed_and_keeps_its_children(erlang_loop):
    async def main():
        process = await asyncio.create_subprocess_exec("sleep", "60")
        with pytest.raises(RuntimeError):
            erlang_loop.close()
        process.kill()
        return await process.wait()

    assert erlang_loop.run_until_complete(main()) == -signal.SIGKILL


async def child_that_ends_when_told():
    """A child that ends with status 6 while the loop does not run: right after this returns."""
    reading, writing = os.pipe()
    process = await asyncio.create_subprocess_exec("sh", "-c", "read x; exit 6", stdin=reading)
    os.close(reading)
    os.close(writing)
    return process


def test_a_child_that_closing_found_dead_keeps_its_status(erlang_loop, caplog):
    async def main():
        process = await child_that_ends_when_told()
        # The loop does not run meanwhile and knows nothing.
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        process._transport.close()
        return await process.wait()

    assert erlang_loop.run_until_complete(main()) == 6
    assert not caplog.records


def test_a_child_whose_status_somebody_else_read_is_reported(erlang_loop, caplog):
    async def main():
        process = await child_that_ends_when_told()
        os.waitpid(process.pid, 0)
        return await process.wait()

    assert erlang_loop.run_until_complete(main()) == 255
    assert "was read by somebody else" in caplog.text


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="child watchers are gone")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_watcher_that_the_program_sets_is_used(erlang_loop):
    watched = []

    class Watcher(asyncio.ThreadedChildWatcher):
        def add_child_handler(self, pid, callback, *args):
            watched.append(pid)
            super().add_child_handler(pid, callback, *args)

    async def main():
        process = await asyncio.create_subprocess_shell("exit 8")
        assert watched == [process.pid]
        return await process.wait()

    asyncio.set_child_watcher(Watcher())
    try:
        assert erlang_loop.run_until_complete(main()) == 8
    finally:
        asyncio.set_child_watcher(None)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_policy_with_a_watcher_of_its_own_is_asked(erlang_loop):
    watched = []

    class Policy(asyncio.DefaultEventLoopPolicy):
        def get_child_watcher(self):
            watched.append(self)
            return super().get_child_watcher()

    async def main():
        process = await asyncio.create_subprocess_shell("exit 9")
        return await process.wait()

    asyncio.set_event_loop_policy(Policy())
    try:
        assert erlang_loop.run_until_complete(main()) == 9
    finally:
        asyncio.set_event_loop_policy(None)
    assert len(watched) == 1


def test_a_start_that_is_cancelled_leaves_no_child(erlang_loop):
    async def main():
        task = asyncio.ensure_future(
            asyncio.create_subprocess_exec("sleep", "60", stdin=asyncio.subprocess.PIPE)
        )
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not erlang_loop._child_descriptors

    erlang_loop.run_until_complete(main())


@pytest.mark.asyncio
async def test_the_executor_runs_functions_on_other_threads():
    ident = await current().run_in_executor(None, threading.get_ident)
    assert ident != threading.get_ident()
    assert await asyncio.to_thread(sum, [1, 2, 3]) == 6
    with pytest.raises(ZeroDivisionError):
        await current().run_in_executor(None, lambda: 1 / 0)


@pytest.mark.asyncio
async def test_the_loop_goes_on_while_the_executor_blocks():
    go_on = threading.Event()
    blocked = current().run_in_executor(None, go_on.wait, 30)
    for _ in range(10):
        await asyncio.sleep(0.0001)
    assert not blocked.done()
    go_on.set()
    assert await blocked is True


@pytest.mark.asyncio
async def test_an_executor_of_ones_own_can_be_given():
    with concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="mine") as pool:
        current().set_default_executor(pool)
        name = await current().run_in_executor(None, lambda: threading.current_thread().name)
        assert name.startswith("mine")
        with pytest.raises(TypeError):
            current().set_default_executor("no executor")


def test_no_executor_after_its_shutdown(loop):
    loop.run_until_complete(loop.run_in_executor(None, int))
    loop.run_until_complete(loop.shutdown_default_executor())
    with pytest.raises(RuntimeError, match="shutdown"):
        loop.run_in_executor(None, int)


@pytest.mark.asyncio
async def test_getaddrinfo_and_getnameinfo():
    infos = await current().getaddrinfo("127.0.0.1", 80, type=socket.SOCK_STREAM)
    assert infos[0][4] == ("127.0.0.1", 80)
    infos = await current().getaddrinfo("localhost", 81)
    assert {info[4][1] for info in infos} == {81}
    name = await current().getnameinfo(
        ("127.0.0.1", 80), socket.NI_NUMERICHOST | socket.NI_NUMERICSERV
    )
    assert name == ("127.0.0.1", "80")
    with pytest.raises(socket.gaierror):
        await current().getaddrinfo("no-such-host.invalid", 80)


@pytest.mark.asyncio
async def test_read_and_write_pipes():
    reading, writing = os.pipe()
    reader = asyncio.StreamReader()
    read_transport, _ = await current().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(reading, "rb", 0)
    )
    write_transport, _ = await current().connect_write_pipe(
        asyncio.streams.FlowControlMixin, os.fdopen(writing, "wb", 0)
    )
    data = b"x" * 500_000
    write_transport.write(data)
    write_transport.write(b"end")
    write_transport.close()
    assert await reader.read() == data + b"end"
    read_transport.close()
    await asyncio.sleep(0)
    assert isinstance(read_transport, asyncio.ReadTransport)
    assert isinstance(write_transport, asyncio.WriteTransport)


@pytest.mark.asyncio
async def test_a_write_pipe_notices_that_its_reader_is_gone():
    reading, writing = os.pipe()
    lost = current().create_future()

    class Writer(asyncio.BaseProtocol):
        def connection_lost(self, exc):
            lost.set_result(exc)

    await current().connect_write_pipe(Writer, os.fdopen(writing, "wb", 0))
    os.close(reading)
    assert isinstance(await asyncio.wait_for(lost, 5), (BrokenPipeError, type(None)))
