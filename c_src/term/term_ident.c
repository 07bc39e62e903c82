/* erlang.Pid, Port, Reference and Fun: things that only Erlang can make, held by their encoding. */
#include "term_internal.h"

/* GIL held.  A new object of one of the four types, whose size bytes at *ext the caller writes.
 * NULL with MemoryError. */
PyObject *
term_ident_alloc(PyTypeObject *type, size_t size, uint8_t **ext)
{
  term_ident *self = PyObject_NewVar(term_ident, type, (Py_ssize_t)size);
  if (self == NULL) {
    return NULL;
  }
  self->hash = -1;
  self->held = NULL;
  *ext = self->ext;
  return (PyObject *)self;
}

/* GIL held.  A new object of one of the four types; held (stolen, may be NULL) is kept alive with
 * it.  NULL with MemoryError. */
PyObject *
term_ident_new(PyTypeObject *type, const uint8_t *ext, size_t size, PyObject *held)
{
  uint8_t *to;
  PyObject *self = term_ident_alloc(type, size, &to);
  if (self == NULL) {
    Py_XDECREF(held);
    return NULL;
  }
  memcpy(to, ext, size);
  ((term_ident *)self)->held = held;
  return self;
}

/* GIL held.  Is it one of the four types? */
int
term_ident_is(term_state *state, PyTypeObject *type)
{
  return type == state->pid_type || type == state->reference_type || type == state->port_type ||
         type == state->fun_type;
}

static void
ident_dealloc(PyObject *self)
{
  PyTypeObject *type = Py_TYPE(self);
  Py_XDECREF(((term_ident *)self)->held);
  type->tp_free(self);
  Py_DECREF(type);
}

static Py_hash_t
ident_hash(PyObject *object)
{
  term_ident *self = (term_ident *)object;
  if (self->hash == -1) {
    /* A bytes object's hash, for its keyed, collision-resistant function. */
    PyObject *bytes = PyBytes_FromStringAndSize((char *)self->ext, Py_SIZE(self));
    if (bytes == NULL) {
      return -1;
    }
    self->hash = PyObject_Hash(bytes);
    Py_DECREF(bytes);
  }
  return self->hash;
}

/* The fields of a pid, port or reference. */
typedef struct ident_fields {
  const uint8_t *node; /* UTF-8 */
  size_t node_size;
  uint32_t creation;
  unsigned words; /* of number: most significant first */
  uint32_t number[EXT_REFERENCE_MAX_WORDS];
} ident_fields;

static ident_fields
ident_parse(const term_ident *self)
{
  ident_fields fields = {0};
  uint8_t tag = self->ext[0];
  const uint8_t *p = self->ext + (tag == EXT_NEWER_REFERENCE ? 3 : 1);
  int small = p[0] == EXT_SMALL_ATOM_UTF8;
  fields.node_size = small ? p[1] : ext_get_u16(p + 1);
  fields.node = p + (small ? 2 : 3);
  p = fields.node + fields.node_size;
  size_t left = (size_t)(self->ext + Py_SIZE(self) - p);
  fields.words = (unsigned)(left / 4 - 1);
  if (tag == EXT_NEWER_REFERENCE) {
    /* The first word is the least significant one. */
    fields.creation = ext_get_u32(p);
    for (unsigned i = 0; i < fields.words; i++) {
      fields.number[fields.words - 1 - i] = ext_get_u32(p + 4 + 4 * i);
    }
  } else {
    fields.creation = ext_get_u32(p + left - 4);
    for (unsigned i = 0; i < fields.words; i++) {
      fields.number[i] = ext_get_u32(p + 4 * i);
    }
  }
  return fields;
}

static int
compare_u32(uint32_t a, uint32_t b)
{
  return (a > b) - (a < b);
}

static int
compare_bytes(const uint8_t *a, size_t a_size, const uint8_t *b, size_t b_size)
{
  int order = memcmp(a, b, a_size < b_size ? a_size : b_size);
  return order != 0 ? order : (a_size > b_size) - (a_size < b_size);
}

/* By node name, creation, number: any total order would do, this one groups what belongs together. */
static int
ident_compare(const term_ident *a, const term_ident *b)
{
  ident_fields x = ident_parse(a);
  ident_fields y = ident_parse(b);
  int order = compare_bytes(x.node, x.node_size, y.node, y.node_size);
  if (order == 0) {
    order = compare_u32(x.creation, y.creation);
  }
  if (order == 0) {
    order = compare_u32(x.words, y.words);
  }
  for (unsigned i = 0; order == 0 && i < x.words; i++) {
    order = compare_u32(x.number[i], y.number[i]);
  }
  return order;
}

