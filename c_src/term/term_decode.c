/* External term format to Python objects, straight, with every count checked against what is there.
 *
 * Recursion is bounded by term_depth_allowed; what a container may allocate before its elements were
 * seen is bounded by term_scan_promise. */
#include "term_internal.h"

#include <math.h>
#include <stdlib.h>

static PyObject *decode_term(term_scan *scan);

static inline int
need(const term_scan *scan, uint64_t size)
{
  if ((uint64_t)(scan->end - scan->p) < size) {
    return term_scan_error(scan, "the term is cut short");
  }
  return 0;
}

static PyObject *
fail(const term_scan *scan, const char *what)
{
  term_scan_error(scan, what);
  return NULL;
}

/* An exception that a part of Python raised about the bytes becomes a TermError with its text. */
static PyObject *
fail_because(const term_scan *scan, const char *what)
{
  if (PyErr_ExceptionMatches(PyExc_ValueError) || PyErr_ExceptionMatches(PyExc_TypeError)) {
    PyErr_Clear();
    return fail(scan, what);
  }
  return NULL;
}

/* true, false, none, nil and undefined as a borrowed object, NULL for other atoms. */
static inline PyObject *
well_known_atom(const char *text, size_t size)
{
  switch (size) {
  case 3:
    return memcmp(text, "nil", 3) == 0 ? Py_None : NULL;
  case 4:
    if (memcmp(text, "true", 4) == 0) {
      return Py_True;
    }
    return memcmp(text, "none", 4) == 0 ? Py_None : NULL;
  case 5:
    return memcmp(text, "false", 5) == 0 ? Py_False : NULL;
  case 9:
    return memcmp(text, "undefined", 9) == 0 ? Py_None : NULL;
  default:
    return NULL;
  }
}

static PyObject *
decode_atom(term_scan *scan, size_t head, int latin1)
{
  if (need(scan, head) < 0) {
    return NULL;
  }
  size_t size = head == 2 ? scan->p[1] : ext_get_u16(scan->p + 1);
  if (need(scan, head + size) < 0) {
    return NULL;
  }
  const char *text = (const char *)scan->p + head;
  PyObject *atom = well_known_atom(text, size);
  if (atom != NULL) {
    Py_INCREF(atom);
  } else {
    atom = latin1 ? term_atom_from_latin1(scan->state, text, size)
                  : term_atom_from_utf8(scan->state, text, size);
    if (atom == NULL) {
      return fail_because(scan, "an atom is too long or not UTF-8");
    }
  }
  scan->p += head + size;
  return atom;
}

static PyObject *
decode_big(term_scan *scan, size_t head)
{
  if (need(scan, head + 1) < 0) {
    return NULL;
  }
  size_t size = head == 2 ? scan->p[1] : ext_get_u32(scan->p + 1);
  uint8_t sign = scan->p[head];
  if (need(scan, head + 1 + (uint64_t)size) < 0) {
    return NULL;
  }
  if (sign > 1) {
    return fail(scan, "the sign of an integer is neither 0 nor 1");
  }
  const uint8_t *digits = scan->p + head + 1;
  PyObject *value;
  if (size <= 8) {
    uint64_t small = 0;
    for (size_t i = size; i > 0; i--) {
      small = small << 8 | digits[i - 1];
    }
    value = PyLong_FromUnsignedLongLong(small);
  } else {
    value = PyObject_CallMethod((PyObject *)&PyLong_Type, "from_bytes", "y#s", digits,
                                (Py_ssize_t)size, "little");
  }
  if (value != NULL && sign) {
    Py_SETREF(value, PyNumber_Negative(value));
  }
  scan->p += head + 1 + size;
  return value;
}

static PyObject *
decode_float(term_scan *scan)
{
  if (need(scan, 9) < 0) {
    return NULL;
  }
  double value = ext_get_double(scan->p + 1);
  if (!isfinite(value)) {
    return fail(scan, "a float is not finite");
  }
  scan->p += 9;
  return PyFloat_FromDouble(value);
}

/* FLOAT_EXT: text, padded with zero bytes. */
static PyObject *
decode_old_float(term_scan *scan)
{
  char text[EXT_FLOAT_TEXT + 1] = {0};
  if (need(scan, 1 + EXT_FLOAT_TEXT) < 0) {
    return NULL;
  }
  memcpy(text, scan->p + 1, EXT_FLOAT_TEXT);
  if (text[0] != '-' && (text[0] < '0' || text[0] > '9')) {
    return fail(scan, "a float is malformed");
  }
  double value = PyOS_string_to_double(text, NULL, NULL);
  if (value == -1.0 && PyErr_Occurred()) {
    return fail_because(scan, "a float is malformed");
  }
  if (!isfinite(value)) {
    return fail(scan, "a float is not finite");
  }
  scan->p += 1 + EXT_FLOAT_TEXT;
  return PyFloat_FromDouble(value);
}

