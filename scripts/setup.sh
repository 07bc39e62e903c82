# The set-up steps of `./run`, each quick when there is nothing to do.  Sourced; needs $top, $build,
# $venv, $logs and $assume_yes.

stamps=$build/stamps

set_up() {
  mkdir -p "$logs" "$stamps"
  system_packages
  virtual_environment
  run_configure
  run_make
}

say() {
  printf '==> %s\n' "$*" >&2
}

die() {
  printf 'run: %s\n' "$*" >&2
  exit 1
}

# logged NAME COMMAND...: output to the log of that name, shown when the command fails.
logged() {
  local log=$logs/$1.log
  shift
  if ! "$@" >"$log" 2>&1 </dev/null; then
    tail -n 20 "$log" >&2
    die "failed: $* (all of it in $log)"
  fi
}

# --- the interpreter ----------------------------------------------------------------------------

# embeddable PROGRAM: prints the interpreter behind it when that is a CPython 3.11 or later with
# headers and a shared library, and with the parts that we use and Debian packs apart.
embeddable() {
  "$1" -I -c '
import importlib.util, os, sys, sysconfig
def has(name):
    try:
        return importlib.util.find_spec(name) is not None
    except ImportError:
        return False
header = os.path.join(sysconfig.get_path("include"), "Python.h")
good = (sys.implementation.name == "cpython" and sys.version_info >= (3, 11)
        and sysconfig.get_config_var("Py_ENABLE_SHARED") and os.path.exists(header)
        and has("ensurepip") and has("test.test_asyncio"))
print(sys._base_executable if good else "")
sys.exit(not good)' 2>/dev/null </dev/null
}

# Sets $python; 1 when there is none yet and packages have to bring it.
find_python() {
  local candidate
  if [ -n "${PYTHON:-}" ]; then
    python=$(embeddable "$PYTHON") && return
    case $(readlink -f "$(command -v "$PYTHON" || echo "$PYTHON")") in
      /usr/bin/*) return 1 ;;
    esac
    die "$PYTHON cannot be embedded: CPython 3.11 or later is needed, built with --enable-shared, with headers, ensurepip and the test package"
  fi
  while read -r candidate; do
    python=$(embeddable "$candidate") && return
  done < <(type -ap python3; echo /usr/bin/python3)
  return 1
}

# --- system packages ----------------------------------------------------------------------------

# Adds to $missing what is not there.  Programs and files are looked at, not the package database,
# so that an Erlang or a Python that was built by hand will do.
find_missing() {
  missing=()
  local program
  for program in gcc make autoconf automake pkg-config; do
    command -v "$program" >/dev/null || missing+=("$program")
  done
  # gcc alone does not bring the C library's headers.
  [ -e /usr/include/stdlib.h ] || missing+=(libc6-dev)
  find_missing_erlang
  find_python || missing+=(python3-dev python3-venv libpython3-testsuite)
  # It searches tests/models; where there is no Debian, that is left out.
  command -v spin >/dev/null || ! command -v apt-get >/dev/null || missing+=(spin)
  # The word count's default text and the certificates that pip needs come with these.
  [ -e /etc/ssl/certs/ca-certificates.crt ] || missing+=(ca-certificates)
}

find_missing_erlang() {
  local erl root application
  if ! erl=$(command -v erl) || ! command -v erlc >/dev/null; then
    missing+=(erlang-base erlang-dev erlang-proper)
    root=/nonexistent
  else
    root=$(dirname "$(dirname "$(readlink -f "$erl")")")
    [ -e "$root/usr/include/erl_nif.h" ] || missing+=(erlang-dev)
  fi
  for application in common_test crypto dialyzer edoc eunit public_key runtime_tools ssl \
                     syntax_tools tools xmerl inets; do
    compgen -G "$root/lib/$application-*" >/dev/null || missing+=("erlang-${application//_/-}")
  done
  # What is no part of OTP: an Erlang that was built by hand goes without.
  [[ $root != /usr/lib/erlang ]] || compgen -G "$root/lib/proper-*" >/dev/null ||
    missing+=(erlang-proper)
}

# optional_packages PROGRAM...: of tools that a command wants and can do without; Debian packs each under
# its name.
optional_packages() {
  local missing=() program
  for program; do
    command -v "$program" >/dev/null || missing+=("$program")
  done
  [ ${#missing[@]} = 0 ] || ! command -v apt-get >/dev/null || install_packages
}

system_packages() {
  local missing
  find_missing
  [ ${#missing[@]} != 0 ] || return 0
  command -v apt-get >/dev/null || die "please install what Debian calls: ${missing[*]}"
  install_packages
  hash -r
  find_missing
  [ ${#missing[@]} = 0 ] || die "still not there after the installation: ${missing[*]}"
}

install_packages() {
  local sudo=()
  if [ "$(id -u)" != 0 ]; then
    sudo=(sudo)
    confirm "Install with sudo apt-get: ${missing[*]}?"
  fi
  say "system packages: ${missing[*]}"
  logged apt-update "${sudo[@]}" apt-get update
  local version
  version=$(apt-cache show --no-all-versions python3 | sed -n 's/^Version: \(3\.[0-9]*\).*/\1/p')
  missing=("${missing[@]/#libpython3-testsuite/libpython$version-testsuite}")
  logged apt-install "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y --no-install-recommends "${missing[@]}"
}

confirm() {
  [ -z "$assume_yes" ] || return 0
  [ -t 0 ] || die "$1 There is nobody to ask: say --yes."
  local answer
  read -r -p "$1 [y/N] " answer
  case $answer in y|Y|yes) ;; *) die "nothing was installed" ;; esac
}

# --- virtual environment ------------------------------------------------------------------------

virtual_environment() {
  local wanted
  wanted="$python $(sha256sum <"$top/tests/requirements.txt")"
  [ "$(cat "$venv/beamloop-stamp" 2>/dev/null)" != "$wanted" ] || return 0
  say "virtual environment in ${venv#"$top"/} with $python"
  logged venv "$python" -m venv --clear "$venv"
  logged pip "$venv/bin/python" -m pip install --disable-pip-version-check \
    -r "$top/tests/requirements.txt"
  echo "$wanted" >"$venv/beamloop-stamp"
}

# --- build --------------------------------------------------------------------------------------

run_configure() {
  local wanted="--with-python=$python ${CONFIGURE_FLAGS:-}"
  if [ ! -x "$top/configure" ]; then
    say "autoreconf"
    logged autoreconf autoreconf -i "$top"
  fi
  [ ! -e "$build/Makefile" ] || [ "$(cat "$stamps/configure" 2>/dev/null)" != "$wanted" ] || return 0
  say "configure"
  # Without quotes, for the options are words.
  (cd "$build" && logged configure "$top/configure" --with-python="$python" ${CONFIGURE_FLAGS:-})
  echo "$wanted" >"$stamps/configure"
}

run_make() {
  local log=$logs/make.log
  if ! make -C "$build" --no-print-directory -j "$(nproc)" >"$log" 2>&1 </dev/null; then
    { grep -E -A 8 'error:' "$log" || tail -n 5 "$log"; } | head -n 40 >&2 || true
    die "make failed (all of it in $log)"
  fi
  grep -E 'warning: ' "$log" >&2 || true
}
