/* What the event loop on a worker's thread asks about interruptions.  Python.h side. */
#ifndef BEAMLOOP_VM_INTERRUPT_PYTHON_H
#define BEAMLOOP_VM_INTERRUPT_PYTHON_H

#include <Python.h>

/* GIL held.  Methods of _beamloop_vm, described in module_python.c. */
PyObject *interrupt_end_tasks(PyObject *module, PyObject *loop);
PyObject *interrupt_left_loop(PyObject *module, PyObject *unused);
PyObject *interrupt_call_number(PyObject *module, PyObject *unused);

#endif