static PyObject *
decode_binary(term_scan *scan)
{
  if (need(scan, 5) < 0) {
    return NULL;
  }
  size_t size = ext_get_u32(scan->p + 1);
  if (need(scan, 5 + (uint64_t)size) < 0) {
    return NULL;
  }
  const char *data = (const char *)scan->p + 5;
  PyObject *value;
  if (scan->flags & TERM_BINARIES_STR) {
    value = PyUnicode_DecodeUTF8(data, (Py_ssize_t)size, NULL);
    if (value == NULL) {
      return fail_because(scan, "a binary is not UTF-8, and str was asked for");
    }
  } else {
    value = PyBytes_FromStringAndSize(data, (Py_ssize_t)size);
  }
  scan->p += 5 + size;
  return value;
}

static PyObject *
decode_bit_binary(term_scan *scan)
{
  if (need(scan, 6) < 0) {
    return NULL;
  }
  size_t size = ext_get_u32(scan->p + 1);
  unsigned last = scan->p[5];
  if (need(scan, 6 + (uint64_t)size) < 0) {
    return NULL;
  }
  if (last > 8 || (size == 0) != (last == 0)) {
    return fail(scan, "a bit string has 1 to 8 bits in its last byte");
  }
  const uint8_t *data = scan->p + 6;
  scan->p += 6 + size;
  if (size == 0 || last == 8) {
    return PyBytes_FromStringAndSize((const char *)data, (Py_ssize_t)size);
  }
  return term_bit_string_new(scan->state->bit_string_type, data, 8 * (size - 1) + last);
}

static PyObject *
decode_string(term_scan *scan)
{
  if (need(scan, 3) < 0) {
    return NULL;
  }
  size_t size = ext_get_u16(scan->p + 1);
  if (need(scan, 3 + size) < 0) {
    return NULL;
  }
  PyObject *list = PyList_New((Py_ssize_t)size);
  if (list == NULL) {
    return NULL;
  }
  for (size_t i = 0; i < size; i++) {
    /* Small integers are shared and cannot fail. */
    PyList_SET_ITEM(list, (Py_ssize_t)i, PyLong_FromLong(scan->p[3 + i]));
  }
  scan->p += 3 + size;
  return list;
}

/* The usual pids and references, whose node has a short plain name: made in place, without a copy
 * on the way.  NULL without an exception when it is another kind or form, p being where it was. */
static PyObject *
decode_usual_ident(term_scan *scan)
{
  const uint8_t *p = scan->p;
  size_t left = (size_t)(scan->end - p);
  size_t head = 1;
  size_t tail = 12;
  if (left < 8) {
    return NULL;
  }
  if (p[0] == EXT_NEWER_REFERENCE && p[2] <= EXT_REFERENCE_MAX_WORDS && p[2] > 0 && p[1] == 0) {
    head = 3;
    tail = 4 + 4 * (size_t)p[2];
  } else if (p[0] != EXT_NEW_PID) {
    return NULL;
  }
  const uint8_t *node = p + head;
  size_t node_size;
  size_t node_head;
  if (node[0] == EXT_SMALL_ATOM_UTF8) {
    node_size = node[1];
    node_head = 2;
  } else if (node[0] == EXT_ATOM && node[1] == 0) {
    node_size = node[2];
    node_head = 3;
  } else {
    return NULL;
  }
  if (left < head + node_head + node_size + tail || !term_all_ascii(node + node_head, node_size)) {
    return NULL;
  }
  PyTypeObject *type = head == 1 ? scan->state->pid_type : scan->state->reference_type;
  uint8_t *ext;
  PyObject *ident = term_ident_alloc(type, head + 2 + node_size + tail, &ext);
  if (ident != NULL) {
    memcpy(ext, p, head);
    ext[head] = EXT_SMALL_ATOM_UTF8;
    ext[head + 1] = (uint8_t)node_size;
    memcpy(ext + head + 2, node + node_head, node_size + tail);
    scan->p = node + node_head + node_size + tail;
  }
  return ident;
}

