"""Signals and Ctrl-C.  Each test is a process of its own, as signals belong to a process."""

import signal

import pytest


def test_a_signal_handler_runs_as_a_callback(run_script):
    done = run_script(
        """
        loop = new_loop()
        def handle(*args):
            print("handled", args, asyncio._get_running_loop() is loop)
            loop.stop()
        loop.add_signal_handler(signal.SIGUSR1, handle, 1, 2)
        loop.call_later(0.005, os.kill, os.getpid(), signal.SIGUSR1)
        loop.run_forever()
        print(loop.remove_signal_handler(signal.SIGUSR1))
        print(loop.remove_signal_handler(signal.SIGUSR1))
        loop.close()
        """
    )
    assert done.stdout == "handled (1, 2) True\nTrue\nFalse\n", done.stderr


def test_a_signal_wakes_a_loop_that_sleeps_without_any_timer(run_script):
    done = run_script(
        """
        import subprocess
        loop = new_loop()
        loop.add_signal_handler(signal.SIGTERM, lambda: (print("term"), loop.stop()))
        killer = subprocess.Popen(["/bin/sh", "-c", f"sleep 0.1; kill -TERM {os.getpid()}"])
        loop.run_forever()
        killer.wait()
        loop.close()
        """
    )
    assert done.stdout == "term\n", done.stderr


def test_many_different_signals_are_all_handled(run_script):
    done = run_script(
        """
        loop = new_loop()
        seen = []
        numbers = [signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP, signal.SIGWINCH, signal.SIGTERM]
        def handle(number):
            seen.append(number)
            if len(seen) == len(numbers):
                loop.stop()
        for number in numbers:
            loop.add_signal_handler(number, handle, number)
        def raise_all():
            for number in numbers:
                signal.raise_signal(number)
        loop.call_later(0.001, raise_all)
        loop.run_forever()
        print(sorted(seen) == sorted(numbers))
        loop.close()
        """
    )
    assert done.stdout == "True\n", done.stderr


def test_close_gives_the_signals_back(run_script):
    done = run_script(
        """
        loop = new_loop()
        loop.add_signal_handler(signal.SIGINT, print)
        loop.add_signal_handler(signal.SIGUSR1, print)
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
        print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)
        print(signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL)
        print(signal.set_wakeup_fd(-1))
        """
    )
    assert done.stdout == "True\nTrue\n-1\n", done.stderr


def test_a_python_signal_handler_runs_while_the_loop_sleeps(run_script):
    """No add_signal_handler: signal.signal must work beside the loop too, as with asyncio."""
    done = run_script(
        """
        loop = new_loop()
        got = []
        def handle(*args):
            got.append(1)
            loop.call_soon_threadsafe(loop.stop)
        signal.signal(signal.SIGALRM, handle)
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        loop.call_later(20, print, "stop() came too late")
        loop.run_forever()
        print(got)
        loop.close()
        """
    )
    assert done.stdout == "[1]\n", done.stderr


@pytest.mark.parametrize(
    "setup",
    [
        "",
        "loop.call_later(3600, print)",
        "r, w = os.pipe(); loop.add_reader(r, print)",
    ],
    ids=["idle", "timer", "reader"],
)
def test_ctrl_c_interrupts_a_sleeping_loop(run_script, setup):
    done = run_script(
        f"""
        loop = new_loop()
        {setup}
        signal.signal(signal.SIGALRM, signal.default_int_handler)
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            loop.run_forever()
        except KeyboardInterrupt:
            print("interrupted", loop.is_running())
        loop.close()
        """
    )
    assert done.stdout == "interrupted False\n", done.stderr


def test_ctrl_c_interrupts_a_busy_callback(run_script):
    done = run_script(
        """
        loop = new_loop()
        def spin():
            while True:
                pass
        signal.signal(signal.SIGALRM, signal.default_int_handler)
        loop.call_soon(spin)
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            loop.run_forever()
        except KeyboardInterrupt:
            print("interrupted")
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
        """
    )
    assert done.stdout == "interrupted\n", done.stderr


