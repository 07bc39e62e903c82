/* Running a call on a worker thread: decode, call, encode, answer.  Python.h side. */
#include "call_python.h"

#include "../channel/thread_wait.h"
#include "../term/term_link.h"
#include "interp_python.h"
#include "object_handle.h"
#include "thread.h"
#include "worker.h"

#include <unistd.h>

/* ---- what is called ---- */

/* GIL held.  A str of a decoded name (str, or UTF-8 bytes), a new reference. */
static PyObject *
name_of(PyObject *term)
{
  if (PyUnicode_CheckExact(term)) {
    return Py_NewRef(term);
  }
  if (PyUnicode_Check(term)) {
    return PyUnicode_FromObject(term);
  }
  if (PyBytes_Check(term)) {
    return PyUnicode_DecodeUTF8(PyBytes_AS_STRING(term), PyBytes_GET_SIZE(term), "strict");
  }
  PyErr_Format(PyExc_TypeError, "a name must be text, not %.100s", Py_TYPE(term)->tp_name);
  return NULL;
}

/* GIL held.  The module that the text names, or the object that the handle stands for. */
static PyObject *
target_of(PyObject *term)
{
  if (!PyUnicode_Check(term) && !PyBytes_Check(term)) {
    return Py_NewRef(term);
  }
  PyObject *name = name_of(term);
  if (name == NULL) {
    return NULL;
  }
  PyObject *module = PyImport_Import(name);
  Py_DECREF(name);
  return module;
}

/* GIL held.  The attribute of target that a dotted path names. */
static PyObject *
attribute_of(PyObject *target, PyObject *term)
{
  PyObject *path = name_of(term);
  if (path == NULL) {
    return NULL;
  }
  Py_ssize_t dot = PyUnicode_FindChar(path, '.', 0, PyUnicode_GET_LENGTH(path), 1);
  if (dot == -1) {
    PyObject *attribute = PyObject_GetAttr(target, path);
    Py_DECREF(path);
    return attribute;
  }
  PyObject *separator = PyUnicode_FromString(".");
  PyObject *names = separator == NULL ? NULL : PyUnicode_Split(path, separator, -1);
  Py_XDECREF(separator);
  Py_DECREF(path);
  PyObject *at = names == NULL ? NULL : Py_NewRef(target);
  for (Py_ssize_t i = 0; at != NULL && i < PyList_GET_SIZE(names); i++) {
    Py_SETREF(at, PyObject_GetAttr(at, PyList_GET_ITEM(names, i)));
  }
  Py_XDECREF(names);
  return at;
}

/* GIL held.  A new dict with the keys of a decoded map as names; NULL with an exception. */
static PyObject *
named(PyObject *map)
{
  PyObject *result = PyDict_New();
  PyObject *key, *value;
  Py_ssize_t at = 0;
  while (result != NULL && PyDict_Next(map, &at, &key, &value)) {
    PyObject *name = name_of(key);
    if (name == NULL || PyDict_SetItem(result, name, value) != 0) {
      Py_CLEAR(result);
    }
    Py_XDECREF(name);
  }
  return result;
}

PyObject *
call_function(PyObject *request)
{
  PyObject *target_term, *name, *arg_list, *arg_map;
  if (!PyArg_ParseTuple(request, "OOO!O!", &target_term, &name, &PyList_Type, &arg_list,
                        &PyDict_Type, &arg_map)) {
    return NULL;
  }
  PyObject *target = target_of(target_term);
  PyObject *function = target == NULL ? NULL : attribute_of(target, name);
  Py_XDECREF(target);
  if (function == NULL) {
    return NULL;
  }
  PyObject *result = NULL;
  PyObject *args = PyList_AsTuple(arg_list);
  PyObject *kwargs = args == NULL || PyDict_GET_SIZE(arg_map) == 0 ? NULL : named(arg_map);
  if (args != NULL && (kwargs != NULL || PyDict_GET_SIZE(arg_map) == 0)) {
    result = PyObject_Call(function, args, kwargs);
  }
  Py_XDECREF(kwargs);
  Py_XDECREF(args);
  Py_DECREF(function);
  return result;
}

/* GIL held.  The namespace that eval and exec share: that of __main__, borrowed. */
static PyObject *
main_namespace(void)
{
  PyObject *module = PyImport_AddModule("__main__");
  return module == NULL ? NULL : PyModule_GetDict(module);
}

