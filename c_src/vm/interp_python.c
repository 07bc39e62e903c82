/* The main interpreter thread: how CPython is initialised, served and parked. */
#define _GNU_SOURCE
#include "interp_python.h"

#include "../channel/channel_python.h"
#include "../term/term_link.h"
#include "object_handle.h"
#include "runtime.h"
#include "worker.h"

#include <dlfcn.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif
#include <stdio.h>

static PyThreadState *main_state;    /* main thread only */
static PyThreadState *service_state; /* service thread only */
static unsigned long main_thread;    /* written once at initialisation */
static vm_worker *workers;           /* guarded by the GIL */
static unsigned stops;               /* guarded by the GIL */
static _Thread_local vm_worker *own_worker;

PyObject *
interp_take_exception(void)
{
#if PY_VERSION_HEX >= 0x030C0000
  return PyErr_GetRaisedException();
#else
  PyObject *type, *value, *traceback;
  PyErr_Fetch(&type, &value, &traceback);
  PyErr_NormalizeException(&type, &value, &traceback);
  if (value != NULL && traceback != NULL) {
    PyException_SetTraceback(value, traceback);
  }
  Py_XDECREF(type);
  Py_XDECREF(traceback);
  return value;
#endif
}

void
interp_describe_exception(char *text, size_t size)
{
  PyObject *exception = interp_take_exception();
  PyObject *message = exception == NULL ? NULL : PyObject_Str(exception);
  const char *utf8 = message == NULL ? NULL : PyUnicode_AsUTF8(message);
  snprintf(text, size, "%s: %s", exception == NULL ? "error" : Py_TYPE(exception)->tp_name,
           utf8 == NULL ? "" : utf8);
  PyErr_Clear();
  Py_XDECREF(message);
  Py_XDECREF(exception);
}

PyObject *
interp_call_glue(const char *name, PyObject *args)
{
  PyObject *module = PyImport_ImportModule("erlang.vm");
  if (module == NULL) {
    return NULL;
  }
  PyObject *function = PyObject_GetAttrString(module, name);
  Py_DECREF(module);
  if (function == NULL) {
    return NULL;
  }
  PyObject *result =
      args == NULL ? PyObject_CallNoArgs(function) : PyObject_CallObject(function, args);
  Py_DECREF(function);
  return result;
}

/* The NIF, and libpython with it, was loaded with local symbols; extension modules that do not name
 * libpython among their libraries need them global. */
static int
make_libpython_global(char *error, size_t size)
{
  Dl_info info;
  if (dladdr((void *)(uintptr_t)&Py_GetVersion, &info) == 0 || info.dli_fname == NULL) {
    snprintf(error, size, "libpython could not be found in this process");
    return -1;
  }
  if (dlopen(info.dli_fname, RTLD_NOW | RTLD_GLOBAL | RTLD_NOLOAD) == NULL) {
    const char *reason = dlerror();
    snprintf(error, size, "libpython could not be made global: %s", reason == NULL ? "?" : reason);
    return -1;
  }
  return 0;
}

/* ERTS fixes the thresholds of the C library's malloc at 128 KB, which keeps it from learning them as
 * it does in an ordinary Python: each larger piece of memory, such as the 256 KB that a receive of
 * asyncio's asks for, would be mapped and unmapped, at several times what the receive costs. */
static void
let_malloc_keep_memory(void)
{
#ifdef __GLIBC__
  (void)mallopt(M_MMAP_THRESHOLD, 4 << 20);
  (void)mallopt(M_TRIM_THRESHOLD, 8 << 20);
#endif
}

static PyStatus
preinitialise(void)
{
  PyPreConfig config;
  PyPreConfig_InitPythonConfig(&config);
  config.parse_argv = 0;
  /* Coercing would change the environment of a process that is not ours alone; in the C locale
   * Python's UTF-8 mode serves as well. */
  config.coerce_c_locale = 0;
  return Py_PreInitialize(&config);
}

static PyStatus
initialise(const char *executable)
{
  PyStatus status = preinitialise();
  if (PyStatus_Exception(status)) {
    return status;
  }
  PyConfig config;
  PyConfig_InitPythonConfig(&config);
  config.install_signal_handlers = 0;
  config.parse_argv = 0;
  status = PyConfig_SetBytesString(&config, &config.executable, executable);
  if (!PyStatus_Exception(status)) {
    status = Py_InitializeFromConfig(&config);
  }
  PyConfig_Clear(&config);
  return status;
}

/* GIL held. */
static int
append_to_path(const char *directory)
{
  PyObject *path = PySys_GetObject("path");
  PyObject *entry = PyUnicode_DecodeFSDefault(directory);
  int result = -1;
  if (path == NULL) {
    PyErr_SetString(PyExc_RuntimeError, "sys.path is lost");
  } else if (entry != NULL) {
    int found = PySequence_Contains(path, entry);
    result = found < 0 ? -1 : found ? 0 : PyList_Append(path, entry);
  }
  Py_XDECREF(entry);
  return result;
}

