"""What has no exact counterpart is an error that says so; malformed bytes are a TermError."""

import decimal
import struct
import threading
import zlib

import pytest

from erlang._term import Atom, BitString, ImproperList, decode, encode
from erlang.errors import TermError


def u32(n):
    return struct.pack(">I", n)


def nested(levels, make=lambda inner: [inner]):
    value = 0
    for _ in range(levels):
        value = make(value)
    return value


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_floats_that_erlang_lacks_are_value_errors(value):
    with pytest.raises(ValueError, match="nan or an infinity"):
        encode([value])


@pytest.mark.parametrize(
    "value", [object(), {1}, frozenset(), range(3), 1j, decimal.Decimal(1), len, int, Ellipsis]
)
def test_objects_without_a_term_are_type_errors(value):
    with pytest.raises(TypeError, match="no Erlang term"):
        encode({"k": [(value,)]})


def test_lone_surrogates_are_value_errors():
    with pytest.raises(ValueError):
        encode("\ud800")


@pytest.mark.parametrize(
    "value",
    [
        {"a": 1, b"a": 2},
        {None: 1, Atom("none"): 2},
        {True: 1, Atom("true"): 2},
        {("a",): 1, (b"a",): 2},
        {b"a": 1, BitString(b"a", 8): 2},
    ],
    ids=repr,
)
def test_keys_that_are_one_in_erlang_are_a_value_error(value):
    with pytest.raises(ValueError, match="equal in Erlang"):
        encode(value)


def test_mixed_keys_that_differ_in_erlang_are_fine():
    value = {"a": 1, Atom("b"): 2, 3: 3, (1, "a"): 4, (1, 2): 5, 2.5: 6, True: 7, None: 8}
    assert len(decode(encode(value))) == len(value)


def map_of(*keys):
    return b"\x83t" + u32(len(keys)) + b"".join(encode(key)[1:] + b"a\0" for key in keys)


@pytest.mark.parametrize("key", [[], [1], {}, ImproperList([1], 2), (1, [2])], ids=repr)
def test_map_keys_without_a_hash_are_term_errors(key):
    with pytest.raises(TermError, match="no hash"):
        decode(map_of(key))


@pytest.mark.parametrize(
    "keys", [(1, 1.0), (True, 1), (0, False), (1, 1)], ids=["float", "true", "false", "same"]
)
def test_map_keys_that_are_equal_in_python_are_term_errors(keys):
    with pytest.raises(TermError, match="equal in Python"):
        decode(map_of(*keys))


@pytest.mark.parametrize(
    "key", [1 << 100_000, nested(3000, lambda inner: (inner,))], ids=["long", "deep"]
)
def test_equal_map_keys_that_cannot_be_shown_are_term_errors(key):
    with pytest.raises(ValueError) as raised:
        decode(map_of(key, key))
    assert raised.type is TermError and "key" in str(raised.value)


def test_map_keys_that_both_become_none_are_term_errors():
    with pytest.raises(TermError, match="equal in Python"):
        decode(b"\x83t" + u32(2) + b"w\3nila\1" + b"w\x09undefineda\2")


def test_atom_and_binary_key_are_equal_when_binaries_are_str():
    data = encode({Atom("a"): 1, b"a": 2})
    assert decode(data) == {"a": 1, b"a": 2}
    with pytest.raises(TermError, match="equal in Python"):
        decode(data, binaries="str")


