# The checks of `./run lint`.  Each prints what is wrong and returns 1.  Sourced.

lint_checks=(c_format c_warnings borders python_lint python_format stubs dialyzer xref)

c_files() {
  (cd "$top" && find c_src tests/c tests/erl tests/fuzz tests/shortage -name '*.[ch]' | sort)
}

lint_c_format() {
  (cd "$top" && c_files | xargs "$venv/bin/clang-format" --dry-run -Werror)
}

# A build of its own, so that a warning that a newer compiler adds does not stop ./run demo.
lint_c_warnings() {
  local werror=$build/werror
  local options=(--enable-werror --with-python="$(configured PYTHON)"
                 --with-erlang="$(configured ERLANG_PREFIX)")
  mkdir -p "$werror"
  if [ ! -e "$werror/Makefile" ] || [ "$(cat "$werror/stamp" 2>/dev/null)" != "${options[*]}" ]; then
    (cd "$werror" && "$top/configure" "${options[@]}") || return 1
    echo "${options[*]}" >"$werror/stamp"
  fi
  make -C "$werror" --no-print-directory -j "$(nproc)" _loop.so _term.so beamloop.so clocked.so || return 1
  # Word by word: the names of the C tests, which may be none.
  make -C "$werror" --no-print-directory -j "$(nproc)" $(c_test_programs)
}

c_test_programs() {
  sed -n 's/^check_PROGRAMS *+= *//p' "$top/tests/c/local.mk"
}

# A C file includes Python.h or erl_nif.h or neither; only *_border.c both; the loop never erl_nif.h.
lint_borders() {
  local file python nif status=0
  while read -r file; do
    python=$(grep -cE '^ *# *include *[<"]Python\.h' "$top/$file" || true)
    nif=$(grep -cE '^ *# *include *[<"]erl_nif\.h' "$top/$file" || true)
    case $file in
      c_src/loop/*) [ "$nif" = 0 ] || { echo "$file: the loop includes erl_nif.h"; status=1; } ;;
      *_border.c) ;;
      *) [ "$python" = 0 ] || [ "$nif" = 0 ] ||
           { echo "$file: includes Python.h and erl_nif.h and is no border"; status=1; } ;;
    esac
  done < <(c_files)
  return $status
}

python_folders=(python tests bench examples setup.py)

lint_python_lint() {
  (cd "$top" && "$venv/bin/ruff" check "${python_folders[@]}")
}

lint_python_format() {
  (cd "$top" && "$venv/bin/ruff" format --check "${python_folders[@]}")
}

# The modules themselves have no annotations: their stubs have them.
lint_stubs() {
  (cd "$top/python" && "$venv/bin/python" -m mypy --strict --follow-imports=silent \
    --cache-dir="$build/mypy-cache" erlang/*.pyi)
}

# The table of the OTP applications takes a minute to make, and is kept.  The status is not asked: it
# tells of functions that those applications do not find.  Of the other options, -Wunderspecs would
# have callbacks say more than their behaviour does, and -Wmissing_return takes what one caller of a
# common function may get for what all may.
lint_dialyzer() {
  local dialyzer plt=$build/otp.plt
  dialyzer=$(dirname "$(configured ERL)")/dialyzer
  if [ ! -e "$plt" ]; then
    "$dialyzer" --build_plt --output_plt "$plt.new" --apps erts kernel stdlib sasl || true
    mv "$plt.new" "$plt" || return
  fi
  "$dialyzer" --plt "$plt" -Wunmatched_returns -Werror_handling -Wunknown -Wextra_return \
    -r "$build/lib/beamloop/ebin"
}

# Calls of what does not exist, functions that nobody calls, what OTP gives up.
lint_xref() {
  "$(configured ERL)" -noinput -eval '
    [Ebin] = init:get_plain_arguments(),
    xref:start(ours),
    xref:set_default(ours, [{warnings, false}, {verbose, false}]),
    ok = xref:set_library_path(ours, code:get_path()),
    {ok, _} = xref:add_directory(ours, Ebin),
    Found = [{What, Where} || What <- [undefined_function_calls, locals_not_used,
                                       deprecated_function_calls],
                              {ok, Where} <- [xref:analyze(ours, What)], Where =/= []],
    [io:format("~p: ~p~n", [What, Where]) || {What, Where} <- Found],
    halt(length(Found)).' -extra "$build/lib/beamloop/ebin"
}
