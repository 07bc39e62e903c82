"""One case on one loop, for callgrind.sh: one.py LOOP CASE OPERATIONS."""

import gc
import sys

import cases
from loops import new_loop

loop = new_loop(sys.argv[1])
gc.disable()
getattr(cases, sys.argv[2])(loop, int(sys.argv[3]))
loop.close()
