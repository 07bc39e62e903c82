"""How the loop's own suite runs: every test on two loops, ours and asyncio's.

asyncio's own loop is the control.  It shows that the test is right, so that a failure on ours
alone is a failure of ours.

Running a suite of your own on ErlangEventLoop takes one of these two (docs/pytest.md):

* pytest-asyncio 1.4 and later: the `pytest_asyncio_loop_factories` hook below, with one entry;
* older releases: an `event_loop_policy` fixture that returns `erlang.EventLoopPolicy()`.
"""

import asyncio
import asyncio.sslproto
import contextlib
import gc
import os
import ssl
import subprocess
import sys
import textwrap

import pytest
import trustme

import erlang

FACTORIES = {"erlang": erlang.new_event_loop, "asyncio": asyncio.SelectorEventLoop}


class SslprotoLoop(erlang.ErlangEventLoop):
    """Ours where TLS cannot be native: asyncio's sslproto over our transports."""

    _tls_protocol = asyncio.sslproto.SSLProtocol


TLS_FACTORIES = {
    "erlang": erlang.new_event_loop,
    "sslproto": SslprotoLoop,
    "asyncio": asyncio.SelectorEventLoop,
}


def pytest_asyncio_loop_factories(config, item):
    """The loops on which pytest-asyncio runs each asynchronous test of this folder."""
    return TLS_FACTORIES if item.path.name.startswith("test_tls") else FACTORIES


@pytest.fixture(params=list(FACTORIES))
def loop_name(request):
    return request.param


@pytest.fixture
def loop_factory(loop_name):
    return FACTORIES[loop_name]


@pytest.fixture
def loop(loop_factory):
    """A fresh loop that is not running; closed at the end of the test."""
    loop = loop_factory()
    yield loop
    if not loop.is_closed():
        loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()


@pytest.fixture
def erlang_loop():
    """A fresh loop of ours, for what only ours promises."""
    loop = erlang.new_event_loop()
    yield loop
    loop.close()


@pytest.fixture(autouse=True)
def no_descriptor_is_left_open():
    """Every test gives back the file descriptors that it and its loop opened."""
    before = _open_descriptors()
    yield
    if _open_descriptors() - before:
        gc.collect()
    assert not _open_descriptors() - before


def _open_descriptors():
    found = set()
    for fd in os.listdir("/proc/self/fd"):
        # The descriptor of this very listing is gone by now.
        with contextlib.suppress(FileNotFoundError):
            found.add((fd, os.readlink(f"/proc/self/fd/{fd}")))
    return found


@pytest.fixture(scope="session")
def authority():
    return trustme.CA()


@pytest.fixture
def server_tls(authority):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    return context


@pytest.fixture
def client_tls(authority):
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


SCRIPT_HEAD = """
import asyncio, os, signal, sys, threading, time
import erlang
new_loop = {"erlang": erlang.new_event_loop, "asyncio": asyncio.SelectorEventLoop}[sys.argv[1]]
"""


@pytest.fixture
def run_script(loop_name):
    """Runs Python source in a process of its own; `new_loop` is the loop factory there.

    For what belongs to a whole process: signals, Ctrl-C, interpreter exit.  Returns the
    CompletedProcess with text output.
    """

    def run(source, timeout=30, **options):
        source = SCRIPT_HEAD + textwrap.dedent(source)
        return subprocess.run(
            [sys.executable, "-X", "dev", "-W", "ignore", "-c", source, loop_name],
            capture_output=True,
            text=True,
            timeout=timeout,
            **options,
        )

    return run


def pytest_collection_modifyitems(items):
    """A loop that sleeps for ever is one failure, not the end of the run."""
    here = os.path.dirname(__file__)
    # Loops in debug mode note the stack of each callback.
    patience = 600 if sys.flags.dev_mode else 60
    for item in items:
        if str(item.path).startswith(here) and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(patience))
