"""Lets a test inside the VM call Erlang: the Python side of channel_driver.erl.

`rex`, the kernel's rpc server, starts the Erlang side; after that a call is a message to it, and
its result comes back through `py:call` on another worker thread.
"""

import asyncio
import itertools
import pathlib
import queue
import tempfile

import uvloop

import erlang
from erlang import Atom, send

LOOPS = {
    "erlang": erlang.new_event_loop,
    "asyncio": asyncio.SelectorEventLoop,
    "uvloop": uvloop.new_event_loop,
}

_tokens = itertools.count(1)
_results = {0: queue.SimpleQueue()}
_started = False


def deliver(token, result):
    """Called from Erlang."""
    _results.pop(token).put(result)


def _start():
    global _started
    source = str(pathlib.Path(__file__).with_suffix(".erl"))
    commands = (
        f'{{ok, channel_driver, Code}} = compile:file("{source}", [binary, report]),'
        f'{{module, _}} = code:load_binary(channel_driver, "{source}", Code),'
        "channel_driver:start([])."
    )
    started = _results[0]
    with tempfile.NamedTemporaryFile("w", suffix=".eval") as file:
        file.write(commands)
        file.flush()
        arguments = [list(file.name.encode())]
        request = (Atom("cast"), Atom("file"), Atom("eval"), arguments, Atom("user"))
        send("rex", (Atom("$gen_cast"), request))
        started.get(timeout=30)
    _started = True


class Pending:
    """A call that Erlang runs; result() waits for it."""

    def __init__(self, token):
        self._queue = _results[token] = queue.SimpleQueue()

    def result(self, timeout=60):
        kind, value = self._queue.get(timeout=timeout)
        if kind != "value":
            raise RuntimeError(f"{kind}: {value}")
        return value


def start_call(module, function, *args):
    if not _started:
        _start()
    token = next(_tokens)
    pending = Pending(token)
    message = (Atom("call"), token, Atom(module), Atom(function), list(args))
    send("channel_driver", message)
    return pending


def call(module, function, *args):
    return start_call(module, function, *args).result()


def new_channel(**options):
    """A ChannelRef."""
    ok, ref = call("py_channel", "new", {Atom(k): v for k, v in options.items()})
    assert ok == "ok"
    return ref


def new_byte_channel(**options):
    """A ChannelRef of bytes."""
    ok, ref = call("py_byte_channel", "new", {Atom(k): v for k, v in options.items()})
    assert ok == "ok"
    return ref


def byte_info(ref):
    return call("py_byte_channel", "info", ref)


def info(ref):
    return call("py_channel", "info", ref)
