"""Subprocesses, the default executor, name resolution."""

import asyncio
import concurrent.futures
import os
import signal
import socket
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
