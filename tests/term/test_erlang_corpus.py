"""The codec against the emulator: what Erlang encodes comes back to it as the very same term, and
what Python encodes to Python by way of Erlang as the same value.

More than the usual few: BEAMLOOP_PROPERTY_RUNS=5000.
"""

import os
import struct
import subprocess

import pytest
from hypothesis import HealthCheck, given, settings
from test_round_trip import exactly, values

from erlang import _term as term

RUNS = int(os.environ.get("BEAMLOOP_PROPERTY_RUNS", "200"))


def read_records(data):
    records = []
    while data:
        index, size = struct.unpack_from(">II", data)
        records.append((index, data[8 : 8 + size]))
        data = data[8 + size :]
    return records


class Emulator:
    """An `erl` that writes its corpus and then judges what it gets back."""

    def __init__(self, directory, seed="none"):
        self.answers = directory / "answers"
        corpus = directory / "corpus"
        self.process = subprocess.Popen(
            [
                "erl",
                "-noshell",
                "-pa",
                directory,
                "-eval",
                f'corpus:run("{corpus}", "{self.answers}", {seed}), halt().',
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout.readline() == "written\n"
        self.records = read_records(corpus.read_bytes())

    def verdicts(self, answers):
        self.answers.write_bytes(
            b"".join(struct.pack(">II", index, len(data)) + data for index, data in answers)
        )
        out, _ = self.process.communicate("\n", timeout=60)
        return [line.split(" ", 1) for line in out.splitlines()]

    def stop(self):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


class Echo:
    """An `erl` that decodes and encodes what it gets."""

    def __init__(self, directory):
        self.process = subprocess.Popen(
            ["erl", "-noinput", "-pa", directory, "-eval", "corpus:echo(), halt()."],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def ask(self, data):
        self.process.stdin.write(struct.pack(">I", len(data)) + data)
        self.process.stdin.flush()
        (size,) = struct.unpack(">I", self.process.stdout.read(4))
        return self.process.stdout.read(size)

    def stop(self):
        self.process.stdin.close()
        status = self.process.wait(30)
        self.process.stdout.close()
        return status


@pytest.fixture(scope="module")
def beams(tmp_path_factory, request):
    """Where the emulator finds corpus.erl compiled."""
    directory = tmp_path_factory.mktemp("beams")
    subprocess.run(["erlc", "-o", directory, request.path.parent / "corpus.erl"], check=True)
    return directory


def assert_unchanged(emulator):
    try:
        answers = [(index, term.encode(term.decode(data))) for index, data in emulator.records]
        verdicts = emulator.verdicts(answers)
    finally:
        emulator.stop()
    assert len(verdicts) == len(answers) > 300
    assert [verdict for verdict in verdicts if verdict[1] != "same"] == []


def test_terms_come_back_to_the_emulator_unchanged(beams):
    assert_unchanged(Emulator(beams))


@pytest.mark.parametrize("seed", range(RUNS // 100))
def test_terms_that_are_made_up_come_back_to_the_emulator_unchanged(beams, seed):
    assert_unchanged(Emulator(beams, seed))


@pytest.fixture(scope="module")
def echo(beams):
    echo = Echo(beams)
    yield echo
    assert echo.stop() == 0


@settings(
    max_examples=RUNS, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(values)
def test_values_come_back_from_the_emulator_exactly(echo, value):
    assert exactly(term.decode(echo.ask(term.encode(value))), value)
