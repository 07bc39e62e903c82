/* The C API of the term codec, reached through the capsule "erlang._term._C_API".
 *
 * External term format (with its leading 131) to Python objects and back, with no environment and
 * no intermediate term.  Plain C header: needs neither Python.h nor erl_nif.h.
 */
#ifndef BEAMLOOP_TERM_API_H
#define BEAMLOOP_TERM_API_H

#include <stddef.h>
#include <stdint.h>

#define TERM_API_CAPSULE "erlang._term._C_API"
#define TERM_API_VERSION 3

typedef struct _object PyObject;

/* A growing byte buffer.  Zero-initialised is empty; data is malloc'ed.  May start on memory that
 * the caller lends (owned == 0) and moves to the heap when it must grow. */
typedef struct term_buf {
  uint8_t *data;
  size_t size;     /* bytes written */
  size_t capacity; /* bytes at data */
  int owned;       /* data was malloc'ed by the buffer */
} term_buf;

/* decode flags */
#define TERM_BINARIES_STR 1u /* binaries become str (strict UTF-8) instead of bytes */

/* encode flags */
#define TERM_HEAD_ATOM                                                                             \
  1u /* a str in first position of the outermost tuple that names an existing
                             atom becomes that atom (reply and send only) */

typedef struct term_hooks {
  /* GIL held.  A reference was met: ext points at its whole encoding (tag byte included).  A new
   * reference to a live object (a ChannelRef, an opaque object), or NULL without an exception: an
   * ordinary erlang.Reference is made; or NULL with one. */
  PyObject *(*reference)(const uint8_t *ext, size_t size, void *arg);
  /* GIL held.  An object the codec does not know: 1 written to out, 0 not known here either
   * (TypeError follows), -1 an exception is set. */
  int (*other)(PyObject *object, term_buf *out, void *arg);
  /* GIL held.  Does an atom of this UTF-8 text exist? */
  int (*atom_exists)(const char *utf8, size_t size, void *arg);
  void *arg;
  /* GIL held.  A pid, port or reference is about to be encoded as ext.  Writes what it is called now
   * to out and returns the size, or 0 when ext is right; only asked for what came from a node
   * without a name. */
  size_t (*rename)(const uint8_t *ext, size_t size, uint8_t *out, size_t capacity, void *arg);
  /* GIL held.  An Atom of this UTF-8 text is about to be encoded: 0 when it may be, which is remembered
   * for that object; or -1 with an exception. */
  int (*atom)(const char *utf8, size_t size, void *arg);
} term_hooks;

typedef struct term_api {
  uint32_t version;
  uint32_t size;
  /* GIL held.  One whole term with its version byte; trailing bytes are an error.  A new reference,
   * or NULL with erlang.TermError (a ValueError) or MemoryError set.  hooks may be NULL. */
  PyObject *(*decode)(const uint8_t *data, size_t size, unsigned flags, const term_hooks *hooks);
  /* GIL held.  Appends the encoding of object, version byte included.  0, or -1 with an exception
   * set (TypeError, ValueError, RecursionError, MemoryError); out->size is then as before. */
  int (*encode)(PyObject *object, term_buf *out, unsigned flags, const term_hooks *hooks);
  /* Any thread.  Room for extra more bytes; 0, or -1 when memory is short (no exception set). */
  int (*buf_reserve)(term_buf *buf, size_t extra);
  void (*buf_free)(term_buf *buf);
  /* GIL held.  The external format of an erlang.Pid (tag byte included, no version byte), borrowed
   * from it; -1 with TypeError when object is no Pid. */
  int (*pid_ext)(PyObject *object, const uint8_t **data, size_t *size);
} term_api;

#endif
