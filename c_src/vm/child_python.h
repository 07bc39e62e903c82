/* What children of this process inherit, and whose the signals are.  Python.h side. */
#ifndef BEAMLOOP_VM_CHILD_PYTHON_H
#define BEAMLOOP_VM_CHILD_PYTHON_H

#include <Python.h>

/* Functions of _beamloop_vm. */
PyObject *child_with_mask(PyObject *module, PyObject *args);
PyObject *child_become(PyObject *module, PyObject *unused);
PyObject *child_get_mask(PyObject *module, PyObject *unused);
PyObject *child_signal_is_ours(PyObject *module, PyObject *number);
PyObject *child_signal_was_set(PyObject *module, PyObject *number);

#endif
