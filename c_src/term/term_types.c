/* erlang.BitString and erlang.ImproperList. */
#include "term_internal.h"

#include <stddef.h>

/* GIL held.  A BitString of the first bits bits of data; a new reference, or NULL. */
PyObject *
term_bit_string_new(PyTypeObject *type, const uint8_t *data, size_t bits)
{
  size_t size = bits / 8 + (bits % 8 != 0);
  /* Copied by hand, as bytes made of a single given byte are shared. */
  PyObject *bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)size);
  if (bytes == NULL) {
    return NULL;
  }
  if (size > 0) {
    memcpy(PyBytes_AS_STRING(bytes), data, size);
  }
  if (bits % 8 != 0) {
    /* Erlang pads with zeros too; equal bit strings have equal bytes then. */
    PyBytes_AS_STRING(bytes)[size - 1] &= (char)(0xff00 >> bits % 8);
  }
  term_bit_string *self = PyObject_New(term_bit_string, type);
  if (self == NULL) {
    Py_DECREF(bytes);
    return NULL;
  }
  self->data = bytes;
  self->bits = (Py_ssize_t)bits;
  return (PyObject *)self;
}

static PyObject *
bit_string_tp_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
  static char *names[] = {"data", "bits", NULL};
  Py_buffer data;
  Py_ssize_t bits;
  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "y*n:BitString", names, &data, &bits)) {
    return NULL;
  }
  PyObject *self = NULL;
  if (bits < 0 || bits / 8 + (bits % 8 != 0) != data.len) {
    PyErr_SetString(PyExc_ValueError,
                    "bits must fill data but for at most 7 bits of its last byte");
  } else {
    self = term_bit_string_new(type, data.buf, (size_t)bits);
  }
  PyBuffer_Release(&data);
  return self;
}

static void
bit_string_dealloc(PyObject *self)
{
  PyTypeObject *type = Py_TYPE(self);
  Py_DECREF(((term_bit_string *)self)->data);
  type->tp_free(self);
  Py_DECREF(type);
}

static Py_ssize_t
bit_string_length(PyObject *self)
{
  return ((term_bit_string *)self)->bits;
}

static Py_hash_t
bit_string_hash(PyObject *object)
{
  term_bit_string *self = (term_bit_string *)object;
  Py_hash_t hash = PyObject_Hash(self->data);
  if (hash != -1) {
    hash ^= self->bits * 31;
  }
  return hash == -1 ? -2 : hash;
}

/* Bit by bit, as Erlang compares them: a beginning of a longer one is less. */
static PyObject *
bit_string_richcompare(PyObject *a, PyObject *b, int op)
{
  if (!Py_IS_TYPE(b, Py_TYPE(a))) {
    Py_RETURN_NOTIMPLEMENTED;
  }
  term_bit_string *x = (term_bit_string *)a;
  term_bit_string *y = (term_bit_string *)b;
  Py_ssize_t common = (x->bits < y->bits ? x->bits : y->bits);
  const uint8_t *p = (const uint8_t *)PyBytes_AS_STRING(x->data);
  const uint8_t *q = (const uint8_t *)PyBytes_AS_STRING(y->data);
  int order = memcmp(p, q, (size_t)(common / 8));
  if (order == 0 && common % 8 != 0) {
    int mask = 0xff00 >> common % 8 & 0xff;
    order = (p[common / 8] & mask) - (q[common / 8] & mask);
  }
  if (order == 0) {
    order = (x->bits > y->bits) - (x->bits < y->bits);
  }
  Py_RETURN_RICHCOMPARE(order, 0, op);
}

static PyObject *
bit_string_repr(PyObject *object)
{
  term_bit_string *self = (term_bit_string *)object;
  return PyUnicode_FromFormat("BitString(%R, %zd)", self->data, self->bits);
}

static PyObject *
bit_string_getnewargs(PyObject *object, PyObject *unused)
{
  (void)unused;
  term_bit_string *self = (term_bit_string *)object;
  return Py_BuildValue("(On)", self->data, self->bits);
}

static PyMethodDef bit_string_methods[] = {
    {"__getnewargs__", bit_string_getnewargs, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef bit_string_members[] = {
    {"data", T_OBJECT_EX, offsetof(term_bit_string, data), READONLY,
     PyDoc_STR("The bits as bytes, the first one highest; the last byte is filled with zeros.")},
    {"bits", T_PYSSIZET, offsetof(term_bit_string, bits), READONLY,
     PyDoc_STR("How many bits there are.")},
    {NULL, 0, 0, 0, NULL},
};

PyDoc_STRVAR(bit_string_doc,
             "BitString(data, bits)\n--\n\n"
             "An Erlang bit string whose length is no multiple of 8 (one whose length is, is a\n"
             "binary and comes as bytes).  data holds the bits, bits is how many of them count;\n"
             "len() is the number of bits.  ValueError when they do not fit each other.");

static PyType_Slot bit_string_slots[] = {
    {Py_tp_doc, (void *)bit_string_doc},         {Py_tp_new, bit_string_tp_new},
    {Py_tp_dealloc, bit_string_dealloc},         {Py_tp_hash, bit_string_hash},
    {Py_tp_richcompare, bit_string_richcompare}, {Py_tp_repr, bit_string_repr},
    {Py_tp_methods, bit_string_methods},         {Py_tp_members, bit_string_members},
    {Py_sq_length, bit_string_length},           {0, NULL},
};

static PyType_Spec bit_string_spec = {
    .name = "erlang.BitString",
    .basicsize = sizeof(term_bit_string),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = bit_string_slots,
};

/* GIL held.  The type, a new reference; or NULL with an exception. */
PyTypeObject *
term_bit_string_type(PyObject *module)
{
  return (PyTypeObject *)PyType_FromModuleAndSpec(module, &bit_string_spec, NULL);
}

/* GIL held.  An ImproperList of this list and this tail, both borrowed; NULL with MemoryError. */
PyObject *
term_improper_list_new(PyTypeObject *type, PyObject *elements, PyObject *tail)
{
  term_improper_list *self = (term_improper_list *)type->tp_alloc(type, 0);
  if (self != NULL) {
    self->elements = Py_NewRef(elements);
    self->tail = Py_NewRef(tail);
  }
  return (PyObject *)self;
}

static PyObject *
improper_list_tp_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
  static char *names[] = {"elements", "tail", NULL};
  PyObject *iterable;
  PyObject *tail;
  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO:ImproperList", names, &iterable, &tail)) {
    return NULL;
  }
  if (PyList_Check(tail)) {
    PyErr_SetString(PyExc_ValueError, "a list whose tail is a list is a proper one");
    return NULL;
  }
  PyObject *elements = PySequence_List(iterable);
  if (elements == NULL) {
    return NULL;
  }
  PyObject *self = NULL;
  if (PyList_GET_SIZE(elements) == 0) {
    PyErr_SetString(PyExc_ValueError, "an improper list has at least one element");
  } else {
    self = term_improper_list_new(type, elements, tail);
  }
  Py_DECREF(elements);
  return self;
}

