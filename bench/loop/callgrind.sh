#!/bin/sh
# Instructions per operation, by callgrind in a plain python3: the difference between a run of 2N
# and a run of N operations, divided by N.  Exact where clocks are noisy.
#
#   bench/loop/callgrind.sh [CASE...]         with the erlang package on PYTHONPATH
set -eu

here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-python3}
export PYTHONPATH=$here/..${PYTHONPATH:+:$PYTHONPATH}
n=${N:-3000}
cases=${*:-call_soon_burst call_soon_chain call_soon_threadsafe call_later_cancel sleep_zero
future_await gather_100 sock_1k}

command -v valgrind >/dev/null || { echo "callgrind.sh: install valgrind first" >&2; exit 1; }

count() { # LOOP CASE OPERATIONS
  PYTHONHASHSEED=0 valgrind --tool=callgrind --callgrind-out-file=/dev/null \
    "$python" "$here/one.py" "$@" 2>&1 | sed -n 's/.*Collected : *\([0-9]*\).*/\1/p'
}

echo "| instructions per operation | ours | uvloop | asyncio |"
echo "|---|---|---|---|"
for case in $cases; do
  row="| $case |"
  for loop in erlang uvloop asyncio; do
    once=$(count "$loop" "$case" "$n")
    twice=$(count "$loop" "$case" $((2 * n)))
    row="$row $(((twice - once) / n)) |"
  done
  echo "$row"
done
