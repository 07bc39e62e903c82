"""Descriptor-based protocols: somebody else opens a connection, a Python object serves it.

A `Reactor` belongs to an event loop and adopts descriptors of connected stream sockets: from
Erlang by `py_reactor:handoff/3`, from Python by `adopt()`.  Each is served by a protocol of its
own, derived from `Protocol`, whose methods the loop's poller calls; what they return says how to go
on:

    class Echo(reactor.Protocol):
        def data_received(self, data):
            self.write(data)
            return reactor.CONTINUE

docs/reactor.md describes the methods, the actions and who owns a descriptor when.
"""

import asyncio
import errno
import importlib
import os
import weakref

from . import _loop, vm
from ._loop import NotAdopted
from ._loop import ReactorProtocol as Protocol
from ._term import Atom

__all__ = [
    "ASYNC_PENDING",
    "CLOSE",
    "CONTINUE",
    "READ_PENDING",
    "WRITE_PENDING",
    "NotAdopted",
    "Protocol",
    "Reactor",
]

CONTINUE = "continue"
READ_PENDING = "read_pending"
WRITE_PENDING = "write_pending"
ASYNC_PENDING = "async_pending"
CLOSE = "close"

_reactors = weakref.WeakSet()


class Reactor(_loop.Reactor):
    """Serves descriptors on `loop`, an ErlangEventLoop, each with what `factory()` makes.

    `max_connections` bounds how many at a time (None: no limit), `read_size` what one call
    receives, `write_limit` how much of a connection may be unsent before nothing is read from it
    meanwhile; both in bytes.  All methods are for the loop's thread.
    """

    def __init__(self, loop, factory, **limits):
        super().__init__(loop, factory, **limits)
        self._waiters = []
        _reactors.add(self)

    def _emptied(self):
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def wait_closed(self):
        """Wait until drain() or abort() has ended the last connection."""
        if self.info()["connections"]:
            waiter = self.get_loop().create_future()
            self._waiters.append(waiter)
            await waiter

    async def stop(self, timeout=None):
        """Drain for at most `timeout` seconds, then close what is left; how many that were.

        Nothing is adopted any more.  What has come is still served; a connection closes once
        nothing of it is under way: no answer is due (`async_pending`, `write_pending`) and all is
        sent.
        Those that the time does not suffice for get ConnectionAbortedError in connection_lost().
        """
        self.drain()
        try:
            async with asyncio.timeout(timeout):
                await self.wait_closed()
            return 0
        except TimeoutError:
            left = self.info()["connections"]
            self.abort(ConnectionAbortedError(errno.ECONNABORTED, "the reactor was stopped"))
            await self.wait_closed()
            return left


def _abort_all(loop):
    """The loop's thread: the loop ends."""
    for reactor in list(_reactors):
        if reactor.get_loop() is loop and not loop.is_closed():
            reactor.abort(ConnectionAbortedError(errno.ECONNABORTED, "the event loop was stopped"))


# ---- what py_reactor calls ----


class _FactoryFailed(Exception):
    """The factory raised what the message is made of."""


class _Factory:
    """Calls the application's factory, so that what it raises is told from what we raise."""

    __slots__ = ("_args", "_make")

    def __init__(self, make, args):
        self._make = make
        self._args = args

    def __call__(self):
        try:
            return self._make(*self._args)
        except Exception as error:
            raise _FactoryFailed from error


class _ErlangReactor(Reactor):
    """What a process of py_reactor stands for; its methods are tasks on the loop."""

    async def _adopt(self, fd, info, data=b""):
        """Atom('ok'), or ('error', why): the descriptor is the caller's then."""
        try:
            self.adopt(fd, info, data)
        except NotAdopted as error:
            return _ERROR, Atom(error.reason)
        except OSError as error:
            return _ERROR, Atom(errno.errorcode.get(error.errno, "einval").lower())
        except _FactoryFailed as error:
            return _ERROR, (_PROTOCOL, _described(error.__cause__))
        except TypeError as error:
            return _ERROR, (_PROTOCOL, _described(error))
        return _OK

    async def _adopt_copy(self, number, info, data):
        """The same for a copy that waits under a number; it is closed after an error."""
        fd = vm._beamloop_vm.take_descriptor(number)
        adopted = False
        try:
            if isinstance(data, str):
                data = data.encode("latin-1")
            answer = await self._adopt(fd, info, data)
            adopted = answer is _OK
            return answer
        finally:
            if not adopted:
                os.close(fd)

    async def _stop(self, timeout):
        return await self.stop(None if timeout == "infinity" else timeout / 1000)

    async def _abort(self):
        self.abort(ConnectionAbortedError(errno.ECONNABORTED, "the reactor's process ended"))

    async def _info(self):
        return self.info()


_OK, _ERROR, _PROTOCOL = Atom("ok"), Atom("error"), Atom("protocol")


def _described(error):
    """(name, message, lines) as py:error() has them; the name as an atom or text."""
    name, message, lines = vm._format_error(error)
    return name, message, lines


async def _start(target, name, args, limits):
    """A reactor on the running loop; the factory is an attribute of a module or of an object."""
    if isinstance(target, (bytes, str)):
        target = importlib.import_module(_text(target))
    for part in _text(name).split("."):
        target = getattr(target, part)
    if not callable(target):
        raise TypeError(f"{target!r} cannot be called")
    loop = asyncio.get_running_loop()
    limits = {str(key): value for key, value in limits.items()}
    return _ErlangReactor(loop, _Factory(target, args), **limits)


def _text(name):
    return name if isinstance(name, str) else name.decode()
