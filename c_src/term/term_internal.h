/* What the files of the codec share: the module's state, its types, and who provides what. */
#ifndef BEAMLOOP_TERM_INTERNAL_H
#define BEAMLOOP_TERM_INTERNAL_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>

#include "term_buf.h"
#include "term_ext.h"

/* How deep terms may nest, both ways.  The codec recurses, with at most 170 bytes of stack for each
 * level to decode and 370 to encode, so that this much fits half of the usual 8 MB; on a smaller
 * stack less is allowed. */
#define TERM_MAX_DEPTH 10000

/* So many levels need no look at the stack. */
#define TERM_SHALLOW 32

/* For functions with large scratch space: kept out of line, so that the frames of those that recurse
 * stay small. */
#define TERM_LEAF __attribute__((noinline))

/* A power of two.  Bounds what a peer can make the process remember by sending ever new atoms. */
#define ATOM_CACHE_SLOTS 1024

/* A remembered atom, found by its UTF-8 text. */
typedef struct atom_slot {
  uint32_t hash;
  uint32_t size;
  const char *utf8; /* lives as long as the atom */
  PyObject *atom;   /* strong; NULL when the slot is free */
} atom_slot;

/* All fields are guarded by the GIL. */
typedef struct term_state {
  PyTypeObject *atom_type;
  PyTypeObject *pid_type;
  PyTypeObject *port_type;
  PyTypeObject *reference_type;
  PyTypeObject *fun_type;
  PyTypeObject *bit_string_type;
  PyTypeObject *improper_list_type;
  PyObject *term_error;  /* erlang.errors.TermError */
  const char *none_atom; /* what None encodes to: "none", "nil" or "undefined" */
  atom_slot atoms[ATOM_CACHE_SLOTS];
} term_state;

/* A pid, port, reference or fun: its encoding, tag byte included and no version byte.  Pids, ports
 * and references hold the newest form with a UTF-8 node name whatever form they came in, so that
 * equal ones have equal bytes. */
typedef struct term_ident {
  PyObject_VAR_HEAD Py_hash_t hash; /* -1 until asked for */
  PyObject *held; /* a fun's live objects (a list), or NULL: they live as long as the fun does */
  uint8_t ext[];  /* Py_SIZE bytes */
} term_ident;

/* An Atom: a str, which lies apart from its text because its type is no str's own. */
typedef struct term_atom {
  PyUnicodeObject text;
  char allowed; /* the atom hook has let it pass */
} term_atom;

typedef struct term_bit_string {
  PyObject_HEAD
  PyObject *data;  /* bytes; unused low bits of the last one are 0 */
  Py_ssize_t bits; /* how many bits there are */
} term_bit_string;

typedef struct term_improper_list {
  PyObject_HEAD
  PyObject *elements; /* a list, never empty when made by the codec */
  PyObject *tail;     /* no list */
} term_improper_list;

/* term_module.c */
extern struct PyModuleDef term_module_def;
term_state *term_state_of_type(PyTypeObject *type);
term_state *term_state_current(void);

/* term_depth.c */
int term_depth_allowed_slow(int depth);

/* Any thread.  May a container at this depth be entered? */
static inline int
term_depth_allowed(int depth)
{
  return depth < TERM_SHALLOW || term_depth_allowed_slow(depth);
}

/* term_atom.c */
PyTypeObject *term_atom_type(PyObject *module);
PyObject *term_atom_new(term_state *state, PyObject *text);
PyObject *term_atom_from_utf8(term_state *state, const char *utf8, size_t size);
PyObject *term_atom_from_latin1(term_state *state, const char *latin1, size_t size);
void term_atom_cache_clear(term_state *state);

/* term_ident.c */
int term_ident_types(PyObject *module, term_state *state);
PyObject *term_ident_alloc(PyTypeObject *type, size_t size, uint8_t **ext);
PyObject *term_ident_new(PyTypeObject *type, const uint8_t *ext, size_t size, PyObject *held);
int term_ident_is(term_state *state, PyTypeObject *type);
int term_ident_is_nameless(const term_ident *ident);

/* term_types.c */
PyTypeObject *term_bit_string_type(PyObject *module);
PyTypeObject *term_improper_list_type(PyObject *module);
PyObject *term_bit_string_new(PyTypeObject *type, const uint8_t *data, size_t bits);
PyObject *term_improper_list_new(PyTypeObject *type, PyObject *elements, PyObject *tail);

/* term_scan.c: terms as bytes, without making objects of them. */
typedef struct term_scan {
  const uint8_t *start; /* of the whole term, for error positions */
  const uint8_t *p;     /* the next byte */
  const uint8_t *end;
  size_t promised; /* terms that enclosing containers still promise; each takes a byte */
  int depth;
  unsigned flags;
  const term_hooks *hooks; /* may be NULL */
  term_state *state;
} term_scan;

static inline int
term_all_ascii(const uint8_t *text, size_t size)
{
  uint64_t seen = 0;
  for (; size >= 8; text += 8, size -= 8) {
    uint64_t word;
    memcpy(&word, text, 8);
    seen |= word;
  }
  for (; size > 0; text++, size--) {
    seen |= *text;
  }
  return (seen & 0x8080808080808080u) == 0;
}

int term_scan_error(const term_scan *scan, const char *what);
int term_scan_promise(term_scan *scan, uint64_t terms);
int term_scan_atom(term_scan *scan, uint8_t *out, size_t *out_size);
int term_scan_ident(term_scan *scan, uint8_t *out, size_t *out_size);
int term_scan_fun(term_scan *scan, PyObject **held);

/* The longest form that term_scan_ident writes: node name, creation and numbers included. */
#define TERM_IDENT_MAX (3 + 3 + EXT_ATOM_MAX_BYTES + 4 + 4 * EXT_REFERENCE_MAX_WORDS)

/* term_decode.c */
PyObject *term_decode(term_state *state, const uint8_t *data, size_t size, unsigned flags,
                      const term_hooks *hooks);

/* term_encode.c */
int term_encode(term_state *state, PyObject *object, term_buf *out, unsigned flags,
                const term_hooks *hooks);

#endif
