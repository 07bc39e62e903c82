# BEAMLOOP_ERLANG(MIN-OTP)
#
# Finds erl and erlc (below --with-erlang=PREFIX, else on the path), the release, and the directory of
# erl_nif.h.  Stops with the name of the Debian package when something is missing or too old.
# Sets ERL, ERLC, ERLANG_PREFIX, ERLANG_ROOT, ERLANG_OTP, ERLANG_CPPFLAGS and erlanglibdir.
AC_DEFUN([BEAMLOOP_ERLANG], [
AC_ARG_WITH([erlang],
  [AS_HELP_STRING([--with-erlang=PREFIX], [use PREFIX/bin/erl and PREFIX/bin/erlc])],
  [], [with_erlang=])
AC_ARG_WITH([erlang-libdir],
  [AS_HELP_STRING([--with-erlang-libdir=DIR],
    [install the application into DIR (LIBDIR/erlang/lib with --prefix, else the Erlang lib dir)])],
  [], [with_erlang_libdir=])
_BEAMLOOP_ERLANG_TOOLS
_BEAMLOOP_ERLANG_VERSION([$1])
_BEAMLOOP_ERLANG_HEADERS
_BEAMLOOP_ERLANG_LIBDIR
])

AC_DEFUN([_BEAMLOOP_ERLANG_TOOLS], [
AS_CASE([$with_erlang],
  [yes|no], [AC_MSG_ERROR([--with-erlang needs a directory, for example --with-erlang=/usr])],
  [''], [erlang_search=$PATH],
  [erlang_search=$with_erlang/bin])
AC_PATH_PROG([ERL], [erl], [], [$erlang_search])
AC_PATH_PROG([ERLC], [erlc], [], [$erlang_search])
AS_IF([test -z "$ERL" || test -z "$ERLC"],
  [AC_MSG_ERROR([no erl and erlc in $erlang_search
  Debian and Ubuntu: apt-get install erlang-base erlang-dev, or name yours with --with-erlang=PREFIX])])
ERLANG_PREFIX=`AS_DIRNAME(["$ERL"])`
ERLANG_PREFIX=`AS_DIRNAME(["$ERLANG_PREFIX"])`
AC_SUBST([ERLANG_PREFIX])
])

# One start of the VM answers all questions, a line each.
AC_DEFUN([_BEAMLOOP_ERLANG_VERSION], [
AC_MSG_CHECKING([for the Erlang/OTP release])
erlang_facts=`"$ERL" -noshell -noinput -eval '
  io:format("~ts~n~ts~n~ts~n~ts~n",
            [[erlang:system_info(otp_release), code:root_dir(), code:lib_dir(),
             erlang:system_info(version)]]), halt().' 2>/dev/null </dev/null`
ERLANG_OTP=`AS_ECHO(["$erlang_facts"]) | sed -n 1p`
ERLANG_ROOT=`AS_ECHO(["$erlang_facts"]) | sed -n 2p`
ERLANG_LIB_DIR=`AS_ECHO(["$erlang_facts"]) | sed -n 3p`
ERTS_VERSION=`AS_ECHO(["$erlang_facts"]) | sed -n 4p`
AS_CASE([$ERLANG_OTP],
  [''|*@<:@!0-9@:>@*], [AC_MSG_ERROR([$ERL does not run; its answer was: $erlang_facts])])
AC_MSG_RESULT([$ERLANG_OTP])
AS_IF([test "$ERLANG_OTP" -lt $1],
  [AC_MSG_ERROR([Erlang/OTP $ERLANG_OTP is too old: $1 or later is needed
  Debian 12, Ubuntu 24.04 and later ship one; name yours with --with-erlang=PREFIX])])
AC_SUBST([ERLANG_OTP])
AC_SUBST([ERLANG_ROOT])
])

AC_DEFUN([_BEAMLOOP_ERLANG_HEADERS], [
AC_MSG_CHECKING([for erl_nif.h])
erlang_include=
for erlang_dir in "$ERLANG_ROOT/usr/include" "$ERLANG_ROOT/erts-$ERTS_VERSION/include"; do
  AS_IF([test -z "$erlang_include" && test -f "$erlang_dir/erl_nif.h"], [erlang_include=$erlang_dir])
done
AS_IF([test -z "$erlang_include"],
  [AC_MSG_RESULT([no])
   AC_MSG_ERROR([no erl_nif.h below $ERLANG_ROOT
  Debian and Ubuntu: apt-get install erlang-dev])])
AC_MSG_RESULT([$erlang_include])
AC_SUBST([ERLANG_CPPFLAGS], ["-I$erlang_include"])
])

AC_DEFUN([_BEAMLOOP_ERLANG_LIBDIR], [
AS_CASE([$with_erlang_libdir],
  [yes|no], [AC_MSG_ERROR([--with-erlang-libdir needs a directory])],
  [''], [AS_IF([test "x$prefix" = xNONE],
               [erlanglibdir=$ERLANG_LIB_DIR], [erlanglibdir='${libdir}/erlang/lib'])],
  [erlanglibdir=$with_erlang_libdir])
AC_SUBST([erlanglibdir])
])
