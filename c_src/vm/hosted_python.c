/* A further event loop on its own thread.  Python.h side. */
#include "hosted.h"

#include "inbox_python.h"
#include "interp_python.h"

/* GIL held.  Makes the loop and tells its inbox; a new reference or NULL with an exception. */
static PyObject *
open_hosted(hosted_ready_fn ready, void *arg)
{
  PyObject *hosted = interp_call_glue("_open_hosted", NULL);
  PyObject *in = hosted == NULL ? NULL : PyObject_GetAttrString(hosted, "inbox");
  if (in == NULL) {
    Py_XDECREF(hosted);
    return NULL;
  }
  ready(arg, inbox_of_object(in));
  Py_DECREF(in);
  return hosted;
}

int
hosted_run(hosted_ready_fn ready, void *arg, char *error, unsigned size)
{
  PyThreadState *state = PyThreadState_New(PyInterpreterState_Main());
  PyEval_RestoreThread(state);
  int status = -1;
  PyObject *hosted = open_hosted(ready, arg);
  if (hosted == NULL) {
    interp_describe_exception(error, size);
  } else {
    PyObject *ran = PyObject_CallMethod(hosted, "run", NULL);
    if (ran == NULL) {
      PyErr_WriteUnraisable(hosted);
    }
    Py_XDECREF(ran);
    Py_DECREF(hosted);
    status = 0;
  }
  PyThreadState_Clear(state);
  PyThreadState_DeleteCurrent();
  return status;
}
