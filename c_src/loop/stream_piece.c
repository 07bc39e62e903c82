/* The bytes objects in which a protocol gets what was received.
 *
 * Most protocols keep none of them: they have copied, parsed or sent all by the time that they return.
 * Such a piece is filled again for the next receive, without a call of malloc, which costs much for
 * what is too large for Python's own allocator.  Nobody else has ever a reference to it then. */
#include "transport.h"

#define PIECE_SMALL 512 /* Python's allocator serves these better */

/* The size of bytes that nobody else has, and what was known of their content. */
static void
set_size(PyObject *bytes, size_t size)
{
  Py_SET_SIZE(bytes, (Py_ssize_t)size);
  PyBytes_AS_STRING(bytes)[size] = '\0';
  _Pragma("GCC diagnostic push");
  _Pragma("GCC diagnostic ignored \"-Wdeprecated-declarations\"");
  ((PyBytesObject *)bytes)->ob_shash = -1;
  _Pragma("GCC diagnostic pop");
}

int
piece_new(native_loop *loop, size_t size, struct piece *piece)
{
  struct piece *spare = &loop->spare;

  if (spare->bytes != NULL && spare->room >= size && spare->room - size <= size / 8) {
    *piece = *spare;
    spare->bytes = NULL;
    set_size(piece->bytes, size);
    return 0;
  }
  piece->bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)size);
  piece->room = size;
  return piece->bytes == NULL ? -1 : 0;
}

int
piece_cut(struct piece *piece, size_t size, bool exact)
{
  if (!exact && size >= PIECE_SMALL && piece->room - size <= size / 4) {
    set_size(piece->bytes, size);
    return 0;
  }
  piece->room = size;
  return _PyBytes_Resize(&piece->bytes, (Py_ssize_t)size);
}

bool
piece_done(native_loop *loop, struct piece *piece)
{
#ifndef Py_GIL_DISABLED
  if (Py_REFCNT(piece->bytes) == 1 && piece->room >= PIECE_SMALL && !loop->closed) {
    Py_XSETREF(loop->spare.bytes, piece->bytes);
    loop->spare.room = piece->room;
    return true;
  }
#endif
  Py_DECREF(piece->bytes);
  return false;
}
