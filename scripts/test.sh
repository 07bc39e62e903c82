# The suites of `./run test`: each prints a line, all together the closing one.  Sourced.

. "$top/scripts/lint.sh"
. "$top/scripts/fuzz.sh"

all_suites=(lint c fuzz models python pip conformance erl vm soak examples demo)
passed=0 failed=0 skipped=0
suite_seconds=${BEAMLOOP_SUITE_SECONDS:-900} # at most, for one of those that take long

# run_suites [SUITE...] [ARGUMENT...]: what follows the names of suites goes to the last of them.
run_suites() {
  local suites=()
  while [ $# != 0 ] && [[ " ${all_suites[*]} " == *" $1 "* ]]; do suites+=("$1"); shift; done
  if [ ${#suites[@]} = 0 ]; then
    [ $# = 0 ] || die "no suite $1; there are: ${all_suites[*]}"
    suites=("${all_suites[@]}")
  fi
  local suite
  for suite in "${suites[@]}"; do "suite_$suite" "$@"; done
  if [ "$skipped" = 0 ]; then
    echo "$passed passed, $failed failed"
  else
    echo "$passed passed, $failed failed, $skipped skipped"
  fi
  [ "$failed" = 0 ] && [ "$passed" != 0 ]
}

# run_part NAME COUNT SECONDS COMMAND...: runs the command with its output in the log, has COUNT read
# from the log `good bad left_out`, and adds them up.  A command that fails without a failed test (a
# crash, a time-out) is a failure.
run_part() {
  local name=$1 count=$2 seconds=$3 log status=0 good bad left_out started=$SECONDS
  log=$logs/${1//[^A-Za-z0-9_.-]/-}.log
  shift 3
  timed "$seconds" "$@" >"$log" 2>&1 </dev/null || status=$?
  read -r good bad left_out < <("$count" "$log" "$status" || echo 0 1 0)
  if [ "$status" != 0 ] && [ "$bad" = 0 ]; then bad=1; fi
  passed=$((passed + good)) failed=$((failed + bad)) skipped=$((skipped + left_out))
  printf '  %-26s %5d passed %4d failed %4d skipped %5d s\n' \
    "$name" "$good" "$bad" "$left_out" $((SECONDS - started))
  [ "$bad" = 0 ] || show_failure "$name" "$log" "$status"
}

# timed SECONDS COMMAND...: a function of ours sees to its time itself.
timed() {
  local seconds=$1
  shift
  if [ "$(type -t "$1")" = function ]; then
    "$@"
  else
    timeout -k 10 "$seconds" "$@"
  fi
}

show_failure() {
  echo "--- $1: status $3, from $2"
  grep -aE -A 1 '^FAILED|^ERROR|^# FAIL|\*\*\* FAILED|FAILED: |failed on line' "$2" | head -n 40 || true
  echo "--- its end"
  tail -n 30 "$2"
  echo "---"
}

# --- counts -------------------------------------------------------------------------------------

count_one() {
  if [ "$2" = 0 ]; then echo 1 0 0; else echo 0 1 0; fi
}

# The last line in which pytest sums up: `3 failed, 12 passed, 1 skipped in 2.3s`.
count_pytest() {
  local line
  line=$(grep -aE '(passed|failed|error|skipped|no tests ran).* in [0-9.]+s' "$1" | tail -n 1)
  echo "$(number_before passed "$line")" \
    $(($(number_before failed "$line") + $(number_before 'errors?' "$line"))) \
    $(($(number_before skipped "$line") + $(number_before xfailed "$line")))
}

# number_before WORD LINE
number_before() {
  local pattern="([0-9]+) $1"
  if [[ $2 =~ $pattern ]]; then echo "${BASH_REMATCH[1]}"; else echo 0; fi
}

count_automake() {
  awk '/^# PASS:/ { good += $3 } /^# (FAIL|XPASS|ERROR):/ { bad += $3 } /^# (SKIP|XFAIL):/ { out += $3 }
       END { print good + 0, bad + 0, out + 0 }' "$1"
}

# `Testing x: TEST COMPLETE, 12 ok, 0 failed, 1 skipped of 13 test cases`
count_common_test() {
  local line left
  line=$(grep -a 'TEST COMPLETE' "$1" | tail -n 1)
  # What tests/erl/leaks_cth.erl found.
  left=$(grep -ac '^\*\*\* FAILED .*_SUITE: ' "$1")
  echo "$(number_before ok "$line")" $(($(number_before failed "$line") + left)) \
    "$(number_before skipped "$line")"
}

# A line of our own runners: `12 passed, 0 failed, 1 skipped`.
count_plain() {
  local line
  line=$(grep -aE '^[0-9]+ passed, [0-9]+ failed' "$1" | tail -n 1)
  echo "$(number_before passed "$line")" "$(number_before failed "$line")" "$(number_before skipped "$line")"
}

# --- suites -------------------------------------------------------------------------------------

suite_lint() {
  local check
  for check in "${lint_checks[@]}"; do
    run_part "lint: ${check//_/ }" count_one 600 "lint_$check"
  done
}

suite_c() {
  run_part "c" count_automake 600 make -C "$build" --no-print-directory check "$@"
}

# Shortly; `./run fuzz` takes its time.
suite_fuzz() {
  [ $# != 0 ] || set -- "${fuzz_targets[@]}"
  local name
  for name; do
    run_part "fuzz: $name" count_one 120 fuzz "$name" 6
  done
}

suite_models() {
  CC=$(configured CC) run_part "models" count_plain 600 "$top/tests/models/run" "$build/models" "$@"
}

# A run for each folder: two may have a file of one name.
suite_python() {
  if [ $# != 0 ]; then
    python_tests "$@"
  else
    python_tests tests/security
    python_tests tests/loop
    python_tests tests/term
    python_tests tests/typing
    python_tests tests/shortage
  fi
}

python_tests() {
  run_part "python: ${*/#tests\//}" count_pytest "$suite_seconds" \
    "$top/run" python -X faulthandler -m pytest -q --timeout 120 "$@"
}

suite_pip() {
  run_part "pip" count_plain 600 "$top/tests/pip/run" "$venv/bin/python" "$build/pip"
}

suite_conformance() {
  run_part "conformance" count_plain 900 "$top/run" conformance --fast "$@"
}

suite_erl() {
  local beams=$build/tests/erl
  run_part "erl: compile" count_one 120 compile_suites "$beams"
  [ $# = 0 ] || set -- -suite "$@"
  run_part "erl" count_common_test "$suite_seconds" common_test "$beams" "$@"
}

# Compiled into the build tree; each module keeps the absolute path of its source.
compile_suites() {
  rm -rf "$1" "$logs/ct"
  mkdir -p "$1" "$logs/ct"
  # scheduler_health_SUITE's library and its load.
  make -C "$build" --no-print-directory clocked || return
  ERL_LIBS=$build/lib "$(configured ERLC)" +debug_info -Werror -o "$1" \
    "$top"/tests/erl/*.erl "$top"/tests/soak/*.erl || return
  # shortage_SUITE's: see tests/shortage/shortage.h.
  "$(configured CC)" -O1 -g -fPIC -shared -I"$top/tests/shortage" \
    -I"$(configured ERLANG_PREFIX)/usr/include" -o "$1/shortage.so" \
    "$top"/tests/shortage/shortage.c "$top"/tests/shortage/shortage_nif.c -ldl || return
  local data
  for data in "$top"/tests/erl/*_data; do
    [ ! -d "$data" ] || ln -s "$data" "$1/"
  done
}

common_test() (
  beams=$1
  shift
  extend_environment
  exec timeout -k 10 "$suite_seconds" "$(dirname "$(configured ERL)")/ct_run" -noinput -no_auto_compile \
    -sname "beamloop_ct_$$" -dir "$beams" -pa "$beams" -logdir "$logs/ct" -ct_hooks leaks_cth "$@"
)

suite_vm() {
  [ $# != 0 ] || set -- tests/vm
  run_part "vm: ${*/#tests\//}" count_pytest "$suite_seconds" "$top/run" vm-pytest -q -p no:faulthandler --timeout 120 --timeout-method thread "$@"
}

# Long enough for every kind of traffic to have its turns; `./run soak` takes its time.
suite_soak() {
  run_part "soak" count_one 300 "$top/run" soak 0.3
}

# Against servers in processes of their own: the VM, and an ordinary Python on each loop.
suite_examples() {
  [ $# != 0 ] || set -- tests/examples
  run_part "examples: ${*/#tests\//}" count_pytest 600 \
    "$top/run" python -m pytest -q --timeout 120 "$@"
}

suite_demo() {
  run_part "demo" count_one 300 "$top/run" demo
}