static PyObject *
ident_richcompare(PyObject *a, PyObject *b, int op)
{
  if (!Py_IS_TYPE(b, Py_TYPE(a))) {
    Py_RETURN_NOTIMPLEMENTED;
  }
  term_ident *x = (term_ident *)a;
  term_ident *y = (term_ident *)b;
  int order;
  if (op == Py_EQ || op == Py_NE || x->ext[0] == EXT_NEW_FUN || x->ext[0] == EXT_EXPORT) {
    order = compare_bytes(x->ext, (size_t)Py_SIZE(x), y->ext, (size_t)Py_SIZE(y));
  } else {
    order = ident_compare(x, y);
  }
  Py_RETURN_RICHCOMPARE(order, 0, op);
}

static int
node_is_nameless(const ident_fields *fields)
{
  static const char nameless[] = "nonode@nohost";
  return fields->node_size == sizeof(nameless) - 1 &&
         memcmp(fields->node, nameless, fields->node_size) == 0;
}

/* Is it a pid, port or reference that came from a node without a name? */
int
term_ident_is_nameless(const term_ident *ident)
{
  if (ident->ext[0] == EXT_NEW_FUN || ident->ext[0] == EXT_EXPORT) {
    return 0;
  }
  ident_fields fields = ident_parse(ident);
  return fields.creation == 0 && node_is_nameless(&fields);
}

/* The node as Erlang shows it: nothing for a node without a name. */
static PyObject *
node_prefix(const ident_fields *fields)
{
  if (node_is_nameless(fields)) {
    return PyUnicode_FromString("");
  }
  PyObject *name =
      PyUnicode_DecodeUTF8((const char *)fields->node, (Py_ssize_t)fields->node_size, NULL);
  if (name == NULL) {
    return NULL;
  }
  PyObject *prefix = PyUnicode_FromFormat("%U.", name);
  Py_DECREF(name);
  return prefix;
}

static PyObject *
format_numbers(const ident_fields *fields, PyObject *prefix)
{
  char text[EXT_REFERENCE_MAX_WORDS * 11 + 1];
  int size = 0;
  for (unsigned i = 0; i < fields->words; i++) {
    size += snprintf(text + size, sizeof(text) - (size_t)size, ".%u", fields->number[i]);
  }
  return PyUnicode_FromFormat("#Ref<%U0%s>", prefix, text);
}

/* As Erlang prints it, but with the node's name in front where Erlang has a number of its own. */
static PyObject *
ident_repr(PyObject *object)
{
  ident_fields fields = ident_parse((term_ident *)object);
  PyObject *prefix = node_prefix(&fields);
  if (prefix == NULL) {
    return NULL;
  }
  PyObject *repr;
  switch (((term_ident *)object)->ext[0]) {
  case EXT_NEW_PID:
    repr = PyUnicode_FromFormat("<%U0.%u.%u>", prefix, fields.number[0], fields.number[1]);
    break;
  case EXT_NEW_PORT:
    repr = PyUnicode_FromFormat("#Port<%U0.%u>", prefix, fields.number[0]);
    break;
  case EXT_V4_PORT:
    repr = PyUnicode_FromFormat("#Port<%U0.%llu>", prefix,
                                (unsigned long long)fields.number[0] << 32 | fields.number[1]);
    break;
  default:
    repr = format_numbers(&fields, prefix);
    break;
  }
  Py_DECREF(prefix);
  return repr;
}

/* An atom inside a fun's encoding, which the decoder has checked, as text; moves *p past it. */
static PyObject *
fun_atom(const uint8_t **p)
{
  uint8_t tag = **p;
  int small = tag == EXT_SMALL_ATOM_UTF8 || tag == EXT_SMALL_ATOM;
  size_t size = small ? (*p)[1] : ext_get_u16(*p + 1);
  const char *text = (const char *)*p + (small ? 2 : 3);
  *p += (small ? 2 : 3) + size;
  if (tag == EXT_ATOM || tag == EXT_SMALL_ATOM) {
    return PyUnicode_DecodeLatin1(text, (Py_ssize_t)size, NULL);
  }
  return PyUnicode_DecodeUTF8(text, (Py_ssize_t)size, NULL);
}

/* A small integer inside a fun's encoding, which the decoder has checked; moves *p past it. */
static unsigned
fun_integer(const uint8_t **p)
{
  int small = **p == EXT_SMALL_INTEGER;
  unsigned value = small ? (*p)[1] : ext_get_u32(*p + 1);
  *p += small ? 2 : 5;
  return value;
}

static PyObject *
export_repr(const uint8_t *p)
{
  PyObject *module = fun_atom(&p);
  PyObject *function = module == NULL ? NULL : fun_atom(&p);
  PyObject *repr = NULL;
  if (function != NULL) {
    repr = PyUnicode_FromFormat("fun %U:%U/%u", module, function, fun_integer(&p));
  }
  Py_XDECREF(module);
  Py_XDECREF(function);
  return repr;
}

