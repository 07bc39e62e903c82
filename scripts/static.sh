# `./run check-static [CHECK...]`: what is too slow for `./run lint`.  Sourced after scripts/test.sh.
#
# The analysers follow plain C well and Python's reference counts badly: the analyzer of gcc and
# clang-tidy read the files that include neither Python.h nor erl_nif.h, cppcheck reads all.

static_checks=(analyzer clang_tidy cppcheck)

# Those that compile without the headers of Python and do not ask for the emulator's.
plain_c_files() {
  local file headers
  (cd "$top" && for file in c_src/*/*.c; do
    headers=$("$(configured CC)" -std=gnu11 -M "$file" 2>/dev/null) &&
      [[ $headers != *erl_nif.h* ]] && echo "$file"
  done) || true
}

# Agreed: an attachment that is its struct's first member is taken for a leak where its address is
# returned (CWE-401 in message_store.c and channel_attachment.c).
static_analyzer() {
  local file found
  found=$(plain_c_files | while read -r file; do
    (cd "$top" && "$(configured CC)" -std=gnu11 -O1 -fanalyzer -c -o /dev/null "$file" 2>&1)
  done | grep 'warning:' | grep -vE '(attachment|message_store)\.c:.*leak of .self.') || true
  echo "$found"
  [ -z "$found" ]
}

# Agreed: the names are these, casts between a struct and its first member are meant, sizes of
# pointers are asked for on purpose, memcpy is not insecure, and branches with one body read better.
tidy_checks="-*,bugprone-*,clang-analyzer-*,-bugprone-easily-swappable-parameters"
tidy_checks+=",-bugprone-reserved-identifier,-bugprone-sizeof-expression,-bugprone-branch-clone"
tidy_checks+=",-bugprone-implicit-widening-of-multiplication-result,-bugprone-narrowing-conversions"
tidy_checks+=",-bugprone-assignment-in-if-condition"
tidy_checks+=",-clang-analyzer-security.insecureAPI.DeprecatedOrUnsafeBufferHandling"

static_clang_tidy() {
  # Without quotes, for the files are words.
  (cd "$top" && clang-tidy --quiet --warnings-as-errors='*' --checks="$tidy_checks" \
    $(plain_c_files) -- -std=gnu11)
}

# Agreed: what the headers would tell cppcheck is told here; it misses that a name and a pid exclude
# each other in module_python.c.
static_cppcheck() {
  (cd "$top" && cppcheck --quiet --std=c11 --enable=warning,performance,portability --inline-suppr \
    --error-exitcode=1 -j "$(nproc)" '-DPy_RETURN_NONE=return 0' '-DPy_RETURN_TRUE=return 0' \
    '-DPy_RETURN_FALSE=return 0' '-DPy_RETURN_NOTIMPLEMENTED=return 0' \
    '-DPy_TRASHCAN_BEGIN(a,b)=' '-DPy_TRASHCAN_END=' '-DPy_BEGIN_ALLOW_THREADS=' \
    '-DPy_END_ALLOW_THREADS=' --suppress=uninitvar:c_src/vm/module_python.c c_src)
}

check_static() {
  [ $# != 0 ] || set -- "${static_checks[@]}"
  local check
  for check; do
    run_part "static: ${check//_/ }" count_one 1800 "static_$check"
  done
  echo "$passed passed, $failed failed"
  [ "$failed" = 0 ]
}
