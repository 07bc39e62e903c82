/* The extension module erlang._loop: its state, and the capsule of the C API. */
#include "aio.h"
#include "loop_internal.h"
#include "tls.h"

/* --- the C API ------------------------------------------------------------------------------- */

/* The native loop that object is, or NULL without an exception. */
static native_loop *
as_native_loop(PyObject *object)
{
  PyObject *module = PyType_GetModuleByDef(Py_TYPE(object), &loop_module_def);
  loop_state *state;

  if (module == NULL) {
    PyErr_Clear();
    return NULL;
  }
  state = PyModule_GetState(module);
  return PyObject_TypeCheck(object, state->loop_type) ? (native_loop *)object : NULL;
}

static loop_core *
api_core_of(PyObject *object)
{
  native_loop *loop = as_native_loop(object);

  if (loop == NULL)
    return NULL;
  pending_incref(loop->core);
  return loop->core;
}

static uint64_t
api_source_add(PyObject *object, loop_source_fn fn, PyObject *owner)
{
  native_loop *loop = as_native_loop(object);

  if (loop == NULL) {
    PyErr_SetString(PyExc_TypeError, "a native event loop was expected");
    return 0;
  }
  return sources_add(loop, fn, owner);
}

static int
api_source_remove(PyObject *object, uint64_t id)
{
  native_loop *loop = as_native_loop(object);

  return loop == NULL ? 0 : sources_remove(loop, id);
}

static const loop_api api_table = {
    .version = LOOP_API_VERSION,
    .size = sizeof(loop_api),
    .core_of = api_core_of,
    .core_incref = pending_incref,
    .core_decref = pending_decref,
    .post = pending_post,
    .source_add = api_source_add,
    .source_remove = api_source_remove,
    .running = loop_running,
};

/* --- module state ---------------------------------------------------------------------------- */

/* A new reference to module.name. */
static PyObject *
import_from(const char *module_name, const char *name)
{
  PyObject *module = PyImport_ImportModule(module_name);
  PyObject *object = module == NULL ? NULL : PyObject_GetAttrString(module, name);

  Py_XDECREF(module);
  return object;
}

static int
import_all(loop_state *state)
{
  const struct {
    PyObject **place;
    const char *module;
    const char *name;
  } imports[] = {
      {&state->future_type, "asyncio.futures", "Future"},
      {&state->task_type, "asyncio.tasks", "Task"},
      {&state->extract_stack, "asyncio.format_helpers", "extract_stack"},
      {&state->format_callback, "asyncio.format_helpers", "_format_callback_source"},
      {&state->format_handle, "asyncio.base_events", "_format_handle"},
      {&state->check_ssl, "asyncio.base_events", "_check_ssl_socket"},
      {&state->logger, "asyncio.log", "logger"},
      {(PyObject **)&state->socket_type, "socket", "socket"},
  };

  for (size_t i = 0; i < Py_ARRAY_LENGTH(imports); i++) {
    *imports[i].place = import_from(imports[i].module, imports[i].name);
    if (*imports[i].place == NULL)
      return -1;
  }
  return 0;
}

static int
make_names(loop_state *state)
{
#define MAKE_NAME(field, text)                                                                     \
  if ((state->field = PyUnicode_InternFromString(text)) == NULL)                                   \
  return -1
  LOOP_NAMES(MAKE_NAME);
#undef MAKE_NAME
  return 0;
}

static int
make_constants(loop_state *state)
{
  PyObject *base = import_from("asyncio.base_events", "BaseEventLoop");

  state->empty_tuple = PyTuple_New(0);
  if (base != NULL)
    state->create_task = PyObject_GetAttrString(base, "create_task");
  Py_XDECREF(base);
  return state->empty_tuple && state->create_task ? 0 : -1;
}

static int
add_type(PyObject *module, PyTypeObject **place, PyType_Spec *spec, PyObject *bases)
{
  *place = (PyTypeObject *)PyType_FromModuleAndSpec(module, spec, bases);
  return *place == NULL ? -1 : PyModule_AddType(module, *place);
}

static int
make_types(PyObject *module, loop_state *state)
{
  if (add_type(module, &state->handle_type, &handle_spec, NULL) < 0 ||
      add_type(module, &state->timer_handle_type, &timer_handle_spec,
               (PyObject *)state->handle_type) < 0 ||
      add_type(module, &state->ready_type, &ready_spec, NULL) < 0 ||
      add_type(module, &state->sock_op_type, &sock_op_spec, NULL) < 0)
    return -1;
  /* Only TimerHandle derives from Handle: the free lists rely on exact types. */
  state->handle_type->tp_flags &= ~Py_TPFLAGS_BASETYPE;
  if (add_type(module, &state->loop_type, &loop_spec, NULL) < 0)
    return -1;
  if (transport_state_init(module, &state->transports) < 0 ||
      reactor_state_init(module, &state->reactor) < 0 || tls_state_init(module, &state->tls) < 0)
    return -1;
  return aio_state_init(module, &state->aio);
}

