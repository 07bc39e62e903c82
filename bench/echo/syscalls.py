"""System calls per request, counted by strace."""

import collections
import re
import shutil
import signal
import subprocess
import tempfile
import time

from processes import COLUMNS, FLOORS, Load, Server

LOADS = (
    ("protocol", 10, 1024),
    ("protocol", 100, 1024),
    ("protocol", 10, 102400),
    ("two", 10, 1024),
    ("read", 10, 1024),
    ("tls", 10, 1024),
    ("udp", 10, 1024),
    ("churn", 32, 0),
)


def count(tools, column, kind, connections, size, seconds):
    """{call: times per request} of a server under load."""
    server = Server(tools.server_command(column, kind))
    try:
        load = Load(tools.load_command(kind, server.port, connections, size))
        load.run(0.1)
        with tempfile.NamedTemporaryFile("r") as report:
            strace = subprocess.Popen(
                ["strace", "-f", "-c", "-p", str(server.pid), "-o", report.name],
                stderr=subprocess.PIPE,
                text=True,
            )
            # It says so when it is attached.
            strace.stderr.readline()
            time.sleep(0.2)
            requests = load.run(seconds)[0]
            strace.send_signal(signal.SIGINT)
            strace.communicate()
            text = report.read()
        load.close()
    finally:
        server.close()
    calls = collections.Counter()
    for line in text.splitlines():
        match = re.match(r"\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+)\s+(?:\d+\s+)?(\w+)$", line)
        if match and match[2] != "total":
            calls[match[2]] += int(match[1]) / requests
    return calls


def table(tools, columns, options):
    if shutil.which("strace") is None:
        print("\nstrace is not there: system calls left out")
        return None
    print("\n**System calls per request** (strace; those above 0.01)\n")
    names = [name for name in columns if name != "vm"]
    print("| load | " + " | ".join(COLUMNS[name] for name in names) + " |")
    print("|---" * (len(names) + 1) + "|")
    found = {}
    for kind, connections, size in LOADS[:1] if options.quick else LOADS:
        label = f"{kind} {connections} x {size:,}"
        cells = []
        for name in names:
            if name == "floor" and kind not in FLOORS:
                cells.append("")
                continue
            try:
                calls = count(tools, name, kind, connections, size, options.seconds)
            except RuntimeError:
                # What it says is in the tables of times.
                cells.append("not served")
                continue
            found[f"{label} {name}"] = calls
            cells.append(show(calls))
        print(f"| {label} | " + " | ".join(cells) + " |", flush=True)
    return found


def show(calls):
    shown = [f"{call} {times:.2f}" for call, times in calls.most_common() if times >= 0.01]
    return f"{sum(calls.values()):.2f}: " + ", ".join(shown)
