/* The term codec: no bytes do worse than an exception, and what can be decoded is encoded so that it is
 * decoded to the same again, byte for byte. */
#include <Python.h>

#include "term_api.h"

#include <string.h>

#include "fuzz.h"

PyMODINIT_FUNC PyInit__term(void);

static const term_api *api;

/* Any object that the codec makes stands for a term, so encoding fails only for what a limit of depth or
 * of memory refuses. */
static int
encode(PyObject *object, term_buf *out)
{
  if (api->encode(object, out, 0, NULL) == 0) {
    return 1;
  }
  REQUIRE(PyErr_ExceptionMatches(PyExc_RecursionError) ||
          PyErr_ExceptionMatches(PyExc_MemoryError));
  PyErr_Clear();
  return 0;
}

static void
round_trip(PyObject *object)
{
  term_buf first = {.data = NULL}, second = {.data = NULL};
  if (encode(object, &first)) {
    PyObject *again = api->decode(first.data, first.size, 0, NULL);
    REQUIRE(again != NULL);
    REQUIRE(encode(again, &second));
    REQUIRE(first.size == second.size && memcmp(first.data, second.data, first.size) == 0);
    Py_DECREF(again);
  }
  api->buf_free(&first);
  api->buf_free(&second);
}

int
LLVMFuzzerInitialize(int *argc, char ***argv)
{
  (void)argc, (void)argv;
  REQUIRE(PyImport_AppendInittab("_term", PyInit__term) == 0);
  Py_InitializeEx(0);
  PyObject *module = PyImport_ImportModule("_term");
  PyObject *capsule = module == NULL ? NULL : PyObject_GetAttrString(module, "_C_API");
  api = capsule == NULL ? NULL : PyCapsule_GetPointer(capsule, TERM_API_CAPSULE);
  if (api == NULL) {
    PyErr_Print();
    return 1;
  }
  return 0;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
  unsigned flags = size > 0 && data[0] % 2 ? TERM_BINARIES_STR : 0;
  /* The exact size, so that a read beyond the end is seen. */
  uint8_t *copy = malloc(size + 1);
  REQUIRE(copy != NULL);
  copy[0] = 131;
  if (size > 1) {
    memcpy(copy + 1, data + 1, size - 1);
  }
  PyObject *object = api->decode(copy, size > 0 ? size : 1, flags, NULL);
  free(copy);
  if (object == NULL) {
    REQUIRE(PyErr_ExceptionMatches(PyExc_ValueError) || PyErr_ExceptionMatches(PyExc_MemoryError));
    PyErr_Clear();
  } else {
    round_trip(object);
    Py_DECREF(object);
  }
  return 0;
}