static PyObject *
fun_repr(PyObject *object)
{
  const uint8_t *ext = ((term_ident *)object)->ext;
  if (ext[0] == EXT_EXPORT) {
    return export_repr(ext + 1);
  }
  const uint8_t *p = ext + 30;
  PyObject *module = fun_atom(&p);
  if (module == NULL) {
    return NULL;
  }
  unsigned index = fun_integer(&p);
  unsigned uniq = fun_integer(&p);
  PyObject *repr = PyUnicode_FromFormat("#Fun<%U.%u.%u>", module, index, uniq);
  Py_DECREF(module);
  return repr;
}

static PyObject *
ident_node(PyObject *object, void *closure)
{
  (void)closure;
  ident_fields fields = ident_parse((term_ident *)object);
  return PyUnicode_DecodeUTF8((const char *)fields.node, (Py_ssize_t)fields.node_size, NULL);
}

static PyObject *
fun_module(PyObject *object, void *closure)
{
  (void)closure;
  const uint8_t *p = ((term_ident *)object)->ext;
  p += p[0] == EXT_EXPORT ? 1 : 30;
  return fun_atom(&p);
}

static PyObject *
fun_arity(PyObject *object, void *closure)
{
  (void)closure;
  const uint8_t *p = ((term_ident *)object)->ext;
  if (p[0] == EXT_NEW_FUN) {
    return PyLong_FromLong(p[5]);
  }
  return PyLong_FromLong(p[Py_SIZE(object) - 1]);
}

/* Copying and pickling go through the encoding. */
static PyObject *
ident_reduce(PyObject *object, PyObject *unused)
{
  (void)unused;
  term_ident *self = (term_ident *)object;
  PyObject *module = PyType_GetModule(Py_TYPE(object));
  PyObject *decode = module == NULL ? NULL : PyObject_GetAttrString(module, "decode");
  if (decode == NULL) {
    return NULL;
  }
  PyObject *bytes = PyBytes_FromStringAndSize(NULL, Py_SIZE(self) + 1);
  if (bytes == NULL) {
    Py_DECREF(decode);
    return NULL;
  }
  PyBytes_AS_STRING(bytes)[0] = (char)EXT_VERSION;
  memcpy(PyBytes_AS_STRING(bytes) + 1, self->ext, (size_t)Py_SIZE(self));
  return Py_BuildValue("N(N)", decode, bytes);
}

static PyMethodDef ident_methods[] = {
    {"__reduce__", ident_reduce, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef ident_getset[] = {
    {"node", ident_node, NULL, PyDoc_STR("The name of the node it belongs to, a str."), NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyGetSetDef fun_getset[] = {
    {"module", fun_module, NULL, PyDoc_STR("The name of its module, a str."), NULL},
    {"arity", fun_arity, NULL, PyDoc_STR("How many arguments it takes."), NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyDoc_STRVAR(pid_doc, "The identifier of an Erlang process, local or remote.");
PyDoc_STRVAR(port_doc, "The identifier of an Erlang port.");
PyDoc_STRVAR(reference_doc, "An Erlang reference that is no live object here.");
PyDoc_STRVAR(fun_doc, "An Erlang fun: Python can hold it and send it back, not call it.");

#define IDENT_FLAGS                                                                                \
  (Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION)

static PyTypeObject *
ident_type(PyObject *module, const char *name, const char *doc, reprfunc repr, PyGetSetDef *getset)
{
  PyType_Slot slots[] = {
      {Py_tp_doc, (void *)doc}, {Py_tp_dealloc, ident_dealloc},
      {Py_tp_hash, ident_hash}, {Py_tp_richcompare, ident_richcompare},
      {Py_tp_repr, repr},       {Py_tp_methods, ident_methods},
      {Py_tp_getset, getset},   {0, NULL},
  };
  PyType_Spec spec = {
      .name = name,
      .basicsize = offsetof(term_ident, ext),
      .itemsize = 1,
      .flags = IDENT_FLAGS,
      .slots = slots,
  };
  return (PyTypeObject *)PyType_FromModuleAndSpec(module, &spec, NULL);
}

/* GIL held.  Makes the four types; 0, or -1 with an exception. */
int
term_ident_types(PyObject *module, term_state *state)
{
  state->pid_type = ident_type(module, "erlang.Pid", pid_doc, ident_repr, ident_getset);
  state->port_type = ident_type(module, "erlang.Port", port_doc, ident_repr, ident_getset);
  state->reference_type =
      ident_type(module, "erlang.Reference", reference_doc, ident_repr, ident_getset);
  state->fun_type = ident_type(module, "erlang.Fun", fun_doc, fun_repr, fun_getset);
  if (state->pid_type == NULL || state->port_type == NULL || state->reference_type == NULL ||
      state->fun_type == NULL) {
    return -1;
  }
  return 0;
}
