/* Python objects to external term format.
 *
 * Objects are taken by their exact type first and as subclasses second; what is neither goes to the
 * caller's hook and is a TypeError after that.  Python code can run in a hook, so containers are
 * checked to have stayed as they were. */
#include "term_internal.h"

#include <math.h>
#include <stdlib.h>

/* More than this in one term is a mistake (or a structure that shares its parts without end). */
#define TERM_MAX_SIZE ((size_t)1 << 32)

typedef struct encoder {
  term_state *state;
  term_buf *out;
  size_t start; /* out->size at the beginning */
  unsigned flags;
  int depth;
  const term_hooks *hooks; /* may be NULL */
} encoder;

static int encode_object(encoder *enc, PyObject *object);

/* Room for size more bytes: where they go, or NULL with an exception. */
static uint8_t *
room(encoder *enc, size_t size)
{
  term_buf *out = enc->out;
  if (out->capacity - out->size < size) {
    if (out->size - enc->start > TERM_MAX_SIZE) {
      PyErr_SetString(PyExc_ValueError, "the term is too large");
      return NULL;
    }
    if (term_buf_reserve(out, size) < 0) {
      PyErr_NoMemory();
      return NULL;
    }
  }
  uint8_t *p = out->data + out->size;
  out->size += size;
  return p;
}

static int
put_bytes(encoder *enc, const void *data, size_t size)
{
  uint8_t *p = room(enc, size);
  if (p == NULL) {
    return -1;
  }
  memcpy(p, data, size);
  return 0;
}

/* A tag and a 32-bit count. */
static int
put_head(encoder *enc, uint8_t tag, Py_ssize_t count)
{
  if ((size_t)count > UINT32_MAX) {
    PyErr_SetString(PyExc_ValueError, "a value is too large for an Erlang term");
    return -1;
  }
  uint8_t *p = room(enc, 5);
  if (p == NULL) {
    return -1;
  }
  p[0] = tag;
  ext_put_u32(p + 1, (uint32_t)count);
  return 0;
}

static int
put_atom(encoder *enc, const char *utf8, size_t size)
{
  size_t head = size > UINT8_MAX ? 3 : 2;
  uint8_t *p = room(enc, head + size);
  if (p == NULL) {
    return -1;
  }
  if (head == 2) {
    p[0] = EXT_SMALL_ATOM_UTF8;
    p[1] = (uint8_t)size;
  } else {
    p[0] = EXT_ATOM_UTF8;
    ext_put_u16(p + 1, (uint16_t)size);
  }
  memcpy(p + head, utf8, size);
  return 0;
}

static int
encode_atom(encoder *enc, PyObject *atom)
{
  term_atom *self = (term_atom *)atom;
  Py_ssize_t size;
  const char *utf8 = PyUnicode_AsUTF8AndSize(atom, &size);
  if (utf8 == NULL) {
    return -1;
  }
  if (!self->allowed && enc->hooks != NULL && enc->hooks->atom != NULL) {
    if (enc->hooks->atom(utf8, (size_t)size, enc->hooks->arg) < 0) {
      return -1;
    }
    self->allowed = 1;
  }
  return put_atom(enc, utf8, (size_t)size);
}

static int
put_small_big(encoder *enc, uint64_t magnitude, int negative)
{
  uint8_t digits[8];
  size_t size = 0;
  for (; magnitude != 0; magnitude >>= 8) {
    digits[size++] = (uint8_t)magnitude;
  }
  uint8_t *p = room(enc, 3 + size);
  if (p == NULL) {
    return -1;
  }
  p[0] = EXT_SMALL_BIG;
  p[1] = (uint8_t)size;
  p[2] = (uint8_t)negative;
  memcpy(p + 3, digits, size);
  return 0;
}

/* The magnitude of an int as little-endian bytes.  By int's own methods: a subclass has no say. */
static PyObject *
magnitude_bytes(PyObject *object)
{
  PyObject *magnitude = PyLong_Type.tp_as_number->nb_absolute(object);
  if (magnitude == NULL) {
    return NULL;
  }
  PyObject *bytes = NULL;
  PyObject *bits = PyObject_CallMethod((PyObject *)&PyLong_Type, "bit_length", "O", magnitude);
  if (bits != NULL) {
    Py_ssize_t size = PyLong_AsSsize_t(bits);
    Py_DECREF(bits);
    bytes = PyObject_CallMethod((PyObject *)&PyLong_Type, "to_bytes", "Ons", magnitude,
                                size / 8 + (size % 8 != 0), "little");
  }
  Py_DECREF(magnitude);
  return bytes;
}

