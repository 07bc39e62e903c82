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
