/* The codec as the VM's own C uses it: erlang._term's capsule with the hooks that know live handles.
 * Python.h side.  Each handle kind registers how a Python object is made of it and got from it. */
#ifndef BEAMLOOP_TERM_LINK_H
#define BEAMLOOP_TERM_LINK_H

#include "handles.h"

/* GIL held.  wrap: a Python object for a kept resource (takes over that count on success and on
 * failure); NULL with an exception.  unwrap: the borrowed resource of an object of this kind, or
 * NULL without an exception when the object is not of this kind. */
typedef PyObject *(*handle_wrap_fn)(void *resource, enum handle_kind kind);
typedef void *(*handle_unwrap_fn)(PyObject *object);

/* GIL held, once per kind at module start. */
void term_link_register(enum handle_kind kind, handle_wrap_fn wrap, handle_unwrap_fn unwrap);

/* GIL held.  Imports erlang._term; 0, or -1 with an exception.  Called once at interpreter start. */
int term_link_init(void);

/* GIL held.  As term_api's decode and encode, with the hooks.  With fallback != NULL, an object that
 * nothing knows goes to it (call results make an opaque object handle of it): 1, 0 or -1 as `other`. */
PyObject *term_link_decode(const uint8_t *data, size_t size, unsigned flags);
int term_link_encode(PyObject *object, term_buf *out, unsigned flags,
                     int (*fallback)(PyObject *object, term_buf *out));
const term_api *term_link_api(void);

#endif
