# `./run check-asan`, `check-ubsan`, `check-tsan`, `check-debug`: suites in a build with a sanitizer, or with
# assertions alone.  Sourced.

declare -A sanitizers=([asan]=address [ubsan]=undefined [tsan]=thread)
# The thread sanitizer is for what is called from several threads, and slow; of the emulator, which is built
# without it, it sees no order in what that does.
threaded="tests/loop/test_threads.py tests/loop/test_capsule.py tests/loop/test_chaos.py"

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
    # Without quotes, for the files are words.
    check_build "$name" "$flags" python $threaded || status=$?
    return $status
  else
    check_build "$name" "$flags" c python erl vm
  fi
}
