"""CPython's own asyncio tests on asyncio's loop, uvloop and ours, as a table.

python run.py [--fast] [-k PATTERN] [--loop NAME=MODULE:FACTORY]...

A test that asyncio's own loop passes and ours does not is a failure, unless known.txt names it with
the reason why the test is wrong.  --fast runs the mixins alone, on our loop alone.
"""

import argparse
import collections
import concurrent.futures
import json
import os
import subprocess
import sys
from pathlib import Path

import binding

HERE = Path(__file__).parent
LOOPS = {
    "asyncio": "asyncio:SelectorEventLoop",
    "uvloop": "uvloop:new_event_loop",
    "ours": "erlang:new_event_loop",
}
SECONDS = 30


def known():
    """{test id: reason} of the tests in known.txt that are for this Python."""
    found = {}
    for line in (HERE / "known.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            versions, name, reason = line.split(None, 2)
            if f"{sys.version_info[0]}.{sys.version_info[1]}" in versions.split(","):
                found[name] = reason
    return found


def run_part(part, loop, pattern):
    """{test id: (result, reason)} of a part on a loop."""
    command = [sys.executable, str(HERE / "worker.py"), part, str(SECONDS), pattern]
    done = subprocess.run(
        command,
        env={**os.environ, "LOOP": loop},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    results = {}
    for line in done.stdout.splitlines():
        name, result, reason = json.loads(line)
        # A test whose clean-up failed too, or one of whose subtests did, has several.
        if results.get(name, ("ok",))[0] != "fail":
            results[name] = (result, reason)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [""])[-1]
        results[f"{part} (worker)"] = ("fail", f"status {done.returncode}: {last}")
    return results


def run_all(parts, loops, pattern, jobs):
    """{(part, loop name): results}; the table's lines are printed as they are complete."""
    results = {}
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        futures = {
            (part, name): pool.submit(run_part, part, loop, pattern)
            for part in parts
            for name, loop in loops.items()
        }
        for part in parts:
            for name in loops:
                results[part, name] = futures[part, name].result()
            cells = [cell(results[part, name]) for name in loops]
            print(f"{part:<28}" + "".join(f"{text:>24}" for text in cells), flush=True)
    return results


def cell(results):
    counts = collections.Counter(result for result, _ in results.values())
    text = f"{counts['ok']} of {len(results) - counts['skip']}"
    return text + (f", {counts['skip']} skipped" if counts["skip"] else "")


def judge(parts, results, loops):
    """Prints what fails on our loop; the closing counts."""
    excused, counts = known(), collections.Counter()
    for part in parts:
        control = results.get((part, "asyncio"), {})
        for name, (result, reason) in results[part, "ours"].items():
            if result != "fail":
                counts[result] += 1
            elif name in excused:
                counts["skip"] += 1
            elif control.get(name, ("ok",))[0] != "ok":
                counts["skip"] += 1
                print(f"fails on asyncio's own loop too: {name}: {reason}")
            else:
                counts["fail"] += 1
                print(f"FAILED {name}: {reason}")
    return counts


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fast", action="store_true", help="the mixins alone, on our loop alone")
    parser.add_argument("-k", dest="pattern", default="", help="tests whose name contains this")
    parser.add_argument("-j", dest="jobs", type=int, default=os.cpu_count())
    parser.add_argument("--part", action="append", help="this part alone; may be repeated")
    parser.add_argument("--loop", action="append", default=[], metavar="NAME=MODULE:FACTORY")
    options = parser.parse_args()
    loops = {"ours": LOOPS["ours"]} if options.fast else dict(LOOPS)
    loops.update(loop.split("=", 1) for loop in options.loop)
    parts = options.part or binding.parts()
    if options.fast:
        parts = [part for part in parts if not part.startswith("module ")]
    print(f"CPython {sys.version.split()[0]}".ljust(28) + "".join(f"{name:>24}" for name in loops))
    results = run_all(parts, loops, options.pattern, options.jobs)
    counts = judge(parts, results, loops)
    print(f"{counts['ok']} passed, {counts['fail']} failed, {counts['skip']} skipped")
    return counts["fail"] != 0 or counts["ok"] == 0


if __name__ == "__main__":
    sys.exit(main())
