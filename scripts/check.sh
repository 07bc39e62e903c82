# `./run check-asan`, `check-ubsan`, `check-tsan`, `check-debug`: suites in a build with a sanitizer, or with
# assertions alone.  Sourced.

declare -A sanitizers=([asan]=address [ubsan]=undefined [tsan]=thread)

# Of the emulator, which is built without it, the thread sanitizer sees no order in what that does: it is for
# the C tests and the loop.  Left out of the loop's tests, for they fail on asyncio's own loop too: Debian's sh
# does not start with its runtime loaded, it keeps a signal back until a call that it knows, and its own memory
# grows with the addresses that were used.
not_threaded="not subprocesses and not without_any_timer and not a_busy_callback and not leave_no_memory"

# check_build NAME FLAGS [SUITE...] [ARGUMENT...]: as `./run test`, with assertions, in a build directory of
# its own and with this virtual environment.
check_build() {
  export BEAMLOOP_VENV=$venv BEAMLOOP_BUILD=$top/build/$1 CONFIGURE_FLAGS="--enable-debug $2"
  export BEAMLOOP_SUITE_SECONDS=3600
  shift 2
  "$top/run" test "$@"
}

check_debug() {
  [ $# != 0 ] || set -- c python erl vm
  check_build debug "" "$@"
}

check_sanitized() {
  local name=$1 flags=--enable-sanitizer=${sanitizers[$1]} status=0
  shift
  if [ $# != 0 ]; then
    check_build "$name" "$flags" "$@"
  elif [ "$name" = tsan ]; then
    check_build "$name" "$flags" c || status=$?
    check_build "$name" "$flags" python tests/loop -k "$not_threaded" || status=$?
    return $status
  else
    check_build "$name" "$flags" c python erl vm
  fi
}

# `./run check-leaks [SUITE...] [ARGUMENT...]`: what is left at the end of a C program, and whether a test or a
# suite that is repeated in one process leaves more each time (tests/leaks.py, tests/erl/leaks_cth.erl).  An
# argument is a file of tests, or a Common Test suite.  Sourced after scripts/test.sh.
repeats=${BEAMLOOP_REPEATS:-20}

check_leaks() {
  local suites=() suite
  while [[ $# != 0 && " c python erl vm " == *" $1 "* ]]; do suites+=("$1"); shift; done
  [ ${#suites[@]} != 0 ] || suites=(c python erl vm)
  for suite in "${suites[@]}"; do "leaks_$suite" "$@"; done
  echo "$passed passed, $failed failed"
  [ "$failed" = 0 ] && [ "$passed" != 0 ]
}

# The address sanitizer looks for leaks at the end of these programs, which end in order.
leaks_c() {
  run_part "leaks: c" count_plain 900 env ASAN_OPTIONS=detect_leaks=1 "$top/run" check-asan c
}

leaks_python() {
  [ $# != 0 ] || set -- tests/loop/test_*.py tests/term/test_*.py
  repeated_pytest python -m pytest -- "$@"
}

leaks_vm() {
  [ $# != 0 ] || set -- tests/vm/test_*.py
  repeated_pytest vm-pytest -p no:faulthandler --timeout-method thread -- "$@"
}

# repeated_pytest WORD... -- FILE...: a process for each file.
repeated_pytest() {
  local command=() file
  while [ "$1" != -- ]; do command+=("$1"); shift; done
  shift
  for file; do
    run_part "leaks: $file" count_pytest 3600 \
      "$top/run" "${command[@]}" -q -p no:cacheprovider --repeats "$repeats" "$file"
  done
}

leaks_erl() {
  local beams=$build/tests/erl suite
  run_part "erl: compile" count_one 120 compile_suites "$beams"
  [ $# != 0 ] || set -- $(cd "$top/tests/erl" && ls *_SUITE.erl | sed 's/\.erl$//')
  export BEAMLOOP_REPEATS=$repeats
  suite_seconds=3600
  for suite; do
    run_part "leaks: $suite" count_common_test 3600 common_test "$beams" -suite "$suite" -repeat "$repeats"
  done
}

# `./run check-dev [SUITE...] [ARGUMENT...]`: Python's development mode, in which warnings are errors and loops
# in debug mode.  Sourced after scripts/test.sh.
check_dev() {
  local suites=() suite
  while [[ $# != 0 && " python vm " == *" $1 "* ]]; do suites+=("$1"); shift; done
  [ ${#suites[@]} != 0 ] || suites=(python vm)
  for suite in "${suites[@]}"; do "dev_$suite" "$@"; done
  echo "$passed passed, $failed failed"
  [ "$failed" = 0 ] && [ "$passed" != 0 ]
}

# A file at a time: a loop in debug mode notes the stack of each callback, which takes its time.
dev_python() {
  [ $# != 0 ] || set -- tests/loop/test_*.py tests/term tests/typing
  local file
  for file; do
    run_part "dev: $file" count_pytest 1800 \
      "$top/run" python -X dev -W error -m pytest -q -W error --timeout 900 "$file"
  done
}

dev_vm() {
  [ $# != 0 ] || set -- tests/vm
  run_part "dev: $*" count_pytest 1800 env PYTHONDEVMODE=1 PYTHONWARNINGS=error "$top/run" vm-pytest \
    -q -W error -p no:faulthandler --timeout 900 --timeout-method thread "$@"
}
