"""TLS 1.3 echo servers compared: CPU of the server per request, and requests per second.

python main.py [--kind protocol|buffered|two] [--seconds 1] [--rounds 3] [--case CONNECTIONS:SIZE]

As bench/echo, over TLS.  `sslproto` is our loop with asyncio's own sslproto above the native
transport, `aiofastnet` that package over uvloop, where it is installed.
"""

import argparse
import importlib.util
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import trustme

HERE = Path(__file__).parent


def load_echo():
    """bench/echo/main.py, under a name of its own."""
    spec = importlib.util.spec_from_file_location("echo_main", HERE.parent / "echo" / "main.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def prepare(folder):
    """The load generator's path and the server certificate's."""
    program = str(Path(folder) / "load")
    source = str(HERE / "load.c")
    subprocess.run(["cc", "-O2", "-o", program, source, "-lssl", "-lcrypto"], check=True)
    certificate = Path(folder) / "server.pem"
    trustme.CA().issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(certificate)
    return program, str(certificate)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kind", default="protocol", choices=["protocol", "buffered", "two"])
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--case", action="append", help="CONNECTIONS:SIZE")
    parser.add_argument("--loop", action="append", help="only these")
    options = parser.parse_args()
    loops = options.loop or ["uvloop", "asyncio", "sslproto", "erlang"]
    if not options.loop and importlib.util.find_spec("aiofastnet"):
        loops.insert(1, "aiofastnet")
    measure = load_echo().measure
    with tempfile.TemporaryDirectory() as folder:
        load, certificate = prepare(folder)
        for case in options.case or ["1:1024", "10:1024", "100:1024", "10:10240", "10:102400"]:
            connections, size = map(int, case.split(":"))
            rounds = {name: [] for name in loops}
            for _ in range(options.rounds):
                for name in loops:
                    command = [sys.executable, str(HERE / "serve.py"), name, options.kind]
                    rounds[name].append(
                        measure([*command, certificate], load, connections, size, options.seconds)
                    )
            for name, results in rounds.items():
                cpu, rate, p50, p99 = (
                    statistics.median(column) for column in zip(*results, strict=True)
                )
                ratio = statistics.median(
                    ours[0] / theirs[0]
                    for ours, theirs in zip(results, rounds[loops[0]], strict=True)
                )
                print(
                    f"{options.kind:9} {connections:5} x {size:6} B {name:10} {cpu:7.2f} us CPU "
                    f"({ratio:4.2f} of {loops[0]}) {rate:9.0f}/s  p50 {p50:6.0f} us  "
                    f"p99 {p99:6.0f} us",
                    flush=True,
                )


if __name__ == "__main__":
    main()
