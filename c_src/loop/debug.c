/* What asyncio's debug mode does, and how it words things: everything here is off the hot path and
 * asks asyncio's own helpers. */
#include "loop_internal.h"

PyObject *
debug_source_traceback(loop_state *state)
{
  /* Without a frame it starts at its caller, which is the Python code that called the loop. */
  return PyObject_CallNoArgs(state->extract_stack);
}

PyObject *
debug_format_callback(native_loop *loop, PyObject *callback, PyObject *args)
{
  PyObject *format = loop->state->format_callback;

  if (callback == NULL)
    callback = Py_None;
#if PY_VERSION_HEX >= 0x030D0000
  /* From 3.13 on the arguments are shown in debug mode only. */
  PyObject *stack[] = {callback, args, loop->debug ? Py_True : Py_False};
  PyObject *names = Py_BuildValue("(s)", "debug");
  PyObject *result = names == NULL ? NULL : PyObject_Vectorcall(format, stack, 2, names);

  Py_XDECREF(names);
  return result;
#else
  return PyObject_CallFunctionObjArgs(format, callback, args, NULL);
#endif
}

int
debug_check_call(native_loop *loop, PyObject *callback, const char *method, bool check_thread)
{
  PyObject *result;

  if (check_thread) {
    result = PyObject_CallMethodNoArgs((PyObject *)loop, loop->state->str_check_thread);
    if (result == NULL)
      return -1;
    Py_DECREF(result);
  }
  result = PyObject_CallMethod((PyObject *)loop, "_check_callback", "Os", callback, method);
  Py_XDECREF(result);
  return result == NULL ? -1 : 0;
}

/* Logs a callback that ran longer than loop.slow_callback_duration seconds. */
static int
log_if_slow(native_loop *loop, PyObject *object, double seconds)
{
  PyObject *limit = PyObject_GetAttr((PyObject *)loop, loop->state->str_slow_callback_duration);
  PyObject *text, *result = NULL;
  double allowed = limit == NULL ? -1.0 : PyFloat_AsDouble(limit);

  Py_XDECREF(limit);
  if (PyErr_Occurred())
    return -1;
  if (seconds < allowed)
    return 0;
  text = PyObject_CallOneArg(loop->state->format_handle, object);
  if (text != NULL)
    result = PyObject_CallMethod(loop->state->logger, "warning", "sOd",
                                 "Executing %s took %.3f seconds", text, seconds);
  Py_XDECREF(text);
  Py_XDECREF(result);
  return result == NULL ? -1 : 0;
}

static int
set_current_handle(native_loop *loop, PyObject *object)
{
  return PyObject_SetAttr((PyObject *)loop, loop->state->str_current_handle, object);
}

/* As handle_run, for handles of either kind. */
static int
run_any(native_loop *loop, PyObject *object)
{
  PyObject *result;

  if (handle_check(loop->state, object))
    return handle_run((handle *)object);
  result = PyObject_CallMethodNoArgs(object, loop->state->str_run);
  Py_XDECREF(result);
  return result == NULL ? -1 : 0;
}

int
debug_run(native_loop *loop, PyObject *object)
{
  PyObject *type, *value, *traceback;
  int64_t begin = loop_now();
  int rc;

  if (set_current_handle(loop, object) < 0)
    return -1;
  rc = run_any(loop, object);
  if (rc == 0)
    rc = log_if_slow(loop, object, (double)(loop_now() - begin) / (double)NS_PER_SECOND);
  PyErr_Fetch(&type, &value, &traceback);
  if (set_current_handle(loop, Py_None) < 0)
    PyErr_Clear();
  PyErr_Restore(type, value, traceback);
  return rc;
}
