"""The stubs of the erlang package, as mypy sees them."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
TOP = HERE.parents[1]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """One for all: a check of asyncio's own stubs takes long."""
    return tmp_path_factory.mktemp("mypy")


def mypy(cache, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "mypy", "--cache-dir", str(cache), *arguments],
        capture_output=True,
        text=True,
        timeout=100,
        env={**os.environ, "MYPYPATH": str(TOP / "python")},
    )


def test_a_typed_program_is_clean_in_strict_mode(cache):
    checked = mypy(cache, "--strict", "--follow-imports=silent", str(HERE / "sample.py"))
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_what_is_wrong_is_found(cache):
    path = HERE / "wrong.py"
    checked = mypy(cache, "--strict", "--follow-imports=silent", str(path))
    found = {int(n) for n in re.findall(r"^\S*wrong\.py:(\d+): error", checked.stdout, re.M)}
    lines = path.read_text().splitlines()
    assert found == {n for n, line in enumerate(lines, 1) if line.endswith("# error")}


STUBS = ["_term", "byte_channel", "byte_transport", "channel", "loop", "reactor"]


@pytest.mark.parametrize("stub", STUBS)
def test_the_stubs_themselves_are_clean(cache, stub):
    path = TOP / "python" / "erlang" / f"{stub}.pyi"
    checked = mypy(cache, "--strict", "--follow-imports=silent", str(path))
    assert checked.returncode == 0, checked.stdout + checked.stderr
