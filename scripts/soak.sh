# `./run soak MINUTES`: all kinds of traffic at once, in one VM.  Sourced.

# The signal that ends it early, for the VM would take Ctrl-C for the end of all.
soak() {
  local beams=$build/soak status=0 vm
  [ $# = 1 ] || die "usage: ./run soak MINUTES"
  mkdir -p "$beams"
  "$(configured ERLC)" -o "$beams" "$top"/tests/soak/*.erl
  bench_packages "$top/tests/soak/requirements.txt"
  # Else each of dozens of threads has an arena of its own, which keeps the most that was ever used of it:
  # the memory would go on growing for hours to what they all needed at some time.
  export MALLOC_ARENA_MAX=${MALLOC_ARENA_MAX:-1}
  run_erl +Bi -noinput -pa "$beams" -eval 'soak:main().' -extra "$1" "$beams" &
  vm=$!
  trap 'kill -USR2 "$vm" 2>/dev/null' INT TERM
  wait "$vm" || status=$?
  # A signal ends the wait but not the VM.
  while kill -0 "$vm" 2>/dev/null; do wait "$vm" && status=0 || status=$?; done
  draw_soak "$beams"
  return "$status"
}

# Without matplotlib there is no plot: the samples are there all the same.
draw_soak() {
  [ -s "$1/samples.csv" ] || return 0
  if "$venv/bin/python" "$top/tests/soak/plot.py" "$1/samples.csv" "$1/plot.svg"; then
    say "${1#"$top"/}/plot.svg"
  else
    say "no plot; the samples are in ${1#"$top"/}/samples.csv"
  fi
}
