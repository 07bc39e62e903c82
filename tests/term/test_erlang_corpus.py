"""The codec against the emulator: what Erlang encodes comes back to it as the very same term."""

import struct
import subprocess

import pytest

from erlang import _term as term


def read_records(data):
    records = []
    while data:
        index, size = struct.unpack_from(">II", data)
        records.append((index, data[8 : 8 + size]))
        data = data[8 + size :]
    return records


class Emulator:
    """An `erl` that writes its corpus and then judges what it gets back."""

    def __init__(self, directory, source):
        subprocess.run(["erlc", "-o", directory, source], check=True)
        self.answers = directory / "answers"
        corpus = directory / "corpus"
        self.process = subprocess.Popen(
            [
                "erl",
                "-noshell",
                "-pa",
                directory,
                "-eval",
                f'corpus:run("{corpus}", "{self.answers}"), halt().',
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


@pytest.fixture
def emulator(tmp_path, request):
    emulator = Emulator(tmp_path, request.path.parent / "corpus.erl")
    yield emulator
    emulator.process.kill()
    emulator.process.wait()


def test_terms_come_back_to_the_emulator_unchanged(emulator):
    assert len(emulator.records) > 400
    answers = [(index, term.encode(term.decode(data))) for index, data in emulator.records]
    verdicts = emulator.verdicts(answers)
    assert len(verdicts) == len(answers)
    assert [verdict for verdict in verdicts if verdict[1] != "same"] == []
