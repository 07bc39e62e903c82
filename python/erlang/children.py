"""Child processes of the loop: each is waited for through a descriptor of its own (pidfd).

No thread, no signal, and any number of loops on any threads.  Where the system has no pidfd a
thread waits for the child.  A child watcher that the program has set is left in charge (Python has
them up to 3.13).  What this takes from asyncio's private side is in this file alone.
"""

import asyncio
import os
import threading
from asyncio import log, unix_events

_STOCK_WATCHERS = tuple(
    getattr(unix_events, name)
    for name in ("ThreadedChildWatcher", "PidfdChildWatcher")
    if hasattr(unix_events, name)
)


def _program_has_set_a_watcher():
    policy = asyncio.get_event_loop_policy()
    method = getattr(type(policy), "get_child_watcher", None)
    stock = (
        getattr(asyncio.DefaultEventLoopPolicy, "get_child_watcher", None),
        getattr(asyncio.AbstractEventLoopPolicy, "get_child_watcher", None),
        None,
    )
    if method not in stock:
        return True
    watcher = getattr(policy, "_watcher", None)
    return watcher is not None and type(watcher) not in _STOCK_WATCHERS


def _reap(transport):
    """The exit status of a child that has ended or will."""
    pid = transport.get_pid()
    try:
        _, status = os.waitpid(pid, 0)
    except ChildProcessError:
        known = transport.get_extra_info("subprocess").returncode
        if known is not None:
            # transport.close() looked first.
            return known
        log.logger.warning(
            "the exit status of child process %d was read by somebody else: reporting 255", pid
        )
        return 255
    return os.waitstatus_to_exitcode(status)


class NativeChildren:
    """A mixin of the event loop: starts subprocesses and waits for them."""

    __slots__ = ()

    async def _make_subprocess_transport(
        self, protocol, args, shell, stdin, stdout, stderr, bufsize, extra=None, **kwargs
    ):
        if _program_has_set_a_watcher():
            return await super()._make_subprocess_transport(
                protocol, args, shell, stdin, stdout, stderr, bufsize, extra, **kwargs
            )
        waiter = self.create_future()
        transport = unix_events._UnixSubprocessTransport(
            self,
            protocol,
            args,
            shell,
            stdin,
            stdout,
            stderr,
            bufsize,
            waiter=waiter,
            extra=extra,
            **kwargs,
        )
        self._watch_child(transport)
        try:
            await waiter
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException:
            # The pipes could not be connected, or the caller gave up.
            transport.close()
            await transport._wait()
            raise
        return transport

    def _watch_child(self, transport):
        try:
            pidfd = os.pidfd_open(transport.get_pid())
        except (AttributeError, OSError):
            # No such call here, no descriptor left, or the child was reaped already.
            name = f"waitpid-{transport.get_pid()}"
            threading.Thread(
                target=self._wait_for_child, args=(transport,), name=name, daemon=True
            ).start()
        else:
            self._child_descriptors.add(pidfd)
            self._add_reader(pidfd, self._child_has_ended, pidfd, transport)

    def _child_has_ended(self, pidfd, transport):
        self._forget_child(pidfd)
        self._child_watcher_callback(transport.get_pid(), _reap(transport), transport)

    def _wait_for_child(self, transport):
        """On a thread of its own."""
        status = _reap(transport)
        try:
            self._child_watcher_callback(transport.get_pid(), status, transport)
        except RuntimeError:
            # The loop is closed: nobody wants to know any more.
            if not self.is_closed():
                raise

    def _forget_child(self, pidfd):
        self._child_descriptors.discard(pidfd)
        self._remove_reader(pidfd)
        os.close(pidfd)

    def close(self):
        if not self.is_running():
            for pidfd in tuple(self._child_descriptors):
                self._forget_child(pidfd)
        super().close()
