"""Each row of the table of terms, byte for byte, in both directions."""

import math
import struct
from collections import OrderedDict, namedtuple
from enum import Enum, IntEnum, IntFlag

import pytest

from erlang import _term as term
from erlang._term import Atom, BitString, ImproperList, decode, encode


def ext(*parts):
    """The version byte and the parts: ints are bytes, bytes and str go as they are."""
    return b"\x83" + b"".join(
        bytes([p]) if isinstance(p, int) else p.encode() if isinstance(p, str) else p for p in parts
    )


def u16(n):
    return struct.pack(">H", n)


def u32(n):
    return struct.pack(">I", n)


def same(a, b):
    return type(a) is type(b) and a == b


# What comes back exactly as it went: (value, encoding).
BOTH_WAYS = {
    "zero": (0, ext(97, 0)),
    "byte": (255, ext(97, 255)),
    "int": (256, ext(98, u32(256))),
    "minus one": (-1, ext(98, u32(0xFFFFFFFF))),
    "largest 32 bit": (2**31 - 1, ext(98, u32(0x7FFFFFFF))),
    "smallest 32 bit": (-(2**31), ext(98, u32(0x80000000))),
    "just above 32 bit": (2**31, ext(110, 4, 0, b"\0\0\0\x80")),
    "just below 32 bit": (-(2**31) - 1, ext(110, 4, 1, b"\1\0\0\x80")),
    "63 bits": (2**63 - 1, ext(110, 8, 0, b"\xff" * 7 + b"\x7f")),
    "minus 2 to the 63": (-(2**63), ext(110, 8, 1, b"\0" * 7 + b"\x80")),
    "64 bits": (2**64 - 1, ext(110, 8, 0, b"\xff" * 8)),
    "65 bits": (2**64, ext(110, 9, 0, b"\0" * 8 + b"\1")),
    "longest small big": (-(2**2040 - 1), ext(110, 255, 1, b"\xff" * 255)),
    "shortest large big": (2**2040, ext(111, u32(256), 0, b"\0" * 255 + b"\1")),
    "float": (1.5, ext(70, struct.pack(">d", 1.5))),
    "smallest float": (5e-324, ext(70, struct.pack(">d", 5e-324))),
    "true": (True, ext(119, 4, "true")),
    "false": (False, ext(119, 5, "false")),
    "none": (None, ext(119, 4, "none")),
    "atom": (Atom("request"), ext(119, 7, "request")),
    "empty atom": (Atom(""), ext(119, 0)),
    "atom beyond ascii": (Atom("åä"), ext(119, 4, "åä")),
    "long atom": (Atom("å" * 255), ext(118, u16(510), "å" * 255)),
    "longest atom": (Atom("🐍" * 255), ext(118, u16(1020), "🐍" * 255)),
    "binary": (b"\0\xff", ext(109, u32(2), b"\0\xff")),
    "empty binary": (b"", ext(109, u32(0))),
    "bit string": (BitString(b"\xff\xe0", 11), ext(77, u32(2), 3, b"\xff\xe0")),
    "empty list": ([], ext(106)),
    "list": ([1, [2]], ext(108, u32(2), 97, 1, 108, u32(1), 97, 2, 106, 106)),
    "improper list": (ImproperList([1], 2), ext(108, u32(1), 97, 1, 97, 2)),
    "empty tuple": ((), ext(104, 0)),
    "tuple": ((1, ()), ext(104, 2, 97, 1, 104, 0)),
    "longest small tuple": ((1,) * 255, ext(104, 255, b"\x61\1" * 255)),
    "shortest large tuple": ((1,) * 256, ext(105, u32(256), b"\x61\1" * 256)),
    "empty map": ({}, ext(116, u32(0))),
    "map": ({1: [], b"k": 2}, ext(116, u32(2), 97, 1, 106, 109, u32(1), "k", 97, 2)),
}


@pytest.mark.parametrize("value, data", BOTH_WAYS.values(), ids=BOTH_WAYS)
def test_row_both_ways(value, data):
    assert encode(value) == data
    assert same(decode(data), value)


