"""One loop in one process: measures what the line on its standard input asks for.

A process per loop, so that no loop sees the caches, free lists or specialised code of another.
The parent lets one of them work at a time.
"""

import asyncio
import gc
import json
import sys

import cases
import scale
from loops import new_loop


def measure(loop, name, n):
    """CPU nanoseconds per operation, or what a measurement of scale.py returns."""
    gc.collect()
    if hasattr(scale, name):
        return getattr(scale, name)(loop, n)
    cpu, operations = getattr(cases, name)(loop, n)
    return cpu / operations


def main():
    loop = new_loop(sys.argv[1])
    asyncio.set_event_loop(loop)
    # The collector runs at moments of its own choosing; what it costs is not the loop's.
    gc.disable()
    for line in sys.stdin:
        name, n = json.loads(line)
        print(json.dumps(measure(loop, name, n)), flush=True)
    loop.close()


if __name__ == "__main__":
    main()