/* GIL held.  Compiles and runs a text; start is Py_eval_input or Py_file_input. */
static PyObject *
run_text(PyObject *text_term, int start, PyObject *globals)
{
  PyObject *text = globals == NULL ? NULL : name_of(text_term);
  Py_ssize_t size;
  const char *source = text == NULL ? NULL : PyUnicode_AsUTF8AndSize(text, &size);
  PyObject *result = NULL;
  if (source != NULL && strlen(source) != (size_t)size) {
    PyErr_SetString(PyExc_ValueError, "source code cannot contain null bytes");
  } else if (source != NULL) {
    PyObject *code = Py_CompileString(source, "<erlang>", start);
    if (code != NULL) {
      result = PyEval_EvalCode(code, globals, globals);
      Py_DECREF(code);
    }
  }
  Py_XDECREF(text);
  return result;
}

/* GIL held. */
static PyObject *
eval_expression(PyObject *request)
{
  PyObject *text, *map;
  if (!PyArg_ParseTuple(request, "OO!", &text, &PyDict_Type, &map)) {
    return NULL;
  }
  if (PyDict_GET_SIZE(map) == 0) {
    return run_text(text, Py_eval_input, main_namespace());
  }
  /* In a copy that holds the local names too: a comprehension or lambda in the expression would not
   * see them in a namespace of their own. */
  PyObject *locals = named(map);
  PyObject *globals = locals == NULL ? NULL : PyDict_Copy(main_namespace());
  PyObject *result = NULL;
  if (globals != NULL && PyDict_Update(globals, locals) == 0) {
    result = run_text(text, Py_eval_input, globals);
  }
  Py_XDECREF(globals);
  Py_XDECREF(locals);
  return result;
}

/* GIL held. */
static PyObject *
run_request(enum call_kind kind, PyObject *request)
{
  switch (kind) {
  case CALL_EVAL:
    return eval_expression(request);
  case CALL_EXEC:
    return run_text(request, Py_file_input, main_namespace());
  default:
    return call_function(request);
  }
}

/* ---- the answer ---- */

/* GIL held.  Borrows the text of a str; what is no str, or has no UTF-8, is empty. */
static call_text
text_of(PyObject *str)
{
  call_text text = {"", 0};
  Py_ssize_t size;
  const char *data =
      str != NULL && PyUnicode_Check(str) ? PyUnicode_AsUTF8AndSize(str, &size) : NULL;
  if (data != NULL) {
    text = (call_text){data, (size_t)size};
  } else {
    PyErr_Clear();
  }
  return text;
}

/* GIL held.  The answer when even formatting the exception failed. */
static int
reply_bare_error(vm_call *call, PyObject *exception)
{
  const char *name = exception == NULL ? "SystemError" : Py_TYPE(exception)->tp_name;
  const char *dot = strrchr(name, '.');
  name = dot == NULL ? name : dot + 1;
  call_error error = {{name, strlen(name)}, {"", 0}, NULL, 0};
  return call_reply_error(call, &error);
}

/* GIL held.  {name, message, [line]} of an exception as erlang.vm formats it; NULL, with no exception
 * set, when that fails (out of memory, a __str__ that raises). */
static PyObject *
formatted(PyObject *exception)
{
  PyObject *args = exception == NULL ? NULL : PyTuple_Pack(1, exception);
  PyObject *parts = args == NULL ? NULL : interp_call_glue("_format_error", args);
  Py_XDECREF(args);
  if (parts != NULL && PyTuple_Check(parts) && PyTuple_GET_SIZE(parts) == 3 &&
      PyList_Check(PyTuple_GET_ITEM(parts, 2))) {
    return parts;
  }
  PyErr_Clear();
  Py_XDECREF(parts);
  return NULL;
}

void
call_answer_exception(vm_call *call, PyObject *exception)
{
  PyObject *parts = formatted(exception);
  if (parts == NULL) {
    reply_bare_error(call, exception);
    return;
  }
  PyObject *lines = PyTuple_GET_ITEM(parts, 2);
  size_t count = (size_t)PyList_GET_SIZE(lines);
  call_text *traceback = PyMem_Calloc(count + 1, sizeof(*traceback));
  if (traceback == NULL) {
    reply_bare_error(call, exception);
  } else {
    for (size_t i = 0; i < count; i++) {
      traceback[i] = text_of(PyList_GET_ITEM(lines, (Py_ssize_t)i));
    }
    call_error error = {text_of(PyTuple_GET_ITEM(parts, 0)), text_of(PyTuple_GET_ITEM(parts, 1)),
                        traceback, count};
    call_reply_error(call, &error);
  }
  PyMem_Free(traceback);
  Py_DECREF(parts);
}

