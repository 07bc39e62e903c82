"""Servers compared: CPU per request, requests per second, latencies, system calls, memory.

    ./run bench echo [--case NAME]... [--columns NAME,...] [--rounds N] [--seconds S] [--quick]
                     [--json FILE]

bench/README.md says how to read the tables.
"""

import argparse
import contextlib
import importlib.util
import json
import os
import platform
from importlib.metadata import PackageNotFoundError, version

import idle
import syscalls
from cases import CASES, WEB
from processes import (
    COLUMNS,
    FLOORS,
    Load,
    Server,
    Tools,
    WebLoad,
    has_wrk,
    raise_descriptor_limit,
)
from stats import median, paired_ratio, show_ratio

FURTHER = {"syscalls": syscalls.table, "idle": idle.table, "idle_tls": idle.tls_table}


class Column:
    """One server, with the load of one case on it."""

    def __init__(self, tools, name, kind, connections, size):
        self.name = name
        self.server = Server(tools.server_command(name, kind))
        try:
            if kind in WEB:
                self.load = WebLoad(self.server.port, connections)
            else:
                command = tools.load_command(kind, self.server.port, connections, size)
                self.load = Load(command)
        except BaseException:
            self.server.close()
            raise

    def measure(self, seconds):
        before = self.server.thread_times()
        requests, elapsed, p50, p99 = self.load.run(seconds)
        after = self.server.thread_times()
        spent = [after[thread] - before.get(thread, 0) for thread in after]
        return {
            "cpu": sum(spent) / requests * 1e6,
            "thread": max(spent) / requests * 1e6,
            "rate": requests / elapsed,
            "p50": p50,
            "p99": p99,
        }

    def close(self):
        self.load.close()
        self.server.close()


def alternate(tools, columns, kind, connections, size, options):
    """The measurements of each column, taken in turn; the order changes from round to round.

    A column that does not serve this kind is removed from the list.
    """
    with contextlib.ExitStack() as stack:
        running = []
        for name in list(columns):
            if name == "floor" and kind not in FLOORS:
                continue
            try:
                column = Column(tools, name, kind, connections, size)
                stack.callback(column.close)
                # A round that does not count.
                column.measure(options.seconds)
            except RuntimeError as error:
                print(f"\n{COLUMNS[name]} does not serve {kind}: {error}", flush=True)
                columns.remove(name)
            else:
                running.append(column)
        found = {column.name: [] for column in running}
        for i in range(options.rounds):
            for j in range(len(running)):
                column = running[(i + j) % len(running)]
                found[column.name].append(column.measure(options.seconds))
    return {
        name: {key: [row[key] for row in rows] for key in rows[0]} for name, rows in found.items()
    }


def judge(found, target):
    """The ratio that the target speaks of, and whether its median is within."""
    ours, theirs, measure, limit = target
    if ours not in found or theirs not in found:
        return None
    ratio = paired_ratio(found[ours][measure], found[theirs][measure])
    if measure == "rate":
        met = ratio["median"] >= limit
    elif ours == "vm":
        # The two are to be the same within the limit, as far as can be told.
        met = ratio["low"] <= limit
    else:
        met = ratio["median"] <= limit
    return {"ratio": ratio, "target": target, "met": met}


def show_judgement(judged):
    if judged is None:
        return " | "
    sign = ">=" if judged["target"][2] == "rate" else "<="
    met = "yes" if judged["met"] else "NO"
    return f"{show_ratio(judged['ratio'])} | {sign} {judged['target'][3]} {met}"


def show_case(case, results, columns):
    """The tables of a case: costs with the targets, then rates and latencies."""
    titles = [
        f"{ours} / {theirs}{' (rate)' if measure == 'rate' else ''} | mark"
        for ours, theirs, measure, _ in case.targets
    ]
    names = [name for name in columns if any(name in found for _, found, _ in results)]
    print(f"\n**{case.title}**: CPU us per request\n")
    heads = ["connections x bytes", *(COLUMNS[name] for name in names)]
    print("| " + " | ".join(heads + titles) + " |")
    print("|---" * (len(heads) + 2 * len(titles)) + "|")
    for label, found, judged in results:
        costs = [show_cost(found.get(name), name) for name in names]
        cells = [label, *costs, *map(show_judgement, judged)]
        print("| " + " | ".join(cells) + " |")
    print("\nthousand requests/s, p50 / p99 us\n")
    print("| " + " | ".join(heads) + " |")
    print("|---" * len(heads) + "|")
    for label, found, _ in results:
        cells = [show_speed(found.get(name)) for name in names]
        print("| " + " | ".join([label, *cells]) + " |", flush=True)


def show_cost(found, name):
    if found is None:
        return ""
    cost = f"{median(found['cpu']):.2f}"
    # In the VM other threads work too; the loop's own is what is compared.
    return cost if name != "vm" else f"{median(found['thread']):.2f} (process {cost})"


def show_speed(found):
    if found is None:
        return ""
    rate, p50, p99 = (median(found[key]) for key in ("rate", "p50", "p99"))
    return f"{rate / 1000:.1f}, {p50:.0f} / {p99:.0f}"


def run_case(tools, case, columns, options):
    results = []
    columns = list(columns)
    for connections, size in case.loads[:1] if options.quick else case.loads:
        found = alternate(tools, columns, case.kind, connections, size, options)
        judged = [judge(found, target) for target in case.targets]
        label = f"{connections} x {size:,}" if size else f"{connections}"
        results.append((label, found, judged))
    show_case(case, results, columns)
    return results


def available_columns(wanted):
    """Those whose packages are there."""
    columns = []
    for name in wanted:
        if name in ("uvloop", "aiofastnet", "rloop") and importlib.util.find_spec(name) is None:
            print(f"{name} is not installed: left out")
        else:
            columns.append(name)
    return columns


def show_machine(columns):
    versions = [f"CPython {platform.python_version()}"]
    for name in columns:
        with contextlib.suppress(PackageNotFoundError):
            versions.append(f"{name} {version(name)}")
    print(
        f"{', '.join(versions)}, {os.cpu_count()} CPUs, {platform.machine()},"
        f" load {os.getloadavg()[0]:.2f}",
        flush=True,
    )


def parse_options(names):
    parser = argparse.ArgumentParser()
    parser.add_argument("--case", action="append", choices=names, help="all, unless given")
    parser.add_argument("--columns", default=",".join(COLUMNS), help="separated by commas")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--seconds", type=float, default=0.25, help="of a column in a round")
    parser.add_argument("--quick", action="store_true", help="one load per case, few rounds")
    parser.add_argument("--json", help="write all measurements to this file")
    options = parser.parse_args()
    unknown = set(options.columns.split(",")) - set(COLUMNS)
    if unknown:
        parser.error(f"no such column: {', '.join(sorted(unknown))}")
    if options.quick:
        options.rounds = min(options.rounds, 5)
    return options


def main(cases=CASES, further=FURTHER, make_tools=Tools):
    """Also for other benchmarks of servers, with cases, tables and servers of their own."""
    options = parse_options([*cases, *further])
    raise_descriptor_limit()
    columns = available_columns(options.columns.split(","))
    show_machine(columns)
    measured = {}
    with make_tools() as tools:
        for name in options.case or [*cases, *further]:
            if name in further:
                measured[name] = further[name](tools, columns, options)
            elif cases[name].kind in WEB and not has_wrk():
                print(f"\nwrk is not there: {name} left out")
            else:
                measured[name] = run_case(tools, cases[name], columns, options)
    if options.json:
        with open(options.json, "w") as file:
            json.dump(measured, file)


if __name__ == "__main__":
    main()
