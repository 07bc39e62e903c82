# BEAMLOOP_PYTHON(MIN-MINOR, MAX-MINOR)
#
# Finds a CPython 3.x that can be embedded: --with-python=PATH, else python3 on the path.  Its headers
# and its shared library come from pkg-config (python-X.Y-embed of that very interpreter), else from
# sysconfig.  Stops with the name of the Debian package when something is missing or too old.
# Sets PYTHON, PYTHON_VERSION, PYTHON_CPPFLAGS, PYTHON_LDFLAGS (rpath too), PYTHON_LIBS, EXT_SUFFIX.
AC_DEFUN([BEAMLOOP_PYTHON], [
AC_REQUIRE([PKG_PROG_PKG_CONFIG])
AC_ARG_WITH([python],
  [AS_HELP_STRING([--with-python=PATH], [embed this interpreter (default: python3 on the path)])],
  [], [with_python=])
_BEAMLOOP_PYTHON_PROGRAM
_BEAMLOOP_PYTHON_VERSION([$1], [$2])
_BEAMLOOP_PYTHON_FLAGS
_BEAMLOOP_PYTHON_LINKS
])

AC_DEFUN([_BEAMLOOP_PYTHON_PROGRAM], [
AS_CASE([$with_python],
  [yes|no], [AC_MSG_ERROR([--with-python needs a program, for example --with-python=/usr/bin/python3])],
  [''], [AC_PATH_PROG([PYTHON], [python3])],
  [*/*], [AS_IF([test -x "$with_python"], [PYTHON=$with_python], [PYTHON=])],
  [AC_PATH_PROG([PYTHON], [$with_python])])
AS_IF([test -z "$PYTHON"],
  [AC_MSG_ERROR([no ${with_python:-python3} found
  Debian and Ubuntu: apt-get install python3 python3-dev, or name yours with --with-python=PATH])])
])

# A line for each fact.  The interpreter's own name replaces a wrapper script that stood on the path.
AC_DEFUN([_BEAMLOOP_PYTHON_VERSION], [
AC_MSG_CHECKING([for the Python version])
cat >conftest.py <<'PYTHON_FACTS'
import os, sys, sysconfig
get = sysconfig.get_config_var
print(sys.implementation.name)
print("%d.%d" % sys.version_info[[:2]])
print(getattr(sys, "_base_executable", None) or sys.executable)
print(sysconfig.get_path("include"))
print(get("EXT_SUFFIX") or "")
print(get("LIBDIR") or "")
print(get("LIBPC") or os.path.join(get("LIBDIR") or "", "pkgconfig"))
print(get("LDVERSION") or get("VERSION"))
print(get("Py_ENABLE_SHARED") or 0)
print(get("Py_GIL_DISABLED") or 0)
PYTHON_FACTS
python_facts=`"$PYTHON" -I conftest.py 2>/dev/null </dev/null`
rm -f conftest.py
python_fact () { AS_ECHO(["$python_facts"]) | sed -n "${1}p"; }
AS_IF([test "x`python_fact 1`" != xcpython],
  [AC_MSG_ERROR([$PYTHON is no CPython 3, or does not run])])
PYTHON_VERSION=`python_fact 2`
PYTHON=`python_fact 3`
python_include=`python_fact 4`
EXT_SUFFIX=`python_fact 5`
python_libdir=`python_fact 6`
python_pc=`python_fact 7`
python_ldversion=`python_fact 8`
AC_MSG_RESULT([$PYTHON_VERSION ($PYTHON)])
python_minor=${PYTHON_VERSION#3.}
AS_IF([test "$python_minor" -lt $1],
  [AC_MSG_ERROR([Python $PYTHON_VERSION is too old: 3.$1 or later is needed
  Debian 12, Ubuntu 24.04 and later ship one; name yours with --with-python=PATH])])
AS_IF([test "$python_minor" -gt $2],
  [AC_MSG_WARN([Python $PYTHON_VERSION is newer than 3.$2, the last one that this release is tested with])])
AS_IF([test "x`python_fact 10`" = x1],
  [AC_MSG_ERROR([$PYTHON is a free-threaded build, which is not supported yet])])
AS_IF([test -z "$EXT_SUFFIX"], [AC_MSG_ERROR([$PYTHON does not tell its EXT_SUFFIX])])
AC_SUBST([PYTHON])
AC_SUBST([PYTHON_VERSION])
AC_SUBST([EXT_SUFFIX])
])

# pkg-config is asked with the interpreter's own directory first, so that another Python of the same
# version elsewhere on the machine is not taken.
AC_DEFUN([_BEAMLOOP_PYTHON_FLAGS], [
AC_MSG_CHECKING([for the Python headers])
AS_IF([test ! -f "$python_include/Python.h"],
  [AC_MSG_RESULT([no])
   AC_MSG_ERROR([no Python.h in $python_include
  Debian and Ubuntu: apt-get install python3-dev (or python$PYTHON_VERSION-dev)])])
AC_MSG_RESULT([$python_include])
PYTHON_CPPFLAGS="-I$python_include"
AC_MSG_CHECKING([how to link with libpython])
python_embed=python-$PYTHON_VERSION-embed
python_how=sysconfig
PYTHON_LDFLAGS="-L$python_libdir"
PYTHON_LIBS=-lpython$python_ldversion
AS_IF([test -n "$PKG_CONFIG" && test -f "$python_pc/$python_embed.pc"],
  [python_how=pkg-config
   python_pkg () { PKG_CONFIG_PATH="$python_pc" "$PKG_CONFIG" "$[]@" "$python_embed"; }
   PYTHON_CPPFLAGS=`python_pkg --cflags`
   PYTHON_LDFLAGS=`python_pkg --libs-only-L`
   PYTHON_LIBS=`python_pkg --libs-only-l`
   python_libdir=`python_pkg --variable=libdir`])
python_shared=
for python_dir in "$python_libdir" "$python_libdir/`"$CC" -print-multiarch 2>/dev/null`"; do
  AS_IF([test -z "$python_shared"], [
    for python_lib in "$python_dir/libpython$python_ldversion.so" "$python_dir/libpython$python_ldversion.dylib"; do
      AS_IF([test -f "$python_lib"], [python_shared=$python_lib])
    done
    AS_IF([test -n "$python_shared"], [python_libdir=$python_dir])])
done
AS_IF([test -z "$python_shared"],
  [AC_MSG_RESULT([no])
   AC_MSG_ERROR([$PYTHON has no shared libpython$python_ldversion in $python_libdir
  Debian and Ubuntu: apt-get install python3-dev (or libpython$PYTHON_VERSION-dev)
  An own build of Python needs ./configure --enable-shared; name another with --with-python=PATH])])
AC_MSG_RESULT([$python_how, $python_shared])
# The dynamic linker finds libraries in its default directories without help, and distributions do
# not want a run path there.
AS_CASE([$python_libdir],
  [/lib|/lib/*|/usr/lib|/usr/lib/*], [],
  [PYTHON_LDFLAGS="$PYTHON_LDFLAGS -Wl,-rpath,$python_libdir"])
AC_SUBST([PYTHON_CPPFLAGS])
AC_SUBST([PYTHON_LDFLAGS])
AC_SUBST([PYTHON_LIBS])
])

AC_DEFUN([_BEAMLOOP_PYTHON_LINKS], [
AC_MSG_CHECKING([whether a program can embed $PYTHON])
python_save_CPPFLAGS=$CPPFLAGS
python_save_LDFLAGS=$LDFLAGS
python_save_LIBS=$LIBS
CPPFLAGS="$CPPFLAGS $PYTHON_CPPFLAGS"
LDFLAGS="$LDFLAGS $PYTHON_LDFLAGS"
LIBS="$PYTHON_LIBS $LIBS"
AC_LINK_IFELSE([AC_LANG_PROGRAM([[#include <Python.h>]],
    [[PyConfig config; PyConfig_InitPythonConfig(&config); return Py_IsInitialized();]])],
  [AC_MSG_RESULT([yes])],
  [AC_MSG_RESULT([no])
   AC_MSG_ERROR([a program that embeds $PYTHON does not link; see config.log])])
CPPFLAGS=$python_save_CPPFLAGS
LDFLAGS=$python_save_LDFLAGS
LIBS=$python_save_LIBS
])
