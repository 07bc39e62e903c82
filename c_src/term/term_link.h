/* The codec as the VM's own C uses it: erlang._term's capsule with the hooks that know live handles.
 * Python.h side.  Each handle kind registers how a Python object is made of it and got from it. */
#ifndef BEAMLOOP_TERM_LINK_H
#define BEAMLOOP_TERM_LINK_H

#include "handles.h"

/* GIL held.  wrap: a Python object for a kept resource (takes over that count on success and on
 * failure); NULL with an exception.  unwrap: the resource, kept, of an object of this kind; NULL
 * without an exception when the object is not of this kind, or with one.  given: the resource has
 * gone to Erlang (any thread; or NULL). */
typedef PyObject *(*handle_wrap_fn)(void *resource, enum handle_kind kind);
typedef void *(*handle_unwrap_fn)(PyObject *object);
typedef void (*handle_given_fn)(void *resource);

/* GIL held, once per kind at module start. */
void term_link_register(enum handle_kind kind, handle_wrap_fn wrap, handle_unwrap_fn unwrap,
                        handle_given_fn given);

/* The handles that an encoded term names, each kept once.  Zero-initialised is empty. */
typedef struct handle_list {
  struct handle_list_item {
    void *resource;
    enum handle_kind kind;
  } * items;
  size_t count;
  size_t capacity;
} handle_list;

/* Any thread.  Before or right after the term goes to Erlang. */
void handle_list_given(const handle_list *list);

/* Any thread.  Empties it. */
void handle_list_release(handle_list *list);

/* GIL held.  Imports erlang._term; 0, or -1 with an exception.  Called once at interpreter start. */
int term_link_init(void);

/* GIL held.  As term_api's decode and encode, with the hooks.  Encoding keeps the handles that it met
 * in a list that was empty, and is after a failure.  With fallback != NULL, an object that nothing
 * knows goes to it: a kept object handle (call results make one), or NULL with an exception. */
PyObject *term_link_decode(const uint8_t *data, size_t size, unsigned flags);

/* The same, of a message whose sender's handle need not be alive: find gives the resource, kept, for an
 * encoded reference that is no live handle, or NULL. */
PyObject *term_link_decode_finding(const uint8_t *data, size_t size, unsigned flags,
                                   void *(*find)(const uint8_t *ext, size_t size, void *arg,
                                                 enum handle_kind *kind),
                                   void *arg);
int term_link_encode(PyObject *object, term_buf *out, unsigned flags, handle_list *handles,
                     void *(*fallback)(PyObject *object));
const term_api *term_link_api(void);

#endif
