# `./run check-static [CHECK...]`: what is too slow for `./run lint`.  Sourced after scripts/test.sh.
#
# Each reads every C file.  What was agreed to be no fault is listed here with its reason.

static_checks=(analyzer clang_tidy cppcheck)

c_sources() {
  (cd "$top" && ls c_src/*/*.c)
}

compile_flags() {
  echo -std=gnu11 $(configured PYTHON_CPPFLAGS) $(configured ERLANG_CPPFLAGS) '-DBEAMLOOP_PYTHON=""'
}

# The analyzer of gcc 12 does not follow counts of references, nor what a container keeps:
# - an attachment that is its struct's first member is taken for a leak where its address is returned;
# - who drops one of two counts is taken to have freed the object;
# - the node that was put into the tree of subscriptions is taken for a leak;
# - an array that another function has filled is taken for uninitialized, or missing;
# - the module of an object whose type is ours is taken to be possibly missing.
agreed_of_analyzer='(attachment|message_store)\.c:.*leak of .self.'
agreed_of_analyzer+='|channel_callback\.c:.*use after .free. of .w.'
agreed_of_analyzer+='|channel_subscriptions_nif\.c:.*leak of .<unknown>.'
agreed_of_analyzer+='|nif_build\.c:.*(use of uninitialized value|dereference of possibly-NULL)'
agreed_of_analyzer+='|aio_types\.c:.*dereference of NULL .state.'

static_analyzer() {
  local found
  # Without quotes, for the flags are words.
  found=$(cd "$top" && c_sources | xargs -P "$(nproc)" -I FILE \
    "$(configured CC)" $(compile_flags) -O1 -fanalyzer -c -o /dev/null FILE 2>&1 |
    grep -E '(warning|error):' | grep -vE "$agreed_of_analyzer") || true
  echo "$found"
  [ -z "$found" ]
}

# Agreed: the names are these, casts between a struct and its first member are meant, sizes of
# pointers are asked for on purpose, memcpy is not insecure, branches with one body read better, and an
# argument of a macro that names a function needs no parentheses.
tidy_checks="-*,bugprone-*,clang-analyzer-*,-bugprone-easily-swappable-parameters"
tidy_checks+=",-bugprone-reserved-identifier,-bugprone-sizeof-expression,-bugprone-branch-clone"
tidy_checks+=",-bugprone-implicit-widening-of-multiplication-result,-bugprone-narrowing-conversions"
tidy_checks+=",-bugprone-assignment-in-if-condition,-bugprone-macro-parentheses"
tidy_checks+=",-clang-analyzer-security.insecureAPI.DeprecatedOrUnsafeBufferHandling"
# As above, who drops one of two counts is taken to have freed the object, and an array that another
# function has filled for garbage; the bytes of a binary, which are copied without their end, for a text;
# and a buffer with bytes in it for one without chunks.
agreed_of_tidy='channel_callback\.c:.*Use of memory after it is freed'
agreed_of_tidy+='|nif_build\.c:.*Assigned value is garbage'
agreed_of_tidy+='|write_buffer\.c:.*Dereference of null pointer'
agreed_of_tidy+='|interp_nif\.c:.*is not null-terminated'

static_clang_tidy() {
  local found
  clang-tidy --version || return
  found=$(cd "$top" && c_sources | xargs -P "$(nproc)" -n 4 sh -c '
    checks=$1 flags=$2; shift 2; clang-tidy --quiet --checks="$checks" "$@" -- $flags
  ' tidy "$tidy_checks" "$(compile_flags)" 2>/dev/null |
    grep -E '(warning|error):' | grep -vE "$agreed_of_tidy") || true
  echo "$found"
  [ -z "$found" ]
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
