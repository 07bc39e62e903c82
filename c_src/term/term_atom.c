/* erlang.Atom, a str that encodes as an atom, and the cache of recent atoms. */
#include "term_internal.h"

/* GIL held.  An Atom of this exact str; a new reference, or NULL with ValueError when it is too
 * long or holds lone surrogates. */
PyObject *
term_atom_new(term_state *state, PyObject *text)
{
  if (PyUnicode_GET_LENGTH(text) > EXT_ATOM_MAX_CHARS) {
    PyErr_Format(PyExc_ValueError, "an atom has at most %d characters", EXT_ATOM_MAX_CHARS);
    return NULL;
  }
  PyObject *args = PyTuple_Pack(1, text);
  if (args == NULL) {
    return NULL;
  }
  PyObject *atom = PyUnicode_Type.tp_new(state->atom_type, args, NULL);
  Py_DECREF(args);
  /* The UTF-8 form is made now and kept by the str, so that encoding an Atom never fails. */
  if (atom != NULL && PyUnicode_AsUTF8AndSize(atom, NULL) == NULL) {
    Py_CLEAR(atom);
  }
  return atom;
}

static uint32_t
atom_hash(const char *utf8, size_t size)
{
  uint32_t hash = 2166136261u;
  for (size_t i = 0; i < size; i++) {
    hash = (hash ^ (uint8_t)utf8[i]) * 16777619u;
  }
  return hash ^ hash >> 15;
}

/* GIL held.  The cached atom of this text, or a new one that takes its slot; a new reference, or
 * NULL with UnicodeDecodeError, ValueError or MemoryError. */
PyObject *
term_atom_from_utf8(term_state *state, const char *utf8, size_t size)
{
  uint32_t hash = atom_hash(utf8, size);
  atom_slot *slot = &state->atoms[hash & (ATOM_CACHE_SLOTS - 1)];
  if (slot->atom != NULL && slot->hash == hash && slot->size == size &&
      memcmp(slot->utf8, utf8, size) == 0) {
    return Py_NewRef(slot->atom);
  }
  PyObject *text = PyUnicode_DecodeUTF8(utf8, (Py_ssize_t)size, NULL);
  if (text == NULL) {
    return NULL;
  }
  PyObject *atom = term_atom_new(state, text);
  Py_DECREF(text);
  if (atom == NULL) {
    return NULL;
  }
  PyObject *old = slot->atom;
  slot->hash = hash;
  slot->size = (uint32_t)size;
  slot->utf8 = PyUnicode_AsUTF8AndSize(atom, NULL);
  slot->atom = Py_NewRef(atom);
  Py_XDECREF(old);
  return atom;
}

/* GIL held.  As term_atom_from_utf8, for the old encodings. */
PyObject *
term_atom_from_latin1(term_state *state, const char *latin1, size_t size)
{
  char utf8[2 * EXT_ATOM_MAX_CHARS];
  size_t out = 0;
  if (size > EXT_ATOM_MAX_CHARS) {
    PyErr_Format(PyExc_ValueError, "an atom has at most %d characters", EXT_ATOM_MAX_CHARS);
    return NULL;
  }
  for (size_t i = 0; i < size; i++) {
    uint8_t c = (uint8_t)latin1[i];
    if (c >= 0x80) {
      utf8[out++] = (char)(0xc0 | c >> 6);
      c = 0x80 | (c & 0x3f);
    }
    utf8[out++] = (char)c;
  }
  return term_atom_from_utf8(state, utf8, out);
}

/* GIL held.  Forgets every cached atom. */
void
term_atom_cache_clear(term_state *state)
{
  for (size_t i = 0; i < ATOM_CACHE_SLOTS; i++) {
    Py_CLEAR(state->atoms[i].atom);
  }
}

static PyObject *
atom_tp_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
  PyObject *text;
  static char *names[] = {"", NULL};
  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "U:Atom", names, &text)) {
    return NULL;
  }
  term_state *state = term_state_of_type(type);
  if (Py_IS_TYPE(text, state->atom_type)) {
    return Py_NewRef(text);
  }
  /* An exact str, so that a subclass's __str__ has no say in which atom this is. */
  PyObject *exact = PyUnicode_FromObject(text);
  if (exact == NULL) {
    return NULL;
  }
  PyObject *atom = term_atom_new(state, exact);
  Py_DECREF(exact);
  return atom;
}

static PyObject *
atom_repr(PyObject *self)
{
  PyObject *text = PyUnicode_Type.tp_repr(self);
  if (text == NULL) {
    return NULL;
  }
  PyObject *repr = PyUnicode_FromFormat("Atom(%U)", text);
  Py_DECREF(text);
  return repr;
}

PyDoc_STRVAR(atom_doc,
             "Atom(text, /)\n--\n\n"
             "An Erlang atom: a str in every respect, but it encodes as an atom where a str\n"
             "encodes as a binary.  ValueError when text has more than 255 characters.");

static PyType_Slot atom_slots[] = {
    {Py_tp_doc, (void *)atom_doc},
    {Py_tp_new, atom_tp_new},
    {Py_tp_repr, atom_repr},
    {0, NULL},
};

static PyType_Spec atom_spec = {
    .name = "erlang.Atom",
    .basicsize = sizeof(term_atom),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = atom_slots,
};

/* GIL held.  The type, a new reference; or NULL with an exception. */
PyTypeObject *
term_atom_type(PyObject *module)
{
  return (PyTypeObject *)PyType_FromModuleAndSpec(module, &atom_spec, (PyObject *)&PyUnicode_Type);
}
