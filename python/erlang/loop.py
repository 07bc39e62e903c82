"""The event loop of the `erlang` package: asyncio's whole contract, its hot paths in C.

`erlang._loop.NativeLoop` holds what is hot (handles, ready queue, timers, wake-up, readiness,
`sock_*`); asyncio's own selector loop, the second base class, holds the rest.  What the two need
from asyncio's private side, and what differs between Python versions, is in this file alone.
"""

import asyncio
import selectors
import signal
import sys
import threading
from asyncio import events

from . import _loop
from .children import NativeChildren
from .server import NativeServers
from .transports import NativeTransports, Transports

__all__ = ("ErlangEventLoop", "EventLoopPolicy", "new_event_loop", "run")


class _NativeSelector(selectors._BaseSelectorImpl):
    """What `loop._selector` shows of the native registrations; it cannot be changed."""

    def __init__(self, loop):
        super().__init__()
        self._loop = loop

    def get_map(self):
        keys = {}
        for fd, (reader, writer) in self._loop._watched().items():
            mask = (selectors.EVENT_READ if reader is not None else 0) | (
                selectors.EVENT_WRITE if writer is not None else 0
            )
            keys[fd] = selectors.SelectorKey(fd, fd, mask, (reader, writer))
        return keys

    def get_key(self, fileobj):
        return self.get_map()[self._fileobj_lookup(fileobj)]

    def register(self, fileobj, events, data=None):
        raise NotImplementedError("use the loop's add_reader() and add_writer()")

    unregister = modify = register

    def select(self, timeout=None):
        raise NotImplementedError("the loop waits natively")

    def close(self):
        """Nothing: the loop closes its own poller."""


def _on_signal_thread():
    """True where Python runs signal handlers and signals arrive."""
    return (
        threading.current_thread() is threading.main_thread()
        and signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    )


class ErlangEventLoop(
    NativeServers,
    NativeTransports,
    NativeChildren,
    _loop.NativeLoop,
    asyncio.SelectorEventLoop,
):
    """An asyncio event loop that runs in C, in the Erlang VM and in an ordinary Python process.

    It is used as any asyncio loop is; see `asyncio.AbstractEventLoop` for its methods.
    """

    _ssock = _csock = None

    def __init__(self):
        self._child_descriptors = set()
        self._listeners = {}
        super().__init__(_NativeSelector(self))
        self._outer_wakeup_fd = None
        self._transports = Transports(self)

    # --- asyncio's selector and self-pipe, which the native loop does without -----------------

    @property
    def _selector(self):
        return None if self._closed else _NativeSelector(self)

    @_selector.setter
    def _selector(self, selector):
        pass

    def _make_self_pipe(self):
        # The pipe is for signals alone and opened when they are first wanted.
        self._ssock = self._csock = None
        self._internal_fds += 1

    def _open_self_pipe(self):
        if self._csock is None:
            super()._make_self_pipe()
            self._internal_fds -= 1

    def _close_self_pipe(self):
        if self._csock is None:
            self._internal_fds -= 1
        else:
            super()._close_self_pipe()

    # --- signals ------------------------------------------------------------------------------

    def add_signal_handler(self, sig, callback, *args):
        if not self._closed and threading.current_thread() is threading.main_thread():
            self._open_self_pipe()
        super().add_signal_handler(sig, callback, *args)

    def remove_signal_handler(self, sig):
        removed = super().remove_signal_handler(sig)
        if removed and self._outer_wakeup_fd is not None and not self._signal_handlers:
            # asyncio has reset the descriptor that ends the running loop's sleep.
            signal.set_wakeup_fd(self._csock.fileno(), warn_on_full_buffer=False)
        return removed

    def _watch_signals(self):
        """Let signals end the loop's sleep, on the thread where Python handles them."""
        self._interruptible = _on_signal_thread()
        if not self._interruptible:
            return
        self._open_self_pipe()
        try:
            outer = signal.set_wakeup_fd(self._csock.fileno(), warn_on_full_buffer=False)
        except ValueError:
            # A sub-interpreter: signals are the main interpreter's.
            self._interruptible = False
            return
        if outer in (-1, self._csock.fileno()):
            self._outer_wakeup_fd = outer
        else:
            # Somebody else wants to hear of signals; EINTR has to do for us.
            signal.set_wakeup_fd(outer)

    def _unwatch_signals(self):
        if self._outer_wakeup_fd is not None and not self._signal_handlers:
            signal.set_wakeup_fd(-1)
        self._outer_wakeup_fd = None

    # --- running ------------------------------------------------------------------------------

    @staticmethod
    def _check_in():
        """Nothing: the interpreter looks after other threads and signals when it is called."""

    def _run_forever_setup(self):
        self._check_closed()
        self._check_running()
        self._set_coroutine_origin_tracking(self._debug)
        self._old_agen_hooks = sys.get_asyncgen_hooks()
        self._thread_id = threading.get_ident()
        sys.set_asyncgen_hooks(
            firstiter=self._asyncgen_firstiter_hook, finalizer=self._asyncgen_finalizer_hook
        )
        events._set_running_loop(self)

    def _run_forever_cleanup(self):
        self._unwatch_signals()
        self._stopping = False
        self._thread_id = None
        events._set_running_loop(None)
        self._set_coroutine_origin_tracking(False)
        sys.set_asyncgen_hooks(*self._old_agen_hooks)
        self._old_agen_hooks = None

    def run_forever(self):
        """Run until stop() is called."""
        self._run_forever_setup()
        try:
            self._watch_signals()
            if type(self)._run_once is not _native_run_once or (
                self._dict_known and "_run_once" in self.__dict__
            ):
                while True:
                    self._run_once()
                    if self._stopping:
                        break
            else:
                self._run_native()
        finally:
            self._run_forever_cleanup()

    async def connect_byte_channel(self, protocol_factory, channel):
        """(transport, protocol) over a byte channel; see erlang.connect_byte_channel."""
        from .byte_transport import connect_byte_channel

        return await connect_byte_channel(protocol_factory, channel, loop=self)

    def close(self):
        """Close the loop: nothing runs any more, and events posted to it are refused."""
        super().close()
        self._close_native()


_native_run_once = ErlangEventLoop._run_once


class EventLoopPolicy(asyncio.DefaultEventLoopPolicy):
    """For `asyncio.set_event_loop_policy(erlang.EventLoopPolicy())`."""

    _loop_factory = ErlangEventLoop


def new_event_loop():
    """A new ErlangEventLoop; also the loop_factory of asyncio.Runner."""
    return ErlangEventLoop()


def run(main, *, debug=None):
    """Run the coroutine main on a new ErlangEventLoop and return what it returns.

    As asyncio.run(): other tasks are cancelled at the end, async generators and the default
    executor shut down and the loop closed.  Any number of threads may do so at the same time.
    """
    if events._get_running_loop() is not None:
        raise RuntimeError("erlang.run() cannot be called from a running event loop")
    with asyncio.Runner(debug=debug, loop_factory=new_event_loop) as runner:
        return runner.run(main)
