"""The types that only terms have: Atom, Pid, Port, Reference, Fun, BitString, ImproperList."""

import copy
import gc
import pickle
import struct
import weakref

import pytest

from erlang._term import Atom, BitString, Fun, ImproperList, Pid, Port, Reference, decode, encode


def atom(name):
    return b"w" + bytes([len(name.encode())]) + name.encode()


def old_atom(name):
    return b"d" + struct.pack(">H", len(name)) + name.encode("latin-1")


def pid(number=85, serial=0, node="nonode@nohost", creation=0, atom=atom):
    return decode(b"\x83X" + atom(node) + struct.pack(">III", number, serial, creation))


def port(number, node="nonode@nohost"):
    return decode(b"\x83Y" + atom(node) + struct.pack(">II", number, 0))


def reference(*words, node="nonode@nohost"):
    head = b"\x83Z" + struct.pack(">H", len(words))
    return decode(head + atom(node) + struct.pack(f">{len(words) + 1}I", 0, *words))


def export(module, function, arity):
    return decode(b"\x83q" + atom(module) + atom(function) + b"a" + bytes([arity]))


def local_fun(module="lists", free=(1, [2])):
    body = struct.pack(">B16sII", 2, b"u" * 16, 7, len(free)) + atom(module)
    body += b"a\x07" + b"b\0\1\0\0" + encode(pid())[1:] + b"".join(encode(v)[1:] for v in free)
    return decode(b"\x83p" + struct.pack(">I", len(body) + 4) + body)


def test_atom_is_a_str_but_shows_what_it_is():
    a = Atom("request")
    assert a == "request" and hash(a) == hash("request") and {a: 1}["request"] == 1
    assert isinstance(a, str) and repr(a) == "Atom('request')" and str(a) == f"{a}" == "request"
    assert type(str(a)) is str and type(a + "x") is str
    assert a.__class__ is Atom and Atom.__module__ == "erlang"


def test_atom_of_an_atom_is_itself():
    a = Atom("x")
    assert Atom(a) is a


def test_atom_takes_the_characters_of_a_str_subclass():
    class Loud(str):
        def __str__(self):
            return "LOUD"

    assert Atom(Loud("quiet")) == "quiet"


def test_atom_length_is_counted_in_characters():
    assert len(Atom("🐍" * 255)) == 255
    with pytest.raises(ValueError, match="255"):
        Atom("a" * 256)


@pytest.mark.parametrize("wrong", [b"x", 1, None])
def test_atom_is_made_of_text_only(wrong):
    with pytest.raises(TypeError):
        Atom(wrong)


def test_atom_refuses_what_is_no_text():
    with pytest.raises(ValueError):
        Atom("\ud800")
    with pytest.raises(TypeError):
        Atom()
    with pytest.raises(TypeError):
        type("Sub", (Atom,), {})


@pytest.mark.parametrize(
    "value",
    [
        Atom("ok"),
        pid(),
        port(5),
        reference(1, 2, 3),
        export("lists", "map", 2),
        local_fun(),
        BitString(b"\xa0", 3),
        ImproperList([1, (2,)], 3),
    ],
    ids=repr,
)
def test_values_can_be_copied_and_pickled(value):
    twins = [copy.copy(value), copy.deepcopy(value), decode(encode(value))]
    twins += [pickle.loads(pickle.dumps(value, protocol)) for protocol in (2, 5)]
    for twin in twins:
        assert type(twin) is type(value) and twin == value and repr(twin) == repr(value)


def test_atoms_look_the_same_to_the_cache_and_without_it():
    names = [f"name_{i}" for i in range(5000)]
    data = [encode(Atom(name)) for name in names]
    for _ in range(2):
        assert [decode(d) for d in data] == names


def test_pid_prints_as_erlang_prints_it_with_the_node_when_remote():
    assert repr(pid(85, 3)) == str(pid(85, 3)) == "<0.85.3>"
    assert repr(pid(85, 3, "a@b")) == "<a@b.0.85.3>"
    assert pid(node="ż@b").node == "ż@b" and pid().node == "nonode@nohost"


def test_port_reference_and_fun_print_as_erlang_prints_them():
    assert repr(port(5)) == "#Port<0.5>"
    assert repr(reference(1, 2, 3)) == "#Ref<0.3.2.1>"
    assert repr(export("lists", "map", 2)) == "fun lists:map/2"
    assert repr(local_fun()) == "#Fun<lists.7.65536>"
    wide = decode(b"\x83x" + atom("a@b") + struct.pack(">QI", 2**40, 1))
    assert repr(wide) == f"#Port<a@b.0.{2**40}>"


def test_fun_tells_its_module_and_arity():
    assert (export("lists", "map", 2).module, export("lists", "map", 2).arity) == ("lists", 2)
    assert (local_fun().module, local_fun().arity) == ("lists", 2)


MAKERS = [pid, port, reference]


@pytest.mark.parametrize("make", MAKERS)
def test_identifiers_are_equal_when_they_name_the_same_thing(make):
    assert make(1) == make(1) and hash(make(1)) == hash(make(1))
    assert make(1) != make(2) and make(1) != make(1, node="a@b")
    assert len({make(1), make(1), make(2)}) == 2


