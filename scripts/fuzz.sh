# `./run fuzz [NAME] [SECONDS]`: the targets in tests/fuzz.  Sourced.
#
# With clang they are libFuzzer programs, whose corpus is kept in the build directory; without it they
# run on inputs from a fixed seed.  Both with the address and the undefined behaviour sanitizer, and both
# begin with the inputs in tests/fuzz/corpus/NAME.hex, a line each.

fuzz_targets=(pending queue term timers)

# fuzz_sources NAME: what the target is made of, besides its own file.
fuzz_sources() {
  local loop=c_src/loop channel=c_src/channel
  case $1 in
    pending) echo $loop/pending.c $loop/waker_eventfd.c ;;
    queue) echo $channel/queue.c $channel/queue_drain.c $channel/queue_senders.c $channel/message_store.c $channel/message_heap.c \
      $channel/message_pool.c $channel/channel_chores.c ;;
    term) sed -n '/^TERM_SOURCES/,/^$/s/^\t\(.*\.c\).*/\1/p' "$top/c_src/term/local.mk" ;;
    timers) echo $loop/timers.c ;;
  esac
}

fuzz_build() {
  local name=$1 program=$build/fuzz/$1/fuzz flags driver=()
  flags=(-std=gnu11 -g -O1 -fno-omit-frame-pointer -Wall -Wextra -pthread)
  mkdir -p "$build/fuzz/$name"
  if command -v clang >/dev/null; then
    flags+=(-fsanitize=fuzzer,address,undefined -fno-sanitize-recover=undefined)
    set -- clang
  else
    flags+=(-fsanitize=address,undefined -fno-sanitize-recover=undefined)
    driver=(tests/fuzz/driver.c)
    set -- "$(configured CC)"
  fi
  local folder includes=(-Itests/fuzz)
  for folder in loop term channel vm; do includes+=("-Ic_src/$folder"); done
  # Without quotes, for flags and sources are words.
  (cd "$top" && "$1" "${flags[@]}" "${includes[@]}" $(configured PYTHON_CPPFLAGS) -o "$program" \
    "tests/fuzz/fuzz_$name.c" "${driver[@]}" $(fuzz_sources "$name") \
    $(configured PYTHON_LDFLAGS) $(configured PYTHON_LIBS))
}

# fuzz_seeds NAME DIRECTORY: a file for each line.
fuzz_seeds() {
  "$python" - "$top/tests/fuzz/corpus/$1.hex" "$2" <<'SEEDS'
import pathlib, sys
directory = pathlib.Path(sys.argv[2])
directory.mkdir(exist_ok=True)
for number, line in enumerate(pathlib.Path(sys.argv[1]).read_text().split()):
    (directory / f"seed{number}").write_bytes(bytes.fromhex(line))
SEEDS
}

# fuzz_run NAME SECONDS: a failing input is left beside the program, whose argument it can be.
fuzz_run() (
  extend_environment
  cd "$build/fuzz/$1"
  mkdir -p corpus
  export PYTHONHOME
  PYTHONHOME=$("$python" -c 'import sys; print(sys.base_prefix)')
  # The interpreter keeps memory to its end.
  case $1 in term|timers) export ASAN_OPTIONS=detect_leaks=0 ;; esac
  export UBSAN_OPTIONS=print_stacktrace=1
  if command -v clang >/dev/null; then
    fuzz_seeds "$1" seeds
    ./fuzz -max_total_time="$2" -seed=1 -len_control=20 -print_final_stats=1 -rss_limit_mb=3000 corpus seeds
  else
    ./fuzz -max_total_time="$2" -seeds="$top/tests/fuzz/corpus/$1.hex"
  fi
)

# fuzz [NAME] [SECONDS]: all of them, for ten seconds each, or one for a minute.
fuzz() {
  local name names=("${fuzz_targets[@]}") seconds=10
  if [ $# != 0 ]; then
    [[ " ${fuzz_targets[*]} " == *" $1 "* ]] || die "no target $1; there are: ${fuzz_targets[*]}"
    names=("$1") seconds=${2:-60}
  fi
  for name in "${names[@]}"; do
    fuzz_build "$name" && fuzz_run "$name" "$seconds" || return
  done
}
