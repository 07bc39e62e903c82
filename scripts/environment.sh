# What `./run` needs to start the configured programs.  Sourced; needs $top, $build, $venv and
# $python.

# configured NAME: what configure found, as the Makefile has it.
configured() {
  sed -n "s/^$1 = //p" "$build/Makefile"
}

extend_environment() {
  export PYTHONPATH=$build/lib/beamloop/priv/python${PYTHONPATH:+:$PYTHONPATH}
  export ERL_LIBS=$build/lib${ERL_LIBS:+:$ERL_LIBS}
  export VIRTUAL_ENV=$venv
  # A `./run` below keeps to the interpreter, whichever the path now names first.
  export PYTHON=$python
  export PATH=$venv/bin:$(dirname "$(configured ERL)"):$PATH
  # Every VM below, the ones that a test starts too, has Python run in the virtual environment.
  export ERL_ZFLAGS="-beamloop venv '\"$venv\"'${ERL_ZFLAGS:+ $ERL_ZFLAGS}"
  # Texts are UTF-8 where nothing else was asked for.
  case ${LC_ALL:-${LC_CTYPE:-${LANG:-C}}} in C|POSIX) export LC_ALL=C.UTF-8 ;; esac
}

run_erl() {
  extend_environment
  exec "$(configured ERL)" "$@"
}

run_python() {
  extend_environment
  exec "$venv/bin/python" "$@"
}

run_vm_pytest() {
  extend_environment
  exec "$(dirname "$(configured ERL)")/escript" "$top/scripts/vm_pytest.escript" "$@"
}
