/* The built-in module _beamloop_vm: what the erlang package needs of the virtual machine. */
#include "interp_python.h"

#include "../term/term_link.h"
#include "child_python.h"
#include "descriptors.h"
#include "inbox_python.h"
#include "interrupt_python.h"
#include "send.h"

#define SEND_COPY_LONG 32768 /* from this size on other Python threads run while it is copied */

/* GIL held.  None, or NULL with what went wrong. */
static PyObject *
send_outcome(int result, PyObject *to)
{
  switch (result) {
  case SEND_OK:
    Py_RETURN_NONE;
  case SEND_NO_NAME:
    return PyErr_Format(PyExc_LookupError, "no Erlang process is registered as %R", to);
  case SEND_NO_RELAY:
    PyErr_SetString(PyExc_RuntimeError,
                    "the application beamloop does not run: no way to other nodes");
    return NULL;
  case SEND_NO_MEMORY:
    return PyErr_NoMemory();
  default:
    PyErr_SetString(PyExc_ValueError, "the Erlang VM refused the encoded message");
    return NULL;
  }
}

/* GIL held.  To a pid or a registered name; -1 with an exception when it is neither. */
static int
send_encoded(PyObject *to, const term_buf *message, int *result)
{
  const uint8_t *pid;
  size_t pid_size;
  Py_ssize_t name_size;
  const char *name = NULL;
  if (PyUnicode_Check(to)) {
    name = PyUnicode_AsUTF8AndSize(to, &name_size);
    if (name == NULL) {
      return -1;
    }
  } else if (term_link_api()->pid_ext(to, &pid, &pid_size) != 0) {
    return -1;
  }
  PyThreadState *released = message->size >= SEND_COPY_LONG ? PyEval_SaveThread() : NULL;
  if (name != NULL) {
    *result = send_to_name(name, (size_t)name_size, message->data, message->size);
  } else {
    *result = send_to_pid(pid, pid_size, message->data, message->size);
  }
  if (released != NULL) {
    PyEval_RestoreThread(released);
  }
  return 0;
}

static PyObject *
vm_send(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
  (void)module;
  if (nargs != 2) {
    return PyErr_Format(PyExc_TypeError, "send() takes 2 arguments, not %zd", nargs);
  }
  uint8_t scratch[1024];
  term_buf out = {scratch, 0, sizeof(scratch), 0};
  handle_list handles = {0};
  PyObject *answer = NULL;
  int result;
  if (term_link_encode(args[1], &out, TERM_HEAD_ATOM, &handles, NULL) == 0 &&
      send_encoded(args[0], &out, &result) == 0) {
    if (result == SEND_OK) {
      handle_list_given(&handles);
    }
    answer = send_outcome(result, args[0]);
  }
  handle_list_release(&handles);
  term_link_api()->buf_free(&out);
  return answer;
}

static PyObject *
vm_take_descriptor(PyObject *module, PyObject *number)
{
  (void)module;
  unsigned long long value = PyLong_AsUnsignedLongLong(number);
  if (value == (unsigned long long)-1 && PyErr_Occurred()) {
    return NULL;
  }
  int owned;
  int fd = descriptors_take(value, &owned);
  if (fd < 0) {
    PyErr_SetString(PyExc_LookupError, "the descriptor was withdrawn");
    return NULL;
  }
  return Py_BuildValue("iO", fd, owned ? Py_True : Py_False);
}

static PyObject *
vm_settle_descriptor(PyObject *module, PyObject *args)
{
  unsigned long long number;
  int accepted;
  (void)module;
  if (!PyArg_ParseTuple(args, "Kp:settle_descriptor", &number, &accepted)) {
    return NULL;
  }
  return PyBool_FromLong(descriptors_settle(number, accepted));
}

static PyMethodDef vm_methods[] = {
    {"send", (PyCFunction)(void (*)(void))vm_send, METH_FASTCALL,
     "send(to, term): send term to the Erlang process `to`, a Pid or a registered name."},
    {"take_descriptor", vm_take_descriptor, METH_O,
     "take_descriptor(number): (fd, owned), the descriptor that Erlang put there; to be settled."},
    {"settle_descriptor", vm_settle_descriptor, METH_VARARGS,
     "settle_descriptor(number, accepted): True when it is the caller's; False when it is not "
     "accepted "
     "or Erlang has withdrawn it."},
    {"end_tasks", interrupt_end_tasks, METH_O,
     "end_tasks(loop): cancel the loop's tasks if this thread's call is to be ended."},
    {"left_loop", interrupt_left_loop, METH_NOARGS,
     "left_loop(): this thread's event loop has stopped running."},
    {"call_number", interrupt_call_number, METH_NOARGS,
     "call_number(): of the call that this thread runs, 0 for none."},
    {"with_child_mask", child_with_mask, METH_VARARGS,
     "with_child_mask(function, args, kwargs): call it with the child's signal mask."},
    {"become_child", child_become, METH_NOARGS,
     "In a forked child: no handlers of the VM any more, and the child's signal mask."},
    {"child_mask", child_get_mask, METH_NOARGS, "The signal numbers that are blocked in a child."},
    {"signal_is_ours", child_signal_is_ours, METH_O, "Whether Python may handle this signal now."},
    {"signal_was_set", child_signal_was_set, METH_O, "Remember the handler that Python installed."},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot vm_slots[] = {
    {Py_mod_exec, inbox_python_exec},
#if PY_VERSION_HEX >= 0x030C0000
    {Py_mod_multiple_interpreters, Py_MOD_MULTIPLE_INTERPRETERS_NOT_SUPPORTED},
#endif
    {0, NULL},
};

static PyModuleDef vm_module = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "_beamloop_vm",
    .m_doc = "The Erlang virtual machine that this Python runs in.",
    .m_methods = vm_methods,
    .m_slots = vm_slots,
};

PyMODINIT_FUNC
PyInit__beamloop_vm(void)
{
  return PyModuleDef_Init(&vm_module);
}
