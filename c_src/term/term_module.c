/* The extension module erlang._term: its state, its functions and its capsule. */
#include "term_internal.h"

#include <stdatomic.h>

/* The key in the interpreter's own dict under which the capsule's functions find the module. */
#define STATE_KEY "erlang._term"

/* Grows whenever a module state comes or goes, so that no thread goes on using one it remembers. */
static atomic_ulong state_generation;

/* The state last used on this thread, and for which interpreter. */
static _Thread_local struct {
  PyInterpreterState *interpreter;
  unsigned long generation;
  term_state *state;
} state_memo;

/* GIL held.  The module state behind one of the module's own types. */
term_state *
term_state_of_type(PyTypeObject *type)
{
  return PyType_GetModuleState(type);
}

static term_state *
state_lookup(PyInterpreterState *interpreter)
{
  PyObject *dict = PyInterpreterState_GetDict(interpreter);
  PyObject *module = dict == NULL ? NULL : PyDict_GetItemString(dict, STATE_KEY);
  if (module == NULL) {
    PyErr_SetString(PyExc_RuntimeError, "erlang._term is not imported in this interpreter");
    return NULL;
  }
  return PyModule_GetState(module);
}

/* GIL held.  The state of the module in this interpreter, for calls through the capsule; NULL with
 * RuntimeError when it has not been imported here. */
term_state *
term_state_current(void)
{
  PyInterpreterState *interpreter = PyInterpreterState_Get();
  unsigned long generation = atomic_load_explicit(&state_generation, memory_order_acquire);
  if (state_memo.interpreter == interpreter && state_memo.generation == generation) {
    return state_memo.state;
  }
  term_state *state = state_lookup(interpreter);
  if (state != NULL) {
    state_memo.interpreter = interpreter;
    state_memo.generation = generation;
    state_memo.state = state;
  }
  return state;
}

static PyObject *
api_decode(const uint8_t *data, size_t size, unsigned flags, const term_hooks *hooks)
{
  term_state *state = term_state_current();
  return state == NULL ? NULL : term_decode(state, data, size, flags, hooks);
}

static int
api_encode(PyObject *object, term_buf *out, unsigned flags, const term_hooks *hooks)
{
  term_state *state = term_state_current();
  return state == NULL ? -1 : term_encode(state, object, out, flags, hooks);
}

static int
api_pid_ext(PyObject *object, const uint8_t **data, size_t *size)
{
  term_state *state = term_state_current();
  if (state == NULL) {
    return -1;
  }
  if (!Py_IS_TYPE(object, state->pid_type)) {
    PyErr_Format(PyExc_TypeError, "an erlang.Pid was expected, not '%.200s'",
                 Py_TYPE(object)->tp_name);
    return -1;
  }
  *data = ((term_ident *)object)->ext;
  *size = (size_t)Py_SIZE(object);
  return 0;
}

static const term_api api = {
    .version = TERM_API_VERSION,
    .size = sizeof(term_api),
    .decode = api_decode,
    .encode = api_encode,
    .buf_reserve = term_buf_reserve,
    .buf_free = term_buf_free,
    .pid_ext = api_pid_ext,
};

PyDoc_STRVAR(decode_doc,
             "decode(data, /, *, binaries='bytes')\n--\n\n"
             "The Python value of one term in external format.\n\n"
             "data is a bytes-like object that starts with the version byte 131.  Binaries come\n"
             "as bytes, or with binaries='str' as str.  TermError when data is malformed or holds\n"
             "something that has no exact Python value.");

/* The flags for the one keyword there is; -1 with an exception. */
static int
decode_flags(PyObject *const *args, Py_ssize_t count, PyObject *names)
{
  Py_ssize_t keywords = names == NULL ? 0 : PyTuple_GET_SIZE(names);
  if (count != 1 || keywords > 1 ||
      (keywords == 1 &&
       PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(names, 0), "binaries") != 0)) {
    PyErr_SetString(PyExc_TypeError, "decode() takes data and the keyword binaries");
    return -1;
  }
  if (keywords == 0) {
    return 0;
  }
  if (PyUnicode_Check(args[1])) {
    if (PyUnicode_CompareWithASCIIString(args[1], "bytes") == 0) {
      return 0;
    }
    if (PyUnicode_CompareWithASCIIString(args[1], "str") == 0) {
      return TERM_BINARIES_STR;
    }
  }
  PyErr_SetString(PyExc_ValueError, "binaries must be 'bytes' or 'str'");
  return -1;
}

static PyObject *
module_decode(PyObject *module, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
  Py_buffer data;
  int flags = decode_flags(args, count, names);
  if (flags < 0 || PyObject_GetBuffer(args[0], &data, PyBUF_SIMPLE) < 0) {
    return NULL;
  }
  PyObject *value =
      term_decode(PyModule_GetState(module), data.buf, (size_t)data.len, (unsigned)flags, NULL);
  PyBuffer_Release(&data);
  return value;
}

PyDoc_STRVAR(encode_doc,
             "encode(value, /)\n--\n\n"
             "The external format of a value, as bytes that start with the version byte 131.\n\n"
             "TypeError when there is no Erlang term for it or for something in it, ValueError\n"
             "when there is none for this value (nan, infinities, keys that are equal in Erlang),\n"
             "RecursionError when it is nested too deep.");

