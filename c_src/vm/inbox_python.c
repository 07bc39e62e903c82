/* The Python face of an inbox: starts coroutine calls as tasks of its loop.  Python.h side. */
#include "inbox_python.h"

#include "../term/term_link.h"
#include "call_python.h"
#include "inbox.h"
#include "interp_python.h"

#include <structmember.h>

#define CALL_CAPSULE "beamloop.call"

/* _beamloop_vm.Inbox(loop): created on the loop's thread, before it runs. */
typedef struct inbox_object {
  PyObject ob_base;
  PyObject *loop;
  inbox *in;
  uint64_t source;
  char stopping; /* guarded by the GIL: stop() was asked for */
} inbox_object;

static const loop_api *
loop_link(void)
{
  return PyCapsule_Import(LOOP_API_CAPSULE, 0);
}

/* ---- the end of a task ---- */

static void
capsule_destroyed(PyObject *capsule)
{
  vm_call *call = PyCapsule_GetPointer(capsule, CALL_CAPSULE);
  PyObject *task = call->task;
  call->task = NULL;
  Py_XDECREF(task);
  call_release(call);
}

/* Done callback of the task: self is the call's capsule. */
static PyObject *
call_done(PyObject *self, PyObject *task)
{
  vm_call *call = PyCapsule_GetPointer(self, CALL_CAPSULE);
  if (call == NULL) {
    return NULL;
  }
  Py_CLEAR(*(PyObject **)&call->task);
  if (call->detached) {
    Py_RETURN_NONE; /* asyncio logs an exception that nobody retrieves */
  }
  PyObject *args = PyTuple_Pack(1, task);
  PyObject *outcome = args == NULL ? NULL : interp_call_glue("_outcome", args);
  Py_XDECREF(args);
  PyObject *value, *exception;
  if (outcome == NULL) {
    call_answer_raised(call);
  } else if (!PyArg_ParseTuple(outcome, "OO", &value, &exception)) {
    Py_DECREF(outcome);
    return NULL;
  } else if (exception != Py_None) {
    call_answer_exception(call, exception);
  } else {
    call_answer_value(call, value);
  }
  Py_XDECREF(outcome);
  Py_RETURN_NONE;
}

static PyMethodDef call_done_def = {"call_done", call_done, METH_O, NULL};

/* GIL held, loop's thread.  Takes over the call's count.  What cannot become a task is answered. */
static void
start_task(inbox_object *self, vm_call *call)
{
  PyObject *capsule = PyCapsule_New(call, CALL_CAPSULE, capsule_destroyed);
  if (capsule == NULL) {
    PyErr_NoMemory();
    call_answer_raised(call);
    call_release(call);
    return;
  }
  PyObject *request = call_decode(call);
  PyObject *started = request == NULL ? NULL : call_function(request);
  PyObject *done = started == NULL ? NULL : PyCFunction_New(&call_done_def, capsule);
  PyObject *args = done == NULL ? NULL : PyTuple_Pack(3, self->loop, started, done);
  PyObject *task = args == NULL ? NULL : interp_call_glue("_start_task", args);
  if (task == NULL && call->detached) {
    PyErr_WriteUnraisable(NULL);
  } else if (task == NULL) {
    call_answer_raised(call);
  } else {
    call->task = task; /* until it is done */
  }
  Py_XDECREF(args);
  Py_XDECREF(done);
  Py_XDECREF(started);
  Py_XDECREF(request);
  Py_DECREF(capsule);
}

/* GIL held, loop's thread. */
static void
cancel_task(vm_call *call)
{
  PyObject *task = call->task;
  if (task != NULL) {
    PyObject *cancelled = PyObject_CallMethod(task, "cancel", NULL);
    if (cancelled == NULL) {
      PyErr_WriteUnraisable(task);
    }
    Py_XDECREF(cancelled);
  }
  call_release(call);
}

/* The source function: everything that came in since the last event. */
static int
inbox_event(PyObject *owner, int kind)
{
  inbox_object *self = (inbox_object *)owner;
  (void)kind;
  inbox_content content = inbox_take(self->in);
  while (content.calls != NULL) {
    vm_call *call = content.calls;
    content.calls = call->next;
    if (atomic_load(&call->state) == CALL_CANCELLED) {
      call_release(call);
    } else {
      start_task(self, call);
    }
  }
  while (content.cancelled != NULL) {
    vm_call *call = content.cancelled;
    content.cancelled = call->next_cancelled;
    cancel_task(call);
  }
  if (content.stop) {
    self->stopping = 1;
    PyObject *stopped = PyObject_CallMethod(self->loop, "stop", NULL);
    Py_XDECREF(stopped);
    return stopped == NULL ? -1 : 0;
  }
  return 0;
}