int
interp_initialise(const runtime_config *config, char *error, size_t size)
{
  if (make_libpython_global(error, size) != 0) {
    return -1;
  }
  let_malloc_keep_memory();
  if (PyImport_AppendInittab("_beamloop_vm", PyInit__beamloop_vm) != 0 ||
      PyImport_AppendInittab("_beamloop_channel", PyInit__beamloop_channel) != 0) {
    snprintf(error, size, "out of memory");
    return -1;
  }
  PyStatus status = initialise(config->executable);
  if (PyStatus_Exception(status)) {
    snprintf(error, size, "%s: %s", config->executable,
             status.err_msg == NULL ? "CPython could not be initialised" : status.err_msg);
    return -1;
  }
  main_thread = PyThread_get_thread_ident();
  if (append_to_path(config->packages) != 0 || term_link_init() != 0) {
    interp_describe_exception(error, size);
    PyEval_SaveThread();
    return -1;
  }
  object_register();
  PyObject *prepared = interp_call_glue("_prepare", NULL);
  if (prepared == NULL) {
    interp_describe_exception(error, size);
    PyEval_SaveThread();
    return -1;
  }
  Py_DECREF(prepared);
  return 0;
}

int
interp_open(char *error, size_t size)
{
  PyObject *opened = interp_call_glue("_open", NULL);
  if (opened == NULL) {
    interp_describe_exception(error, size);
    return -1;
  }
  Py_DECREF(opened);
  return 0;
}

void
interp_serve(void)
{
  PyObject *served = interp_call_glue("_serve", NULL);
  if (served == NULL) {
    PyErr_WriteUnraisable(NULL);
  }
  Py_XDECREF(served);
  /* What was raised to end it must not hit the next start. */
  PyThreadState_SetAsyncExc(main_thread, NULL);
}

void
interp_park(void)
{
  main_state = PyEval_SaveThread();
}

void
interp_unpark(void)
{
  PyEval_RestoreThread(main_state);
}

void
interp_run_atexit(void)
{
  PyObject *done = interp_call_glue("_run_atexit", NULL);
  if (done == NULL) {
    PyErr_WriteUnraisable(NULL);
  }
  Py_XDECREF(done);
}

void
interp_service_begin(void)
{
  service_state = PyThreadState_New(PyInterpreterState_Main());
}

PyThreadState *
interp_service_state(void)
{
  return service_state;
}

/* GIL held.  A call that a worker runs and that has not been told of the stop, kept; or NULL. */
static vm_call *
next_to_stop(void)
{
  for (vm_worker *w = workers; w != NULL; w = w->next) {
    if (w->current != NULL && !w->current->stopped) {
      w->current->stopped = 1;
      call_keep(w->current);
      return w->current;
    }
  }
  return NULL;
}

void
interp_cancel_running(void)
{
  PyEval_RestoreThread(service_state);
  vm_call *call;
  /* Stopping a call may give up the GIL, and workers come and go meanwhile: start over each time. */
  while ((call = next_to_stop()) != NULL) {
    call_stop(call);
    call_release(call);
  }
  PyEval_SaveThread();
}

void
interp_service_atexit(void)
{
  PyEval_RestoreThread(service_state);
  interp_run_atexit();
  PyEval_SaveThread();
}

void
interp_stop_loops(void)
{
  PyEval_RestoreThread(service_state);
  PyObject *stopped = interp_call_glue("_stop_loops", NULL);
  if (stopped == NULL) {
    PyErr_WriteUnraisable(NULL);
  }
  Py_XDECREF(stopped);
  PyEval_SaveThread();
}

void
interp_interrupt_main(void)
{
  PyEval_RestoreThread(service_state);
  call_raise_cancelled(main_thread);
  PyEval_SaveThread();
}

vm_worker *
worker_first(void)
{
  return workers;
}

vm_worker *
worker_own(void)
{
  return own_worker;
}

int
worker_is_stopped(const vm_worker *w)
{
  return w->stops != stops;
}

void *
interp_worker_begin(void)
{
  vm_worker *w = calloc(1, sizeof(*w));
  PyThreadState *state = w == NULL ? NULL : PyThreadState_New(PyInterpreterState_Main());
  if (state == NULL) {
    free(w);
    return NULL;
  }
  w->thread_state = state;
  PyEval_RestoreThread(state);
  w->thread = PyThread_get_thread_ident();
  w->stops = stops;
  own_worker = w;
  w->next = workers;
  if (workers != NULL) {
    workers->prev = w;
  }
  workers = w;
  PyEval_SaveThread();
  return w;
}

void
interp_worker_end(void *worker)
{
  vm_worker *w = worker;
  PyThreadState *state = w->thread_state;
  PyEval_RestoreThread(state);
  if (w->prev != NULL) {
    w->prev->next = w->next;
  } else {
    workers = w->next;
  }
  if (w->next != NULL) {
    w->next->prev = w->prev;
  }
  own_worker = NULL;
  PyThreadState_Clear(state);
  PyThreadState_DeleteCurrent();
  free(w);
}
