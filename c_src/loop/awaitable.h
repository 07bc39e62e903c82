/* The coroutine protocol, for awaitables written in C. */
#ifndef BEAMLOOP_AWAITABLE_H
#define BEAMLOOP_AWAITABLE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

/* What a step gave, as send() and __next__() report it; takes over the reference to result. */
PyObject *awaitable_outcome(PySendResult rc, PyObject *result);

/* Raises what throw() was given: an exception, or a type, a value and a traceback; the latter two
 * may be NULL. */
void awaitable_raise(PyObject *type, PyObject *value, PyObject *traceback);

#endif
