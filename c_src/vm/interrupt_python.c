/* Ending the Python code that a call runs.  Python.h side.
 *
 * A thread that waits in our C is woken.  A thread whose event loop sleeps is left to the loop, which
 * cancels its tasks in an ordinary callback: an exception that hits asyncio's own code may be swallowed
 * there and leave the loop running for ever.  Any other Python code gets CallCancelled, but not among
 * the locks of the import system.  What is
 * pending belongs to the call, so that it can never end another one.
 */
#include "interrupt_python.h"

#include "../channel/thread_wait.h"
#include "call_python.h"
#include "interp_python.h"
#include "worker.h"

#include <time.h>

#define END_TASKS_TRIES 3
#define STOP_TRIES 200 /* milliseconds */

/* GIL held.  erlang.errors.CallCancelled, a new reference, or NULL with an exception. */
static PyObject *
cancelled_type(void)
{
  PyObject *errors = PyImport_ImportModule("erlang.errors");
  PyObject *type = errors == NULL ? NULL : PyObject_GetAttrString(errors, "CallCancelled");
  Py_XDECREF(errors);
  return type;
}

void
call_raise_cancelled(unsigned long thread)
{
  PyObject *type = cancelled_type();
  if (type == NULL) {
    PyErr_WriteUnraisable(NULL);
  } else {
    PyThreadState_SetAsyncExc(thread, type);
    Py_DECREF(type);
  }
}

/* GIL held.  Asks the event loop on this thread, if one runs there, to end its tasks.  The frame that
 * runs the loop or None, a new reference; NULL when it failed, which is reported. */
static PyObject *
interrupt_loop(unsigned long thread)
{
  PyObject *args = Py_BuildValue("(k)", thread);
  PyObject *runner = args == NULL ? NULL : interp_call_glue("_interrupt_loop", args);
  if (runner == NULL) {
    PyErr_WriteUnraisable(NULL);
  }
  Py_XDECREF(args);
  return runner;
}

/* GIL held.  Whether the name of the frame's module is one of these. */
static int
frame_is_in(PyFrameObject *frame, const char *const *modules)
{
  PyObject *globals = PyFrame_GetGlobals(frame);
  PyObject *name = PyDict_GetItemString(globals, "__name__");
  int found = 0;
  for (; name != NULL && PyUnicode_Check(name) && *modules != NULL && !found; modules++) {
    found = PyUnicode_CompareWithASCIIString(name, *modules) == 0;
  }
  Py_DECREF(globals);
  return found;
}

enum place { PLACE_LOOP, PLACE_IMPORT, PLACE_ELSEWHERE };

/* GIL held, and not given up between this and the raising of an exception, which hits this place. */
static enum place
place_of(PyThreadState *state, PyObject *runner)
{
  static const char *const loop_modules[] = {"erlang.loop", "asyncio.base_events", "selectors",
                                             NULL};
  static const char *const import_modules[] = {"importlib._bootstrap", "_frozen_importlib", NULL};
  enum place place = PLACE_ELSEWHERE;
  PyFrameObject *frame = PyThreadState_GetFrame(state);
  if (frame == NULL) {
    return place;
  }
  /* A loop that is all C, as uvloop's, has no frame: it sleeps where its runner is the last one. */
  if (runner != Py_None && ((PyObject *)frame == runner || frame_is_in(frame, loop_modules))) {
    place = PLACE_LOOP;
  } else if (frame_is_in(frame, import_modules)) {
    place = PLACE_IMPORT;
  }
  Py_DECREF(frame);
  return place;
}

/* GIL held; the caller holds a count.  Ends what the call runs now, if it still runs.  1 when that has
 * to be tried again: the thread is among the locks of the import system, which an exception would
 * leave locked for ever. */
