"""What Python sees of the process that it runs in, the Erlang VM's."""

import asyncio
import os
import resource
import signal
import socket
import subprocess
import sys
import threading

import pytest

import erlang


def test_the_interpreter_is_that_of_the_virtual_environment():
    assert os.path.dirname(sys.executable) == os.path.join(os.environ["VIRTUAL_ENV"], "bin")
    assert sys.prefix == os.environ["VIRTUAL_ENV"]


def test_calls_run_beside_the_main_thread():
    assert threading.current_thread() is not threading.main_thread()


def sanitized():
    with open("/proc/self/maps") as maps:
        return "libasan" in maps.read()


@pytest.mark.skipif(sanitized(), reason="its malloc is another")
def test_receiving_into_large_buffers_maps_no_memory_each_time():
    """Each buffer that is mapped anew faults when the first byte comes."""
    left, right = socket.socketpair()
    with left, right:

        def receive(count):
            before = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
            for _ in range(count):
                left.send(b"x")
                assert right.recv(262144) == b"x"
            return resource.getrusage(resource.RUSAGE_THREAD).ru_minflt - before

        receive(10)
        assert receive(1000) < 100


def test_a_child_tells_its_exit_status():
    assert subprocess.run([sys.executable, "-c", "raise SystemExit(5)"]).returncode == 5


def test_a_child_ends_at_sigterm():
    child = subprocess.Popen(["sleep", "60"])
    child.terminate()
    assert child.wait(10) == -signal.SIGTERM


def test_a_child_of_the_loop_ends_at_sigterm():
    async def main():
        child = await asyncio.create_subprocess_exec("sleep", "60")
        child.terminate()
        return await asyncio.wait_for(child.wait(), 10)

    assert erlang.run(main()) == -signal.SIGTERM


def test_many_children_of_loops_on_several_threads_need_no_threads_and_no_signal():
    results, threads_seen = {}, []

    async def child(loop, status):
        process = await asyncio.create_subprocess_shell(f"exit {status}")
        threads_seen.extend(t.name for t in threading.enumerate() if "waitpid" in t.name)
        assert len(loop._child_descriptors) <= 20
        return await process.wait()

    async def main(number):
        loop = asyncio.get_running_loop()
        results[number] = await asyncio.gather(*(child(loop, i) for i in range(20)))
        assert not loop._child_descriptors

    threads = [threading.Thread(target=lambda n=n: erlang.run(main(n))) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert results == {n: list(range(20)) for n in range(3)}
    assert threads_seen == []


def test_loops_run_on_several_threads_at_once():
    results, barrier = [], threading.Barrier(3)

    async def main(number):
        barrier.wait(10)
        await asyncio.sleep(0.01)
        return number

    threads = [
        threading.Thread(target=lambda n=n: results.append(erlang.run(main(n)))) for n in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert sorted(results) == [0, 1, 2]


def test_erlangs_own_signals_are_refused():
    with pytest.raises((ValueError, RuntimeError, OSError)):
        signal.signal(signal.SIGTERM, lambda *_: None)