static int
encode_big(encoder *enc, PyObject *object, int negative)
{
  PyObject *bytes = magnitude_bytes(object);
  if (bytes == NULL) {
    return -1;
  }
  Py_ssize_t size = PyBytes_GET_SIZE(bytes);
  int result = -1;
  if (size <= UINT8_MAX) {
    uint8_t head[2] = {EXT_SMALL_BIG, (uint8_t)size};
    result = put_bytes(enc, head, sizeof(head));
  } else {
    result = put_head(enc, EXT_LARGE_BIG, size);
  }
  uint8_t sign = (uint8_t)negative;
  if (result == 0) {
    result = put_bytes(enc, &sign, 1);
  }
  if (result == 0) {
    result = put_bytes(enc, PyBytes_AS_STRING(bytes), (size_t)size);
  }
  Py_DECREF(bytes);
  return result;
}

static int
put_int32(encoder *enc, int32_t value)
{
  int small = value >= 0 && value <= UINT8_MAX;
  uint8_t *p = room(enc, small ? 2 : 5);
  if (p == NULL) {
    return -1;
  }
  if (small) {
    p[0] = EXT_SMALL_INTEGER;
    p[1] = (uint8_t)value;
  } else {
    p[0] = EXT_INTEGER;
    ext_put_u32(p + 1, (uint32_t)value);
  }
  return 0;
}

/* Most ints are of one digit of 30 bits: 1 and its value, or 0. */
static inline int
one_digit(PyObject *object, long *value)
{
#if PY_VERSION_HEX >= 0x030c0000
  if (!PyUnstable_Long_IsCompact((PyLongObject *)object)) {
    return 0;
  }
  *value = (long)PyUnstable_Long_CompactValue((PyLongObject *)object);
#else
  Py_ssize_t size = Py_SIZE(object);
  if (size < -1 || size > 1) {
    return 0;
  }
  *value = size * (long)((PyLongObject *)object)->ob_digit[0];
#endif
  return 1;
}

static int
encode_int(encoder *enc, PyObject *object)
{
  long digit;
  if (one_digit(object, &digit)) {
    return put_int32(enc, (int32_t)digit);
  }
  int overflow;
  long long value = PyLong_AsLongLongAndOverflow(object, &overflow);
  if (overflow != 0) {
    return encode_big(enc, object, overflow < 0);
  }
  if (value >= INT32_MIN && value <= INT32_MAX) {
    return put_int32(enc, (int32_t)value);
  }
  uint64_t magnitude = value < 0 ? 0 - (uint64_t)value : (uint64_t)value;
  return put_small_big(enc, magnitude, value < 0);
}

static int
encode_float(encoder *enc, PyObject *object)
{
  double value = PyFloat_AS_DOUBLE(object);
  if (!isfinite(value)) {
    PyErr_SetString(PyExc_ValueError, "Erlang has no float for nan or an infinity");
    return -1;
  }
  uint8_t *p = room(enc, 9);
  if (p == NULL) {
    return -1;
  }
  p[0] = EXT_NEW_FLOAT;
  ext_put_double(p + 1, value);
  return 0;
}

static int
put_binary(encoder *enc, const void *data, Py_ssize_t size)
{
  if (put_head(enc, EXT_BINARY, size) < 0) {
    return -1;
  }
  return put_bytes(enc, data, (size_t)size);
}

static int
encode_str(encoder *enc, PyObject *object)
{
  if (PyUnicode_IS_ASCII(object)) {
    return put_binary(enc, PyUnicode_1BYTE_DATA(object), PyUnicode_GET_LENGTH(object));
  }
  /* Not the str's own cached UTF-8, which would stay as long as the str does. */
  PyObject *utf8 = PyUnicode_AsUTF8String(object);
  if (utf8 == NULL) {
    return -1;
  }
  int result = put_binary(enc, PyBytes_AS_STRING(utf8), PyBytes_GET_SIZE(utf8));
  Py_DECREF(utf8);
  return result;
}