/* ---- the type ---- */

static PyObject *
inbox_object_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
  (void)kwargs;
  PyObject *loop;
  if (!PyArg_ParseTuple(args, "O:Inbox", &loop)) {
    return NULL;
  }
  const loop_api *api = loop_link();
  loop_core *core = api == NULL ? NULL : api->core_of(loop);
  if (core == NULL) {
    if (!PyErr_Occurred()) {
      PyErr_SetString(PyExc_TypeError, "an ErlangEventLoop is required");
    }
    return NULL;
  }
  inbox_object *self = (inbox_object *)type->tp_alloc(type, 0);
  if (self == NULL) {
    api->core_decref(core);
    return NULL;
  }
  self->loop = Py_NewRef(loop);
  self->source = api->source_add(loop, inbox_event, (PyObject *)self);
  self->in = self->source == 0 ? NULL : inbox_new(api, core, self->source);
  if (self->in == NULL) {
    api->core_decref(core);
    Py_DECREF(self);
    return PyErr_Occurred() ? NULL : PyErr_NoMemory();
  }
  return (PyObject *)self;
}

static int
inbox_object_traverse(PyObject *op, visitproc visit, void *arg)
{
  Py_VISIT(Py_TYPE(op));
  Py_VISIT(((inbox_object *)op)->loop);
  return 0;
}

static int
inbox_object_clear(PyObject *op)
{
  Py_CLEAR(((inbox_object *)op)->loop);
  return 0;
}

static void
inbox_object_dealloc(PyObject *op)
{
  inbox_object *self = (inbox_object *)op;
  PyTypeObject *type = Py_TYPE(op);
  PyObject_GC_UnTrack(op);
  if (self->in != NULL) {
    inbox_close(self->in);
    inbox_decref(self->in);
  }
  Py_XDECREF(self->loop);
  type->tp_free(op);
  Py_DECREF(type);
}

/* close(): refuses calls from now on.  On the loop's thread. */
static PyObject *
inbox_object_close(PyObject *op, PyObject *unused)
{
  inbox_object *self = (inbox_object *)op;
  (void)unused;
  inbox_close(self->in);
  if (self->loop != NULL) {
    const loop_api *api = loop_link();
    if (api == NULL) {
      return NULL;
    }
    api->source_remove(self->loop, self->source);
  }
  Py_RETURN_NONE;
}

/* stop(): the loop stops soon.  Any thread. */
static PyObject *
inbox_object_stop(PyObject *op, PyObject *unused)
{
  (void)unused;
  inbox_stop(((inbox_object *)op)->in);
  Py_RETURN_NONE;
}

/* serve_default(on): whether calls for the default loop come here. */
static PyObject *
inbox_object_serve_default(PyObject *op, PyObject *on)
{
  inbox_object *self = (inbox_object *)op;
  int yes = PyObject_IsTrue(on);
  if (yes < 0) {
    return NULL;
  }
  if (yes) {
    inbox_incref(self->in);
  }
  inbox_set_default(yes ? self->in : NULL);
  Py_RETURN_NONE;
}

inbox *
inbox_of_object(PyObject *op)
{
  inbox *in = ((inbox_object *)op)->in;
  inbox_incref(in);
  return in;
}

static PyMemberDef inbox_members[] = {
    {"stopping", T_BOOL, offsetof(inbox_object, stopping), READONLY,
     "Whether stop() was asked for."},
    {NULL, 0, 0, 0, NULL},
};

static PyMethodDef inbox_methods[] = {
    {"close", inbox_object_close, METH_NOARGS, "Refuse calls from now on."},
    {"stop", inbox_object_stop, METH_NOARGS, "Stop the loop soon; from any thread."},
    {"serve_default", inbox_object_serve_default, METH_O,
     "Whether calls for the default loop come here."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot inbox_slots[] = {
    {Py_tp_new, inbox_object_new},
    {Py_tp_dealloc, inbox_object_dealloc},
    {Py_tp_traverse, inbox_object_traverse},
    {Py_tp_clear, inbox_object_clear},
    {Py_tp_methods, inbox_methods},
    {Py_tp_members, inbox_members},
    {Py_tp_doc, "The way of calls into one event loop."},
    {0, NULL},
};

static PyType_Spec inbox_spec = {
    .name = "_beamloop_vm.Inbox",
    .basicsize = sizeof(inbox_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = inbox_slots,
};

int
inbox_python_exec(PyObject *module)
{
  PyObject *type = PyType_FromModuleAndSpec(module, &inbox_spec, NULL);
  int status = type == NULL ? -1 : PyModule_AddType(module, (PyTypeObject *)type);
  Py_XDECREF(type);
  return status;
}
