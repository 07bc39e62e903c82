"""Thread -> sleeping loop -> thread, against a bare ping-pong on condition variables.

Run alone, prints one JSON line: microseconds at p50 of both, per round, the two alternating.
"""

import ctypes
import json
import os
import subprocess
import sys
import sysconfig
import tempfile
import threading

import erlang
from erlang import _loop

HERE = os.path.dirname(os.path.abspath(__file__))
C_SRC = os.path.join(HERE, "..", "..", "c_src", "loop")


class Api(ctypes.Structure):
    """The head of loop_api (c_src/loop/loop_api.h), as far as it is used here."""

    _fields_ = (
        ("version", ctypes.c_uint32),
        ("size", ctypes.c_uint32),
        ("core_of", ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object)),
        ("core_incref", ctypes.c_void_p),
        ("core_decref", ctypes.CFUNCTYPE(None, ctypes.c_void_p)),
        ("post", ctypes.c_void_p),
        (
            "source_add",
            ctypes.PYFUNCTYPE(ctypes.c_uint64, ctypes.py_object, ctypes.c_void_p, ctypes.py_object),
        ),
    )


def build(folder):
    path = os.path.join(folder, "handoff.so")
    compiler = os.environ.get("CC", sysconfig.get_config_var("CC").split()[0])
    options = ["-O2", "-shared", "-fPIC", "-pthread", "-I", C_SRC, "-o", path]
    subprocess.run([compiler, *options, os.path.join(HERE, "handoff.c")], check=True)
    return ctypes.CDLL(path)


def loop_api():
    get_pointer = ctypes.pythonapi.PyCapsule_GetPointer
    get_pointer.restype = ctypes.c_void_p
    get_pointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
    return get_pointer(_loop._C_API, b"erlang._loop._C_API")


def p50_us(lengths):
    return sorted(lengths)[len(lengths) // 2] / 1e3


class Player:
    """A loop that answers, and the thread that posts to it."""

    def __init__(self, library, rounds):
        self.library, self.rounds = library, rounds
        self.address = loop_api()
        self.api = Api.from_address(self.address)

    def bare(self):
        lengths = (ctypes.c_int64 * self.rounds)()
        assert self.library.handoff_bare(lengths, self.rounds) == 0
        return p50_us(lengths)

    def through_loop(self):
        """The loop runs on the calling thread."""
        loop = erlang.new_event_loop()
        core = self.api.core_of(loop)
        answer = ctypes.cast(self.library.handoff_answer, ctypes.c_void_p)
        ident = self.api.source_add(loop, answer, None)
        lengths = (ctypes.c_int64 * self.rounds)()

        def post():
            self.library.handoff_loop(
                ctypes.c_void_p(self.address),
                ctypes.c_void_p(core),
                ctypes.c_uint64(ident),
                lengths,
                self.rounds,
            )
            loop.call_soon_threadsafe(loop.stop)

        thread = threading.Thread(target=post)
        thread.start()
        loop.run_forever()
        thread.join()
        loop.close()
        self.api.core_decref(core)
        return p50_us(lengths)

    def on_another_thread(self):
        """There the loop sleeps on its condition variable; on the main thread in the poller."""
        result = []
        thread = threading.Thread(target=lambda: result.append(self.through_loop()))
        thread.start()
        thread.join()
        return result[0]


def main(pairs, rounds):
    with tempfile.TemporaryDirectory() as folder:
        player = Player(build(folder), rounds)
        player.bare()
        player.on_another_thread()
        result = {"bare": [], "condition": [], "poller": []}
        for _ in range(pairs):
            result["bare"].append(player.bare())
            result["condition"].append(player.on_another_thread())
            result["poller"].append(player.through_loop())
    print(json.dumps(result))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:3]))
