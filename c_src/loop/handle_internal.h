/* What the two files of the handles share. */
#ifndef BEAMLOOP_HANDLE_INTERNAL_H
#define BEAMLOOP_HANDLE_INTERNAL_H

#include "loop_internal.h"

/* Both types are final, so the size tells them apart even while the module is being cleared. */
static inline bool
is_timer(handle *self)
{
  return Py_TYPE(self)->tp_basicsize == (Py_ssize_t)sizeof(timer_handle);
}

int handle_traverse(handle *self, visitproc visit, void *arg);
int handle_clear(handle *self);
void handle_dealloc(handle *self);

#endif
