"""Echo servers compared: CPU of the server per request, from /proc, and requests per second.

python main.py [--kind protocol|buffered|two] [--seconds 1] [--rounds 3] [--case CONNECTIONS:SIZE]

Servers and the C load generator are processes of their own; the loops alternate, round by round.
The figure that counts is CPU per request, since it depends least on what else the machine does.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
TICK = os.sysconf("SC_CLK_TCK")


def compile_c(name, folder):
    program = str(Path(folder) / name)
    subprocess.run(["cc", "-O2", "-o", program, str(HERE / f"{name}.c")], check=True)
    return program


def thread_seconds(pid):
    """The CPU time of all threads of a process, in seconds, to the nanosecond."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9


def measure(command, load, connections, size, seconds):
    """(CPU us per request, requests/s, p50 us, p99 us) of one server under one load."""
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        try:
            port = server.stdout.readline().strip()
            arguments = [load, port, str(connections), str(size)]
            subprocess.run([*arguments, "0.2"], check=True, capture_output=True)
            before = thread_seconds(server.pid)
            done = subprocess.run(
                [*arguments, str(seconds)], check=True, capture_output=True, text=True
            )
            used = thread_seconds(server.pid) - before
        finally:
            server.kill()
    requests, elapsed, p50, p99 = done.stdout.split()
    return used / int(requests) * 1e6, int(requests) / float(elapsed), int(p50), int(p99)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kind", default="protocol", choices=["protocol", "buffered", "two"])
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--case", action="append", help="CONNECTIONS:SIZE")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        load = compile_c("load", folder)
        commands = {"floor": [compile_c("floor", folder)]}
        for name in ("uvloop", "asyncio", "erlang"):
            commands[name] = [sys.executable, str(HERE / "servers.py"), name, options.kind]
        for case in options.case or ["1:1024", "10:1024", "100:1024", "10:10240", "10:102400"]:
            connections, size = map(int, case.split(":"))
            rounds = {name: [] for name in commands}
            for _ in range(options.rounds):
                for name, command in commands.items():
                    rounds[name].append(measure(command, load, connections, size, options.seconds))
            for name, results in rounds.items():
                cpu, rate, p50, p99 = (
                    statistics.median(column) for column in zip(*results, strict=True)
                )
                print(
                    f"{options.kind:9} {connections:5} x {size:6} B {name:8} {cpu:7.2f} us CPU "
                    f"{rate:9.0f}/s  p50 {p50:6.0f} us  p99 {p99:6.0f} us",
                    flush=True,
                )


if __name__ == "__main__":
    main()