void
call_answer_raised(vm_call *call)
{
  PyObject *exception = interp_take_exception();
  call_answer_exception(call, exception);
  Py_XDECREF(exception);
}

/* GIL held.  An object that no term stands for travels as an opaque handle. */
static void *
make_object_handle(PyObject *object)
{
  void *handle = object_handle_new(Py_NewRef(object));
  if (handle == NULL) {
    PyErr_NoMemory();
  }
  return handle;
}

void
call_answer_value(vm_call *call, PyObject *value)
{
  uint8_t scratch[1024];
  term_buf out = {scratch, 0, sizeof(scratch), 0};
  handle_list handles = {0};
  if (term_link_encode(value, &out, 0, &handles, make_object_handle) != 0) {
    call_answer_raised(call);
  } else {
    handle_list_given(&handles);
    /* Building a long term copies it: other Python threads run meanwhile. */
    Py_BEGIN_ALLOW_THREADS
    call_reply_value(call, out.data, out.size);
    Py_END_ALLOW_THREADS
  }
  term_link_api()->buf_free(&out);
  handle_list_release(&handles);
}

/* ---- on a worker ---- */

PyObject *
call_decode(vm_call *call)
{
  const uint8_t *data;
  size_t size;
  int status;
  Py_BEGIN_ALLOW_THREADS
  status = call_payload(call, &data, &size);
  Py_END_ALLOW_THREADS
  if (status != 0) {
    return PyErr_NoMemory();
  }
  PyObject *request = term_link_decode(data, size, call->decode_flags);
  call_forget_payload(call);
  return request;
}

/* GIL held.  A child that the call forked came back from it: this process is no virtual machine, and
 * ends as a Python program does. */
static void
end_forked_child(PyObject *raised)
{
  PyObject *args = PyTuple_Pack(1, raised == NULL ? Py_None : raised);
  if (args != NULL) {
    interp_call_glue("_end_child", args);
  }
  _exit(1);
}

/* GIL held.  In a context of its own, so that no call sees the context variables of another. */
static PyObject *
run_in_context(vm_call *call)
{
  PyObject *context = PyContext_New();
  if (context == NULL || PyContext_Enter(context) != 0) {
    Py_XDECREF(context);
    return NULL;
  }
  PyObject *request = call_decode(call);
  PyObject *result = request == NULL ? NULL : run_request(call->kind, request);
  Py_XDECREF(request);
  PyObject *raised = result == NULL ? interp_take_exception() : NULL;
  if (thread_in_forked_child()) {
    end_forked_child(raised);
  }
  if (PyContext_Exit(context) != 0) {
    PyErr_Clear();
  }
  Py_DECREF(context);
  if (result == NULL) {
    call_answer_exception(call, raised);
    Py_XDECREF(raised);
  }
  return result;
}

/* GIL held.  Runs the call; a cancellation finds it through call->thread meanwhile. */
static void
run_and_answer(vm_call *call)
{
  PyObject *result = run_in_context(call);
  if (result != NULL) {
    if (call->kind == CALL_EXEC) {
      call_reply_done(call);
    } else {
      call_answer_value(call, result);
    }
  }
  Py_XDECREF(result);
}

/* GIL held. */
static void
run_on_worker(vm_call *call, vm_worker *w)
{
  w->current = call;
  w->calls++;
  call->thread = w->thread;
  call->thread_state = w->thread_state;
  call->wait = thread_wait_current();
  run_and_answer(call);
  call->thread = 0;
  call->wait = NULL;
  w->current = NULL;
  call_interruption_over(call, w->thread);
  if (PyErr_Occurred()) {
    PyErr_WriteUnraisable(NULL);
  }
}

void
call_run(pool_job *job, void *worker)
{
  vm_call *call = (vm_call *)job;
  vm_worker *w = worker;
  if (atomic_load(&call->state) == CALL_PENDING) {
    PyEval_RestoreThread(w->thread_state);
    if (worker_is_stopped(w)) {
      /* It was handed over before the stop, which did not find it running. */
      call_reply_reason(call, "not_running");
    } else if (atomic_load(&call->state) == CALL_PENDING) {
      /* Nor did a cancellation that came while this thread waited for the GIL. */
      run_on_worker(call, w);
    }
    PyEval_SaveThread();
  }
  call_release(call);
}

void
call_drop(pool_job *job)
{
  vm_call *call = (vm_call *)job;
  call_reply_reason(call, "not_running");
  call_release(call);
}
