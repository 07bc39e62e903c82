"""Properties: values come back as they went, and no bytes do worse than a TermError."""

import math
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from erlang._term import Atom, BitString, ImproperList, decode, encode
from erlang.errors import TermError

text = st.text(st.characters(exclude_categories=["Cs"]))
atoms = text.filter(lambda s: len(s) < 256 and s not in {"true", "false", "none", "nil"})


def bit_string(data, spare):
    return BitString(data, 8 * len(data) - spare)


scalars = (
    st.integers()
    | st.integers(-(2**3000), 2**3000)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.booleans()
    | st.none()
    | st.binary()
    | atoms.filter(lambda s: s != "undefined").map(Atom)
    | st.builds(bit_string, st.binary(min_size=1), st.integers(1, 7))
)
keys = st.one_of(scalars, st.tuples(scalars, scalars))


def containers(inner):
    lists = st.lists(inner)
    tails = inner.filter(lambda value: not isinstance(value, (list, ImproperList)))
    return (
        lists
        | lists.map(tuple)
        | st.builds(ImproperList, st.lists(inner, min_size=1), tails)
        | st.dictionaries(keys, inner).filter(distinct_in_erlang)
    )


def distinct_in_erlang(value):
    return len({encode(key) for key in value}) == len(value)


values = st.recursive(scalars, containers, max_leaves=30)


def exactly(a, b):
    """Equal in value and in every type, which == alone does not see."""
    if type(a) is not type(b):
        return False
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(exactly, a, b))
    if isinstance(a, dict):
        keys = {key: key for key in a}
        return len(a) == len(b) and all(
            key in keys and exactly(keys[key], key) and exactly(a[key], value)
            for key, value in b.items()
        )
    if isinstance(a, ImproperList):
        return exactly(a.elements, b.elements) and exactly(a.tail, b.tail)
    if isinstance(a, float):
        return a == b and math.copysign(1, a) == math.copysign(1, b)
    return a == b


@settings(max_examples=100, deadline=None)
@given(values)
def test_values_come_back_exactly(value):
    data = encode(value)
    back = decode(data)
    assert exactly(back, value)
    assert encode(back) == data


@settings(max_examples=30, deadline=None)
@given(st.recursive(text | st.integers(), lambda inner: st.lists(inner) | st.tuples(inner)))
def test_text_comes_back_where_str_is_asked_for(value):
    assert exactly(decode(encode(value), binaries="str"), value)


def decode_or_term_error(data):
    for binaries in ("bytes", "str"):
        try:
            value = decode(data, binaries=binaries)
        except TermError:
            continue
        repr(value)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200))
def test_random_bytes_are_terms_or_term_errors(data):
    decode_or_term_error(b"\x83" + data)


TAGS = [70, 77, 80, *range(88, 91), *range(97, 122)]
pieces = st.one_of(
    st.sampled_from(TAGS).map(lambda tag: bytes([tag])),
    st.integers(0, 5).map(lambda n: bytes([0, 0, 0, n])),
    st.integers(0, 5).map(lambda n: bytes([n])),
    st.sampled_from([b"w\1a", b"d\0\1a", b"a\1", b"j", b"\xff" * 4, b"\0" * 12]),
    st.binary(max_size=9),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(pieces, max_size=40))
def test_plausible_bytes_are_terms_or_term_errors(parts):
    decode_or_term_error(b"\x83" + b"".join(parts))


SAMPLES = [
    {b"k": [1, -2, 2.5, -(2**70), 2**3000], "text": (None, True, Atom("a"), Atom("å" * 200))},
    [BitString(b"\xa0", 3), ImproperList([1, [2]], 3), (), {}, [], b"x" * 40, (1,) * 260],
    [decode(b"\x83Xw\1a" + b"\0" * 12), decode(b"\x83Z\0\3w\1a" + b"\0" * 16)],
    [decode(b"\x83Yw\1a" + b"\0" * 8), decode(b"\x83qw\1mw\1fa\2")],
    [{(1, "a"): [{2: [{Atom("deep"): ({3: 4},)}]}]}] * 5,
]


def damage(random, data):
    data = bytearray(data)
    for _ in range(random.randint(1, 4)):
        position = random.randrange(1, len(data))
        change = random.random()
        if change < 0.6:
            data[position] = random.choice([random.randrange(256), random.choice(TAGS), 0, 255])
        elif change < 0.8:
            del data[position : position + random.randint(1, 5)]
        else:
            data[position:position] = random.randbytes(random.randint(1, 5))
    return bytes(data)


def test_damaged_terms_are_terms_or_term_errors():
    random = Random(1)
    for _ in range(4000):
        for sample in SAMPLES:
            decode_or_term_error(damage(random, encode(sample)))
