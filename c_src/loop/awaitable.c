/* What the awaitables written in C share: they are coroutines in all but type. */
#include "awaitable.h"

PyObject *
awaitable_outcome(PySendResult rc, PyObject *result)
{
  PyObject *stop;

  if (rc != PYGEN_RETURN)
    return result;
  /* Made by hand, since a tuple would become the arguments of the exception. */
  stop = PyObject_CallOneArg(PyExc_StopIteration, result);
  if (stop != NULL)
    PyErr_SetObject(PyExc_StopIteration, stop);
  Py_XDECREF(stop);
  Py_DECREF(result);
  return NULL;
}

void
awaitable_raise(PyObject *type, PyObject *value, PyObject *traceback)
{
  Py_INCREF(type);
  Py_XINCREF(value);
  Py_XINCREF(traceback);
  if (PyExceptionClass_Check(type)) {
    PyErr_NormalizeException(&type, &value, &traceback);
    PyErr_Restore(type, value, traceback);
    return;
  }
  if (PyExceptionInstance_Check(type) && (value == NULL || value == Py_None)) {
    Py_XDECREF(value);
    if (traceback == NULL)
      traceback = PyException_GetTraceback(type);
    PyErr_Restore(Py_NewRef(PyExceptionInstance_Class(type)), type, traceback);
    return;
  }
  PyErr_Format(PyExc_TypeError,
               "exceptions must be classes or instances deriving from "
               "BaseException, not %.200s",
               Py_TYPE(type)->tp_name);
  Py_DECREF(type);
  Py_XDECREF(value);
  Py_XDECREF(traceback);
}
