"""`--repeats` finds what a test leaves each time, and nothing else."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.skipif("san.so" in os.environ.get("LD_PRELOAD", ""), reason="another malloc")
@pytest.mark.timeout(300)
def test_planted_leaks_are_found():
    planted = Path(__file__).with_name("planted_leaks.py")
    options = ["-q", "-rA", "-p", "no:cacheprovider", "--repeats", "20"]
    command = [sys.executable, "-m", "pytest", *options, str(planted)]
    run = subprocess.run(command, capture_output=True, text=True)
    outcome = re.compile(r"^(?:FAILED|PASSED) .*::test_(\w+)(?: - (.*) grew)?", re.M)
    found = dict(outcome.findall(run.stdout))
    assert set(found) == {"handle", "core", "object", "malloc", "nothing"}, run.stdout
    assert found["handle"] and found["core"] and found["object"], run.stdout
    assert found["malloc"] == "allocated bytes", run.stdout
    assert found["nothing"] == "", run.stdout
    assert "handles grew by 1.0" in run.stdout and "cores grew by 1.0" in run.stdout
    assert run.returncode == 1
