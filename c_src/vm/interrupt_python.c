/* Ending the Python code that a call runs.  Python.h side.
 *
 * To be cancelled is a state of the call, which the service thread looks at until the call has ended,
 * in growing intervals.  A thread that waits in our C is woken.  A thread whose event loop sleeps is
 * left to the loop, which cancels its tasks in an ordinary callback: an exception that hits asyncio's
 * own code may be swallowed there and leave the loop running for ever.  Any other Python code gets
 * CallCancelled, but not among the locks of the import system.
 *
 * An exception may be lost: a destructor, a weak reference's callback or a callback of a C library
 * swallows it.  So it is raised again in code that goes on, but never in code that is handling it:
 * what an except or finally clause or a with statement cleans up is left to end.  A loop's tasks are
 * cancelled once in a run of the loop, as asyncio does.
 *
 * What is pending belongs to the call, so that it can never end another one.
 */
#include "interrupt_python.h"

#include "../channel/thread_wait.h"
#include "call_python.h"
#include "interp_python.h"
#include "worker.h"

#include <time.h>

#define END_TASKS_TRIES 3
#define STOP_TIME 200 /* milliseconds */

/* Milliseconds to the next look, twice as many each time: until the call could be reached, and after. */
#define FIRST_TRY 1
#define LAST_TRY 50
#define FIRST_LOOK 100
#define LAST_LOOK 5000
#define CALL_IS_OVER (-1)

#define CONTEXTS_MAX 100 /* exceptions that were raised while another was handled */

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

/* GIL held.  (CallCancelled, asyncio.CancelledError), a new reference; NULL when that failed, which is
 * reported. */
static PyObject *
cancellation_types(void)
{
  PyObject *cancelled = cancelled_type();
  PyObject *exceptions = cancelled == NULL ? NULL : PyImport_ImportModule("asyncio.exceptions");
  PyObject *task = exceptions == NULL ? NULL : PyObject_GetAttrString(exceptions, "CancelledError");
  PyObject *types = task == NULL ? NULL : PyTuple_Pack(2, cancelled, task);
  if (types == NULL) {
    PyErr_WriteUnraisable(NULL);
  }
  Py_XDECREF(task);
  Py_XDECREF(exceptions);
  Py_XDECREF(cancelled);
  return types;
}

/* GIL held.  Whether the exception is of the types, or was raised while one of them was handled. */
static int
comes_of(PyObject *exception, PyObject *types)
{
  Py_INCREF(exception);
  int found = 0;
  for (int i = 0; exception != NULL && i < CONTEXTS_MAX && !found; i++) {
    found = PyErr_GivenExceptionMatches(exception, types);
    Py_SETREF(exception, PyException_GetContext(exception));
  }
  Py_XDECREF(exception);
  return found;
}

/* GIL held.  Whether the thread is in an except or finally clause, or at the end of a with statement,
 * for a cancellation. */
