/* What calls on workers and calls on loops share.  Python.h side. */
#ifndef BEAMLOOP_VM_CALL_PYTHON_H
#define BEAMLOOP_VM_CALL_PYTHON_H

#include <Python.h>

#include "call.h"

/* GIL held (released while a long payload is copied).  The decoded request, a new reference. */
PyObject *call_decode(vm_call *call);

/* GIL held.  {Target, Function, Args, Kwargs}: what the function returned, or NULL with an exception. */
PyObject *call_function(PyObject *request);

/* GIL held.  Answers the caller, if it still waits. */
void call_answer_value(vm_call *call, PyObject *value);
void call_answer_exception(vm_call *call, PyObject *exception);

/* GIL held.  As call_answer_exception with the current exception, which it takes. */
void call_answer_raised(vm_call *call);

#endif
