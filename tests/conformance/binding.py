"""CPython's own asyncio tests, bound to the loop that LOOP=module:factory names.

Two kinds.  A *mixin* of CPython's asks its subclass for a loop: the subclass is made here.  A
*module* that works on any loop takes the default one: that is made ours before the import.
Needs CPython's `test` package (Debian: libpython3.X-testsuite).
"""

import asyncio
import importlib
import importlib.util
import os
import sys
import unittest

# module, mixins, whether its base is asyncio's own TestCase, the method that makes the loop
MIXINS = {
    "events": (
        "test_events",
        ("EventLoopTestsMixin", "SubprocessTestsMixin"),
        True,
        "create_event_loop",
    ),
    "sock_lowlevel": ("test_sock_lowlevel", ("BaseSockTestsMixin",), True, "create_event_loop"),
    "sendfile": ("test_sendfile", ("SendfileTestsBase",), True, "create_event_loop"),
    "start_server": ("test_server", ("BaseStartServer",), False, "new_loop"),
    "start_tls": ("test_sslproto", ("BaseStartTLS",), False, "new_loop"),
    "buffered_protocol": ("test_buffered_proto", ("BaseTestBufferedProtocol",), False, "new_loop"),
}

# fmt: off
MODULES = (
    "context", "futures", "futures2", "locks", "pep492", "queues", "runners", "server", "ssl",
    "sslproto", "streams", "subprocess", "taskgroups", "tasks", "threads", "timeouts", "waitfor",
    "eager_task_factory", "staggered",
)
# fmt: on


def parts():
    """The names of all parts on this Python: mixins first, then whole modules."""
    modules = [m for m in MODULES if importlib.util.find_spec(f"test.test_asyncio.test_{m}")]
    return list(MIXINS) + [f"module {m}" for m in modules]


def factory():
    module, _, name = os.environ["LOOP"].partition(":")
    return getattr(importlib.import_module(module), name)


def load(part):
    """The tests of a part as a flat list."""
    make = factory()
    if part.startswith("module "):
        name = part.removeprefix("module ")
        # test_runners is about which loop asyncio itself picks.
        if name != "runners":
            _make_default(make)
        _close_any_loop()
        suite = unittest.defaultTestLoader.loadTestsFromName(f"test.test_asyncio.test_{name}")
    else:
        _close_any_loop()
        suite = unittest.defaultTestLoader.loadTestsFromTestCase(_test_case(part, make))
    return list(_flat(suite))


def _flat(suite):
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from _flat(test)
        else:
            yield test


def _test_case(part, make):
    module_name, mixins, own_base, method = MIXINS[part]
    module = importlib.import_module(f"test.test_asyncio.{module_name}")
    from test.test_asyncio import utils

    bases = [getattr(module, mixin) for mixin in mixins]
    if part == "events" and sys.version_info < (3, 12):
        bases.insert(0, _ChildWatcher)
    bases.append(utils.TestCase if own_base else unittest.TestCase)
    return type(part, tuple(bases), {method: lambda self: make()})


class _ChildWatcher:
    """Before 3.12 asyncio's loop needs a watcher that is attached to it for subprocesses."""

    def setUp(self):
        super().setUp()
        if not type(self.loop).__module__.startswith("asyncio."):
            return
        watcher = asyncio.SafeChildWatcher()
        watcher.attach_loop(self.loop)
        asyncio.set_child_watcher(watcher)

    def tearDown(self):
        asyncio.set_child_watcher(None)
        super().tearDown()


def _make_default(make):
    # Modules reset the policy to None when they end: the class itself has to make this loop.
    policy = getattr(asyncio.events, "_DefaultEventLoopPolicy", None)
    if policy is None:
        policy = asyncio.DefaultEventLoopPolicy
    policy._loop_factory = staticmethod(make)
    if sys.version_info >= (3, 13):
        asyncio.EventLoop = make


def _close_any_loop():
    """CPython's clean-up reads a private field of the loop, which a foreign loop need not have."""
    from test.test_asyncio import utils

    original = utils.TestCase.close_loop

    def close_loop(loop):
        if hasattr(loop, "_default_executor"):
            original(loop)
            return
        if not loop.is_closed():
            loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()

    utils.TestCase.close_loop = staticmethod(close_loop)
