/* The built-in module _beamloop_channel: types, state, and what it looks up elsewhere. */
#include "channel_python.h"

#include "../term/term_link.h"
#include "byte_read.h"

static PyModuleDef channel_module;

channel_state *
channel_state_of(PyTypeObject *type)
{
  PyObject *module = PyType_GetModuleByDef(type, &channel_module);
  return module == NULL ? NULL : PyModule_GetState(module);
}

static PyObject *
import_name(const char *module_name, const char *name)
{
  PyObject *module = PyImport_ImportModule(module_name);
  if (module == NULL) {
    return NULL;
  }
  PyObject *object = PyObject_GetAttrString(module, name);
  Py_DECREF(module);
  return object;
}

/* The errors live in the erlang package, which itself imports this module: not at import time. */
int
channel_state_open(channel_state *state)
{
  if (state->channel_closed == NULL) {
    state->channel_closed = import_name("erlang.errors", "ChannelClosed");
  }
  if (state->channel_closed != NULL && state->byte_channel_closed == NULL) {
    state->byte_channel_closed = import_name("erlang.errors", "ByteChannelClosed");
  }
  if (state->byte_channel_closed != NULL && state->channel_full == NULL) {
    state->channel_full = import_name("erlang.errors", "ChannelFull");
  }
  if (state->channel_full != NULL && state->message_too_large == NULL) {
    state->message_too_large = import_name("erlang.errors", "MessageTooLarge");
  }
  if (state->message_too_large != NULL && state->call_cancelled == NULL) {
    state->call_cancelled = import_name("erlang.errors", "CallCancelled");
  }
  return state->call_cancelled == NULL ? -1 : 0;
}

static int
open_loop_api(channel_state *state)
{
  PyObject *capsule = import_name("erlang._loop", "_C_API");
  if (capsule == NULL) {
    return -1;
  }
  const loop_api *api = PyCapsule_GetPointer(capsule, LOOP_API_CAPSULE);
  Py_DECREF(capsule);
  if (api == NULL) {
    return -1;
  }
  if (api->version != LOOP_API_VERSION) {
    PyErr_SetString(PyExc_ImportError, "erlang._loop is of another version");
    return -1;
  }
  state->loop_api = api;
  return 0;
}

int
channel_state_open_loops(channel_state *state)
{
  if (state->loop_api == NULL && open_loop_api(state) < 0) {
    return -1;
  }
  if (state->get_running_loop == NULL) {
    state->get_running_loop = import_name("asyncio", "_get_running_loop");
  }
  if (state->get_running_loop != NULL && state->cancelled_error == NULL) {
    state->cancelled_error = import_name("asyncio", "CancelledError");
  }
  if (state->cancelled_error != NULL && state->finalize == NULL) {
    state->finalize = import_name("weakref", "finalize");
  }
  return state->finalize == NULL ? -1 : 0;
}

/* The codec's hooks have no argument for a state: they serve the main interpreter's module. */
static channel_state *linked_state;

static PyObject *
wrap_handle(void *resource, enum handle_kind kind)
{
  (void)kind;
  return channel_ref_wrap(linked_state, resource);
}

static void *
unwrap_handle(PyObject *object)
{
  void *resource = channel_ref_resource(linked_state, object);
  if (resource != NULL) {
    handle_keep(resource);
    return resource;
  }
  if (!channel_check(linked_state, object)) {
    return NULL;
  }
  resource = channel_keep_handle(((channel_object *)object)->channel);
  if (resource == NULL) {
    PyErr_NoMemory();
  }
  return resource;
}

static PyObject *
live_counts(PyObject *module, PyObject *Py_UNUSED(ignored))
{
  (void)module;
  return Py_BuildValue("(nn)", (Py_ssize_t)channel_live(), (Py_ssize_t)message_live_blocks());
}

static PyMethodDef module_methods[] = {
    {"_live", live_counts, METH_NOARGS,
     "_live() -> (channels, blocks of payload) alive in the whole process."},
    {"select", (PyCFunction)(void (*)(void))channel_select, METH_VARARGS | METH_KEYWORDS,
     "select(*channels, timeout=None)\n\nAwait it for (channel, message): the first message that "
     "one of the channels\n"
     "has.  A channel that is closed and drained is left out; ChannelClosed when all are.  "
     "TimeoutError\n"
     "after timeout seconds.  Which channel is looked at first changes from call to call, so that "
     "a "
     "busy\n"
     "one does not keep the others waiting.  Cancelling loses no message."},
    {"select_sync", (PyCFunction)(void (*)(void))channel_select_sync, METH_VARARGS | METH_KEYWORDS,
     "select_sync(*channels, timeout=None)\n\nAs select(), for threads: waits without the GIL and "
     "returns (channel,\n"
     "message)."},
    {NULL, NULL, 0, NULL},
};

