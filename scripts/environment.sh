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
  load_sanitizer
}

# A build with a sanitizer has its runtime loaded before the interpreter or the emulator, which are
# built without.  Leaks are not looked for: both keep memory to their end.  The emulator has its own
# stacks for signal handlers, which the runtime would free.
load_sanitizer() {
  local library
  case $(configured BEAMLOOP_CFLAGS) in
    *-fsanitize=address*) library=libasan.so ;;
    *-fsanitize=undefined*) library=libubsan.so ;;
    *-fsanitize=thread*) library=libtsan.so ;;
    *) return 0 ;;
  esac
  LD_PRELOAD=$($(configured CC) -print-file-name=$library)${LD_PRELOAD:+:$LD_PRELOAD}
  export LD_PRELOAD
  # pytest would keep what is reported to itself.
  local log=log_path=$build/logs/report
  local asan=$log:detect_leaks=0:handle_segv=0:use_sigaltstack=0:allocator_may_return_null=1
  # Python's own allocator would hide its objects.
  [ "$library" != libasan.so ] || export PYTHONMALLOC=malloc
  # What is freed is kept for a while; tests of memory used are to see the end of that.
  asan+=:quarantine_size_mb=16
  export ASAN_OPTIONS=${ASAN_OPTIONS:-$asan}
  export UBSAN_OPTIONS=${UBSAN_OPTIONS:-$log:print_stacktrace=1:halt_on_error=1}
  export TSAN_OPTIONS=${TSAN_OPTIONS:-$log:suppressions=$top/tests/sanitizers/tsan.supp}
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