static TERM_LEAF PyObject *
decode_any_ident(term_scan *scan)
{
  uint8_t ext[TERM_IDENT_MAX];
  size_t size;
  const uint8_t *from = scan->p;
  if (term_scan_ident(scan, ext, &size) < 0) {
    return NULL;
  }
  PyTypeObject *type = scan->state->port_type;
  if (ext[0] == EXT_NEW_PID) {
    type = scan->state->pid_type;
  } else if (ext[0] == EXT_NEWER_REFERENCE) {
    type = scan->state->reference_type;
    if (scan->hooks != NULL && scan->hooks->reference != NULL) {
      PyObject *live = scan->hooks->reference(from, (size_t)(scan->p - from), scan->hooks->arg);
      if (live != NULL || PyErr_Occurred()) {
        return live;
      }
    }
  }
  return term_ident_new(type, ext, size, NULL);
}

static PyObject *
decode_ident(term_scan *scan)
{
  /* A reference may be a live object, which the hook knows by its own bytes. */
  if (*scan->p == EXT_NEW_PID || scan->hooks == NULL || scan->hooks->reference == NULL) {
    PyObject *ident = decode_usual_ident(scan);
    if (ident != NULL || PyErr_Occurred()) {
      return ident;
    }
  }
  return decode_any_ident(scan);
}

static PyObject *
decode_fun(term_scan *scan)
{
  const uint8_t *from = scan->p;
  PyObject *held = NULL;
  if (term_scan_fun(scan, &held) < 0) {
    Py_XDECREF(held);
    return NULL;
  }
  return term_ident_new(scan->state->fun_type, from, (size_t)(scan->p - from), held);
}

static PyObject *
decode_tuple(term_scan *scan, size_t head)
{
  if (need(scan, head) < 0) {
    return NULL;
  }
  uint32_t size = head == 2 ? scan->p[1] : ext_get_u32(scan->p + 1);
  scan->p += head;
  if (term_scan_promise(scan, size) < 0) {
    return NULL;
  }
  PyObject *tuple = PyTuple_New((Py_ssize_t)size);
  if (tuple == NULL) {
    return NULL;
  }
  for (uint32_t i = 0; i < size; i++) {
    PyObject *item = decode_term(scan);
    if (item == NULL) {
      Py_DECREF(tuple);
      return NULL;
    }
    PyTuple_SET_ITEM(tuple, (Py_ssize_t)i, item);
  }
  return tuple;
}

/* Elements whose tail is not []: one proper list when the tail is a list, else an improper one. */
static PyObject *
join_tail(term_scan *scan, PyObject *elements, PyObject *tail)
{
  PyTypeObject *improper = scan->state->improper_list_type;
  Py_ssize_t size = PyList_GET_SIZE(elements);
  if (size == 0) {
    return Py_NewRef(tail);
  }
  if (Py_IS_TYPE(tail, improper)) {
    term_improper_list *rest = (term_improper_list *)tail;
    if (PyList_SetSlice(elements, size, size, rest->elements) < 0) {
      return NULL;
    }
    return term_improper_list_new(improper, elements, rest->tail);
  }
  if (!PyList_CheckExact(tail)) {
    return term_improper_list_new(improper, elements, tail);
  }
  return PyList_SetSlice(elements, size, size, tail) < 0 ? NULL : Py_NewRef(elements);
}

static PyObject *
decode_tail(term_scan *scan, PyObject *elements)
{
  PyObject *tail = decode_term(scan);
  if (tail == NULL) {
    return NULL;
  }
  PyObject *list = join_tail(scan, elements, tail);
  Py_DECREF(tail);
  return list;
}

static PyObject *
decode_list(term_scan *scan)
{
  if (need(scan, 5) < 0) {
    return NULL;
  }
  uint32_t size = ext_get_u32(scan->p + 1);
  scan->p += 5;
  if (term_scan_promise(scan, (uint64_t)size + 1) < 0) {
    return NULL;
  }
  PyObject *list = PyList_New((Py_ssize_t)size);
  if (list == NULL) {
    return NULL;
  }
  for (uint32_t i = 0; i < size; i++) {
    PyObject *item = decode_term(scan);
    if (item == NULL) {
      Py_DECREF(list);
      return NULL;
    }
    PyList_SET_ITEM(list, (Py_ssize_t)i, item);
  }
  if (scan->p < scan->end && *scan->p == EXT_NIL && size > 0) {
    scan->p++;
    scan->promised--;
    return list;
  }
  PyObject *whole = decode_tail(scan, list);
  Py_DECREF(list);
  return whole;
}

/* What hashing or comparing a key raised: about the key, unless memory is short. */
static TERM_LEAF int
bad_key(const term_scan *scan, PyObject *key)
{
  if (PyErr_ExceptionMatches(PyExc_TypeError)) {
    PyErr_Clear();
    PyErr_Format(scan->state->term_error, "a map key has no hash in Python: %.200s (at byte %zd)",
                 Py_TYPE(key)->tp_name, (Py_ssize_t)(scan->p - scan->start));
  } else if (PyErr_ExceptionMatches(PyExc_RecursionError)) {
    PyErr_Clear();
    term_scan_error(scan, "a map key is nested too deep");
  }
  return -1;
}