static int
is_cleaning_up(PyThreadState *state, PyObject *types)
{
  for (_PyErr_StackItem *item = state->exc_info; item != NULL; item = item->previous_item) {
    if (item->exc_value != NULL && item->exc_value != Py_None && comes_of(item->exc_value, types)) {
      return 1;
    }
  }
  return 0;
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

/* GIL held, and not given up between this and the raising of an exception, which hits this place.
 * Whether the thread is in code that an exception would leave in disorder: the import system with its
 * locks, a loop's own code where the loop waits, begins or ends. */
static int
is_vulnerable(PyThreadState *state, PyObject *runner)
{
  static const char *const modules[] = {"erlang.vm", "erlang.loop",          "asyncio.base_events",
                                        "selectors", "importlib._bootstrap", "_frozen_importlib",
                                        NULL};
  PyFrameObject *frame = PyThreadState_GetFrame(state);
  if (frame == NULL) {
    return 0;
  }
  /* A loop that is all C, as uvloop's, has no frame: it sleeps where its runner is the last one. */
  int vulnerable = (PyObject *)frame == runner || frame_is_in(frame, modules);
  Py_DECREF(frame);
  return vulnerable;
}

/* GIL held, and not given up.  Whether CallCancelled may be raised now.  A loop that turns has had its
 * tasks cancelled; one that has not come to it since the last look is held up by what it runs. */
static int
may_raise(vm_call *call, PyObject *types, PyObject *runner, int held_up)
{
  if (is_vulnerable(call->thread_state, runner)) {
    return 0;
  }
  return !call->reached ||
         ((runner == Py_None || held_up) && !is_cleaning_up(call->thread_state, types));
}

/* GIL held.  By the thread's event loop, or by an exception, or both. */
static void
interrupt_code(vm_call *call, PyObject *types)
{
  int held_up = call->pending != INTERRUPT_NONE;
  call->pending = INTERRUPT_LOOP;
  /* This runs Python code and may give up the GIL: the call, or its loop, may end meanwhile. */
  PyObject *runner = interrupt_loop(call->thread);
  if (runner == NULL) {
    call->pending = INTERRUPT_NONE;
  } else if (call->thread != 0 && call->pending == INTERRUPT_LOOP) {
    int raise = may_raise(call, types, runner, held_up);
    if (runner == Py_None) {
      call->pending = INTERRUPT_NONE;
    } else if (raise) {
      call->pending = INTERRUPT_BOTH;
    }
    if (raise) {
      call->reached = 1;
      PyThreadState_SetAsyncExc(call->thread, PyTuple_GET_ITEM(types, 0));
    }
  }
  Py_XDECREF(runner);
}

/* GIL held.  How long to wait before the call is looked at again. */
static int
next_pause(vm_call *call)
{
  int done = call->reached || call->pending != INTERRUPT_NONE;
  int first = done ? FIRST_LOOK : FIRST_TRY;
  int last = done ? LAST_LOOK : LAST_TRY;
  int pause = 2 * call->pause;
  call->pause = pause < first ? first : pause > last ? last : pause;
  return call->pause;
}

/* GIL held; the caller holds a count.  Ends what the call runs now.  The milliseconds after which it is
 * to be looked at again, or CALL_IS_OVER. */
static int
interrupt_running(vm_call *call)
{
  PyObject *types = call->thread == 0 ? NULL : cancellation_types();
  /* Other threads may have had the GIL. */
  if (types != NULL && call->thread != 0) {
    call->interrupted = 1;
    if (call->reached && is_cleaning_up(call->thread_state, types)) {
      /* It is on its way. */
    } else if (call->wait != NULL && thread_wait_interrupt(call->wait)) {
      call->reached = 1;
    } else {
      interrupt_code(call, types);
    }
  }
  Py_XDECREF(types);
  return call->thread == 0 ? CALL_IS_OVER : next_pause(call);
}

void
call_stop(vm_call *call)
{
  int answered = call_reply_reason(call, "not_running");
  int pause = interrupt_running(call);
  for (int spent = 0; pause < FIRST_LOOK && pause != CALL_IS_OVER && spent < STOP_TIME;) {
    struct timespec time = {0, pause * 1000000L};
    Py_BEGIN_ALLOW_THREADS
    nanosleep(&time, NULL);
    Py_END_ALLOW_THREADS
    spent += pause;
    pause = interrupt_running(call);
  }
  /* Who cancelled it has posted the item already. */
  if (answered && pause != CALL_IS_OVER) {
    call_keep(call);
    call->interruption.run = call_interrupt;
    service_post_later(&call->interruption, pause);
  }
}

void
call_interrupt(service_item *item)
{
  vm_call *call = (vm_call *)((char *)item - offsetof(vm_call, interruption));
  PyEval_RestoreThread(interp_service_state());
  int pause = interrupt_running(call);
  if (pause != CALL_IS_OVER) {
    service_post_later(item, pause); /* with the GIL: the call cannot end in between */
  }
  PyEval_SaveThread();
  if (pause == CALL_IS_OVER) {
    call_release(call);
  }
}

void
call_interruption_over(vm_call *call, unsigned long thread)
{
  if (!call->interrupted) {
    return;
  }
  /* Not without need: until 3.12 the interpreter looks for an exception at each turn from then on, and with
   * a profiler 3.11 does nothing else. */
  PyThreadState_SetAsyncExc(thread, NULL);
  call->pending = INTERRUPT_NONE;
  service_hasten(&call->interruption); /* which releases it */
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
  call->reached = 1;
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
  if (call != NULL) {
    call->pending = INTERRUPT_NONE;
    if (!call->reached) {
      /* The loop ended before it came to it: what runs next has to be ended, but not here, where an
       * exception would keep the loop from ending in order. */
      service_hasten(&call->interruption);
    }
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
