"""What the example servers share: options, the choice of a loop, stream connections and their end.

A server here is a module with `async def main(arguments)`, which serves until it is cancelled.  In
the Erlang VM `serve()` and `stop()` are called for it (see servers.erl); in an ordinary Python
`run()` gives it the loop that `--loop` names, and cancels it at SIGINT or SIGTERM.
"""

import argparse
import asyncio
import contextlib
import importlib
import signal
import ssl
import sys

LOOPS = ("erlang", "uvloop", "asyncio")
# Seconds that open connections get at the end.
GRACE = 1.0


class UsageError(ValueError):
    """The arguments are wrong; the text says how they should be."""


class BadClient(Exception):
    """A client broke the rules of its protocol, and is sent away."""


class Parser(argparse.ArgumentParser):
    """The options of a server.  Wrong ones raise UsageError: the process is the VM's to end."""

    def __init__(self, name, description, port):
        super().__init__(prog=name, description=description, add_help=False)
        self.add_argument("--host", default="127.0.0.1", help="the address to listen on")
        self.add_argument("--port", type=int, default=port, help="0 takes a free one")

    def error(self, message):
        raise UsageError(f"{message}\n{self.format_help()}")

    def add_limits(self, connections=1000, timeout=60.0):
        """For servers of connections."""
        self.add_argument(
            "--connections", type=int, default=connections, help="open at the same time, at most"
        )
        self.add_argument(
            "--timeout", type=float, default=timeout, help="seconds that a client may do nothing"
        )


def announce(name, address):
    """Say where the server listens.  Whoever started it may wait for this line."""
    print(f"{name}: listening on {address[0]}:{address[1]}", flush=True)


def log(text):
    print(text, file=sys.stderr, flush=True)


# ---- stream servers ------------------------------------------------------------------------


class StreamServer:
    """A server of stream connections, each handled by the coroutine `handle(reader, writer)`.

    Refuses connections beyond a limit.  What a client may cause (resets, time-outs, bad input)
    ends its connection and nothing else.  When the server is cancelled it stops to listen, cancels
    the handlers, and lets what was written to their connections leave, for GRACE seconds.
    """

    def __init__(self, name, handle, limit):
        self._name = name
        self._handle = handle
        self._limit = limit
        self._tasks = set()

    async def serve(self, host, port, **options):
        """Listen there until cancelled; the options are those of asyncio.start_server()."""
        server = await asyncio.start_server(self._connected, host, port, **options)
        announce(self._name, server.sockets[0].getsockname())
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            server.close()
            await self._end_connections()

    async def _connected(self, reader, writer):
        if len(self._tasks) >= self._limit:
            writer.transport.abort()
            return
        task = asyncio.current_task()
        self._tasks.add(task)
        try:
            await self._handle(reader, writer)
        except (BadClient, OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            log(f"{self._name}: {peer(writer)}: {type(error).__name__} {error}".rstrip())
        finally:
            await close(writer)
            self._tasks.discard(task)

    async def _end_connections(self):
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


async def close(writer):
    """Close a connection when what was written has left, or after GRACE seconds without that."""
    writer.close()
    try:
        async with asyncio.timeout(GRACE):
            await writer.wait_closed()
    except (OSError, TimeoutError):
        writer.transport.abort()


def peer(writer):
    address = writer.get_extra_info("peername")
    return f"{address[0]}:{address[1]}" if address else "a client"


# ---- in the Erlang VM ----------------------------------------------------------------------

_serving = None  # the task of the server


async def serve(name, arguments):
    """Run the server of that module until stop()."""
    global _serving
    _serving = asyncio.ensure_future(importlib.import_module(name).main(arguments))
    await asyncio.wait([_serving])
    if not _serving.cancelled():
        _serving.result()


async def stop():
    """Cancel the server, and wait until it has ended."""
    if _serving is not None:
        _serving.cancel()
        await asyncio.wait([_serving])


# ---- in an ordinary Python -----------------------------------------------------------------


def loop_factory(name):
    """What makes event loops of this name."""
    if name == "erlang":
        import erlang

        return erlang.new_event_loop
    if name == "uvloop":
        import uvloop

        return uvloop.new_event_loop
    return asyncio.SelectorEventLoop


async def _until_signal(main, arguments):
    loop = asyncio.get_running_loop()
    server = asyncio.ensure_future(main(arguments))
    for signum in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(signum, server.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await server


def run(main):
    """Run the server on the loop that `--loop` names, until SIGINT or SIGTERM."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--loop", choices=LOOPS, default="erlang")
    choice, arguments = parser.parse_known_args()
    try:
        with asyncio.Runner(loop_factory=loop_factory(choice.loop)) as runner:
            runner.run(_until_signal(main, arguments))
    except UsageError as error:
        sys.exit(f"{error}\n{parser.format_usage()}")
    except (OSError, ssl.SSLError) as error:
        sys.exit(str(error))
