/* The Python face of an inbox. */
#ifndef BEAMLOOP_VM_INBOX_PYTHON_H
#define BEAMLOOP_VM_INBOX_PYTHON_H

#include <Python.h>

struct inbox;

/* GIL held.  Adds the type Inbox to the module. */
int inbox_python_exec(PyObject *module);

/* GIL held.  The inbox of an Inbox, counted for the caller. */
struct inbox *inbox_of_object(PyObject *object);

#endif