static int
encode_buffer(encoder *enc, PyObject *object)
{
  Py_buffer view;
  if (PyObject_GetBuffer(object, &view, PyBUF_FULL_RO) < 0) {
    return -1;
  }
  int result = put_head(enc, EXT_BINARY, view.len);
  if (result == 0) {
    uint8_t *p = room(enc, (size_t)view.len);
    result = p == NULL ? -1 : PyBuffer_ToContiguous(p, &view, view.len, 'C');
  }
  PyBuffer_Release(&view);
  return result;
}

static int
encode_bit_string(encoder *enc, PyObject *object)
{
  term_bit_string *bit_string = (term_bit_string *)object;
  unsigned last = (unsigned)(bit_string->bits % 8);
  const char *data = PyBytes_AS_STRING(bit_string->data);
  Py_ssize_t size = PyBytes_GET_SIZE(bit_string->data);
  if (last == 0) {
    return put_binary(enc, data, size);
  }
  uint8_t bits = (uint8_t)last;
  if (put_head(enc, EXT_BIT_BINARY, size) < 0 || put_bytes(enc, &bits, 1) < 0) {
    return -1;
  }
  return put_bytes(enc, data, (size_t)size);
}

static int
encode_elements(encoder *enc, PyObject *list)
{
  Py_ssize_t size = PyList_GET_SIZE(list);
  if (put_head(enc, EXT_LIST, size) < 0) {
    return -1;
  }
  for (Py_ssize_t i = 0; i < size; i++) {
    if (PyList_GET_SIZE(list) != size) {
      PyErr_SetString(PyExc_RuntimeError, "a list changed its size while it was encoded");
      return -1;
    }
    PyObject *item = Py_NewRef(PyList_GET_ITEM(list, i));
    int result = encode_object(enc, item);
    Py_DECREF(item);
    if (result < 0) {
      return -1;
    }
  }
  return 0;
}

static int
encode_list(encoder *enc, PyObject *list)
{
  static const uint8_t nil = EXT_NIL;
  if (PyList_GET_SIZE(list) > 0 && encode_elements(enc, list) < 0) {
    return -1;
  }
  return put_bytes(enc, &nil, 1);
}

static int
encode_improper_list(encoder *enc, PyObject *object)
{
  term_improper_list *improper = (term_improper_list *)object;
  if (PyList_GET_SIZE(improper->elements) == 0) {
    PyErr_SetString(PyExc_ValueError, "an improper list has at least one element");
    return -1;
  }
  if (encode_elements(enc, improper->elements) < 0) {
    return -1;
  }
  return encode_object(enc, improper->tail);
}

/* The str at the head of a message, as the atom that it names, if there is such an atom already. */
static int
encode_head(encoder *enc, PyObject *item)
{
  if ((enc->flags & TERM_HEAD_ATOM) && enc->depth == 1 && PyUnicode_Check(item) &&
      PyUnicode_GET_LENGTH(item) <= EXT_ATOM_MAX_CHARS && enc->hooks != NULL &&
      enc->hooks->atom_exists != NULL) {
    Py_ssize_t size;
    const char *utf8 = PyUnicode_AsUTF8AndSize(item, &size);
    if (utf8 == NULL) {
      return -1;
    }
    if (enc->hooks->atom_exists(utf8, (size_t)size, enc->hooks->arg)) {
      return put_atom(enc, utf8, (size_t)size);
    }
  }
  return encode_object(enc, item);
}

static int
encode_tuple(encoder *enc, PyObject *tuple)
{
  Py_ssize_t size = PyTuple_GET_SIZE(tuple);
  if (size <= UINT8_MAX) {
    uint8_t head[2] = {EXT_SMALL_TUPLE, (uint8_t)size};
    if (put_bytes(enc, head, sizeof(head)) < 0) {
      return -1;
    }
  } else if (put_head(enc, EXT_LARGE_TUPLE, size) < 0) {
    return -1;
  }
  if (size > 0 && encode_head(enc, PyTuple_GET_ITEM(tuple, 0)) < 0) {
    return -1;
  }
  for (Py_ssize_t i = 1; i < size; i++) {
    if (encode_object(enc, PyTuple_GET_ITEM(tuple, i)) < 0) {
      return -1;
    }
  }
  return 0;
}

/* Where the encoding of a key lies in out. */
typedef struct key_span {
  const uint8_t *data;
  size_t size;
} key_span;

static int
compare_spans(const void *a, const void *b)
{
  const key_span *x = a;
  const key_span *y = b;
  int order = memcmp(x->data, y->data, x->size < y->size ? x->size : y->size);
  return order != 0 ? order : (x->size > y->size) - (x->size < y->size);
}

