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
# - the module of an object whose type is ours is taken to be possibly missing.
agreed_of_analyzer='(attachment|message_store)\.c:.*leak of .self.'
agreed_of_analyzer+='|channel_callback\.c:.*use after .free. of .w.'
agreed_of_analyzer+='|channel_subscriptions_nif\.c:.*leak of .<unknown>.'
agreed_of_analyzer+='|aio_types\.c:.*dereference of NULL .state.'

static_analyzer() {
  local found
  # Without quotes, for the flags are words.
  found=$(cd "$top" && c_sources | xargs -P "$(nproc)" -I FILE "$(configured CC)" $(compile_flags) \
    -O1 -fanalyzer -c -o /dev/null FILE 2>&1 | grep 'warning:' | grep -vE "$agreed_of_analyzer") || true
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
  # Without quotes, for the flags are words.
  (cd "$top" && c_sources | xargs -P "$(nproc)" -n 8 sh -c '
    tidy=$1 flags=$2; shift 2; clang-tidy --quiet --warnings-as-errors="*" --checks="$tidy" "$@" -- $flags
  ' tidy "$tidy_checks" "$(compile_flags)")
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
