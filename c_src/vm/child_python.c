/* What children of this process inherit, and whose the signals are.
 *
 * Our threads block every signal, so that the emulator's threads get them.  A child would inherit
 * that and never see a SIGTERM: it is started with the mask from before.  And a handler that Python
 * installs replaces the emulator's: it may do so only where the emulator has none.
 */
#include "child_python.h"

#include "thread.h"

/* What Python installs for a signal that it handles, learnt from the first; guarded by the GIL. */
static void (*python_handler)(int);

/* GIL held.  Has the signal no handler, or Python's? */
static int
is_free_or_ours(const struct sigaction *action)
{
  return !(action->sa_flags & SA_SIGINFO) &&
         (action->sa_handler == SIG_DFL || action->sa_handler == SIG_IGN ||
          (python_handler != NULL && action->sa_handler == python_handler));
}

PyObject *
child_with_mask(PyObject *module, PyObject *args)
{
  PyObject *function, *positional, *keywords;
  (void)module;
  if (!PyArg_ParseTuple(args, "OO!O!", &function, &PyTuple_Type, &positional, &PyDict_Type,
                        &keywords)) {
    return NULL;
  }
  sigset_t before;
  pthread_sigmask(SIG_SETMASK, thread_child_signal_mask(), &before);
  PyObject *result = PyObject_Call(function, positional, keywords);
  if (!thread_in_forked_child()) {
    pthread_sigmask(SIG_SETMASK, &before, NULL);
  }
  return result;
}

/* In a forked child.  The emulator's handlers write into a pipe that the child shares with it: a
 * signal for the child would end the virtual machine. */
static void
reset_foreign_handlers(void)
{
  for (int i = 1; i < NSIG; i++) {
    struct sigaction action;
    if (sigaction(i, NULL, &action) != 0 || is_free_or_ours(&action)) {
      continue;
    }
    signal(i, SIG_DFL);
  }
}

PyObject *
child_become(PyObject *module, PyObject *unused)
{
  (void)module;
  (void)unused;
  reset_foreign_handlers();
  pthread_sigmask(SIG_SETMASK, thread_child_signal_mask(), NULL);
  Py_RETURN_NONE;
}

PyObject *
child_get_mask(PyObject *module, PyObject *unused)
{
  (void)module;
  (void)unused;
  PyObject *numbers = PyList_New(0);
  for (int i = 1; numbers != NULL && i < NSIG; i++) {
    if (sigismember(thread_child_signal_mask(), i) != 1) {
      continue;
    }
    PyObject *number = PyLong_FromLong(i);
    if (number == NULL || PyList_Append(numbers, number) != 0) {
      Py_CLEAR(numbers);
    }
    Py_XDECREF(number);
  }
  return numbers;
}

/* GIL held.  The C handler of a signal; NULL with an exception for no valid number. */
static int
handler_of(PyObject *number, struct sigaction *action)
{
  long signal_number = PyLong_AsLong(number);
  if (signal_number == -1 && PyErr_Occurred()) {
    return -1;
  }
  if (signal_number < 1 || signal_number >= NSIG ||
      sigaction((int)signal_number, NULL, action) != 0) {
    PyErr_SetString(PyExc_ValueError, "signal number out of range");
    return -1;
  }
  return 0;
}

PyObject *
child_signal_is_ours(PyObject *module, PyObject *number)
{
  struct sigaction action;
  (void)module;
  if (handler_of(number, &action) != 0) {
    return NULL;
  }
  return PyBool_FromLong(is_free_or_ours(&action));
}

PyObject *
child_signal_was_set(PyObject *module, PyObject *number)
{
  struct sigaction action;
  (void)module;
  if (handler_of(number, &action) != 0) {
    return NULL;
  }
  if (action.sa_handler != SIG_DFL && action.sa_handler != SIG_IGN) {
    python_handler = action.sa_handler;
  }
  Py_RETURN_NONE;
}