static int
interrupt_running(vm_call *call)
{
  if (call->thread == 0 || (call->wait != NULL && thread_wait_interrupt(call->wait))) {
    return 0;
  }
  PyObject *type = cancelled_type();
  if (type == NULL) {
    PyErr_WriteUnraisable(NULL);
    return 0;
  }
  call->interrupted = 1;
  call->pending = INTERRUPT_LOOP;
  /* This runs Python code and may give up the GIL: the call, or its loop, may end meanwhile. */
  PyObject *runner = interrupt_loop(call->thread);
  int again = 0;
  if (runner != NULL && call->thread != 0 && call->pending == INTERRUPT_LOOP) {
    enum place place = place_of(call->thread_state, runner);
    again = place == PLACE_IMPORT;
    if (place == PLACE_ELSEWHERE) {
      call->pending = INTERRUPT_BOTH;
      PyThreadState_SetAsyncExc(call->thread, type);
    }
  }
  Py_XDECREF(runner);
  Py_DECREF(type);
  return again;
}

/* Without the GIL. */
static void
sleep_a_little(void)
{
  struct timespec millisecond = {0, 1000000};
  nanosleep(&millisecond, NULL);
}

void
call_stop(vm_call *call)
{
  call_reply_reason(call, "not_running");
  for (int i = 0; interrupt_running(call) && i < STOP_TRIES; i++) {
    Py_BEGIN_ALLOW_THREADS
    sleep_a_little();
    Py_END_ALLOW_THREADS
  }
}

void
call_interrupt(service_item *item)
{
  vm_call *call = (vm_call *)((char *)item - offsetof(vm_call, interruption));
  PyEval_RestoreThread(interp_service_state());
  int again = interrupt_running(call);
  PyEval_SaveThread();
  if (again) {
    sleep_a_little();
    service_post(item); /* behind the others */
  } else {
    call_release(call);
  }
}

void
call_interruption_over(vm_call *call, unsigned long thread)
{
  PyThreadState_SetAsyncExc(thread, NULL);
  if (!call->interrupted) {
    return;
  }
  call->pending = INTERRUPT_NONE;
  /* The exception may have hit what a loop does at its end. */
  PyObject *cleaned = interp_call_glue("_clean_thread", NULL);
  if (cleaned == NULL) {
    PyErr_WriteUnraisable(NULL);
  }
  Py_XDECREF(cleaned);
}

/* ---- on the worker's thread ---- */

/* GIL held.  The call of this thread that is to be ended, or NULL. */
static vm_call *
own_interrupted(void)
{
  vm_worker *w = worker_own();
  vm_call *call = w == NULL ? NULL : w->current;
  return call == NULL || call->pending == INTERRUPT_NONE ? NULL : call;
}

/* GIL held, an exception is set.  Drops it if it is CallCancelled: 1, else 0. */
static int
drop_cancelled(void)
{
  PyObject *exception = interp_take_exception();
  PyObject *type = cancelled_type();
  int dropped = type != NULL && PyErr_GivenExceptionMatches(exception, type);
  Py_XDECREF(type);
  if (!dropped) {
    PyErr_Clear();
    PyErr_SetObject((PyObject *)Py_TYPE(exception), exception);
  }
  Py_DECREF(exception);
  return dropped;
}

PyObject *
interrupt_end_tasks(PyObject *module, PyObject *loop)
{
  (void)module;
  vm_call *call = own_interrupted();
  if (call == NULL) {
    Py_RETURN_NONE; /* of a call that is over */
  }
  call->pending = INTERRUPT_NONE;
  PyObject *args = PyTuple_Pack(1, loop);
  PyObject *done = NULL;
  for (int i = 0; args != NULL && done == NULL && i < END_TASKS_TRIES; i++) {
    done = interp_call_glue("_cancel_all_tasks", args);
    if (done == NULL && !drop_cancelled()) {
      break;
    }
  }
  Py_XDECREF(args);
  if (done == NULL && !PyErr_Occurred()) {
    Py_RETURN_NONE;
  }
  return done;
}

PyObject *
interrupt_left_loop(PyObject *module, PyObject *unused)
{
  (void)module, (void)unused;
  vm_call *call = own_interrupted();
  if (call != NULL && call->pending == INTERRUPT_LOOP) {
    /* The loop ended before it came to it: what runs next has to be ended. */
    call->pending = INTERRUPT_NONE;
    call_raise_cancelled(call->thread);
  }
  Py_RETURN_NONE;
}

PyObject *
interrupt_call_number(PyObject *module, PyObject *unused)
{
  (void)module, (void)unused;
  vm_worker *w = worker_own();
  return PyLong_FromUnsignedLong(w == NULL || w->current == NULL ? 0 : w->calls);
}
