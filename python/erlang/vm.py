"""The Python side of the Erlang VM: what the C code of the VM layer calls, and what it prepares.

The names with an underscore are for that C code alone.  The module imports in an ordinary Python
too, where nothing calls it.
"""

import asyncio
import atexit
import functools
import os
import signal
import sys
import threading
import traceback

from .errors import NotInVM, SignalNotOurs

try:
    import _beamloop_vm
except ImportError:
    _beamloop_vm = None

__all__ = ["in_vm", "send"]

_END_TIMEOUT = 2.0  # seconds that a stopped loop gives its tasks, and then its executor, to end


def in_vm():
    """Whether this Python runs inside the Erlang VM."""
    return _beamloop_vm is not None


def send(to, term):
    """Send `term` to an Erlang process: an `erlang.Pid`, or a str that names a registered process.

    As in Erlang, a process that is gone is no error.  Raises LookupError when no process has the
    name, TypeError or ValueError for what is no term, NotInVM outside the Erlang VM.
    """
    raise NotInVM("send() needs the Erlang VM")


if _beamloop_vm is not None:
    send = _beamloop_vm.send


# ---- signals and children ----


def _guard_signals():
    """Keep Python from replacing the handlers of the Erlang VM, which would go deaf."""
    original = signal.signal

    @functools.wraps(original)
    def guarded(signalnum, handler):
        if not _beamloop_vm.signal_is_ours(signalnum):
            name = signal.Signals(signalnum).name
            raise SignalNotOurs(
                f"{name} is handled by the Erlang VM; os:set_signal({name.lower()}, default) in "
                "Erlang lets it go"
            )
        previous = original(signalnum, handler)
        _beamloop_vm.signal_was_set(signalnum)
        return previous

    signal.signal = guarded


def _with_child_mask(function):
    @functools.wraps(function)
    def call(*args, **kwargs):
        return _beamloop_vm.with_child_mask(function, args, kwargs)

    return call


def _open_children():
    """Start children with the signal mask that the process had before our threads blocked all."""
    import _posixsubprocess
    import posix
    import subprocess

    fork_exec = _with_child_mask(_posixsubprocess.fork_exec)
    _posixsubprocess.fork_exec = fork_exec
    subprocess._fork_exec = fork_exec
    for name in ("posix_spawn", "posix_spawnp", "system"):
        if hasattr(posix, name):
            wrapped = _with_child_mask(getattr(posix, name))
            setattr(posix, name, wrapped)
            setattr(os, name, wrapped)
    os.register_at_fork(after_in_child=_beamloop_vm.become_child)
    os.register_at_fork(before=_hide_dummy_thread, after_in_parent=_show_dummy_thread)


_hidden = {}  # thread identity -> what `threading` made up for the thread, while it forks


def _hide_dummy_thread():
    """Let `threading` take a forking thread of ours for the main thread of the child.

    Up to CPython 3.12 it keeps a dummy that it made up for a thread it did not start, cannot shut
    down as the main thread, and a child of multiprocessing ends with status 1.
    """
    thread = threading.get_ident()
    if isinstance(threading._active.get(thread), threading._DummyThread):
        _hidden[thread] = threading._active.pop(thread)


def _show_dummy_thread():
    thread = threading.get_ident()
    if thread in _hidden:
        threading._active[thread] = _hidden.pop(thread)


def _prepare():
    """Once, on the main thread, right after the start of the interpreter."""
    if sys.stdout is not None:
        # The process may end at any time without a word to Python: print what is printed.
        sys.stdout.reconfigure(line_buffering=True)
    _guard_signals()
    _open_children()
    _follow_running_loops()


# ---- loops that calls run on workers ----

_running = {}  # thread identity -> the _Run there
_IDLE_CHECKS = 0.02, 1.0  # seconds: from the first to the longest


class _Run:
    """One run of an event loop, of whatever kind, on a thread."""

    __slots__ = ("cancelled", "frame", "loop")

    def __init__(self, loop, frame):
        self.loop = loop
        self.frame = frame  # what runs the loop
        self.cancelled = False  # whether its tasks were cancelled


def _follow_running_loops():
    """Know which loop runs on which thread: a cancelled call may be waiting in one."""
    original = asyncio.events._set_running_loop

    def _set_running_loop(loop):
        original(loop)
        if loop is None:
            _running.pop(threading.get_ident(), None)
            _beamloop_vm.left_loop()
        else:
            _running[threading.get_ident()] = _Run(loop, sys._getframe(1))

    asyncio.events._set_running_loop = _set_running_loop
    asyncio._set_running_loop = _set_running_loop


def _interrupt_loop(thread):
    """Service thread: have the loop on this thread end its tasks; what frame runs it, or None."""
    run = _running.get(thread)
    if run is None:
        return None
    try:
        run.loop.call_soon_threadsafe(_beamloop_vm.end_tasks, run.loop)
    except RuntimeError:  # it is closed: its thread is past it
        return None
    return run.frame


