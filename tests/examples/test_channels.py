"""The examples of channels and reactors, each a process of its own, over a text of this tree."""

import subprocess
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]
TEXT = TOP / "LICENSE"
LINES = TEXT.read_bytes().count(b"\n") + 1


@pytest.mark.parametrize(
    ("pattern", "says"),
    [
        ("request_response", f"{LINES} requests answered"),
        ("stream", f"{LINES} lines, "),
        ("worker_pool", f"{len(TEXT.read_bytes().split())} words"),
        ("backpressure", f"{LINES} lines in "),
        ("key_value", f"{LINES} lines over 8 connections"),
    ],
)
def test_a_pattern_agrees_with_erlang(pattern, says):
    command = [str(TOP / "run"), "pattern", pattern]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert says in ended.stdout and ended.stdout.endswith("agreed\n")


def test_an_unknown_pattern_is_refused():
    command = [str(TOP / "run"), "pattern", "nothing"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert ended.returncode != 0 and "no pattern nothing" in ended.stderr