static int
module_exec(PyObject *module)
{
  loop_state *state = PyModule_GetState(module);
  PyObject *capsule;
  int rc;

  if (import_all(state) < 0 || make_names(state) < 0 || make_constants(state) < 0 ||
      make_types(module, state) < 0)
    return -1;
  capsule = PyCapsule_New((void *)&api_table, LOOP_API_CAPSULE, NULL);
  if (capsule == NULL)
    return -1;
  rc = PyModule_AddObjectRef(module, "_C_API", capsule);
  Py_DECREF(capsule);
  if (rc < 0 || PyModule_AddIntConstant(module, "READ", LOOP_EVENT_READ) < 0 ||
      PyModule_AddIntConstant(module, "WRITE", LOOP_EVENT_WRITE) < 0 ||
      PyModule_AddIntConstant(module, "TIMER", LOOP_EVENT_TIMER) < 0)
    return -1;
  return PyModule_AddIntConstant(module, "SOURCE", LOOP_EVENT_SOURCE);
}

/* Every object that the state holds, once each. */
#define STATE_OBJECTS(apply, state)                                                                \
  apply((state)->handle_type);                                                                     \
  apply((state)->timer_handle_type);                                                               \
  apply((state)->loop_type);                                                                       \
  apply((state)->ready_type);                                                                      \
  apply((state)->sock_op_type);                                                                    \
  apply((state)->socket_type);                                                                     \
  apply((state)->future_type);                                                                     \
  apply((state)->task_type);                                                                       \
  apply((state)->extract_stack);                                                                   \
  apply((state)->format_callback);                                                                 \
  apply((state)->format_handle);                                                                   \
  apply((state)->create_task);                                                                     \
  apply((state)->logger);                                                                          \
  apply((state)->check_ssl);                                                                       \
  apply((state)->empty_tuple);                                                                     \
  apply((state)->context_names)

static int
module_traverse(PyObject *module, visitproc visit, void *arg)
{
  loop_state *state = PyModule_GetState(module);

  STATE_OBJECTS(Py_VISIT, state);
#define VISIT_NAME(field, text) Py_VISIT(state->field)
  LOOP_NAMES(VISIT_NAME);
#undef VISIT_NAME
  TRANSPORT_STATE_OBJECTS(Py_VISIT, &state->transports);
  REACTOR_STATE_OBJECTS(Py_VISIT, &state->reactor);
  TLS_STATE_OBJECTS(Py_VISIT, &state->tls);
  return aio_state_traverse(&state->aio, visit, arg);
}

static int
module_clear(PyObject *module)
{
  loop_state *state = PyModule_GetState(module);

  handle_free_lists_clear(state);
  STATE_OBJECTS(Py_CLEAR, state);
#define CLEAR_NAME(field, text) Py_CLEAR(state->field)
  LOOP_NAMES(CLEAR_NAME);
#undef CLEAR_NAME
  TRANSPORT_STATE_OBJECTS(Py_CLEAR, &state->transports);
  REACTOR_STATE_OBJECTS(Py_CLEAR, &state->reactor);
  TLS_STATE_OBJECTS(Py_CLEAR, &state->tls);
  aio_state_clear(&state->aio);
  return 0;
}

static void
module_free(void *module)
{
  (void)module_clear(module);
}

/* Those in use: what is kept for reuse is not counted. */
static Py_ssize_t
in_use(const struct free_list *list)
{
  return list->allocated - list->count;
}

static PyObject *
live_counts(PyObject *module, PyObject *Py_UNUSED(ignored))
{
  loop_state *state = PyModule_GetState(module);

  return Py_BuildValue("{s:n,s:n,s:n}", "cores", (Py_ssize_t)pending_live(), "handles",
                       in_use(&state->free_handles), "timers", in_use(&state->free_timers));
}

static PyMethodDef module_methods[] = {
    {"_live", live_counts, METH_NOARGS,
     PyDoc_STR("_live(): how many cores are alive in the process, and handles and timers of this "
               "interpreter.")},
    {"_load_tls", tls_load, METH_VARARGS,
     PyDoc_STR("_load_tls(path, version): why TLS cannot be native, or None.")},
    {"_adopt_stream", aio_adopt_method, METH_O,
     PyDoc_STR("_adopt_stream(protocol): its streams become native if they are asyncio's own.")},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, module_exec},
#if PY_VERSION_HEX >= 0x030C0000
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
    {0, NULL},
};

struct PyModuleDef loop_module_def = {
    PyModuleDef_HEAD_INIT,
    .m_name = "erlang._loop",
    .m_doc = "The native part of the asyncio event loop of the erlang package.",
    .m_size = sizeof(loop_state),
    .m_methods = module_methods,
    .m_slots = module_slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
    .m_free = module_free,
};

PyMODINIT_FUNC
PyInit__loop(void)
{
  return PyModuleDef_Init(&loop_module_def);
}
