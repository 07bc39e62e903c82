"""The example servers, each a process of its own: in the Erlang VM, and in an ordinary Python on
our loop and on uvloop."""

import os
import queue
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]
SERVERS = TOP / "examples" / "servers"
HOSTS = ("vm", "erlang", "uvloop")
# A VM under a sanitizer on a busy machine takes its time to start.
PATIENCE = 60


class Server:
    """A running example.  `port` is where it listens; `lines` is what it has printed till then."""

    def __init__(self, host, name, *arguments):
        if host == "vm":
            command = [str(TOP / "run"), "example", name]
        else:
            command = [sys.executable, str(SERVERS / f"{name}.py"), "--loop", host]
        self.process = subprocess.Popen(
            [*command, "--port", "0", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.errors = self._collect(self.process.stderr)
        self._output = self._collect(self.process.stdout)
        self.lines = []
        while not self.lines or "listening on" not in self.lines[-1]:
            line = self._output.get(timeout=PATIENCE)
            assert line is not None, f"{name} ended: {list(self.errors.queue)}"
            self.lines.append(line)
        self.port = int(self.lines[-1].rpartition(":")[2])

    @staticmethod
    def _collect(stream):
        lines = queue.Queue()

        def read():
            with stream:
                for line in stream:
                    lines.put(line.rstrip("\n"))
            lines.put(None)

        threading.Thread(target=read, daemon=True).start()
        return lines

    def stop(self, signum=signal.SIGTERM):
        """Its exit status, once it has ended by the signal."""
        self.process.send_signal(signum)
        return self.process.wait(PATIENCE)

    def kill(self):
        if self.process.poll() is None:
            # `./run` passes it on to the VM.
            self.process.terminate()
            self.process.wait(PATIENCE)


@pytest.fixture(scope="session", params=HOSTS)
def host(request):
    return request.param


@pytest.fixture(scope="session")
def shared_server(host):
    """shared_server(NAME): a server of that example, the same one for all tests of a host."""
    servers = {}

    def get(name):
        if name not in servers:
            servers[name] = Server(host, name)
        return servers[name]

    yield get
    for server in servers.values():
        server.kill()


@pytest.fixture
def start(host):
    """start(NAME, ARGUMENT...): a server for this test alone."""
    servers = []

    def start_one(name, *arguments):
        servers.append(Server(host, name, *arguments))
        return servers[-1]

    yield start_one
    for server in servers:
        server.kill()


@pytest.fixture(scope="session", autouse=True)
def child_path():
    assert "PYTHONPATH" in os.environ, "these tests are run by ./run"