static PyObject *
module_encode(PyObject *module, PyObject *value)
{
  uint8_t lent[512];
  term_buf out = {.data = lent, .capacity = sizeof(lent)};
  PyObject *bytes = NULL;
  if (term_encode(PyModule_GetState(module), value, &out, 0, NULL) == 0) {
    bytes = PyBytes_FromStringAndSize((char *)out.data, (Py_ssize_t)out.size);
  }
  term_buf_free(&out);
  return bytes;
}

PyDoc_STRVAR(set_none_atom_doc,
             "set_none_atom(name, /)\n--\n\n"
             "Sets what None becomes in Erlang: 'none' (at first), 'nil' or 'undefined'.  Returns\n"
             "the name set before.  All three come back as None.  ValueError for another name.");

static PyObject *
module_set_none_atom(PyObject *module, PyObject *name)
{
  static const char *const names[] = {"none", "nil", "undefined"};
  term_state *state = PyModule_GetState(module);
  if (!PyUnicode_Check(name)) {
    PyErr_SetString(PyExc_TypeError, "the name of an atom must be a str");
    return NULL;
  }
  for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
    if (PyUnicode_CompareWithASCIIString(name, names[i]) == 0) {
      const char *old = state->none_atom;
      state->none_atom = names[i];
      return PyUnicode_FromString(old);
    }
  }
  PyErr_SetString(PyExc_ValueError, "None encodes to 'none', 'nil' or 'undefined'");
  return NULL;
}

static PyMethodDef module_methods[] = {
    {"decode", (PyCFunction)(void (*)(void))module_decode, METH_FASTCALL | METH_KEYWORDS,
     decode_doc},
    {"encode", module_encode, METH_O, encode_doc},
    {"set_none_atom", module_set_none_atom, METH_O, set_none_atom_doc},
    {NULL, NULL, 0, NULL},
};

static int
add_types(PyObject *module, term_state *state)
{
  state->atom_type = term_atom_type(module);
  state->bit_string_type = term_bit_string_type(module);
  state->improper_list_type = term_improper_list_type(module);
  if (term_ident_types(module, state) < 0 || state->atom_type == NULL ||
      state->bit_string_type == NULL || state->improper_list_type == NULL) {
    return -1;
  }
  PyTypeObject *types[] = {
      state->atom_type, state->pid_type,        state->port_type,          state->reference_type,
      state->fun_type,  state->bit_string_type, state->improper_list_type,
  };
  for (size_t i = 0; i < sizeof(types) / sizeof(*types); i++) {
    if (PyModule_AddType(module, types[i]) < 0) {
      return -1;
    }
  }
  return 0;
}

static int
add_capsule(PyObject *module)
{
  PyObject *capsule = PyCapsule_New((void *)&api, TERM_API_CAPSULE, NULL);
  int result = PyModule_AddObjectRef(module, "_C_API", capsule);
  Py_XDECREF(capsule);
  return result;
}

static int
module_exec(PyObject *module)
{
  term_state *state = PyModule_GetState(module);
  state->none_atom = "none";
  PyObject *errors = PyImport_ImportModule("erlang.errors");
  if (errors == NULL) {
    return -1;
  }
  state->term_error = PyObject_GetAttrString(errors, "TermError");
  Py_DECREF(errors);
  if (state->term_error == NULL || add_types(module, state) < 0 || add_capsule(module) < 0) {
    return -1;
  }
  PyObject *dict = PyInterpreterState_GetDict(PyInterpreterState_Get());
  if (dict == NULL || PyDict_SetItemString(dict, STATE_KEY, module) < 0) {
    return -1;
  }
  atomic_fetch_add_explicit(&state_generation, 1, memory_order_acq_rel);
  return 0;
}

static int
module_traverse(PyObject *module, visitproc visit, void *arg)
{
  term_state *state = PyModule_GetState(module);
  Py_VISIT(state->atom_type);
  Py_VISIT(state->pid_type);
  Py_VISIT(state->port_type);
  Py_VISIT(state->reference_type);
  Py_VISIT(state->fun_type);
  Py_VISIT(state->bit_string_type);
  Py_VISIT(state->improper_list_type);
  Py_VISIT(state->term_error);
  return 0;
}

static int
module_clear(PyObject *module)
{
  term_state *state = PyModule_GetState(module);
  term_atom_cache_clear(state);
  Py_CLEAR(state->atom_type);
  Py_CLEAR(state->pid_type);
  Py_CLEAR(state->port_type);
  Py_CLEAR(state->reference_type);
  Py_CLEAR(state->fun_type);
  Py_CLEAR(state->bit_string_type);
  Py_CLEAR(state->improper_list_type);
  Py_CLEAR(state->term_error);
  return 0;
}

static void
module_free(void *module)
{
  module_clear(module);
  atomic_fetch_add_explicit(&state_generation, 1, memory_order_acq_rel);
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, module_exec},
#if PY_VERSION_HEX >= 0x030c0000
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
    {0, NULL},
};

struct PyModuleDef term_module_def = {
    PyModuleDef_HEAD_INIT,
    .m_name = "erlang._term",
    .m_doc = "Erlang terms in external format to Python objects and back.",
    .m_size = sizeof(term_state),
    .m_methods = module_methods,
    .m_slots = module_slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
    .m_free = module_free,
};

PyMODINIT_FUNC
PyInit__term(void)
{
  return PyModuleDef_Init(&term_module_def);
}
