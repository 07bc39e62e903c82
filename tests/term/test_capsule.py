"""The C API that the VM uses: its hooks, flags and buffers, called through ctypes."""

import ctypes as c
import struct
import sys

import pytest

import erlang._term as term
from erlang._term import Atom, decode, encode

REFERENCE = c.PYFUNCTYPE(c.c_void_p, c.POINTER(c.c_uint8), c.c_size_t, c.c_void_p)
OTHER = c.PYFUNCTYPE(c.c_int, c.py_object, c.c_void_p, c.c_void_p)
RENAME = c.PYFUNCTYPE(
    c.c_size_t, c.POINTER(c.c_uint8), c.c_size_t, c.c_void_p, c.c_size_t, c.c_void_p
)
ATOM_EXISTS = c.PYFUNCTYPE(c.c_int, c.POINTER(c.c_char), c.c_size_t, c.c_void_p)

ATOM = c.PYFUNCTYPE(c.c_int, c.POINTER(c.c_char), c.c_size_t, c.c_void_p)


class Hooks(c.Structure):
    _fields_ = [
        ("reference", REFERENCE),
        ("other", OTHER),
        ("atom_exists", ATOM_EXISTS),
        ("arg", c.c_void_p),
        ("rename", RENAME),
        ("atom", ATOM),
    ]


class Buffer(c.Structure):
    _fields_ = [
        ("data", c.c_void_p),
        ("size", c.c_size_t),
        ("capacity", c.c_size_t),
        ("owned", c.c_int),
    ]

    def content(self):
        return c.string_at(self.data, self.size)


DECODE = c.PYFUNCTYPE(c.py_object, c.c_char_p, c.c_size_t, c.c_uint, c.c_void_p)
ENCODE = c.PYFUNCTYPE(c.c_int, c.py_object, c.c_void_p, c.c_uint, c.c_void_p)
RESERVE = c.PYFUNCTYPE(c.c_int, c.c_void_p, c.c_size_t)
FREE = c.PYFUNCTYPE(None, c.c_void_p)
PID_EXT = c.PYFUNCTYPE(c.c_int, c.py_object, c.c_void_p, c.c_void_p)


class Api(c.Structure):
    _fields_ = [
        ("version", c.c_uint32),
        ("size", c.c_uint32),
        ("decode", DECODE),
        ("encode", ENCODE),
        ("buf_reserve", RESERVE),
        ("buf_free", FREE),
        ("pid_ext", PID_EXT),
    ]


def get_api():
    get = c.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = c.c_void_p, [c.py_object, c.c_char_p]
    return Api.from_address(get(term._C_API, b"erlang._term._C_API"))


API = get_api()
BINARIES_STR = 1
HEAD_ATOM = 1
REFERENCE_BYTES = b"Z\0\3w\1a" + struct.pack(">IIII", 0, 1, 2, 3)
PID_BYTES = b"Xw\1a" + struct.pack(">III", 85, 0, 0)


def api_encode(value, flags=0, hooks=None, start=b""):
    buffer = Buffer()
    if start:
        assert API.buf_reserve(c.byref(buffer), len(start)) == 0
        c.memmove(buffer.data, start, len(start))
        buffer.size = len(start)
    try:
        API.encode(value, c.byref(buffer), flags, hooks and c.byref(hooks))
        return buffer.content()
    except BaseException:
        assert buffer.size == len(start)
        raise
    finally:
        API.buf_free(c.byref(buffer))
        assert buffer.size == buffer.capacity == 0 and not buffer.data


def api_decode(data, flags=0, hooks=None):
    return API.decode(data, len(data), flags, hooks and c.byref(hooks))


def new_reference(value):
    c.pythonapi.Py_IncRef(c.py_object(value))
    return id(value)


class Live:
    pass


def live_hooks(value, seen):
    def reference(ext, size, arg):
        seen.append(c.string_at(ext, size))
        return value and new_reference(value)

    return Hooks(reference=REFERENCE(reference))


def test_capsule_says_its_version_and_size():
    assert (API.version, API.size) == (3, c.sizeof(Api))


def test_encode_appends_behind_what_is_there():
    assert api_encode([1, "a"], start=b"begin") == b"begin" + encode([1, "a"])
    with pytest.raises(TypeError):
        api_encode([1, object()], start=b"begin")


def test_encode_moves_from_lent_memory_to_its_own():
    lent = (c.c_uint8 * 16)()
    buffer = Buffer(c.addressof(lent), 0, 16, 0)
    API.encode(b"x" * 100, c.byref(buffer), 0, None)
    assert buffer.content() == encode(b"x" * 100) and buffer.owned
    assert buffer.data != c.addressof(lent)
    API.buf_free(c.byref(buffer))


def test_decode_takes_the_flag_for_str():
    assert api_decode(encode([b"a"]), BINARIES_STR) == ["a"]
    assert api_decode(encode([b"a"])) == [b"a"]


@pytest.mark.parametrize("wrap", [b"%s", b"h\1%s", b"l\0\0\0\1%sj", b"t\0\0\0\1a\1%s"])
def test_reference_hook_makes_a_live_object(wrap):
    live, seen = Live(), []
    value = api_decode(b"\x83" + wrap % REFERENCE_BYTES, 0, live_hooks(live, seen))
    while value is not live:
        value = value[0] if isinstance(value, (tuple, list)) else value[1]
    assert seen == [REFERENCE_BYTES]


