"""Has an operation fail at each place where it may, and looks at what is left of it.

In turn each allocation that Beamloop's own code makes in it fails, and each time that a Python
object is made or called there.  Whatever comes of it is an exception for want of memory, or what
was asked for; the next time it works; and nothing is kept.
"""

import asyncio
import contextlib
import ctypes
import functools
import gc
import os
import pathlib
import subprocess
import sys
import sysconfig
import tempfile

MEMORY, OBJECTS, THREADS, DESCRIPTORS = 1, 2, 4, 8
REPEATS = 5
PATIENCE = 10.0  # seconds after which an operation hangs
TOLD = 0.03  # seconds that one is waited for that has failed


@functools.cache
def library():
    """The compiled shortage.c, installed; the one that Erlang has loaded, where it has."""
    path = os.environ.get("BEAMLOOP_SHORTAGE")
    if path is None:
        path = os.path.join(tempfile.mkdtemp(), "shortage.so")
        source = pathlib.Path(__file__).with_name("shortage.c")
        compiler = sysconfig.get_config_var("CC").split()[0]
        options = ["-O1", "-g", "-fPIC", "-shared"]
        subprocess.run([compiler, *options, "-o", path, source, "-ldl"], check=True)
    found = ctypes.CDLL(path)
    found.shortage_name.restype = ctypes.c_char_p
    for name in ("disarm", "failed", "held"):
        getattr(found, f"shortage_{name}").restype = ctypes.c_long
    found.shortage_arm.argtypes = [ctypes.c_long, ctypes.c_int, ctypes.c_uint, ctypes.c_int]
    import erlang  # noqa: F401  what is not loaded cannot be made to fail

    found.shortage_install()
    return found


class Hangs(Exception):
    """It waited on without a word."""


class Operation:
    """What a test walks through: run() alone meets failures."""

    errors = (MemoryError,)  # which say that memory is short

    def prepare(self, fails):
        """Before each run; whether something is to fail in it."""

    def run(self):
        """Do it, and check what was done."""
        raise NotImplementedError

    def verify(self):
        """After each run, however it went: what can be had when there is memory again."""

    def clean(self):
        """After that."""


class OnLoop(Operation):
    """A coroutine function on a loop; it is given an ExitStack, for what is to be cleaned up.

    Where nobody was told of a failure, by an exception, the loop's handler or the unraisable hook,
    it has to come to its end.
    """

    def __init__(self, loop, function, errors=(MemoryError,)):
        self.loop = loop
        self.function = function
        self.errors = errors
        self.told = []
        self.patience = TOLD

    def prepare(self, fails):
        self.told.clear()
        self.loop.set_exception_handler(lambda loop, context: self.told.append(context["message"]))
        patience = self.patience if fails else PATIENCE
        self.stack = contextlib.ExitStack()
        # The call of one may be what fails.
        self.watchdogs = [self.loop.call_later(i * patience, self.loop.stop) for i in (1, 1.1)]
        self.coroutine = self.function(self.stack)

    def run(self):
        try:
            self.loop.run_until_complete(self.coroutine)
        except RuntimeError as error:
            if str(error) != "Event loop stopped before Future completed.":
                raise
            if not self.told and not ignored:
                raise Hangs from None
            raise MemoryError from None

    def clean(self):
        for watchdog in self.watchdogs:
            watchdog.cancel()
        self.coroutine.close()
        for _ in range(2):
            for task in asyncio.all_tasks(self.loop):
                task.cancel()
            self._turn()
        self.stack.close()
        for _ in range(4):
            self._turn()
        del self.coroutine, self.watchdogs, self.stack

    def _turn(self):
        # It may have been about to stop.
        with contextlib.suppress(RuntimeError):
            self.loop.run_until_complete(asyncio.sleep(0))


ignored = []  # what the unraisable hook was told of in this run


class Walk:
    def __init__(self, operation, kinds, own):
        self.operation = operation
        self.kinds = kinds
        self.own = own
        self.places = 0
        self.faults = set()

    def run(self):
        hook, sys.unraisablehook = sys.unraisablehook, lambda what: ignored.append(what.exc_type)
        try:
            self._usual_growth()
            self.usual = self._usual_growth()
            nth = 1
            while self._fail(nth):
                self.places = nth
                nth += 1
        finally:
            sys.unraisablehook = hook
        return self

    def _usual_growth(self):
        return self._growth(0, REPEATS)

    def _growth(self, nth, repeats):
        before = self._kept()
        for _ in range(repeats):
            self._once(nth)
        return [b - a for a, b in zip(before, self._kept(), strict=True)]

    def _keeps(self, nth, repeats):
        """What was kept besides the usual in so many runs, where it is one thing in each."""
        growth = self._growth(nth, repeats)
        usual = [max(0, one) * repeats // REPEATS for one in self.usual]
        grows = [g >= repeats - 1 + u for g, u in zip(growth, usual, strict=True)]
        return growth if any(grows) else None

    def _fail(self, nth):
        """Whether something failed: the nth of what may."""
        name = self._once(nth)
        if name is None:
            return False
        self._works(nth, name)
        # What fills caches at first comes to its end.
        kept = self._keeps(nth, REPEATS)
        for _ in range(5):
            kept = kept and self._keeps(nth, 4 * REPEATS)
        if kept:
            self.faults.add((nth, name, f"keeps {kept} in {4 * REPEATS} runs"))
        self._works(nth, name)
        return True

    def _once(self, nth):
        """The name of what failed, if something did."""
        shortage = library()
        fault = None
        ignored.clear()
        self.operation.prepare(nth != 0)
        shortage.shortage_arm(nth, 0, self.kinds, self.own)
        try:
            self.operation.run()
        except self.operation.errors:
            pass
        except Hangs:
            shortage.shortage_disarm()
            self.operation.clean()
            if self.operation.patience != TOLD:
                self.faults.add((nth, shortage.shortage_name().decode(), "hangs"))
                return None
            return self._with_patience(nth)
        except BaseException as error:
            fault = repr(error)
        finally:
            shortage.shortage_disarm()
        failed, name = shortage.shortage_failed(), shortage.shortage_name().decode()
        fault = fault or self._verify()
        unexpected = [one.__name__ for one in ignored if not issubclass(one, MemoryError)]
        self.operation.clean()
        if fault is not None:
            self.faults.add((nth, name, fault))
        if unexpected:
            self.faults.add((nth, name, f"ignored {unexpected}"))
        return name if failed else None

    def _with_patience(self, nth):
        """Again: the machine may only have been slow."""
        self.operation.patience = PATIENCE / 3
        try:
            return self._once(nth)
        finally:
            self.operation.patience = TOLD

    def _verify(self):
        try:
            self.operation.verify()
        except BaseException as error:
            return f"not made good: {error!r}"
        return None

    def _works(self, nth, name):
        self.operation.prepare(False)
        try:
            self.operation.run()
            self.operation.verify()
        except BaseException as error:
            self.faults.add((nth, name, f"does not work afterwards: {error!r}"))
        self.operation.clean()

    def _kept(self):
        # What a finalizer brought back to life for a moment goes with the second.
        gc.collect()
        gc.collect()
        return library().shortage_held(), sys.getallocatedblocks()


def walk(operation, kinds=MEMORY | OBJECTS, own=True):
    """(places, what went wrong)."""
    done = Walk(operation, kinds, own).run()
    return done.places, sorted(done.faults)
