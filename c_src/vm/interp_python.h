/* What the Python side of the VM layer shares.  Python.h side. */
#ifndef BEAMLOOP_VM_INTERP_PYTHON_H
#define BEAMLOOP_VM_INTERP_PYTHON_H

#include <Python.h>

/* GIL held.  Calls erlang.vm.NAME(args...), a new reference or NULL with an exception; args may be
 * NULL for none and is not consumed. */
PyObject *interp_call_glue(const char *name, PyObject *args);

/* GIL held.  Takes the current exception: a new reference, normalised, with its traceback. */
PyObject *interp_take_exception(void);

/* GIL held.  The current exception as one line of text, which it clears. */
void interp_describe_exception(char *text, size_t size);

/* The built-in module _beamloop_vm (module_python.c). */
PyMODINIT_FUNC PyInit__beamloop_vm(void);

/* GIL held.  The permanent state of the service thread. */
PyThreadState *interp_service_state(void);

#endif