MALFORMED = {
    "nothing": b"",
    "version only": b"\x83",
    "another version": b"\x82a\1",
    "bytes behind the term": b"\x83a\1a",
    "unknown tag": b"\x83\0\0",
    "cut integer": b"\x83b\0\0\0",
    "cut atom": b"\x83w\5abc",
    "atom that is not UTF-8": b"\x83w\1\xff",
    "atom of too many characters": b"\x83v\1\0" + b"a" * 256,
    "latin-1 atom of too many characters": b"\x83d\1\0" + b"a" * 256,
    "cut binary": b"\x83m" + u32(5) + b"abc",
    "cut bit string": b"\x83M" + u32(2) + b"\3a",
    "bit string of 9 bits in a byte": b"\x83M" + u32(1) + b"\x09a",
    "bit string of 0 bits in a byte": b"\x83M" + u32(1) + b"\0a",
    "empty bit string with bits": b"\x83M" + u32(0) + b"\1",
    "cut big": b"\x83n\x09\0\1",
    "big with a strange sign": b"\x83n\1\2\1",
    "forged large big": b"\x83o\xff\xff\xff\xff\0\1",
    "forged list": b"\x83l\xff\xff\xff\xffa\1j",
    "list without its tail": b"\x83l" + u32(1) + b"a\1",
    "forged tuple": b"\x83i\xff\xff\xff\xff",
    "cut small tuple": b"\x83h\2a\1",
    "forged map": b"\x83t\x80\0\0\1a\1a\1",
    "map without its value": b"\x83t" + u32(1) + b"a\1",
    "forged string": b"\x83k\xff\xffab",
    "infinite float": b"\x83F\x7f\xf0\0\0\0\0\0\0",
    "float that is no number": b"\x83F\x7f\xf8\0\0\0\0\0\0",
    "old float that is text": b"\x83c" + b"abc".ljust(31, b"\0"),
    "old float that is infinite": b"\x83c" + b"inf".ljust(31, b"\0"),
    "old float that is too large": b"\x83c" + b"1e999".ljust(31, b"\0"),
    "old float with a rest": b"\x83c" + b"1.5x".ljust(31, b"\0"),
    "cut pid": b"\x83Xw\1a" + b"\0" * 11,
    "pid whose node is no atom": b"\x83Xa\1" + b"\0" * 12,
    "pid whose node is not UTF-8": b"\x83Xw\1\xff" + b"\0" * 12,
    "reference without words": b"\x83Z\0\0w\1a" + b"\0" * 4,
    "reference of too many words": b"\x83Z\0\6w\1a" + b"\0" * 28,
    "cut reference": b"\x83Z\0\3w\1a" + b"\0" * 15,
    "cut port": b"\x83Yw\1a" + b"\0" * 7,
    "export without arity": b"\x83qw\1aw\1b",
    "export with a large arity": b"\x83qw\1aw\1bb\0\0\0\1",
    "fun of the old form": b"\x83u" + b"\0" * 30,
    "fun with a wrong size": b"\x83p" + u32(60) + b"\0" * 56,
    "cut fun": b"\x83p" + u32(60) + b"\0" * 20,
    "local term": b"\x83y" + b"\0" * 8,
    "distribution header": b"\x83D\0",
    "compressed inside": b"\x83h\1P" + u32(2) + zlib.compress(b"a\1"),
    "compressed and cut": (b"\x83P" + u32(2) + zlib.compress(b"a\1"))[:-1],
    "compressed with a rest": b"\x83P" + u32(2) + zlib.compress(b"a\1") + b"x",
    "compressed to less": b"\x83P" + u32(3) + zlib.compress(b"a\1"),
    "compressed to more": b"\x83P" + u32(1) + zlib.compress(b"a\1"),
    "compressed with a forged size": b"\x83P\xff\xff\xff\xff" + zlib.compress(b"a\1"),
    "compressed and too large": b"\x83P" + u32((256 << 20) + 1) + b"x" * 300_000,
    "compressed nonsense": b"\x83P" + u32(9) + b"nonsense",
    "compressed twice": b"\x83P" + u32(9) + zlib.compress(b"P" + u32(2) + b"aaaa"),
}


@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED)
def test_malformed_bytes_are_term_errors(data):
    with pytest.raises(TermError, match="at byte"):
        decode(data)


def test_term_error_is_a_value_error():
    assert issubclass(TermError, ValueError)


def test_every_cut_of_a_term_is_a_term_error():
    value = {b"k": [1, 2.5, -(2**70), Atom("a"), BitString(b"\xa0", 3), (), ImproperList([1], 2)]}
    data = encode(value)
    for size in range(len(data)):
        with pytest.raises(TermError):
            decode(data[:size])


