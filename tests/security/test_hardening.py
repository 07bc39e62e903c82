"""The shared objects as they were built: what a fault of memory cannot use."""

import platform
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from erlang import _loop, _term

NIF = Path(_loop.__file__).parents[2] / "beamloop.so"
LIBRARIES = {"_loop": Path(_loop.__file__), "_term": Path(_term.__file__), "beamloop": NIF}

pytestmark = pytest.mark.skipif(shutil.which("readelf") is None, reason="there is no readelf")


def readelf(path, *options):
    return subprocess.run(
        ["readelf", "-W", *options, str(path)], capture_output=True, text=True, check=True
    ).stdout


def segments(path):
    """[(type, flags)] of the program headers, flags as "RWE"."""
    pattern = r"^  (\w+) +(?:0x\w+ +){5}([RWE ]{3})"
    return re.findall(pattern, readelf(path, "--segments"), re.MULTILINE)


def imported(path):
    return set(re.findall(r" UND ([^@\s]+)", readelf(path, "--dyn-syms")))


def is_sanitized(path):
    return any(name.startswith(("__asan_", "__ubsan_", "__tsan_")) for name in imported(path))


@pytest.fixture(params=LIBRARIES.values(), ids=LIBRARIES)
def library(request):
    if not request.param.exists():
        pytest.skip("only the loop is installed")
    return request.param


@pytest.fixture
def hardened(library):
    if is_sanitized(library):
        pytest.skip("a build with a sanitizer has its own checks instead")
    return library


def test_no_segment_is_writable_and_executable(library):
    found = segments(library)
    assert len(found) > 4
    assert [kind for kind, flags in found if "W" in flags and "E" in flags] == []


def test_the_stack_is_not_executable(library):
    assert [flags.strip() for kind, flags in segments(library) if kind == "GNU_STACK"] == ["RW"]


def test_code_is_not_relocated(library):
    assert "TEXTREL" not in readelf(library, "--dynamic")


def test_everything_is_bound_at_once_and_read_only_then(hardened):
    assert "GNU_RELRO" in {kind for kind, _ in segments(hardened)}
    assert re.search(r"BIND_NOW|\bNOW\b", readelf(hardened, "--dynamic"))


def test_functions_with_arrays_check_their_frames(hardened):
    assert "__stack_chk_fail" in imported(hardened)


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="x86 only")
def test_indirect_branches_go_to_marked_places_alone(hardened):
    code = subprocess.run(
        ["objdump", "-d", "--no-show-raw-insn", str(hardened)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert code.count("endbr64") > 20


def test_only_what_the_loader_asks_for_is_exported(library):
    exported = re.findall(
        r"^ +\d+: +(?!0+ )\w+ +\d+ +FUNC +(?:GLOBAL|WEAK) +DEFAULT +\d+ (\w+)",
        readelf(library, "--dyn-syms"),
        re.MULTILINE,
    )
    ours = [name for name in exported if name not in ("_init", "_fini")]
    assert ours and all(re.fullmatch(r"nif_init|PyInit_\w+", name) for name in ours)
