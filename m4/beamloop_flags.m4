# BEAMLOOP_FLAGS
#
# Warnings and hardening for all C code of ours, and the options --enable-werror, --enable-debug and
# --enable-sanitizer=KIND.  Sets BEAMLOOP_CFLAGS, BEAMLOOP_CPPFLAGS, BEAMLOOP_LDFLAGS, and for products
# alone BEAMLOOP_NDEBUG: the C tests always have the assertions of what they test.
AC_DEFUN([BEAMLOOP_FLAGS], [
AC_ARG_ENABLE([werror],
  [AS_HELP_STRING([--enable-werror], [make compiler warnings errors])], [], [enable_werror=no])
AC_ARG_ENABLE([debug],
  [AS_HELP_STRING([--enable-debug], [build with assertions, and for a debugger])],
  [], [enable_debug=no])
AC_ARG_ENABLE([sanitizer],
  [AS_HELP_STRING([--enable-sanitizer=KIND], [build with the address, undefined or thread sanitizer])],
  [], [enable_sanitizer=no])
BEAMLOOP_CFLAGS="-std=gnu11 -fvisibility=hidden -pthread"
BEAMLOOP_CPPFLAGS=
BEAMLOOP_LDFLAGS=-pthread
BEAMLOOP_NDEBUG=-DNDEBUG
AS_IF([test "x$enable_debug" = xyes],
  [BEAMLOOP_NDEBUG=
   AS_IF([test "x$ac_cv_env_CFLAGS_set" != xset], [CFLAGS="-g3 -O1"])])
_BEAMLOOP_CFLAG([-Wall])
_BEAMLOOP_CFLAG([-Wextra])
_BEAMLOOP_CFLAG([-Wformat=2])
_BEAMLOOP_CFLAG([-Wstrict-prototypes])
_BEAMLOOP_CFLAG([-Wvla])
_BEAMLOOP_CFLAG([-Werror=implicit-function-declaration])
AS_IF([test "x$enable_werror" = xyes],
  [_BEAMLOOP_CFLAG([-Wconversion])
   _BEAMLOOP_CFLAG([-Werror])])
AS_CASE([$enable_sanitizer],
  [no], [_BEAMLOOP_HARDENING],
  [address|undefined|thread],
    [_BEAMLOOP_CFLAG([-fsanitize=$enable_sanitizer])
     _BEAMLOOP_CFLAG([-fno-omit-frame-pointer])
     BEAMLOOP_LDFLAGS="$BEAMLOOP_LDFLAGS -fsanitize=$enable_sanitizer"],
  [AC_MSG_ERROR([--enable-sanitizer takes address, undefined or thread])])
AC_SUBST([BEAMLOOP_CFLAGS])
AC_SUBST([BEAMLOOP_CPPFLAGS])
AC_SUBST([BEAMLOOP_LDFLAGS])
AC_SUBST([BEAMLOOP_NDEBUG])
])

# What the compiler adds so that a fault of memory ends the process instead of doing what somebody made
# up; setup.py has the same for Linux.  _FORTIFY_SOURCE needs an optimising build, and a distribution's
# compiler may set its own level.  Branch protection is named differently on each processor.
AC_DEFUN([_BEAMLOOP_HARDENING], [
_BEAMLOOP_CFLAG([-fstack-protector-strong])
_BEAMLOOP_CFLAG([-fstack-clash-protection])
_BEAMLOOP_CFLAG([-fcf-protection])
_BEAMLOOP_CFLAG([-mbranch-protection=standard])
AS_CASE([" $CFLAGS "],
  [*" -O0 "*], [],
  [*" -O"*], [BEAMLOOP_CPPFLAGS="-U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=3"])
_BEAMLOOP_LDFLAG([-Wl,-z,relro,-z,now])
_BEAMLOOP_LDFLAG([-Wl,-z,noexecstack])
])

# _BEAMLOOP_CFLAG(FLAG), _BEAMLOOP_LDFLAG(FLAG): adds the flag where the compiler knows it.
AC_DEFUN([_BEAMLOOP_CFLAG], [
AC_MSG_CHECKING([whether $CC takes $1])
flag_save=$CFLAGS
CFLAGS="$CFLAGS -Werror $1"
AC_COMPILE_IFELSE([AC_LANG_PROGRAM([], [])],
  [AC_MSG_RESULT([yes])
   BEAMLOOP_CFLAGS="$BEAMLOOP_CFLAGS $1"],
  [AC_MSG_RESULT([no])])
CFLAGS=$flag_save
])

AC_DEFUN([_BEAMLOOP_LDFLAG], [
AC_MSG_CHECKING([whether the linker takes $1])
flag_save=$LDFLAGS
LDFLAGS="$LDFLAGS $1"
AC_LINK_IFELSE([AC_LANG_PROGRAM([], [])],
  [AC_MSG_RESULT([yes])
   BEAMLOOP_LDFLAGS="$BEAMLOOP_LDFLAGS $1"],
  [AC_MSG_RESULT([no])])
LDFLAGS=$flag_save
])
