"""Nothing that a conversion makes stays behind, whether it succeeds or fails."""

import gc
import sys
import tracemalloc

import pytest

from erlang._term import Atom, BitString, ImproperList, decode, encode, set_none_atom
from erlang.errors import TermError

PID = decode(b"\x83Xw\1a" + b"\0" * 12)
FUN = decode(b"\x83qw\1mw\1fa\2")
VALUE = [
    (Atom("request"), PID, b"x" * 300, "text é", 2**200, -(2**40), 1.5, None, True),
    {b"k" * 40: [BitString(b"\xa0", 3), FUN], ("mixed",): ImproperList([b"z" * 99], 7)},
]
DATA = encode(VALUE)
BAD = {
    "unhashable key": b"\x83t\0\0\0\2" + b"m\0\0\0\1k" + DATA[1:] + b"la\1" * 2,
    "cut": DATA[:-30],
    "equal keys": b"\x83t\0\0\0\2" + (b"m\0\0\0\x05hello" + DATA[1:]) * 2,
    "rest": DATA + b"x",
    "tag": b"\x83l\0\0\0\2" + DATA[1:] + b"\0\0\0",
}


def failing_decode(data):
    def run():
        with pytest.raises(TermError):
            decode(data)

    return run


def failing_encode(value, error):
    def run():
        with pytest.raises(error):
            encode(value)

    return run


RUNS = {
    "decode": lambda: decode(DATA),
    "decode as str": lambda: decode(encode([VALUE[0][3], {"k": "v"}]), binaries="str"),
    "encode": lambda: encode(VALUE),
    "compare": lambda: decode(DATA) == decode(DATA),
    "hash and print": lambda: (hash(PID), repr(decode(DATA)), PID.node, FUN.module),
    "make": lambda: (Atom("x" * 200), BitString(b"ab" * 99, 1580), ImproperList([b"x" * 99], 1)),
    "set none": lambda: set_none_atom(set_none_atom("nil")),
    "atoms beyond the cache": lambda: [decode(encode(Atom(f"atom {i}"))) for i in range(20)],
    "encode a set": failing_encode([*VALUE, {1}], TypeError),
    "encode nan": failing_encode([*VALUE, float("nan")], ValueError),
    "encode equal keys": failing_encode([{"a": VALUE, b"a": VALUE}], ValueError),
    **{name: failing_decode(data) for name, data in BAD.items()},
}


def block_count():
    gc.collect()
    return sys.getallocatedblocks()


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
def test_nothing_stays_allocated(run):
    for _ in range(50):
        run()
    before = block_count()
    for _ in range(2000):
        run()
    # The interpreter's own caches move by some hundred; one block a run would be 2000.
    assert block_count() - before < 1000


def test_atoms_kept_for_reuse_are_bounded():
    for i in range(5000):
        decode(encode(Atom(f"first {i}")))
    before = block_count()
    for i in range(20_000):
        decode(encode(Atom(f"second {i}")))
    assert block_count() - before < 2000


def test_buffers_are_given_back():
    large = [b"x" * 100_000, (1,) * 300, 2**100_000]
    data = encode(large)
    tracemalloc.start()
    try:
        decode(data)
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(50):
            encode(decode(data))
            with pytest.raises(TypeError):
                encode([large, object()])
        assert tracemalloc.get_traced_memory()[0] - before < 50_000
    finally:
        tracemalloc.stop()


def resident_kilobytes():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * 4


def test_memory_outside_python_stays_flat():
    value = [b"x" * 2_000_000]

    def rounds(count):
        for _ in range(count):
            encode(value)
            with pytest.raises(TypeError):
                encode([*value, object()])

    # A sanitizer keeps what was freed for a while: it has its fill after the first rounds.
    rounds(100)
    before = resident_kilobytes()
    rounds(200)
    assert resident_kilobytes() - before < 100_000