def _cancel_all_tasks(loop):
    """Loop's thread, by end_tasks().  Once in a run: their cleaning up is left to end."""
    run = _running.get(threading.get_ident())
    if run is not None and run.cancelled:
        return
    for task in asyncio.all_tasks(loop):
        task.cancel()
    _stop_if_idle(loop, _beamloop_vm.call_number(), _IDLE_CHECKS[0])
    if run is not None:
        run.cancelled = True


def _stop_if_idle(loop, number, delay):
    """Stop a loop that runs on after the tasks of its cancelled call have ended.

    The exception that ended them may have hit the very callback that was to stop it.
    """
    if _beamloop_vm.call_number() != number:
        return
    if asyncio.all_tasks(loop):
        loop.call_later(delay, _stop_if_idle, loop, number, min(2 * delay, _IDLE_CHECKS[1]))
    else:
        loop.stop()


def _clean_thread():
    """The thread of a cancelled call: what a loop leaves that could not end in order."""
    if asyncio._get_running_loop() is not None:
        asyncio._set_running_loop(None)
    _running.pop(threading.get_ident(), None)
    sys.set_asyncgen_hooks(None, None)
    sys.set_coroutine_origin_tracking_depth(0)


# ---- loops that the VM hosts ----


class _Hosted:
    """An event loop on a thread of the VM, with the inbox through which calls reach it."""

    def __init__(self):
        from .loop import new_event_loop

        self.loop = new_event_loop()
        try:
            self.inbox = _beamloop_vm.Inbox(self.loop)
        except BaseException:
            self.loop.close()
            raise
        _hosted.add(self)

    def run(self):
        """The loop's thread: until stop().  What a callback raises ends nothing but itself."""
        asyncio.set_event_loop(self.loop)
        try:
            while not self.inbox.stopping:
                try:
                    self.loop.run_forever()
                except BaseException as error:
                    self._report(error)
        finally:
            self._end()
            _hosted.discard(self)
            asyncio.set_event_loop(None)

    def _report(self, error):
        if not self.inbox.stopping:
            context = {"message": "Unhandled exception in the event loop", "exception": error}
            self.loop.call_exception_handler(context)

    def _end(self):
        self.inbox.close()
        _abort_reactors(self.loop)
        for step in (self._cancel_tasks, self.loop.shutdown_asyncgens, self._shutdown_executor):
            try:
                self.loop.run_until_complete(step())
            except BaseException as error:
                self._report(error)
        self.loop.close()

    async def _cancel_tasks(self):
        tasks = asyncio.all_tasks(self.loop) - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_END_TIMEOUT)

    async def _shutdown_executor(self):
        await asyncio.wait_for(self.loop.shutdown_default_executor(), _END_TIMEOUT)


def _abort_reactors(loop):
    """A loop that ends closes the descriptors that its reactors have; its last steps do so."""
    reactor = sys.modules.get("erlang.reactor")
    if reactor is not None:
        reactor._abort_all(loop)


_hosted = set()  # all that run
_default = None  # the one on the main thread


def _open():
    """Main thread: make the default loop ready, so that calls may come."""
    global _default
    _default = _Hosted()
    _default.inbox.serve_default(True)


def _serve():
    """Main thread: run the default loop until the interpreter stops."""
    try:
        _default.run()
    finally:
        _default.inbox.serve_default(False)


def _open_hosted():
    """Loop thread: a further loop."""
    return _Hosted()


def _stop_loops():
    """Service thread: every hosted loop ends soon."""
    for hosted in list(_hosted):
        hosted.inbox.stop()


def _flush():
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:
            pass


def _run_atexit():
    """When the whole system ends."""
    atexit._run_exitfuncs()
    _flush()


def _end_child(error):
    """In a forked child that comes back from the call that forked it; never returns."""
    code = 0
    if isinstance(error, SystemExit):
        code = error.code
    elif error is not None:
        traceback.print_exception(error)
        code = 1
    if code is not None and not isinstance(code, int):
        print(code, file=sys.stderr)
        code = 1
    _flush()
    os._exit((code or 0) & 0xFF)


# ---- calls ----


def _format_error(error):
    """(name, message, lines of the traceback) of an exception, all str."""
    lines = []
    for part in traceback.format_exception(error):
        lines.extend(part.rstrip("\n").split("\n"))
    return type(error).__name__, _text(str(error)), [_text(line) for line in lines]


def _text(text):
    """The text with what UTF-8 cannot hold (lone surrogates) escaped."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _start_task(loop, started, done):
    """A task of what a coroutine function returned; `done` is called with it at its end."""
    if asyncio.iscoroutine(started):
        task = loop.create_task(started)
    else:
        task = asyncio.ensure_future(started, loop=loop)
    task.add_done_callback(done)
    return task


def _outcome(task):
    """(result, None) or (None, exception) of a task that is done."""
    if task.cancelled():
        return None, asyncio.CancelledError()
    error = task.exception()
    return (None, error) if error is not None else (task.result(), None)


async def _loop_info():
    """What py_event_loop:info/1 tells of the loop that this runs on."""
    loop = asyncio.get_running_loop()
    return {**loop._stats(), "tasks": len(asyncio.all_tasks(loop)) - 1}
