"""The processes of a measurement: servers, each on one CPU, and the load on another."""

import contextlib
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
CPUS = sorted(os.sched_getaffinity(0))
SERVER_CPU, LOAD_CPU = CPUS[0], CPUS[-1]

COLUMNS = {
    "floor": "C floor",
    "erlang": "ours",
    "uvloop": "uvloop",
    "asyncio": "asyncio",
    "aiofastnet": "aiofastnet",
    "rloop": "rloop",
    "vm": "ours in the VM",
}
FLOORS = {"protocol": "tcp", "buffered": "tcp", "two": "tcp", "udp": "udp", "churn": "churn"}
FLOORS.update(read="tcp", readline="tcp", churn_unix="churn_unix")


def raise_descriptor_limit():
    """To what is allowed, for this process and those that it starts."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


class Tools:
    """The C programs, compiled, and a certificate for localhost, in a folder of their own."""

    def __init__(self):
        self._stack = contextlib.ExitStack()
        self._folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        self.floor = self._compile("floor", ["floor.c"])
        self.churn = self._compile("churn", ["churn.c"])
        self.load = self._compile("load", ["load.c", "load_tls.c"], ["-lssl", "-lcrypto"])
        self.certificate, self.authority = self._make_certificate()

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self._stack.close()

    def _compile(self, name, sources, libraries=()):
        program = str(self._folder / name)
        paths = [str(HERE / source) for source in sources]
        done = subprocess.run(["cc", "-O2", "-o", program, *paths, *libraries], check=False)
        if done.returncode != 0:
            raise SystemExit(f"{name} was not compiled; load needs what Debian calls libssl-dev")
        return program

    def _make_certificate(self):
        import trustme

        authority = trustme.CA()
        certificate = str(self._folder / "certificate.pem")
        authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(certificate)
        trusted = str(self._folder / "authority.pem")
        authority.cert_pem.write_to_path(trusted)
        return certificate, trusted

    def server_command(self, column, kind):
        if column == "floor":
            return [self.floor, FLOORS[kind]]
        certificate = [self.certificate] if kind == "tls" else []
        if column == "vm":
            return vm_command(kind, certificate)
        return [sys.executable, str(HERE / "servers.py"), column, kind, *certificate]

    def load_command(self, kind, port, connections, size):
        if kind in ("churn", "churn_unix"):
            family = ["unix"] if kind == "churn_unix" else []
            return [self.churn, str(port), str(connections), *family]
        wire = kind if kind in ("udp", "tls", "pipe") else "tcp"
        trusted = [self.authority] if kind == "tls" else []
        return [self.load, wire, str(port), str(connections), str(size), *trusted]


def vm_command(kind, certificate):
    """The server on the default loop of an Erlang VM; the erl on the path is the configured one."""
    arguments = ", ".join(f'<<"{text}">>' for text in (kind, *certificate))
    code = (
        "{ok, _} = application:ensure_all_started(beamloop), "
        f"ok = py:exec(\"import sys; sys.path.insert(0, '{HERE}')\"), "
        f"{{error, Why}} = py_event_loop:run(servers, serve, [{arguments}], #{{binaries => str}}), "
        'io:format(standard_error, "~tp~n", [Why]), halt(1).'
    )
    return ["erl", "-noinput", "-eval", code]


def pinned(cpu):
    return lambda: os.sched_setaffinity(0, {cpu})


class Server:
    """A server on its CPU; `port` is where it listens."""

    def __init__(self, command):
        with tempfile.TemporaryFile("w+") as errors:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                preexec_fn=pinned(SERVER_CPU),
            )
            self.pid = self._process.pid
            line = self._process.stdout.readline()
            if not line.strip().isdigit():
                self.close()
                errors.seek(0)
                last = errors.read().strip().rpartition("\n")[2]
                raise RuntimeError(f"it did not start ({last})")
            self.port = int(line)

    def close(self):
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()

    def thread_times(self):
        """The CPU time of each thread so far, in seconds, to the nanosecond."""
        times = {}
        for task in Path(f"/proc/{self.pid}/task").iterdir():
            # A thread may end meanwhile.
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                times[task.name] = int((task / "schedstat").read_text().split()[0]) / 1e9
        return times

    def own_memory(self):
        """Bytes resident that are no file's."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
        raise RuntimeError("no RssAnon in /proc")


class Load:
    """A load generator with its connections open; run() as often as you like."""

    def __init__(self, command):
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=pinned(LOAD_CPU),
        )
        self._read()

    def _read(self):
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the load ended; what it says is above")
        return line

    def run(self, seconds):
        """(requests, seconds, p50 us, p99 us)"""
        self._process.stdin.write(f"{seconds}\n")
        self._process.stdin.flush()
        requests, elapsed, p50, p99, _resent = self._read().split()
        return int(requests), float(elapsed), float(p50), float(p99)

    def close(self):
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


class WebLoad:
    """wrk, which opens its connections anew for each run."""

    def __init__(self, port, connections):
        self._command = ["wrk", "-t1", f"-c{connections}", "--latency", f"http://127.0.0.1:{port}/"]

    def run(self, seconds):
        done = subprocess.run(
            [*self._command, f"-d{max(1, round(seconds))}s"],
            check=True,
            capture_output=True,
            text=True,
            preexec_fn=pinned(LOAD_CPU),
        )
        if "Non-2xx" in done.stdout or "Socket errors" in done.stdout:
            raise RuntimeError(done.stdout)
        words = done.stdout.split()
        requests = int(words[words.index("requests") - 1])
        elapsed = _seconds(words[words.index("requests") + 2].rstrip(","))
        p50, p99 = (_seconds(words[words.index(share) + 1]) * 1e6 for share in ("50%", "99%"))
        return requests, elapsed, p50, p99

    def close(self):
        """Nothing: no run is under way."""


def _seconds(text):
    """What wrk writes as 1.23ms."""
    for unit, scale in (("us", 1e-6), ("ms", 1e-3), ("s", 1.0), ("m", 60.0)):
        if text.endswith(unit):
            return float(text[: -len(unit)]) * scale
    raise ValueError(text)


def has_wrk():
    return shutil.which("wrk") is not None