def test_identifiers_of_different_kinds_are_never_equal():
    values = [pid(1), port(1), reference(1), "x", 1]
    assert all((a == b) == (a is b) for a in values for b in values)


def test_all_encodings_of_a_pid_are_the_same_pid():
    old = decode(b"\x83g" + atom("a@b") + struct.pack(">IIB", 85, 0, 3))
    latin1 = pid(85, 0, "a@b", 3, atom=old_atom)
    assert old == latin1 == pid(85, 0, "a@b", 3)
    assert hash(old) == hash(latin1) == hash(pid(85, 0, "a@b", 3))
    assert pid(1, 0, "å@b", 3, atom=old_atom) == pid(1, 0, "å@b", 3)


def test_all_encodings_of_ports_and_references_are_the_same():
    node = atom("a@b")
    assert decode(b"\x83f" + node + struct.pack(">IB", 5, 0)) == port(5, "a@b")
    assert decode(b"\x83x" + node + struct.pack(">QI", 5, 0)) == port(5, "a@b")
    assert decode(b"\x83e" + node + struct.pack(">IB", 5, 0)) == reference(5, node="a@b")
    assert decode(b"\x83r\0\2" + node + struct.pack(">BII", 0, 5, 6)) == reference(5, 6, node="a@b")


@pytest.mark.parametrize("make", MAKERS)
def test_identifiers_have_a_total_order_within_their_kind(make):
    values = [make(1), make(2), make(300), make(2, node="a@b")]
    assert sorted(reversed(values)) == sorted(values)
    assert make(2) < make(300) and make(300) >= make(2) and make(1) <= make(1)
    with pytest.raises(TypeError):
        make(1) < 1  # noqa: B015


@pytest.mark.parametrize("kind", [Pid, Port, Reference, Fun])
def test_identifiers_come_from_erlang_only(kind):
    with pytest.raises(TypeError):
        kind()
    with pytest.raises(TypeError):
        type("Sub", (kind,), {})


def test_identifiers_are_immutable():
    with pytest.raises((AttributeError, TypeError)):
        pid().node = "x"
    with pytest.raises((AttributeError, TypeError)):
        pid().extra = "x"


def test_bit_string_is_its_bits():
    b = BitString(b"\xff\xff", 11)
    assert (b.data, b.bits, len(b)) == (b"\xff\xe0", 11, 11)
    assert b == BitString(b"\xff\xe5", 11) and hash(b) == hash(BitString(b"\xff\xe5", 11))
    assert b != BitString(b"\xff\xe0", 12) and b != b"\xff\xe0"
    assert repr(b) == "BitString(b'\\xff\\xe0', 11)" and eval(repr(b)) == b


def test_bit_string_of_one_byte_leaves_other_bytes_alone():
    for byte in range(256):
        BitString(bytes([byte]), 1)
        decode(b"\x83M\0\0\0\1\1" + bytes([byte]))
    assert [bytes([byte])[0] for byte in range(256)] == list(range(256))


def test_bit_strings_compare_as_in_erlang():
    a, b, c = BitString(b"\x80", 1), BitString(b"\x80", 2), BitString(b"\xc0", 2)
    assert a < b < c and c > a and sorted([c, b, a]) == [a, b, c]
    with pytest.raises(TypeError):
        a < b"\x80"  # noqa: B015


@pytest.mark.parametrize("data, bits", [(b"", 1), (b"a", 9), (b"a", 0), (b"ab", 8), (b"", -1)])
def test_bit_string_refuses_bits_that_do_not_fill_the_data(data, bits):
    with pytest.raises(ValueError):
        BitString(data, bits)


def test_improper_list_has_elements_and_a_tail():
    value = ImproperList((1, 2), 3)
    assert (value.elements, value.tail) == ([1, 2], 3)
    assert value == ImproperList([1, 2], 3) and value != ImproperList([1, 2], 4)
    assert value != ImproperList([1], 3) and value != [1, 2]
    assert repr(value) == "ImproperList([1, 2], 3)" and eval(repr(value)) == value


def test_improper_list_is_neither_empty_nor_proper():
    for elements, tail in [([], 1), ([1], []), ([1], [2])]:
        with pytest.raises(ValueError):
            ImproperList(elements, tail)
    with pytest.raises(TypeError):
        ImproperList(1, 2)
    with pytest.raises(TypeError):
        hash(ImproperList([1], 2))


def test_improper_list_in_a_cycle_prints_and_is_collected():
    class Marker:
        pass

    marker = Marker()
    gone = weakref.ref(marker)
    value = ImproperList([marker], 1)
    value.elements.append(value)
    assert "ImproperList(...)" in repr(value)
    del value, marker
    gc.collect()
    assert gone() is None


def test_improper_list_emptied_later_is_refused():
    value = ImproperList([1], 2)
    value.elements.clear()
    with pytest.raises(ValueError, match="improper"):
        encode(value)
