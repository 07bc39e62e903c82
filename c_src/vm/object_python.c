/* Opaque Python objects on the Python side: encoded as handles, decoded to the very objects. */
#include <Python.h>

#include "../term/term_link.h"
#include "object_handle.h"
#include "worker.h"

/* GIL held.  A handle that comes back is the object itself. */
static PyObject *
wrap(void *resource, enum handle_kind kind)
{
  (void)kind;
  PyObject *object = Py_NewRef(object_handle_get(resource));
  handle_release(resource);
  return object;
}

/* GIL held.  Python holds the objects, never their handles. */
static void *
unwrap(PyObject *object)
{
  (void)object;
  return NULL;
}

void
object_register(void)
{
  term_link_register(HANDLE_OBJECT, wrap, unwrap, NULL);
}

void
object_drops_run(void *worker)
{
  vm_worker *w = worker;
  PyEval_RestoreThread(w->thread_state);
  object_drop *drop;
  while ((drop = object_drops_take()) != NULL) {
    while (drop != NULL) {
      object_drop *next = drop->next;
      Py_DECREF(drop->object);
      free(drop);
      drop = next;
    }
  }
  PyEval_SaveThread();
}