/* The key is shown where it can be: its text may be too long or too deep to make. */
static TERM_LEAF int
equal_keys(const term_scan *scan, PyObject *key)
{
  Py_ssize_t at = (Py_ssize_t)(scan->p - scan->start);
  PyObject *text = PyObject_Repr(key);
  if (text != NULL) {
    PyErr_Format(scan->state->term_error,
                 "two keys of a map are equal in Python, one of them %.200U (at byte %zd)", text,
                 at);
    Py_DECREF(text);
  } else if (!PyErr_ExceptionMatches(PyExc_MemoryError)) {
    PyErr_Clear();
    term_scan_error(scan, "two keys of a map are equal in Python");
  }
  return -1;
}

/* Adds one entry; size is what the dict holds when the key is new. */
static int
add_entry(const term_scan *scan, PyObject *dict, PyObject *key, PyObject *value, Py_ssize_t size)
{
  if (PyDict_SetItem(dict, key, value) < 0) {
    return bad_key(scan, key);
  }
  return PyDict_GET_SIZE(dict) == size ? 0 : equal_keys(scan, key);
}

static PyObject *
decode_map(term_scan *scan)
{
  if (need(scan, 5) < 0) {
    return NULL;
  }
  uint32_t size = ext_get_u32(scan->p + 1);
  scan->p += 5;
  if (term_scan_promise(scan, 2 * (uint64_t)size) < 0) {
    return NULL;
  }
  PyObject *dict = PyDict_New();
  for (uint32_t i = 0; dict != NULL && i < size; i++) {
    PyObject *key = decode_term(scan);
    PyObject *value = key == NULL ? NULL : decode_term(scan);
    if (value == NULL || add_entry(scan, dict, key, value, (Py_ssize_t)i + 1) < 0) {
      Py_CLEAR(dict);
    }
    Py_XDECREF(key);
    Py_XDECREF(value);
  }
  return dict;
}

static PyObject *
decode_nested(term_scan *scan)
{
  if (!term_depth_allowed(scan->depth)) {
    return fail(scan, "the term is nested too deep");
  }
  scan->depth++;
  PyObject *value;
  switch (*scan->p) {
  case EXT_SMALL_TUPLE:
    value = decode_tuple(scan, 2);
    break;
  case EXT_LARGE_TUPLE:
    value = decode_tuple(scan, 5);
    break;
  case EXT_LIST:
    value = decode_list(scan);
    break;
  case EXT_MAP:
    value = decode_map(scan);
    break;
  default:
    value = decode_fun(scan);
    break;
  }
  scan->depth--;
  return value;
}

/* The kinds that are seldom met, and those that are refused. */
static TERM_LEAF PyObject *
decode_rare(term_scan *scan)
{
  switch (*scan->p) {
  case EXT_ATOM_UTF8:
    return decode_atom(scan, 3, 0);
  case EXT_SMALL_ATOM:
    return decode_atom(scan, 2, 1);
  case EXT_SMALL_BIG:
    return decode_big(scan, 2);
  case EXT_LARGE_BIG:
    return decode_big(scan, 5);
  case EXT_FLOAT:
    return decode_old_float(scan);
  case EXT_BIT_BINARY:
    return decode_bit_binary(scan);
  case EXT_STRING:
    return decode_string(scan);
  case EXT_FUN:
    return fail(scan, "a fun in the form that the emulator gave up is not supported");
  case EXT_LOCAL:
    return fail(scan, "a term in a node's local form is not supported");
  case EXT_COMPRESSED:
    return fail(scan, "a compressed term stands inside another term");
  default:
    return fail(scan, "this is no external term");
  }
}

