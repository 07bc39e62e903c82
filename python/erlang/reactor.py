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
from .byte_channel import ByteChannel, ByteChannelClosed

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

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._starting = set()  # tasks

    async def _adopt(self, number, info, ahead):
        """Serve the descriptor that Erlang has put there under a number.

        Atom('ok'), or ('error', why): the descriptor is Erlang's then, or closed where it is a
        copy.  `ahead` is a ByteChannel whose only chunk will be what was received before, or None:
        nothing is done with the descriptor until it has come.
        There is no await here, so that Erlang may cancel this before or not at all.
        """
        native = vm._beamloop_vm
        fd, owned = native.take_descriptor(number)
        protocol = None
        try:
            try:
                protocol = self._reserve(fd, owned, info)
            except NotAdopted as error:
                return _ERROR, Atom(error.reason)
            except OSError as error:
                return _ERROR, Atom(errno.errorcode.get(error.errno, "einval").lower())
            except _FactoryFailed as error:
                return _ERROR, (_PROTOCOL, _described(error.__cause__))
            except TypeError as error:
                return _ERROR, (_PROTOCOL, _described(error))
            channel = None if ahead is None else ByteChannel(ahead)
        finally:
            ours = native.settle_descriptor(number, protocol is not None)
            if not ours and (protocol is None or self._give_back(protocol)) and owned:
                os.close(fd)
        if not ours:
            return _ERROR, Atom("timeout")
        try:
            if channel is not None:
                self._start_later(protocol, channel)
            else:
                self._begin(protocol, b"")
        except BaseException:
            Protocol.abort(protocol)
            raise
        return _OK

    def _start_later(self, protocol, channel):
        task = self.get_loop().create_task(self._begin_with(protocol, channel))
        self._starting.add(task)
        task.add_done_callback(self._starting.discard)

    async def _begin_with(self, protocol, channel):
        try:
            self._begin(protocol, await channel.async_receive_bytes())
        except ByteChannelClosed:
            # The process that handed it over has died, and its socket with it.
            Protocol.abort(protocol)
        except BaseException:
            Protocol.abort(protocol)
            raise

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
