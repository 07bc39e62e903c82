"""The two documented ways to run a pytest-asyncio suite on the loop (docs/pytest.md)."""

import subprocess
import sys

import pytest

SUITE = """
import asyncio
import erlang
import pytest
import pytest_asyncio

@pytest_asyncio.fixture
async def fixture_loop():
    return asyncio.get_running_loop()

@pytest.mark.asyncio
async def test_runs_on_the_loop(fixture_loop):
    loop = asyncio.get_running_loop()
    assert type(loop) is erlang.ErlangEventLoop
    assert loop is fixture_loop
    await asyncio.sleep(0.001)
"""

HOOK = """
import erlang

def pytest_asyncio_loop_factories(config, item):
    return {"erlang": erlang.new_event_loop}
"""

POLICY = """
import erlang
import pytest

@pytest.fixture(scope="session")
def event_loop_policy():
    return erlang.EventLoopPolicy()
"""


@pytest.mark.parametrize("conftest", [HOOK, POLICY], ids=["hook", "policy"])
def test_a_suite_runs_on_our_loop(tmp_path, conftest):
    (tmp_path / "conftest.py").write_text(conftest)
    (tmp_path / "test_suite.py").write_text(SUITE)
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\nasyncio_default_fixture_loop_scope = function\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert "1 passed" in done.stdout, done.stdout + done.stderr
