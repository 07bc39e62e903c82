/* Live Erlang resources that Python can hold: channels, opaque Python objects.
 *
 * A resource travels in external term format as an ordinary reference.  The registry maps such a
 * reference back to the resource, so that Python gets a live handle and Erlang gets the same
 * resource again.  Plain C interface over erl_nif (handles_nif.c); any thread, GIL or not.
 *
 * Lock: the registry's own, a leaf: nothing is called while it is held.
 */
#ifndef BEAMLOOP_HANDLES_H
#define BEAMLOOP_HANDLES_H

#include "term_api.h"

enum handle_kind {
  HANDLE_CHANNEL = 0, /* of terms or of bytes */
  HANDLE_OBJECT = 1,
  HANDLE_KINDS = 2
};

/* Registers a freshly made resource (enif_alloc_resource) under its own reference.  0 or -1. */
int handles_add(void *resource, enum handle_kind kind);

/* Drops the resource from the registry.  From its destructor: lock only, no terms. */
void handles_remove(void *resource);

/* Threads of ours, not schedulers.  The live resource that this encoded reference (tag byte included,
 * no version byte) names, kept (handle_release it), and its kind; NULL when it is no live handle of ours,
 * or when memory was short for the answer. */
void *handles_find(const uint8_t *ext, size_t size, enum handle_kind *kind, int *short_of_memory);

/* What a resource's reference is known by, whatever the node is called; never used again. */
typedef struct handle_number {
  uint32_t words[3];
} handle_number;

/* Any thread.  That of a registered resource. */
void handles_number(void *resource, handle_number *out);

/* Whether this encoded reference (as above) has that number. */
int handles_has_number(const uint8_t *ext, size_t size, const handle_number *number);

/* Threads of ours, not schedulers.  The resource, kept, if it lives; NULL when it is gone. */
void *handles_keep(void *resource);

void handle_keep(void *resource);
void handle_release(void *resource);

/* Appends the reference of the resource (tag byte included, no version byte).  0 or -1 (memory). */
int handle_encode(void *resource, term_buf *out);

#endif
