"""The loop's benchmarks: ours, uvloop and asyncio alternating in one run.

    ./run bench loop [--pairs N] [--json FILE] [CASE...]

bench/README.md says how to read the tables.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
from importlib.metadata import version

from cases import CASES
from stats import median, paired_ratio, show_ratio

HERE = os.path.dirname(os.path.abspath(__file__))
LOOPS = ("erlang", "uvloop", "asyncio")
SCALES = ("timers", "threads", "memory", "hand_off")


class Worker:
    """The process of one loop."""

    def __init__(self, name):
        self.process = subprocess.Popen(
            [sys.executable, os.path.join(HERE, "worker.py"), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def measure(self, case, n):
        self.process.stdin.write(json.dumps([case, n]) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"the worker ended while it measured {case}")
        return json.loads(line)

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def alternate(case, n, pairs):
    """Measurements per loop, taken in turn; the order changes from round to round."""
    workers = {name: Worker(name) for name in LOOPS}
    found = {name: [] for name in LOOPS}
    for worker in workers.values():
        worker.measure(case, max(n // 10, 1000))
    for i in range(pairs):
        for j in range(len(LOOPS)):
            name = LOOPS[(i + j) % len(LOOPS)]
            found[name].append(workers[name].measure(case, n))
    for worker in workers.values():
        worker.close()
    return found


def bench_cases(names, pairs):
    print(f"\nCPU ns per operation (median of {pairs}); ratio of ours: median [95 % interval]\n")
    print("| measure | ours | uvloop | asyncio | to uvloop | to asyncio | target | met |")
    print("|---|---|---|---|---|---|---|---|")
    results = {}
    for name in names:
        title, n, (against, target) = CASES[name]
        found = alternate(name, n, pairs)
        ratios = {
            other: paired_ratio(found["erlang"], found[other]) for other in ("uvloop", "asyncio")
        }
        met = ratios[against]["median"] <= target
        costs = " | ".join(f"{median(found[loop]):.0f}" for loop in LOOPS)
        print(
            f"| {title} | {costs} | {show_ratio(ratios['uvloop'])} |"
            f" {show_ratio(ratios['asyncio'])} | {target} x {against} | {'yes' if met else 'NO'} |",
            flush=True,
        )
        results[name] = {"ns": found, "ratio": ratios, "target": [against, target], "met": met}
    return results


def fresh(scale, n):
    """One measurement of scale.py per loop, each in a new process."""
    found = {}
    for name in LOOPS:
        worker = Worker(name)
        found[name] = worker.measure(scale, n)
        worker.close()
    return found


def show_scale(title, columns, found):
    print(f"\n{title}\n\n| loop | " + " | ".join(columns.values()) + " |")
    print("|---" * (len(columns) + 1) + "|")
    for name in LOOPS:
        row = " | ".join(f"{found[name][key]:.10g}" for key in columns)
        print(f"| {'ours' if name == 'erlang' else name} | {row} |", flush=True)


def rounded(found):
    return {
        loop: {key: round(value, 1) for key, value in row.items()} for loop, row in found.items()
    }


def median_rows(rows):
    """The median of each column over several measurements of scale.py."""
    return {
        loop: {key: median([row[loop][key] for row in rows]) for key in rows[0][loop]}
        for loop in LOOPS
    }


def bench_timers(pairs):
    rows = [fresh("timers", 100_000) for _ in range(max(3, pairs // 5))]
    found = rounded(median_rows(rows))
    columns = {
        "cpu_ns": "CPU ns each",
        "p50_us": "late p50, us",
        "p99_us": "late p99, us",
        "max_us": "latest, us",
        "early": "fired early",
        "earliest_us": "earliest, us",
    }
    title = f"100,000 timers with random deadlines over 2 s (medians of {len(rows)})"
    show_scale(title, columns, found)
    return rows


def bench_threads(pairs):
    rows = [fresh("threads", 1_000_000) for _ in range(3)]
    found = rounded(median_rows(rows))
    columns = {"ran": "ran", "wall_s": "wall, s", "longest_pause_ms": "longest pause, ms"}
    show_scale("1,000,000 call_soon_threadsafe from 4 threads (medians of 3)", columns, found)
    return rows


def bench_memory(pairs):
    found = rounded(fresh("memory", 200_000))
    columns = {"handle": "bytes per idle handle", "timer": "bytes per idle timer"}
    show_scale("Resident memory", columns, found)
    return found


def bench_hand_off(pairs):
    rows = [fresh("hand_off", 3000) for _ in range(5)]
    columns = {"p50_us": "p50, us", "p99_us": "p99, us"}
    title = "Python thread -> sleeping loop on the main thread -> thread, round trip (medians of 5)"
    show_scale(title, columns, rounded(median_rows(rows)))
    done = subprocess.run(
        [sys.executable, os.path.join(HERE, "handoff.py"), str(pairs), "5000"],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    bare = json.loads(done.stdout)
    print(
        "\nC thread -> sleeping loop -> thread, round trip at p50, us; target 1.2 x the bare one\n"
    )
    print("| other side | p50, us | to bare: median [95 % interval] |\n|---|---|---|")
    print(f"| a bare condition variable | {median(bare['bare']):.1f} | |")
    for name, title in (("condition", "our loop on a thread"), ("poller", "our loop on main")):
        shown = show_ratio(paired_ratio(bare[name], bare["bare"]))
        print(f"| {title} | {median(bare[name]):.1f} | {shown} |", flush=True)
    return {"python": rows, "c": bare}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=15, help="alternating rounds per case")
    parser.add_argument("--json", help="write all measurements to this file")
    parser.add_argument("cases", nargs="*", help=", ".join([*CASES, *SCALES]))
    options = parser.parse_args()
    unknown = set(options.cases) - {*CASES, *SCALES}
    if unknown:
        parser.error(f"no such case: {', '.join(sorted(unknown))}")
    chosen = options.cases or [*CASES, *SCALES]
    print(
        f"CPython {platform.python_version()}, uvloop {version('uvloop')},"
        f" {os.cpu_count()} CPUs, {platform.machine()}, load {os.getloadavg()[0]:.2f}"
    )
    cases = [name for name in CASES if name in chosen]
    results = bench_cases(cases, options.pairs) if cases else {}
    for name in SCALES:
        if name in chosen:
            results[name] = globals()[f"bench_{name}"](options.pairs)
    if options.json:
        with open(options.json, "w") as file:
            json.dump(results, file)


if __name__ == "__main__":
    main()
