/* Opaque Python objects that Erlang holds.  Plain C.
 *
 * A handle is an Erlang resource with one strong reference to the object.  Its destructor may run on
 * a scheduler, which may not touch a reference count: it queues the object, and a worker that holds
 * the GIL drops it.
 */
#ifndef BEAMLOOP_VM_OBJECT_HANDLE_H
#define BEAMLOOP_VM_OBJECT_HANDLE_H

#include <stddef.h>

typedef struct _object PyObject;

/* ---- object_nif.c ---- */

/* Any thread.  A kept resource, registered as a live handle, that takes over one reference to object;
 * NULL when memory is short (the reference is taken over all the same). */
void *object_handle_new(PyObject *object);

/* Any thread, while the handle is kept.  Its object, borrowed. */
PyObject *object_handle_get(void *handle);

/* Any thread.  Live handles. */
size_t object_handle_count(void);

/* ---- object_drops.c ---- */

typedef struct object_drop {
  struct object_drop *next; /* guarded by the list's lock */
  PyObject *object;
} object_drop;

/* Any thread; no GIL; starts a worker job for what is queued unless one is under way. */
void object_drop_later(object_drop *drop);

/* Any thread; no GIL.  The pool has started: the same for what was queued while it was stopped. */
void object_drops_resume(void);

/* Any thread.  The whole list at once, linked by next. */
object_drop *object_drops_take(void);

/* Any thread.  Queued and not yet dropped. */
size_t object_drops_pending(void);

/* ---- object_python.c ---- */

/* GIL held, once. */
void object_register(void);

/* Worker thread, without the GIL: drops all that are queued. */
void object_drops_run(void *worker);

#endif
