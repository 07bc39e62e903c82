"""python worker.py PART SECONDS [PATTERN]: runs the tests of a part on the loop LOOP.

Each test of a mixin runs in a process of its own, forked after the imports, so that a crash or a
hang is one result.  A module's tests share one process, as its set-up does.  Prints a line of JSON
for each test: [id, result, reason].
"""

import json
import os
import select
import signal
import sys
import time
import unittest

import binding


class Recorder(unittest.TestResult):
    """Reports each result as it comes, so that what ran before a crash is not lost."""

    def __init__(self, report):
        super().__init__()
        self._report = report
        self._subtests = {}

    def addSuccess(self, test):
        self._report(test.id(), "ok", "")

    def addSkip(self, test, reason):
        self._report(test.id(), "skip", reason)

    def addFailure(self, test, problem):
        self._report(test.id(), "fail", _last_line(problem))

    addError = addFailure

    def addSubTest(self, test, subtest, problem):
        if problem is not None:
            self._report(test.id(), "fail", _last_line(problem))

    def addExpectedFailure(self, test, problem):
        self._report(test.id(), "ok", "")

    def addUnexpectedSuccess(self, test):
        self._report(test.id(), "fail", "unexpected success")


def _last_line(problem):
    text = f"{problem[0].__name__}: {problem[1]}".strip()
    return text.splitlines()[0][:200]


def run_forked(tests, seconds, report):
    """Runs the tests in a child, where SECONDS is for each line that it reports."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        os.setpgid(0, 0)
        _run_in_child(tests, writer)
    os.close(writer)
    seen, ended = set(), "no result"
    buffer = b""
    deadline = time.monotonic() + seconds
    while True:
        if not select.select([reader], [], [], max(0, deadline - time.monotonic()))[0]:
            ended = f"hang: nothing for {seconds:g} s"
            break
        data = os.read(reader, 65536)
        if not data:
            break
        deadline = time.monotonic() + seconds
        *lines, buffer = (buffer + data).split(b"\n")
        for line in lines:
            name, result, reason = json.loads(line)
            seen.add(name)
            report(name, result, reason)
    os.close(reader)
    _end_group(child)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status) and not ended.startswith("hang"):
        ended = f"crash: signal {os.WTERMSIG(status)}"
    for test in tests:
        if test.id() not in seen:
            report(test.id(), "fail", ended)
            if len(tests) > 1:
                break


def _run_in_child(tests, writer):
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)

    def report(*row):
        os.write(writer, json.dumps(row).encode() + b"\n")

    unittest.TestSuite(tests).run(Recorder(report))
    os._exit(0)


def _end_group(child):
    """A child that has ended may have left children of its own; a child that hangs is ended too."""
    try:
        os.killpg(child, signal.SIGKILL)
    except ProcessLookupError:
        os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)


def main(part, seconds, pattern=""):
    tests = [test for test in binding.load(part) if pattern in test.id()]

    def report(*row):
        print(json.dumps(row), flush=True)

    if part.startswith("module "):
        if tests:
            run_forked(tests, 4 * seconds, report)
    else:
        for test in tests:
            run_forked([test], seconds, report)


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), *sys.argv[3:])
