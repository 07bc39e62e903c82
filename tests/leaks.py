"""What is alive in this process, and whether a repeated test leaves more of it each time."""

import array
import collections
import ctypes
import gc
import itertools
import os
import statistics
import sys
import threading
from typing import ClassVar

import pytest
from _pytest.runner import runtestprotocol

from erlang import _loop

try:
    import _beamloop_channel as _channel
except ImportError:
    _channel = None  # Not in the Erlang VM.

# A window of repeats is compared with the one before; the first repeats fill caches.
WARM_UP = 5
WINDOW = 5

# So much more in each window is growth: a unit in each repeat.
UNITS = collections.defaultdict(
    lambda: 1, {"allocated bytes": 32, "resident bytes": 32768, "Erlang's bytes": 1024}
)


def live_native():
    """Objects of ours that are alive, by kind, without those that are zero."""
    counts = collections.Counter(
        type(found).__name__
        for found in gc.get_objects()
        if any(base.__module__ == "erlang._loop" for base in type(found).__mro__)
    )
    counts.update(_loop._live())
    if _channel is not None:
        counts.update(zip(("channels", "blocks of payload"), _channel._live(), strict=True))
    return +counts


def collect():
    # What the first run frees may have held more garbage by a finalizer.
    gc.collect()
    gc.collect()


class MallInfo(ctypes.Structure):
    """struct mallinfo2 of the C library: hblkhd is what was mapped apart, uordblks all the rest."""

    _fields_: ClassVar = [
        *((name, ctypes.c_size_t) for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd")),
        *((name, ctypes.c_size_t) for name in ("usmblks", "fsmblks", "uordblks", "fordblks")),
        ("keepcost", ctypes.c_size_t),
    ]


libc = ctypes.CDLL(None)


def allocated_bytes():
    """What malloc has given out; None where the C library does not tell."""
    if not hasattr(libc, "mallinfo2"):
        return None
    libc.mallinfo2.restype = MallInfo
    info = libc.mallinfo2()
    return info.uordblks + info.hblkhd


def resident_bytes():
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def measure():
    """A Counter of everything that must not grow."""
    collect()
    getattr(sys, "_clear_internal_caches", sys._clear_type_cache)()
    found = live_native()
    found["descriptors"] = len(os.listdir("/proc/self/fd"))
    found["threads"] = threading.active_count()
    found["tracked objects"] = len(gc.get_objects())
    found["allocated blocks"] = sys.getallocatedblocks()
    found["allocated bytes"] = allocated_bytes() or 0
    found["resident bytes"] = resident_bytes()
    return found


class History:
    """What was measured after each repeat; allocates nothing between the repeats."""

    def __init__(self, length):
        self.length = length
        self.counts = {}
        self.measured = 0

    def measure(self):
        for name, count in measure().items():
            self.counts.setdefault(name, array.array("q", bytes(8 * self.length)))
            self.counts[name][self.measured] = count
        self.measured += 1

    def grown(self):
        """A line for each that grew from window to window, and in most repeats to the end."""
        found = []
        for name, counts in self.counts.items():
            low = [min(counts[-i * WINDOW : self.length - (i - 1) * WINDOW]) for i in (3, 2, 1)]
            steps = (low[1] - low[0], low[2] - low[1])
            each = [after - before for before, after in itertools.pairwise(counts[-3 * WINDOW :])]
            # What has filled by the end is no leak.
            usual = min(statistics.median(each), statistics.median(each[-WINDOW:]))
            if min(steps) >= WINDOW * UNITS[name] and usual >= UNITS[name]:
                mean = sum(steps) / (2 * WINDOW)
                found.append(f"{name} grew by {mean:.1f} in each repeat: {counts.tolist()}")
        return found


class Again:
    """Stands for the same test once more: what its module set up stays."""

    def __init__(self, item):
        self.item = item

    def listchain(self):
        return [*self.item.listchain()[:-1], self]


class Repeats:
    """A pytest plugin: runs each test so many times, and fails it when something has grown."""

    def __init__(self, count):
        self.count = max(count, WARM_UP + 3 * WINDOW)
        gc.collect()
        gc.freeze()

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items):
        for item in items:
            item.add_marker(pytest.mark.timeout(120 * self.count), append=False)

    def pytest_runtest_protocol(self, item, nextitem):
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        history = History(self.count)
        while True:
            last = history.measured == self.count - 1
            reports = runtestprotocol(item, log=False, nextitem=nextitem if last else Again(item))
            item._report_sections.clear()
            if last or any(not report.passed for report in reports):
                break
            history.measure()
        call = next((report for report in reports if report.when == "call"), None)
        if last and call is not None and call.passed:
            history.measure()
            grown = history.grown()
            if grown:
                call.outcome = "failed"
                call.longrepr = "\n".join(grown)
        for report in reports:
            item.ihook.pytest_runtest_logreport(report=report)
        item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        return True


def left_alive(before):
    """What of ours is alive besides what was before: {kind: count}."""
    collect()
    return dict(live_native() - before)