static int
improper_list_traverse(PyObject *object, visitproc visit, void *arg)
{
  term_improper_list *self = (term_improper_list *)object;
  Py_VISIT(Py_TYPE(object));
  Py_VISIT(self->elements);
  Py_VISIT(self->tail);
  return 0;
}

static int
improper_list_clear(PyObject *object)
{
  term_improper_list *self = (term_improper_list *)object;
  Py_CLEAR(self->elements);
  Py_CLEAR(self->tail);
  return 0;
}

static void
improper_list_dealloc(PyObject *object)
{
  PyTypeObject *type = Py_TYPE(object);
  PyObject_GC_UnTrack(object);
  Py_TRASHCAN_BEGIN(object, improper_list_dealloc) improper_list_clear(object);
  type->tp_free(object);
  Py_DECREF(type);
  Py_TRASHCAN_END
}

static PyObject *
improper_list_richcompare(PyObject *a, PyObject *b, int op)
{
  if (!Py_IS_TYPE(b, Py_TYPE(a)) || (op != Py_EQ && op != Py_NE)) {
    Py_RETURN_NOTIMPLEMENTED;
  }
  term_improper_list *x = (term_improper_list *)a;
  term_improper_list *y = (term_improper_list *)b;
  int equal = PyObject_RichCompareBool(x->elements, y->elements, Py_EQ);
  if (equal > 0) {
    equal = PyObject_RichCompareBool(x->tail, y->tail, Py_EQ);
  }
  if (equal < 0) {
    return NULL;
  }
  return PyBool_FromLong(equal == (op == Py_EQ));
}

static PyObject *
improper_list_repr(PyObject *object)
{
  term_improper_list *self = (term_improper_list *)object;
  int entered = Py_ReprEnter(object);
  if (entered != 0) {
    return entered < 0 ? NULL : PyUnicode_FromString("ImproperList(...)");
  }
  PyObject *repr = PyUnicode_FromFormat("ImproperList(%R, %R)", self->elements, self->tail);
  Py_ReprLeave(object);
  return repr;
}

static PyObject *
improper_list_getnewargs(PyObject *object, PyObject *unused)
{
  (void)unused;
  term_improper_list *self = (term_improper_list *)object;
  return Py_BuildValue("(OO)", self->elements, self->tail);
}

static PyMethodDef improper_list_methods[] = {
    {"__getnewargs__", improper_list_getnewargs, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef improper_list_members[] = {
    {"elements", T_OBJECT_EX, offsetof(term_improper_list, elements), READONLY,
     PyDoc_STR("The elements before the tail, a list of at least one.")},
    {"tail", T_OBJECT_EX, offsetof(term_improper_list, tail), READONLY,
     PyDoc_STR("What ends it: anything but a list.")},
    {NULL, 0, 0, 0, NULL},
};

PyDoc_STRVAR(improper_list_doc,
             "ImproperList(elements, tail)\n--\n\n"
             "An Erlang list that does not end in [], such as [1, 2 | 3].  As a list, it has no\n"
             "hash.  ValueError when elements is empty or tail is a list.");

static PyType_Slot improper_list_slots[] = {
    {Py_tp_doc, (void *)improper_list_doc},
    {Py_tp_new, improper_list_tp_new},
    {Py_tp_dealloc, improper_list_dealloc},
    {Py_tp_traverse, improper_list_traverse},
    {Py_tp_clear, improper_list_clear},
    {Py_tp_hash, PyObject_HashNotImplemented},
    {Py_tp_richcompare, improper_list_richcompare},
    {Py_tp_repr, improper_list_repr},
    {Py_tp_methods, improper_list_methods},
    {Py_tp_members, improper_list_members},
    {0, NULL},
};

static PyType_Spec improper_list_spec = {
    .name = "erlang.ImproperList",
    .basicsize = sizeof(term_improper_list),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = improper_list_slots,
};

/* GIL held.  The type, a new reference; or NULL with an exception. */
PyTypeObject *
term_improper_list_type(PyObject *module)
{
  return (PyTypeObject *)PyType_FromModuleAndSpec(module, &improper_list_spec, NULL);
}