def test_reference_hook_sees_the_bytes_as_they_came():
    old, seen = b"r\0\2d\0\1a" + struct.pack(">BII", 0, 1, 2), []
    value = api_decode(b"\x83" + old, 0, live_hooks(None, seen))
    assert seen == [old] and type(value) is term.Reference


def test_a_fun_holds_the_live_objects_of_its_environment():
    pid = b"Xw\1a" + b"\0" * 12
    body = b"\1" + b"u" * 16 + struct.pack(">II", 0, 1) + b"w\1ma\0a\0" + pid + REFERENCE_BYTES
    data = b"\x83p" + struct.pack(">I", len(body) + 4) + body
    live, seen = Live(), []
    before = sys.getrefcount(live)
    fun = api_decode(data, 0, live_hooks(live, seen))
    assert type(fun) is term.Fun and seen == [REFERENCE_BYTES]
    assert sys.getrefcount(live) == before + 1
    assert encode(fun) == data
    del fun
    assert sys.getrefcount(live) == before


def test_other_hook_writes_what_the_codec_does_not_know():
    live = Live()

    def other(value, out, arg):
        if value is not live:
            return 0
        buffer = Buffer.from_address(out)
        assert API.buf_reserve(out, 2) == 0
        c.memmove(buffer.data + buffer.size, b"a\7", 2)
        buffer.size += 2
        return 1

    hooks = Hooks(other=OTHER(other))
    assert decode(api_encode([1, {2: live}], 0, hooks)) == [1, {2: 7}]
    with pytest.raises(TypeError, match="no Erlang term"):
        api_encode([1, object()], 0, hooks)


@pytest.mark.parametrize("make", [lambda live: [live, 1], lambda live: {1: live, 2: 2}])
def test_containers_that_change_meanwhile_are_runtime_errors(make):
    value = make(Live())

    def other(live, out, arg):
        value.clear()
        buffer = Buffer.from_address(out)
        assert API.buf_reserve(out, 1) == 0
        c.memmove(buffer.data + buffer.size, b"j", 1)
        buffer.size += 1
        return 1

    with pytest.raises(RuntimeError, match="changed"):
        api_encode(value, 0, Hooks(other=OTHER(other)))


def atom_hooks(*names):
    def atom_exists(utf8, size, arg):
        return c.string_at(utf8, size).decode() in names

    return Hooks(atom_exists=ATOM_EXISTS(atom_exists))


def test_each_atom_is_asked_about_once():
    asked = []

    def allow(utf8, size, arg):
        asked.append(c.string_at(utf8, size).decode())
        return 0

    hooks = Hooks(atom=ATOM(allow))
    atom = Atom("żółw")
    value = [atom, (atom, {atom: Atom("b")}), "text", None, True]
    assert api_encode(value, 0, hooks) == encode(value)
    assert api_encode(atom, 0, hooks) == encode(atom)
    assert asked == ["żółw", "b"]


def test_head_of_the_outermost_tuple_becomes_an_atom_that_exists():
    hooks = atom_hooks("response", "żółw")
    assert api_encode(("response", 1), HEAD_ATOM, hooks) == encode((Atom("response"), 1))
    assert api_encode(("żółw",), HEAD_ATOM, hooks) == encode((Atom("żółw"),))


@pytest.mark.parametrize(
    "value",
    [
        ("unknown", 1),
        ("x" * 256, 1),
        "response",
        ["response"],
        [("response", 1)],
        (("response", 1),),
        ({"response": 1},),
        (1, "response"),
        {"response": ("response",)},
        (),
    ],
    ids=repr,
)
def test_no_other_str_becomes_an_atom(value):
    assert api_encode(value, HEAD_ATOM, atom_hooks("response")) == encode(value)


def test_no_str_becomes_an_atom_without_the_flag():
    assert api_encode(("response",), 0, atom_hooks("response")) == encode(("response",))
    assert api_encode(("response",), HEAD_ATOM) == encode(("response",))


def test_pid_ext_is_the_encoding_without_its_version():
    data, size = c.c_void_p(), c.c_size_t()
    pid = decode(b"\x83" + PID_BYTES)
    API.pid_ext(pid, c.byref(data), c.byref(size))
    assert c.string_at(data.value, size.value) == PID_BYTES
    with pytest.raises(TypeError, match=r"erlang\.Pid"):
        API.pid_ext("pid", c.byref(data), c.byref(size))


def test_rename_hook_is_asked_for_what_came_from_a_node_without_a_name():
    asked = []

    def rename(ext, size, out, capacity, arg):
        asked.append(c.string_at(ext, size))
        if size != len(nameless_pid):
            return 0
        assert capacity >= len(PID_BYTES)
        c.memmove(out, PID_BYTES, len(PID_BYTES))
        return len(PID_BYTES)

    node = b"w\x0dnonode@nohost"
    nameless_pid = b"X" + node + struct.pack(">III", 85, 0, 0)
    nameless_port = b"Y" + node + struct.pack(">II", 85, 0)
    created_pid = b"X" + node + struct.pack(">III", 85, 0, 7)
    hooks = Hooks(rename=RENAME(rename))
    values = [
        decode(b"\x83" + ext) for ext in (nameless_pid, nameless_port, created_pid, PID_BYTES)
    ]
    data = api_encode(values, 0, hooks)
    assert decode(data) == [values[3], values[1], values[2], values[3]]
    assert asked == [nameless_pid, nameless_port]