@pytest.mark.parametrize("callback", ["a Python function", "C alone"])
def test_ctrl_c_interrupts_a_ready_queue_that_never_empties(run_script, callback):
    """A callback written in C never reaches the interpreter's own check for signals."""
    done = run_script(
        f"""
        import functools
        loop = new_loop()
        loop.set_debug(False)
        if {callback == "C alone"}:
            again = functools.partial(loop.call_soon)
            again.__setstate__((loop.call_soon, (again,), {{}}, None))
        else:
            def again():
                loop.call_soon(again)
        signal.signal(signal.SIGALRM, signal.default_int_handler)
        loop.call_soon(again)
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            loop.run_forever()
        except KeyboardInterrupt:
            print("interrupted")
        loop.close()
        """
    )
    assert done.stdout == "interrupted\n", done.stderr


def test_runner_cancels_the_main_task_on_ctrl_c(run_script):
    done = run_script(
        """
        async def main():
            asyncio.get_running_loop().call_later(0.02, signal.raise_signal, signal.SIGINT)
            try:
                await asyncio.sleep(30)
            except asyncio.CancelledError:
                print("cancelled")
                raise
        try:
            with asyncio.Runner(loop_factory=new_loop) as runner:
                runner.run(main())
        except KeyboardInterrupt:
            print("interrupted")
        """
    )
    assert done.stdout == "cancelled\ninterrupted\n", done.stderr


def test_ctrl_c_ends_a_program_with_the_status_of_sigint(run_script):
    done = run_script(
        """
        async def main():
            asyncio.get_running_loop().call_later(0.02, os.kill, os.getpid(), signal.SIGINT)
            await asyncio.sleep(30)
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(main())
        """
    )
    assert done.returncode == -signal.SIGINT
    assert "KeyboardInterrupt" in done.stderr


def test_bad_signals_are_refused(run_script):
    done = run_script(
        """
        loop = new_loop()
        loop.set_debug(False)
        async def coroutine_function(): pass
        def attempt(*args):
            try:
                loop.add_signal_handler(*args)
            except Exception as error:
                print(type(error).__name__)
        attempt("text", print)
        attempt(0, print)
        attempt(1000, print)
        attempt(signal.SIGKILL, print)
        attempt(signal.SIGUSR1, coroutine_function)
        def elsewhere():
            attempt(signal.SIGUSR1, print)
        thread = threading.Thread(target=elsewhere)
        thread.start(); thread.join()
        loop.close()
        attempt(signal.SIGUSR1, print)
        """
    )
    assert done.stdout.split() == [
        "TypeError",
        "ValueError",
        "ValueError",
        "RuntimeError",
        "TypeError",
        "RuntimeError",
        "RuntimeError",
    ], done.stderr


def test_a_loop_on_another_thread_leaves_signals_alone(run_script):
    done = run_script(
        """
        main_loop = new_loop()
        main_loop.add_signal_handler(signal.SIGUSR1, lambda: (print("main"), main_loop.stop()))
        def other():
            loop = new_loop()
            loop.run_until_complete(asyncio.sleep(0.05))
            loop.close()
        thread = threading.Thread(target=other)
        thread.start()
        main_loop.run_until_complete(asyncio.sleep(0.1))
        thread.join()
        main_loop.call_later(0.005, signal.raise_signal, signal.SIGUSR1)
        main_loop.run_forever()
        main_loop.close()
        """
    )
    assert done.stdout == "main\n", done.stderr


def test_fork_without_exec_leaves_the_parents_loop_alone(run_script):
    """No atfork hooks: a forked child makes a loop of its own, and the parent's goes on."""
    done = run_script(
        """
        loop = new_loop()
        loop.run_until_complete(asyncio.sleep(0))
        child = os.fork()
        if child == 0:
            try:
                own = new_loop()
                own.run_until_complete(asyncio.sleep(0.001))
                own.close()
                os._exit(7)
            finally:
                os._exit(1)
        async def main():
            await asyncio.sleep(0.05)
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        print(loop.run_until_complete(main()))
        loop.close()
        """
    )
    assert done.stdout == "7\n", done.stderr