/* Different values of one of these types always have different encodings. */
static int
key_type_is_exact(term_state *state, PyTypeObject *type)
{
  return type == &PyUnicode_Type || type == &PyLong_Type || type == &PyBytes_Type ||
         type == state->atom_type || type == &PyFloat_Type ||
         (term_ident_is(state, type) && type != state->fun_type);
}

static int
keys_may_collide(term_state *state, PyObject *dict)
{
  Py_ssize_t position = 0;
  PyObject *key;
  PyTypeObject *type = NULL;
  while (PyDict_Next(dict, &position, &key, NULL)) {
    if (type == NULL) {
      type = Py_TYPE(key);
      if (PyDict_GET_SIZE(dict) > 1 && !key_type_is_exact(state, type)) {
        return 1;
      }
    } else if (Py_TYPE(key) != type) {
      return 1;
    }
  }
  return 0;
}

static int
check_spans(encoder *enc, const size_t *offsets, size_t count)
{
  key_span *spans = PyMem_New(key_span, count);
  if (spans == NULL) {
    PyErr_NoMemory();
    return -1;
  }
  for (size_t i = 0; i < count; i++) {
    spans[i].data = enc->out->data + offsets[2 * i];
    spans[i].size = offsets[2 * i + 1] - offsets[2 * i];
  }
  qsort(spans, count, sizeof(*spans), compare_spans);
  int result = 0;
  for (size_t i = 1; i < count && result == 0; i++) {
    if (compare_spans(&spans[i - 1], &spans[i]) == 0) {
      PyErr_SetString(PyExc_ValueError, "two keys of a dict are equal in Erlang");
      result = -1;
    }
  }
  PyMem_Free(spans);
  return result;
}

/* The entries; with offsets, where each key begins and ends is noted there. */
static int
encode_entries(encoder *enc, PyObject *dict, Py_ssize_t size, size_t *offsets)
{
  Py_ssize_t position = 0;
  Py_ssize_t count = 0;
  PyObject *key;
  PyObject *value;
  while (PyDict_Next(dict, &position, &key, &value)) {
    if (PyDict_GET_SIZE(dict) != size || count == size) {
      break;
    }
    if (offsets != NULL) {
      offsets[2 * count] = enc->out->size;
    }
    Py_INCREF(key);
    Py_INCREF(value);
    int result = encode_object(enc, key);
    if (offsets != NULL) {
      offsets[2 * count + 1] = enc->out->size;
    }
    if (result == 0) {
      result = encode_object(enc, value);
    }
    Py_DECREF(key);
    Py_DECREF(value);
    if (result < 0) {
      return -1;
    }
    count++;
  }
  if (count != size || PyDict_GET_SIZE(dict) != size) {
    PyErr_SetString(PyExc_RuntimeError, "a dict changed while it was encoded");
    return -1;
  }
  return 0;
}

static int
encode_dict(encoder *enc, PyObject *dict)
{
  Py_ssize_t size = PyDict_GET_SIZE(dict);
  if (put_head(enc, EXT_MAP, size) < 0) {
    return -1;
  }
  if (!keys_may_collide(enc->state, dict)) {
    return encode_entries(enc, dict, size, NULL);
  }
  size_t *offsets = PyMem_New(size_t, 2 * (size_t)size);
  if (offsets == NULL) {
    PyErr_NoMemory();
    return -1;
  }
  int result = encode_entries(enc, dict, size, offsets);
  if (result == 0) {
    result = check_spans(enc, offsets, (size_t)size);
  }
  PyMem_Free(offsets);
  return result;
}

/* What the codec does not know: the hook's, or nobody's. */
static int
encode_other(encoder *enc, PyObject *object)
{
  int known = 0;
  if (enc->hooks != NULL && enc->hooks->other != NULL) {
    known = enc->hooks->other(object, enc->out, enc->hooks->arg);
  }
  if (known == 0) {
    PyErr_Format(PyExc_TypeError, "there is no Erlang term for an object of type '%.200s'",
                 Py_TYPE(object)->tp_name);
  }
  return known == 1 ? 0 : -1;
}

/* Containers: one level deeper. */
static int
encode_nested(encoder *enc, PyObject *object, int (*encode)(encoder *, PyObject *))
{
  if (!term_depth_allowed(enc->depth)) {
    PyErr_Format(PyExc_RecursionError, "the value is nested too deep, %d levels", enc->depth);
    return -1;
  }
  enc->depth++;
  int result = encode(enc, object);
  enc->depth--;
  return result;
}