/* One term at p, a new reference; or NULL with an exception. */
static PyObject *
decode_term(term_scan *scan)
{
  /* Only [] is as short as one byte. */
  if (scan->end - scan->p < 2 && (scan->p == scan->end || *scan->p != EXT_NIL)) {
    return fail(scan, "the term is cut short");
  }
  scan->promised--;
  switch (*scan->p) {
  case EXT_SMALL_INTEGER:
    scan->p += 2;
    return PyLong_FromLong(scan->p[-1]);
  case EXT_INTEGER:
    if (need(scan, 5) < 0) {
      return NULL;
    }
    scan->p += 5;
    return PyLong_FromLong((int32_t)ext_get_u32(scan->p - 4));
  case EXT_NIL:
    scan->p++;
    return PyList_New(0);
  case EXT_SMALL_ATOM_UTF8:
    return decode_atom(scan, 2, 0);
  case EXT_ATOM:
    return decode_atom(scan, 3, 1);
  case EXT_BINARY:
    return decode_binary(scan);
  case EXT_NEW_FLOAT:
    return decode_float(scan);
  case EXT_NEW_PID:
  case EXT_PID:
  case EXT_NEW_PORT:
  case EXT_V4_PORT:
  case EXT_PORT:
  case EXT_NEWER_REFERENCE:
  case EXT_NEW_REFERENCE:
  case EXT_REFERENCE:
    return decode_ident(scan);
  case EXT_SMALL_TUPLE:
  case EXT_LARGE_TUPLE:
  case EXT_LIST:
  case EXT_MAP:
  case EXT_NEW_FUN:
  case EXT_EXPORT:
    return decode_nested(scan);
  default:
    return decode_rare(scan);
  }
}

static PyObject *
decode_whole(term_scan *scan)
{
  PyObject *value = decode_term(scan);
  if (value != NULL && scan->p != scan->end) {
    Py_DECREF(value);
    return fail(scan, "there are bytes behind the term");
  }
  return value;
}

/* Deflate makes nothing more than 1032 times smaller. */
#define INFLATE_RATIO 1032

/* More than this is refused before any of it is unpacked. */
#define INFLATE_MAX (256u << 20)

/* The size bytes that the zlib stream at data unpacks to, as bytes; checked to be exactly as many
 * and to end with the stream, never unpacking more. */
static PyObject *
inflate(const term_scan *scan, const uint8_t *data, size_t data_size, uint32_t size)
{
  PyObject *zlib = PyImport_ImportModule("zlib");
  PyObject *stream = zlib == NULL ? NULL : PyObject_CallMethod(zlib, "decompressobj", NULL);
  Py_XDECREF(zlib);
  if (stream == NULL) {
    return NULL;
  }
  PyObject *bytes = PyObject_CallMethod(stream, "decompress", "y#n", data, (Py_ssize_t)data_size,
                                        (Py_ssize_t)size + 1);
  PyObject *eof = bytes == NULL ? NULL : PyObject_GetAttrString(stream, "eof");
  PyObject *rest = eof == NULL ? NULL : PyObject_GetAttrString(stream, "unused_data");
  if (rest == NULL) {
    if (!PyErr_ExceptionMatches(PyExc_MemoryError)) {
      PyErr_Clear();
      term_scan_error(scan, "a compressed term cannot be unpacked");
    }
    Py_CLEAR(bytes);
  } else if (!Py_IsTrue(eof) || PyBytes_GET_SIZE(rest) != 0 || PyBytes_GET_SIZE(bytes) != size) {
    term_scan_error(scan, "a compressed term has not the size that it says");
    Py_CLEAR(bytes);
  }
  Py_XDECREF(rest);
  Py_XDECREF(eof);
  Py_DECREF(stream);
  return bytes;
}

static PyObject *
decode_compressed(term_scan *scan)
{
  if (need(scan, 5) < 0) {
    return NULL;
  }
  uint32_t size = ext_get_u32(scan->p + 1);
  const uint8_t *data = scan->p + 5;
  size_t data_size = (size_t)(scan->end - data);
  if (size / INFLATE_RATIO > data_size) {
    return fail(scan, "a compressed term has not the size that it says");
  }
  if (size > INFLATE_MAX) {
    return fail(scan, "a compressed term is too large");
  }
  PyObject *bytes = inflate(scan, data, data_size, size);
  if (bytes == NULL) {
    return NULL;
  }
  scan->start = scan->p = (const uint8_t *)PyBytes_AS_STRING(bytes);
  scan->end = scan->p + size;
  PyObject *value = decode_whole(scan);
  Py_DECREF(bytes);
  return value;
}

/* GIL held.  One whole term with its version byte; a new reference, or NULL with TermError,
 * MemoryError or what a hook raised. */
PyObject *
term_decode(term_state *state, const uint8_t *data, size_t size, unsigned flags,
            const term_hooks *hooks)
{
  term_scan scan = {
      .start = data,
      .p = data,
      .end = data + size,
      .promised = 1,
      .flags = flags,
      .hooks = hooks,
      .state = state,
  };
  if (size < 2 || data[0] != EXT_VERSION) {
    return fail(&scan, "an external term starts with 131");
  }
  scan.p++;
  if (*scan.p == EXT_COMPRESSED) {
    return decode_compressed(&scan);
  }
  return decode_whole(&scan);
}