# Other encodings of the same things, which the emulator or older ones write.
DECODE_ONLY = {
    "nil": (ext(119, 3, "nil"), None),
    "undefined": (ext(119, 9, "undefined"), None),
    "nil in latin-1": (ext(100, u16(3), "nil"), None),
    "true in latin-1": (ext(100, u16(4), "true"), True),
    "small latin-1 atom": (ext(115, 1, b"\xe5"), Atom("å")),
    "latin-1 atom": (ext(100, u16(2), b"a\xff"), Atom("aÿ")),
    "longest latin-1 atom": (ext(100, u16(255), b"\xe5" * 255), Atom("å" * 255)),
    "short atom in long form": (ext(118, u16(1), "a"), Atom("a")),
    "string": (ext(107, u16(3), b"\0a\xff"), [0, 97, 255]),
    "empty string": (ext(107, u16(0)), []),
    "old float": (ext(99, b"1.50000000000000000000e+00".ljust(31, b"\0")), 1.5),
    "old negative float": (ext(99, b"-2.50000000000000000000e-01".ljust(31, b"\0")), -0.25),
    "whole bit string": (ext(77, u32(2), 8, b"ab"), b"ab"),
    "bit string with dirty end": (ext(77, u32(1), 1, b"\xff"), BitString(b"\x80", 1)),
    "small int in 32 bits": (ext(98, u32(5)), 5),
    "small int as big": (ext(110, 1, 1, b"\5"), -5),
    "zero as big": (ext(110, 0, 1), 0),
    "big with leading zeros": (ext(110, 12, 1, b"\1" + b"\0" * 11), -1),
    "small tuple in large form": (ext(105, u32(1), 97, 1), (1,)),
    "list of no elements": (ext(108, u32(0), 97, 7), 7),
    "list ending in a list": (ext(108, u32(1), 97, 1, 108, u32(1), 97, 2, 106), [1, 2]),
    "list ending in a string": (ext(108, u32(1), 97, 1, 107, u16(1), "a"), [1, 97]),
    "list ending in an improper one": (
        ext(108, u32(1), 97, 1, 108, u32(1), 97, 2, 97, 3),
        ImproperList([1, 2], 3),
    ),
}


@pytest.mark.parametrize("data, value", DECODE_ONLY.values(), ids=DECODE_ONLY)
def test_other_encodings_decode_to_the_same(data, value):
    assert same(decode(data), value)


def test_negative_zero_keeps_its_sign():
    assert math.copysign(1, decode(encode(-0.0))) == -1


class Colour(IntEnum):
    RED = 3


class Flags(IntFlag):
    A = 1
    B = 2


class Name(str, Enum):  # noqa: UP042 (the two differ in what str() of them is)
    X = "text"


class Loud(str):
    def __str__(self):
        return "LOUD"


class Odd(int):
    def bit_length(self):
        return 1

    def __abs__(self):
        return 7


class Floats(float):
    pass


Point = namedtuple("Point", "x y")

# What comes back as another type: (value, the value with the same encoding).
ENCODE_ONLY = {
    "str": ("zażółć", "zażółć".encode()),
    "empty str": ("", b""),
    "bytearray": (bytearray(b"ab"), b"ab"),
    "memoryview": (memoryview(b"abc")[1:], b"bc"),
    "strided memoryview": (memoryview(b"abcd")[::2], b"ac"),
    "wide memoryview": (memoryview(b"abcd").cast("H"), b"abcd"),
    "int enum": (Colour.RED, 3),
    "int flag": (Flags.A | Flags.B, 3),
    "big int of an odd subclass": (Odd(2**70), 2**70),
    "str enum": (Name.X, b"text"),
    "str subclass": (Loud("quiet"), b"quiet"),
    "float subclass": (Floats(2.5), 2.5),
    "named tuple": (Point(1, 2), (1, 2)),
    "ordered dict": (OrderedDict(a=1), {"a": 1}),
    "list subclass": (type("L", (list,), {})([1]), [1]),
    "bytes subclass": (type("B", (bytes,), {})(b"x"), b"x"),
    "whole bit string": (BitString(b"ab", 16), b"ab"),
}


@pytest.mark.parametrize("value, plain", ENCODE_ONLY.values(), ids=ENCODE_ONLY)
def test_subclasses_and_relatives_encode_as_what_they_are(value, plain):
    assert encode(value) == encode(plain)


def test_str_is_a_binary_and_atom_is_an_atom():
    assert encode("a") == ext(109, u32(1), "a")
    assert encode(Atom("a")) == ext(119, 1, "a")


@pytest.mark.parametrize("name", ["nil", "undefined", "none"])
def test_none_encodes_to_the_atom_that_was_set(name):
    before = term.set_none_atom(name)
    try:
        assert encode(None) == ext(119, len(name), name)
        assert decode(encode((None,))) == (None,)
    finally:
        assert term.set_none_atom(before) == name


def test_none_atom_is_one_of_three():
    with pytest.raises(ValueError):
        term.set_none_atom("null")
    with pytest.raises(TypeError):
        term.set_none_atom(None)
    assert encode(None) == ext(119, 4, "none")


def test_binaries_are_str_only_where_asked_for():
    data = encode([b"a", {b"k": b"\xc3\xa9"}, Atom("b")])
    assert decode(data) == [b"a", {b"k": "é".encode()}, "b"]
    assert decode(data, binaries="bytes") == decode(data)
    texts = decode(data, binaries="str")
    assert texts == ["a", {"k": "é"}, Atom("b")]
    assert type(texts[0]) is str and type(texts[2]) is Atom


def test_binaries_as_str_never_guess():
    with pytest.raises(ValueError, match="not UTF-8"):
        decode(encode(b"\xff"), binaries="str")
    with pytest.raises(ValueError):
        decode(encode(b""), binaries="text")
    with pytest.raises(TypeError):
        decode(encode(b""), binary="str")
    with pytest.raises(TypeError):
        decode()


def test_decode_takes_any_buffer():
    data = encode([1, 2])
    assert decode(bytearray(data)) == decode(memoryview(data)) == [1, 2]
    with pytest.raises(TypeError):
        decode("text")
