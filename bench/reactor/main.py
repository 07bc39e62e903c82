"""The reactor's echo against transports and gen_tcp, by the tools of bench/echo.

    ./run bench reactor [--columns NAME,...] [--rounds N] [--seconds S] [--quick] [--json FILE]
    ./run bench reactor --case channel [--rounds N]

bench/README.md says how to read the tables.
"""

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
ECHO = HERE.parent / "echo"
# Before this folder, whose main would hide that one's.
sys.path.insert(0, str(ECHO))

import main as echo  # noqa: E402
import processes  # noqa: E402
from cases import KB, Case  # noqa: E402

COLUMNS = {
    "floor": "C floor",
    "reactor": "reactor",
    "erlang": "transport",
    "uvloop": "uvloop",
    "asyncio": "asyncio",
    "vm": "reactor in the VM",
    "gen_tcp": "gen_tcp",
}


def ahead_of(column, ours="reactor"):
    return (ours, column, "cpu", 1.0)


CASES = {
    "echo": Case(
        "`Protocol` echo",
        "protocol",
        [(10, size) for size in (64, KB, 16 * KB, 1024 * KB)] + [(1, KB), (100, KB), (1000, KB)],
        [ahead_of("erlang"), ahead_of("uvloop"), ahead_of("gen_tcp"), ahead_of("gen_tcp", "vm")],
    ),
}


class Tools(processes.Tools):
    """The servers of the columns that bench/echo does not have."""

    def __init__(self):
        super().__init__()
        self._beams = str(self._folder)
        subprocess.run(["erlc", "-o", self._beams, str(HERE / "echo.erl")], check=True)

    def server_command(self, column, kind):
        if column == "reactor":
            return [sys.executable, str(HERE / "servers.py")]
        if column == "vm":
            return self._erl(f'echo:reactor("{HERE}")')
        if column == "gen_tcp":
            return self._erl("echo:gen_tcp()")
        return super().server_command(column, kind)

    def _erl(self, call):
        # One scheduler, as there is one CPU for it, which does not spin: spinning is no work.
        flags = ["+S", "1", "+sbwt", "none", "+sbwtdcpu", "none", "+sbwtdio", "none"]
        return ["erl", *flags, "-noinput", "-pa", self._beams, "-eval", f"{call}."]


def compare_channel(tools, columns, options):
    """A table of its own, made in one Erlang VM."""
    sys.stdout.flush()
    subprocess.run(["escript", str(HERE / "compare.escript"), str(options.rounds)], check=True)


if __name__ == "__main__":
    # The tables speak of these columns alone.
    processes.COLUMNS.clear()
    processes.COLUMNS.update(COLUMNS)
    echo.main(CASES, {"channel": compare_channel}, Tools)
