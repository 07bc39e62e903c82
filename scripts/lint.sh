# The checks of `./run lint`.  Each prints what is wrong and returns 1.  Sourced.

lint_checks=(c_format c_warnings borders python_lint python_format dialyzer)

c_files() {
  (cd "$top" && find c_src tests/c tests/fuzz -name '*.[ch]' | sort)
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
  make -C "$werror" --no-print-directory -j "$(nproc)" _loop.so _term.so beamloop.so || return 1
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

# The table of the OTP applications takes a minute to make, and is kept.  The status is not asked: it
# tells of functions that those applications do not find.
lint_dialyzer() {
  local dialyzer plt=$build/otp.plt
  dialyzer=$(dirname "$(configured ERL)")/dialyzer
  if [ ! -e "$plt" ]; then
    "$dialyzer" --build_plt --output_plt "$plt.new" --apps erts kernel stdlib sasl || true
    mv "$plt.new" "$plt" || return
  fi
  "$dialyzer" --plt "$plt" -Wunmatched_returns -Werror_handling -r "$build/lib/beamloop/ebin"
}
