"""What is measured: servers, loads, and what the project wants of them."""

from dataclasses import dataclass

KB = 1024
WEB = ("aiohttp", "uvicorn")
SIZES = (KB, 10 * KB, 100 * KB)
# The one in the VM costs what it costs in an ordinary Python.
SAME_IN_VM = ("vm", "erlang", "thread", 1.05)


@dataclass
class Case:
    """Targets are (column, other column, measure, limit of the ratio)."""

    title: str
    kind: str
    loads: list
    targets: list


def to_uvloop(limit):
    return ("erlang", "uvloop", "cpu", limit)


CASES = {
    "protocol": Case(
        "`Protocol` echo",
        "protocol",
        [(connections, size) for size in SIZES for connections in (10, 1, 100, 1000)],
        [to_uvloop(0.85), ("erlang", "floor", "cpu", 1.25), SAME_IN_VM],
    ),
    "buffered": Case(
        "`BufferedProtocol` echo",
        "buffered",
        [(10, size) for size in SIZES],
        [to_uvloop(0.85), SAME_IN_VM],
    ),
    "two": Case(
        "Two writes per reply", "two", [(10, size) for size in SIZES], [to_uvloop(0.8), SAME_IN_VM]
    ),
    "read": Case(
        "Streams, `read`", "read", [(10, size) for size in SIZES], [to_uvloop(0.7), SAME_IN_VM]
    ),
    "readline": Case(
        "Streams, `readline`",
        "readline",
        [(10, size) for size in SIZES],
        [to_uvloop(0.7), SAME_IN_VM],
    ),
    "tls": Case(
        "TLS 1.3 `Protocol` echo",
        "tls",
        [(10, KB), (100, KB), (10, 10 * KB), (10, 100 * KB)],
        [to_uvloop(0.75), ("erlang", "aiofastnet", "cpu", 1.0), SAME_IN_VM],
    ),
    "udp": Case(
        "UDP echo",
        "udp",
        [(10, KB), (1, KB), (100, KB), (10, 10 * KB), (10, 60 * KB)],
        [to_uvloop(0.8), SAME_IN_VM],
    ),
    "pipe": Case(
        "Echo through pipes",
        "pipe",
        [(10, KB), (1, KB), (100, KB), (10, 10 * KB), (10, 100 * KB)],
        [to_uvloop(0.85), SAME_IN_VM],
    ),
    "churn": Case(
        "Accept and close, connections at a time",
        "churn",
        [(32, 0)],
        [("erlang", "uvloop", "rate", 1.2), to_uvloop(0.83), SAME_IN_VM],
    ),
    "churn_unix": Case(
        "The same over a Unix socket",
        "churn_unix",
        [(32, 0)],
        [("erlang", "uvloop", "rate", 1.2), to_uvloop(0.83), SAME_IN_VM],
    ),
    "aiohttp": Case(
        "aiohttp hello-world under wrk, connections",
        "aiohttp",
        [(32, 0)],
        [("erlang", "uvloop", "rate", 1.0), SAME_IN_VM],
    ),
    "uvicorn": Case(
        "uvicorn hello-world under wrk, connections",
        "uvicorn",
        [(32, 0)],
        [("erlang", "uvloop", "rate", 1.0), SAME_IN_VM],
    ),
}