/* Subclasses of Python's own types, and what is no type of ours at all. */
static int
encode_subclass(encoder *enc, PyObject *object)
{
  if (PyLong_Check(object)) {
    return encode_int(enc, object);
  }
  if (PyUnicode_Check(object)) {
    return encode_str(enc, object);
  }
  if (PyTuple_Check(object)) {
    return encode_nested(enc, object, encode_tuple);
  }
  if (PyList_Check(object)) {
    return encode_nested(enc, object, encode_list);
  }
  if (PyDict_Check(object)) {
    return encode_nested(enc, object, encode_dict);
  }
  if (PyFloat_Check(object)) {
    return encode_float(enc, object);
  }
  if (PyBytes_Check(object)) {
    return put_binary(enc, PyBytes_AS_STRING(object), PyBytes_GET_SIZE(object));
  }
  if (PyByteArray_Check(object) || PyMemoryView_Check(object)) {
    return encode_buffer(enc, object);
  }
  return encode_other(enc, object);
}

/* Under the name that its node has by now. */
static TERM_LEAF int
encode_renamed(encoder *enc, const term_ident *ident)
{
  uint8_t renamed[TERM_IDENT_MAX];
  size_t size = enc->hooks->rename(ident->ext, (size_t)Py_SIZE(ident), renamed, sizeof(renamed),
                                   enc->hooks->arg);
  if (size > 0) {
    return put_bytes(enc, renamed, size);
  }
  return put_bytes(enc, ident->ext, (size_t)Py_SIZE(ident));
}

static int
encode_ident(encoder *enc, const term_ident *ident)
{
  if (enc->hooks != NULL && enc->hooks->rename != NULL && term_ident_is_nameless(ident)) {
    return encode_renamed(enc, ident);
  }
  return put_bytes(enc, ident->ext, (size_t)Py_SIZE(ident));
}

/* The module's own types, and the rest. */
static int
encode_special(encoder *enc, PyObject *object)
{
  term_state *state = enc->state;
  PyTypeObject *type = Py_TYPE(object);
  if (term_ident_is(state, type)) {
    return encode_ident(enc, (term_ident *)object);
  }
  if (type == state->bit_string_type) {
    return encode_bit_string(enc, object);
  }
  if (type == state->improper_list_type) {
    return encode_nested(enc, object, encode_improper_list);
  }
  return encode_subclass(enc, object);
}

/* One object; 0, or -1 with an exception. */
static int
encode_object(encoder *enc, PyObject *object)
{
  PyTypeObject *type = Py_TYPE(object);
  if (type == &PyUnicode_Type) {
    return encode_str(enc, object);
  }
  if (type == &PyLong_Type) {
    return encode_int(enc, object);
  }
  if (type == &PyBytes_Type) {
    return put_binary(enc, PyBytes_AS_STRING(object), PyBytes_GET_SIZE(object));
  }
  if (type == enc->state->atom_type) {
    return encode_atom(enc, object);
  }
  if (type == &PyTuple_Type) {
    return encode_nested(enc, object, encode_tuple);
  }
  if (type == &PyList_Type) {
    return encode_nested(enc, object, encode_list);
  }
  if (type == &PyDict_Type) {
    return encode_nested(enc, object, encode_dict);
  }
  if (type == &PyFloat_Type) {
    return encode_float(enc, object);
  }
  if (object == Py_None) {
    return put_atom(enc, enc->state->none_atom, strlen(enc->state->none_atom));
  }
  if (type == &PyBool_Type) {
    return object == Py_True ? put_atom(enc, "true", 4) : put_atom(enc, "false", 5);
  }
  return encode_special(enc, object);
}

/* GIL held.  Appends the encoding of object with its version byte; 0, or -1 with an exception, out
 * then being as long as before. */
int
term_encode(term_state *state, PyObject *object, term_buf *out, unsigned flags,
            const term_hooks *hooks)
{
  static const uint8_t version = EXT_VERSION;
  encoder enc = {
      .state = state,
      .out = out,
      .start = out->size,
      .flags = flags,
      .hooks = hooks,
  };
  if (put_bytes(&enc, &version, 1) < 0 || encode_object(&enc, object) < 0) {
    out->size = enc.start;
    return -1;
  }
  return 0;
}
