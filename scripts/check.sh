# `./run check-asan`, `check-ubsan`, `check-tsan`: suites in a build with a sanitizer.  Sourced.

declare -A sanitizers=([asan]=address [ubsan]=undefined [tsan]=thread)
# The emulator is built without the thread sanitizer, which then sees no order in what it does.
declare -A sanitized_suites=([asan]="c python erl vm" [ubsan]="c python erl vm" [tsan]="c python")

# check_sanitized NAME [SUITE...] [ARGUMENT...]: as `./run test`, in a build directory of its own and with
# this virtual environment.
check_sanitized() {
  local name=$1
  shift
  # Without quotes, for the suites are words.
  [ $# != 0 ] || set -- ${sanitized_suites[$name]}
  BEAMLOOP_VENV=$venv BEAMLOOP_BUILD=$top/build/$name \
    CONFIGURE_FLAGS=--enable-sanitizer=${sanitizers[$name]} exec "$top/run" test "$@"
}
