"""Draws the samples of a soak: plot.py SAMPLES.csv PLOT.svg"""

import csv
import itertools
import sys

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot

PANELS = [
    ("MB", ["rss", "total", "binary", "malloc"]),
    ("thousand", ["python_objects", "python_blocks"]),
    ("", ["channels", "blocks", "calls", "objects", "loops", "tasks", "fds", "threads"]),
]


def read(path):
    with open(path) as file:
        rows = list(csv.DictReader(file))
    return {name: [float(row[name]) for row in rows] for name in rows[0]}


def rates(seconds, turns):
    points = list(zip(seconds, turns, strict=True))
    return [(new - old) / (now - then) for (then, old), (now, new) in itertools.pairwise(points)]


def draw(columns, path):
    seconds = columns["seconds"]
    minutes = [second / 60 for second in seconds]
    figure, axes = pyplot.subplots(len(PANELS) + 1, 1, sharex=True, figsize=(9, 12))
    for axis, (unit, names) in zip(axes, PANELS, strict=False):
        for name in names:
            axis.plot(minutes, columns[name], label=name, linewidth=1)
        axis.set_ylabel(unit)
        axis.set_ylim(bottom=0)
        axis.legend(fontsize=6, ncols=3)
    for name in columns:
        if name.startswith("turns_"):
            rate = rates(seconds, columns[name])
            axes[-1].plot(minutes[1:], rate, label=name.removeprefix("turns_"), linewidth=0.5)
    axes[-1].set_ylabel("per second")
    axes[-1].set_yscale("symlog")
    axes[-1].set_xlabel("minutes")
    axes[-1].legend(fontsize=5, ncols=6)
    figure.tight_layout()
    figure.savefig(path)


if __name__ == "__main__":
    draw(read(sys.argv[1]), sys.argv[2])
