# `./run check-asan`, `check-ubsan`, `check-tsan`: suites in a build with a sanitizer.  Sourced.

declare -A sanitizers=([asan]=address [ubsan]=undefined [tsan]=thread)
# The thread sanitizer is for what is called from several threads, and slow; of the emulator, which is built
# without it, it sees no order in what that does.
threaded="tests/loop/test_threads.py tests/loop/test_capsule.py tests/loop/test_chaos.py"

# check_sanitized NAME [SUITE...] [ARGUMENT...]: as `./run test`, in a build directory of its own and with
# this virtual environment.
check_sanitized() {
  local name=$1 status=0
  shift
  export BEAMLOOP_VENV=$venv BEAMLOOP_BUILD=$top/build/$name
  export CONFIGURE_FLAGS=--enable-sanitizer=${sanitizers[$name]}
  if [ $# != 0 ]; then
    "$top/run" test "$@"
  elif [ "$name" = tsan ]; then
    "$top/run" test c || status=$?
    # Without quotes, for the files are words.
    "$top/run" test python $threaded || status=$?
    return $status
  else
    "$top/run" test c python erl vm
  fi
}