def test_compressed_terms_decode():
    plain = encode(list(range(1000)))
    packed = b"\x83P" + u32(len(plain) - 1) + zlib.compress(plain[1:])
    assert decode(packed) == list(range(1000))


def test_forged_counts_in_nested_containers_allocate_nothing():
    # Each level alone could be there; all of them together cannot.
    levels = 9000
    data = b"\x83" + (b"l" + u32(40000)) * levels + b"j" * 1000
    with pytest.raises(TermError, match="count"):
        decode(data)


LARGE = 64 * 1024 * 1024


def on_a_stack(size, run):
    """What run() returned or raised, on a thread with a stack of size bytes."""
    outcome = []

    def target():
        try:
            outcome.append(run())
        except Exception as error:
            outcome.append(error)

    before = threading.stack_size(size)
    try:
        thread = threading.Thread(target=target)
        thread.start()
        thread.join()
    finally:
        threading.stack_size(before)
    return outcome[0]


WRAPPERS = {
    "list": lambda inner: [inner],
    "tuple": lambda inner: (inner,),
    "dict": lambda inner: {1: inner},
    "improper list": lambda inner: ImproperList([inner], 1),
}


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
def test_ten_thousand_levels_go_both_ways(wrap):
    # More than it takes, for builds with sanitizers.
    value = nested(10_000, wrap)
    data = on_a_stack(LARGE, lambda: encode(value))
    back = on_a_stack(LARGE, lambda: decode(data))
    assert on_a_stack(LARGE, lambda: encode(back)) == data


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
def test_deeper_nesting_is_a_recursion_error_to_encode(wrap):
    error = on_a_stack(LARGE, lambda: encode(nested(10_001, wrap)))
    assert type(error) is RecursionError and "too deep, 10000 levels" in str(error)


DEEP = {
    "list": (b"l" + u32(1), b"j"),
    "tails": (b"l" + u32(1) + b"a\1", b""),
    "tuple": (b"h\1", b""),
    "map key": (b"t" + u32(1), b"a\1"),
    "map value": (b"t" + u32(1) + b"a\1", b""),
}


@pytest.mark.parametrize("before, after", DEEP.values(), ids=DEEP)
@pytest.mark.parametrize("levels", [10_001, 1_000_000])
def test_deeper_nesting_is_a_term_error_to_decode(before, after, levels):
    with pytest.raises(TermError, match="too deep"):
        decode(b"\x83" + before * levels + b"a\1" + after * levels)


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
def test_a_small_stack_is_never_overrun(wrap):
    value = nested(10_000, wrap)
    data = on_a_stack(LARGE, lambda: encode(value))
    shallow = encode(nested(100, wrap))
    for size in (256 * 1024, 512 * 1024):
        assert type(on_a_stack(size, lambda: encode(value))) is RecursionError
        assert type(on_a_stack(size, lambda: decode(data))) is TermError
        assert on_a_stack(size, lambda: encode(decode(shallow))) == shallow


def test_nested_funs_are_bounded_too():
    levels = 100_000
    head = b"\1" + b"u" * 16 + u32(0) + u32(1) + b"w\1m" + b"a\0a\0" + b"Xw\1a" + b"\0" * 12
    size = len(head) + 5
    sizes = (size * level + 2 - 1 for level in range(levels, 0, -1))
    with pytest.raises(TermError, match="too deep"):
        decode(b"\x83" + b"".join(b"p" + u32(s) + head for s in sizes) + b"a\1")


def test_cycles_are_recursion_errors():
    cycle = []
    cycle.append((cycle, cycle))
    with pytest.raises(RecursionError):
        encode(cycle)


def test_a_failed_encode_leaves_nothing_behind():
    for _ in range(3):
        with pytest.raises(TypeError):
            encode(["x" * 5000, object()])
        assert decode(encode([1])) == [1]
