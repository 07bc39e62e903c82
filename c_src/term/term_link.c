/* The codec's capsule with the hooks that know live handles and the VM's atoms. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "term_link.h"

#include "atoms.h"
#include "local_node.h"

/* Names that replies begin with: few, and an atom never goes.  A power of two. */
#define KNOWN_ATOMS 256
#define KNOWN_ATOM_MAX 31

typedef struct known_atom {
  uint8_t size; /* 0 when free */
  char text[KNOWN_ATOM_MAX];
} known_atom;

/* Constant once the interpreter has started. */
static const term_api *api;
static handle_wrap_fn wraps[HANDLE_KINDS];
static handle_unwrap_fn unwraps[HANDLE_KINDS];
static handle_given_fn givens[HANDLE_KINDS];

static known_atom known_atoms[KNOWN_ATOMS]; /* guarded by the GIL */

/* What the hooks get as their argument. */
typedef struct encode_context {
  handle_list *handles;
  void *(*fallback)(PyObject *object);
} encode_context;

/* Takes over the count of the resource.  0, or -1 when memory is short. */
static int
handle_list_add(handle_list *list, void *resource, enum handle_kind kind)
{
  if (list->count == list->capacity) {
    size_t capacity = list->capacity == 0 ? 4 : 2 * list->capacity;
    struct handle_list_item *items = realloc(list->items, capacity * sizeof(*items));
    if (items == NULL) {
      handle_release(resource);
      return -1;
    }
    list->items = items;
    list->capacity = capacity;
  }
  list->items[list->count].resource = resource;
  list->items[list->count++].kind = kind;
  return 0;
}

void
handle_list_given(const handle_list *list)
{
  for (size_t i = 0; i < list->count; i++) {
    handle_given_fn given = givens[list->items[i].kind];
    if (given != NULL) {
      given(list->items[i].resource);
    }
  }
}

void
handle_list_release(handle_list *list)
{
  for (size_t i = 0; i < list->count; i++) {
    handle_release(list->items[i].resource);
  }
  free(list->items);
  *list = (handle_list){0};
}

/* What the reference hook gets as its argument, or NULL. */
typedef struct decode_context {
  void *(*find)(const uint8_t *ext, size_t size, void *arg, enum handle_kind *kind);
  void *arg;
} decode_context;

static PyObject *
hook_reference(const uint8_t *ext, size_t size, void *arg)
{
  const decode_context *context = arg;
  enum handle_kind kind;
  int short_of_memory;
  void *resource = handles_find(ext, size, &kind, &short_of_memory);
  if (short_of_memory) {
    PyErr_NoMemory();
    return NULL;
  }
  if (resource == NULL && context != NULL) {
    resource = context->find(ext, size, context->arg, &kind);
  }
  if (resource == NULL) {
    return NULL;
  }
  if (wraps[kind] == NULL) {
    handle_release(resource);
    return NULL;
  }
  return wraps[kind](resource, kind);
}

/* Takes over the count of the resource.  As `other`. */
static int
put_handle(const encode_context *context, void *resource, enum handle_kind kind, term_buf *out)
{
  if (handle_list_add(context->handles, resource, kind) != 0 || handle_encode(resource, out) != 0) {
    PyErr_NoMemory();
    return -1;
  }
  return 1;
}

static int
hook_other(PyObject *object, term_buf *out, void *arg)
{
  const encode_context *context = arg;
  for (int kind = 0; kind < HANDLE_KINDS; kind++) {
    void *resource = unwraps[kind] == NULL ? NULL : unwraps[kind](object);
    if (resource != NULL) {
      return put_handle(context, resource, (enum handle_kind)kind, out);
    }
    if (PyErr_Occurred()) {
      return -1;
    }
  }
  if (context->fallback == NULL) {
    return 0;
  }
  void *made = context->fallback(object);
  return made == NULL ? -1 : put_handle(context, made, HANDLE_OBJECT, out);
}

static int
hook_atom_exists(const char *utf8, size_t size, void *arg)
{
  (void)arg;
  if (size == 0 || size > KNOWN_ATOM_MAX) {
    return atoms_exist(utf8, size);
  }
  uint32_t hash = (uint32_t)size;
  for (size_t i = 0; i < size; i++) {
    hash = hash * 31 + (uint8_t)utf8[i];
  }
  known_atom *known = &known_atoms[hash & (KNOWN_ATOMS - 1)];
  if (known->size == size && memcmp(known->text, utf8, size) == 0) {
    return 1;
  }
  if (!atoms_exist(utf8, size)) {
    return 0;
  }
  known->size = (uint8_t)size;
  memcpy(known->text, utf8, size);
  return 1;
}

static int
hook_atom(const char *utf8, size_t size, void *arg)
{
  if (hook_atom_exists(utf8, size, arg) || atoms_make(utf8, size) == 0) {
    return 0;
  }
  PyErr_Format(PyExc_ValueError,
               "Erlang takes no more new atoms from Python than the %zu that it has "
               "(max_new_atoms), so not %.100s",
               atoms_made(), utf8);
  return -1;
}

static size_t
hook_rename(const uint8_t *ext, size_t size, uint8_t *out, size_t capacity, void *arg)
{
  (void)arg;
  return local_node_rename(ext, size, out, capacity);
}

void
term_link_register(enum handle_kind kind, handle_wrap_fn wrap, handle_unwrap_fn unwrap,
                   handle_given_fn given)
{
  wraps[kind] = wrap;
  unwraps[kind] = unwrap;
  givens[kind] = given;
}

int
term_link_init(void)
{
  PyObject *module = PyImport_ImportModule("erlang._term");
  if (module == NULL) {
    return -1;
  }
  PyObject *capsule = PyObject_GetAttrString(module, "_C_API");
  Py_DECREF(module);
  if (capsule == NULL) {
    return -1;
  }
  const term_api *found = PyCapsule_GetPointer(capsule, TERM_API_CAPSULE);
  Py_DECREF(capsule);
  if (found == NULL) {
    return -1;
  }
  if (found->version != TERM_API_VERSION || found->size < sizeof(term_api)) {
    PyErr_SetString(PyExc_ImportError, "erlang._term is of another version than the application");
    return -1;
  }
  api = found;
  return 0;
}

PyObject *
term_link_decode(const uint8_t *data, size_t size, unsigned flags)
{
  static const term_hooks hooks = {.reference = hook_reference};
  return api->decode(data, size, flags, &hooks);
}

PyObject *
term_link_decode_finding(const uint8_t *data, size_t size, unsigned flags,
                         void *(*find)(const uint8_t *, size_t, void *, enum handle_kind *),
                         void *arg)
{
  decode_context context = {find, arg};
  const term_hooks hooks = {.reference = hook_reference, .arg = &context};
  return api->decode(data, size, flags, &hooks);
}

int
term_link_encode(PyObject *object, term_buf *out, unsigned flags, handle_list *handles,
                 void *(*fallback)(PyObject *object))
{
  encode_context context = {.handles = handles, .fallback = fallback};
  term_hooks hooks = {
      .other = hook_other,
      .atom_exists = hook_atom_exists,
      .arg = &context,
      .rename = hook_rename,
      .atom = hook_atom,
  };
  int result = api->encode(object, out, flags, &hooks);
  if (result != 0) {
    handle_list_release(handles);
  }
  return result;
}

const term_api *
term_link_api(void)
{
  return api;
}