static int
add_type(PyObject *module, PyType_Spec *spec, PyTypeObject **out, int public)
{
  *out = (PyTypeObject *)PyType_FromModuleAndSpec(module, spec, NULL);
  if (*out == NULL) {
    return -1;
  }
  return public ? PyModule_AddType(module, *out) : 0;
}

static int
intern_names(channel_state *state)
{
  state->name_call_soon = PyUnicode_InternFromString("call_soon");
  state->name_call_later = PyUnicode_InternFromString("call_later");
  state->name_add_reader = PyUnicode_InternFromString("add_reader");
  state->name_get_debug = PyUnicode_InternFromString("get_debug");
  state->name_cancel = PyUnicode_InternFromString("cancel");
  state->call_soon_keywords = Py_BuildValue("(s)", "context");
  return PyErr_Occurred() != NULL ? -1 : 0;
}

static int
module_exec(PyObject *module)
{
  channel_state *state = PyModule_GetState(module);
  if (intern_names(state) < 0 || add_type(module, &channel_ref_spec, &state->ref_type, 1) < 0 ||
      add_type(module, &channel_type_spec, &state->channel_type, 1) < 0 ||
      add_type(module, &byte_channel_type_spec, &state->byte_channel_type, 1) < 0 ||
      add_type(module, &channel_await_spec, &state->await_type, 0) < 0 ||
      add_type(module, &channel_gate_spec, &state->gate_type, 0) < 0 ||
      add_type(module, &byte_view_spec, &state->view_type, 0) < 0 ||
      add_type(module, &channel_callback_spec, &state->callback_type, 0) < 0) {
    return -1;
  }
  state->select_seed = (uintptr_t)state | 1;
  linked_state = state;
  term_link_register(HANDLE_CHANNEL, wrap_handle, unwrap_handle, channel_handle_given);
  return 0;
}

static int
module_traverse(PyObject *module, visitproc visit, void *arg)
{
  channel_state *state = PyModule_GetState(module);
  Py_VISIT(state->ref_type);
  Py_VISIT(state->channel_type);
  Py_VISIT(state->byte_channel_type);
  Py_VISIT(state->await_type);
  Py_VISIT(state->gate_type);
  Py_VISIT(state->view_type);
  Py_VISIT(state->callback_type);
  Py_VISIT(state->finalize);
  Py_VISIT(state->channel_closed);
  Py_VISIT(state->byte_channel_closed);
  Py_VISIT(state->channel_full);
  Py_VISIT(state->message_too_large);
  Py_VISIT(state->call_cancelled);
  Py_VISIT(state->get_running_loop);
  Py_VISIT(state->cancelled_error);
  return 0;
}

static int
module_clear(PyObject *module)
{
  channel_state *state = PyModule_GetState(module);
  channel_await_free_all(state);
  Py_CLEAR(state->ref_type);
  Py_CLEAR(state->channel_type);
  Py_CLEAR(state->byte_channel_type);
  Py_CLEAR(state->await_type);
  Py_CLEAR(state->gate_type);
  Py_CLEAR(state->view_type);
  Py_CLEAR(state->callback_type);
  Py_CLEAR(state->finalize);
  Py_CLEAR(state->channel_closed);
  Py_CLEAR(state->byte_channel_closed);
  Py_CLEAR(state->channel_full);
  Py_CLEAR(state->message_too_large);
  Py_CLEAR(state->call_cancelled);
  Py_CLEAR(state->get_running_loop);
  Py_CLEAR(state->cancelled_error);
  Py_CLEAR(state->name_call_soon);
  Py_CLEAR(state->name_call_later);
  Py_CLEAR(state->name_add_reader);
  Py_CLEAR(state->name_cancel);
  Py_CLEAR(state->name_get_debug);
  Py_CLEAR(state->call_soon_keywords);
  return 0;
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, module_exec},
#if PY_VERSION_HEX >= 0x030C0000
    {Py_mod_multiple_interpreters, Py_MOD_MULTIPLE_INTERPRETERS_NOT_SUPPORTED},
#endif
    {0, NULL},
};

static PyModuleDef channel_module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_beamloop_channel",
    .m_doc = "Channels as Python sees them; use erlang.channel.",
    .m_size = sizeof(channel_state),
    .m_methods = module_methods,
    .m_slots = module_slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
};

PyMODINIT_FUNC
PyInit__beamloop_channel(void)
{
  return PyModuleDef_Init(&channel_module);
}
