/* Terms as bytes: reading atoms, pids, ports, references and funs without making objects of them. */
#include "term_internal.h"

#include <math.h>

/* GIL held.  Sets erlang.TermError with the position; returns -1. */
int
term_scan_error(const term_scan *scan, const char *what)
{
  PyErr_Format(scan->state->term_error, "%s (at byte %zd)", what,
               (Py_ssize_t)(scan->p - scan->start));
  return -1;
}

static int
scan_need(const term_scan *scan, uint64_t size)
{
  if ((uint64_t)(scan->end - scan->p) < size) {
    return term_scan_error(scan, "the term is cut short");
  }
  return 0;
}

/* GIL held.  A container's count of terms was read: checks that all terms promised so far can be
 * there, so that what a forged count makes us allocate is bounded by the bytes received. */
int
term_scan_promise(term_scan *scan, uint64_t terms)
{
  if (terms > (uint64_t)(scan->end - scan->p) ||
      scan->promised + terms > (uint64_t)(scan->end - scan->p)) {
    return term_scan_error(scan, "a count is larger than the bytes that are there");
  }
  scan->promised += (size_t)terms;
  return 0;
}

/* The text of the atom at p, behind its tag and length; moves p past it. */
static int
scan_atom_text(term_scan *scan, const uint8_t **text, size_t *size, int *latin1)
{
  if (scan_need(scan, 1) < 0) {
    return -1;
  }
  uint8_t tag = scan->p[0];
  size_t head = tag == EXT_SMALL_ATOM_UTF8 || tag == EXT_SMALL_ATOM ? 2 : 3;
  if (head == 3 && tag != EXT_ATOM_UTF8 && tag != EXT_ATOM) {
    return term_scan_error(scan, "an atom was expected");
  }
  if (scan_need(scan, head) < 0) {
    return -1;
  }
  *size = head == 2 ? scan->p[1] : ext_get_u16(scan->p + 1);
  if (scan_need(scan, head + *size) < 0) {
    return -1;
  }
  *text = scan->p + head;
  *latin1 = tag == EXT_ATOM || tag == EXT_SMALL_ATOM;
  scan->p += head + *size;
  return 0;
}

/* The slow way for a text that is not plain ASCII: through an Atom, which validates it. */
static int
scan_atom_convert(term_scan *scan, const uint8_t *text, size_t size, int latin1, uint8_t *out,
                  size_t *out_size)
{
  PyObject *atom = latin1 ? term_atom_from_latin1(scan->state, (const char *)text, size)
                          : term_atom_from_utf8(scan->state, (const char *)text, size);
  if (atom == NULL) {
    if (PyErr_ExceptionMatches(PyExc_MemoryError)) {
      return -1;
    }
    PyErr_Clear();
    return term_scan_error(scan, "an atom is too long or not UTF-8");
  }
  Py_ssize_t utf8_size;
  const char *utf8 = PyUnicode_AsUTF8AndSize(atom, &utf8_size);
  memcpy(out, utf8, (size_t)utf8_size);
  *out_size = (size_t)utf8_size;
  Py_DECREF(atom);
  return 0;
}

/* GIL held.  Reads an atom of any encoding and writes it to out (3 + EXT_ATOM_MAX_BYTES bytes of
 * room) in the shortest UTF-8 encoding.  0, or -1 with an exception. */
int
term_scan_atom(term_scan *scan, uint8_t *out, size_t *out_size)
{
  const uint8_t *text;
  size_t size;
  int latin1;
  if (scan_atom_text(scan, &text, &size, &latin1) < 0) {
    return -1;
  }
  if (size <= EXT_ATOM_MAX_CHARS && term_all_ascii(text, size)) {
    memcpy(out + 2, text, size);
  } else {
    uint8_t utf8[EXT_ATOM_MAX_BYTES];
    if (scan_atom_convert(scan, text, size, latin1, utf8, &size) < 0) {
      return -1;
    }
    memcpy(out + (size > UINT8_MAX ? 3 : 2), utf8, size);
  }
  if (size > UINT8_MAX) {
    out[0] = EXT_ATOM_UTF8;
    ext_put_u16(out + 1, (uint16_t)size);
    *out_size = 3 + size;
  } else {
    out[0] = EXT_SMALL_ATOM_UTF8;
    out[1] = (uint8_t)size;
    *out_size = 2 + size;
  }
  return 0;
}

/* The creation, of one byte in the old forms and four in the new; written as four. */
static void
copy_creation(uint8_t *out, const uint8_t *p, size_t size)
{
  ext_put_u32(out, size == 1 ? *p : ext_get_u32(p));
}

static int
scan_pid(term_scan *scan, uint8_t *out, size_t *out_size)
{
  size_t creation = *scan->p++ == EXT_PID ? 1 : 4;
  size_t node;
  if (term_scan_atom(scan, out + 1, &node) < 0 || scan_need(scan, 8 + creation) < 0) {
    return -1;
  }
  uint8_t *rest = out + 1 + node;
  out[0] = EXT_NEW_PID;
  memcpy(rest, scan->p, 8);
  copy_creation(rest + 8, scan->p + 8, creation);
  scan->p += 8 + creation;
  *out_size = 1 + node + 12;
  return 0;
}

static int
scan_port(term_scan *scan, uint8_t *out, size_t *out_size)
{
  uint8_t tag = *scan->p++;
  size_t creation = tag == EXT_PORT ? 1 : 4;
  size_t number = tag == EXT_V4_PORT ? 8 : 4;
  size_t node;
  if (term_scan_atom(scan, out + 1, &node) < 0 || scan_need(scan, number + creation) < 0) {
    return -1;
  }
  uint8_t *rest = out + 1 + node;
  uint64_t id = number == 8 ? ext_get_u64(scan->p) : ext_get_u32(scan->p);
  /* The emulator uses the wide form only for what does not fit 28 bits. */
  if (id >> 28 != 0) {
    out[0] = EXT_V4_PORT;
    ext_put_u64(rest, id);
    rest += 8;
  } else {
    out[0] = EXT_NEW_PORT;
    ext_put_u32(rest, (uint32_t)id);
    rest += 4;
  }
  copy_creation(rest, scan->p + number, creation);
  scan->p += number + creation;
  *out_size = (size_t)(rest + 4 - out);
  return 0;
}

static int
scan_reference(term_scan *scan, uint8_t *out, size_t *out_size)
{
  size_t head = 3;
  uint8_t tag = scan->p[0];
  if (scan_need(scan, head) < 0) {
    return -1;
  }
  size_t words = tag == EXT_REFERENCE ? 1 : ext_get_u16(scan->p + 1);
  if (words == 0 || words > EXT_REFERENCE_MAX_WORDS) {
    return term_scan_error(scan, "a reference has 1 to 5 words");
  }
  scan->p += tag == EXT_REFERENCE ? 1 : 3;
  size_t creation = tag == EXT_NEWER_REFERENCE ? 4 : 1;
  size_t node;
  if (term_scan_atom(scan, out + head, &node) < 0 || scan_need(scan, creation + 4 * words) < 0) {
    return -1;
  }
  uint8_t *rest = out + head + node;
  out[0] = EXT_NEWER_REFERENCE;
  ext_put_u16(out + 1, (uint16_t)words);
  if (tag == EXT_REFERENCE) {
    /* Here alone the creation comes last. */
    copy_creation(rest, scan->p + 4, 1);
    memcpy(rest + 4, scan->p, 4);
  } else {
    copy_creation(rest, scan->p, creation);
    memcpy(rest + 4, scan->p + creation, 4 * words);
  }
  scan->p += creation + 4 * words;
  *out_size = head + node + 4 + 4 * words;
  return 0;
}

/* GIL held.  Reads the pid, port or reference at p and writes its canonical form to out
 * (TERM_IDENT_MAX bytes of room).  0, or -1 with an exception. */
int
term_scan_ident(term_scan *scan, uint8_t *out, size_t *out_size)
{
  switch (scan->p[0]) {
  case EXT_NEW_PID:
  case EXT_PID:
    return scan_pid(scan, out, out_size);
  case EXT_NEW_PORT:
  case EXT_V4_PORT:
  case EXT_PORT:
    return scan_port(scan, out, out_size);
  default:
    return scan_reference(scan, out, out_size);
  }
}

static int scan_skip(term_scan *scan, PyObject **held);

static int
skip_bytes(term_scan *scan, uint64_t size)
{
  if (scan_need(scan, size) < 0) {
    return -1;
  }
  scan->p += size;
  return 0;
}

/* The 32-bit count behind a tag, plus what each counted thing takes; leaves p at the count's end. */
static int
skip_counted(term_scan *scan, size_t extra)
{
  if (scan_need(scan, 5) < 0) {
    return -1;
  }
  return skip_bytes(scan, 5 + extra + (uint64_t)ext_get_u32(scan->p + 1));
}

static int
skip_terms(term_scan *scan, uint64_t count, PyObject **held)
{
  if (term_scan_promise(scan, count) < 0) {
    return -1;
  }
  for (uint64_t i = 0; i < count; i++) {
    if (scan_skip(scan, held) < 0) {
      return -1;
    }
  }
  return 0;
}

static int
skip_container(term_scan *scan, PyObject **held)
{
  uint8_t tag = scan->p[0];
  size_t head = tag == EXT_SMALL_TUPLE ? 2 : 5;
  if (scan_need(scan, head) < 0) {
    return -1;
  }
  uint64_t count = head == 2 ? scan->p[1] : ext_get_u32(scan->p + 1);
  scan->p += head;
  if (tag == EXT_MAP) {
    count *= 2;
  } else if (tag == EXT_LIST) {
    count += 1;
  }
  if (!term_depth_allowed(scan->depth++)) {
    return term_scan_error(scan, "the term is nested too deep");
  }
  int result = skip_terms(scan, count, held);
  scan->depth--;
  return result;
}

/* A reference inside a fun: when it is a live object, the fun holds it. */
static TERM_LEAF int
skip_reference(term_scan *scan, PyObject **held)
{
  uint8_t ext[TERM_IDENT_MAX];
  size_t size;
  const uint8_t *from = scan->p;
  if (term_scan_ident(scan, ext, &size) < 0) {
    return -1;
  }
  if (scan->hooks == NULL || scan->hooks->reference == NULL) {
    return 0;
  }
  PyObject *object = scan->hooks->reference(from, (size_t)(scan->p - from), scan->hooks->arg);
  if (object == NULL) {
    return PyErr_Occurred() ? -1 : 0;
  }
  if (*held == NULL) {
    *held = PyList_New(0);
  }
  int result = *held == NULL ? -1 : PyList_Append(*held, object);
  Py_DECREF(object);
  return result;
}

static int
skip_fun(term_scan *scan, PyObject **held)
{
  if (!term_depth_allowed(scan->depth++)) {
    return term_scan_error(scan, "the term is nested too deep");
  }
  int result = term_scan_fun(scan, held);
  scan->depth--;
  return result;
}

static TERM_LEAF int
skip_small(term_scan *scan)
{
  uint8_t scratch[TERM_IDENT_MAX];
  size_t size;
  switch (scan->p[0]) {
  case EXT_ATOM:
  case EXT_SMALL_ATOM:
  case EXT_ATOM_UTF8:
  case EXT_SMALL_ATOM_UTF8:
    return term_scan_atom(scan, scratch, &size);
  case EXT_NEW_FLOAT:
    if (scan_need(scan, 9) == 0 && !isfinite(ext_get_double(scan->p + 1))) {
      return term_scan_error(scan, "a float is not finite");
    }
    return skip_bytes(scan, 9);
  case EXT_FLOAT:
    return skip_bytes(scan, 1 + EXT_FLOAT_TEXT);
  case EXT_SMALL_BIG:
    return scan_need(scan, 2) < 0 ? -1 : skip_bytes(scan, 3 + (uint64_t)scan->p[1]);
  case EXT_STRING:
    return scan_need(scan, 3) < 0 ? -1 : skip_bytes(scan, 3 + (uint64_t)ext_get_u16(scan->p + 1));
  default:
    return term_scan_ident(scan, scratch, &size);
  }
}

/* Moves p past one term; adds the live objects that it refers to to the list at held. */
static int
scan_skip(term_scan *scan, PyObject **held)
{
  if (scan_need(scan, 1) < 0) {
    return -1;
  }
  scan->promised--;
  switch (scan->p[0]) {
  case EXT_SMALL_INTEGER:
    return skip_bytes(scan, 2);
  case EXT_INTEGER:
    return skip_bytes(scan, 5);
  case EXT_NIL:
    return skip_bytes(scan, 1);
  case EXT_BINARY:
    return skip_counted(scan, 0);
  case EXT_BIT_BINARY:
  case EXT_LARGE_BIG:
    return skip_counted(scan, 1);
  case EXT_SMALL_TUPLE:
  case EXT_LARGE_TUPLE:
  case EXT_LIST:
  case EXT_MAP:
    return skip_container(scan, held);
  case EXT_NEWER_REFERENCE:
  case EXT_NEW_REFERENCE:
  case EXT_REFERENCE:
    return skip_reference(scan, held);
  case EXT_NEW_FUN:
  case EXT_EXPORT:
    return skip_fun(scan, held);
  case EXT_ATOM:
  case EXT_SMALL_ATOM:
  case EXT_ATOM_UTF8:
  case EXT_SMALL_ATOM_UTF8:
  case EXT_NEW_FLOAT:
  case EXT_FLOAT:
  case EXT_SMALL_BIG:
  case EXT_STRING:
  case EXT_PID:
  case EXT_NEW_PID:
  case EXT_PORT:
  case EXT_NEW_PORT:
  case EXT_V4_PORT:
    return skip_small(scan);
  default:
    return term_scan_error(scan, "an unknown or unsupported kind of term");
  }
}

static int
skip_small_integer(term_scan *scan)
{
  if (scan_need(scan, 1) < 0) {
    return -1;
  }
  if (scan->p[0] != EXT_SMALL_INTEGER && scan->p[0] != EXT_INTEGER) {
    return term_scan_error(scan, "an integer was expected");
  }
  return skip_bytes(scan, scan->p[0] == EXT_SMALL_INTEGER ? 2 : 5);
}

static TERM_LEAF int
skip_export(term_scan *scan)
{
  uint8_t scratch[3 + EXT_ATOM_MAX_BYTES];
  size_t size;
  scan->p++;
  if (term_scan_atom(scan, scratch, &size) < 0 || term_scan_atom(scan, scratch, &size) < 0) {
    return -1;
  }
  if (scan_need(scan, 2) < 0 || scan->p[0] != EXT_SMALL_INTEGER) {
    return PyErr_Occurred() ? -1 : term_scan_error(scan, "an arity was expected");
  }
  return skip_bytes(scan, 2);
}

/* From behind a fun's fixed head to its free variables: module, old index, old uniq, creator. */
static TERM_LEAF int
skip_fun_identity(term_scan *scan)
{
  uint8_t scratch[TERM_IDENT_MAX];
  size_t size;
  if (term_scan_atom(scan, scratch, &size) < 0 || skip_small_integer(scan) < 0 ||
      skip_small_integer(scan) < 0 || scan_need(scan, 1) < 0) {
    return -1;
  }
  if (scan->p[0] != EXT_PID && scan->p[0] != EXT_NEW_PID) {
    return term_scan_error(scan, "a pid was expected");
  }
  return term_scan_ident(scan, scratch, &size);
}

/* GIL held.  Moves p past the fun at p (an external or a local one) and checks it; adds the live
 * objects that its environment refers to to the list at *held, which is made when there are any.
 * 0, or -1 with an exception. */
int
term_scan_fun(term_scan *scan, PyObject **held)
{
  if (scan->p[0] == EXT_EXPORT) {
    return skip_export(scan);
  }
  /* Tag, size, arity, uniq (16 bytes), index, number of free variables; the size counts itself. */
  if (scan_need(scan, 30) < 0) {
    return -1;
  }
  const uint8_t *from = scan->p;
  uint64_t size = ext_get_u32(from + 1);
  uint32_t free_variables = ext_get_u32(from + 26);
  if (scan_need(scan, 1 + size) < 0) {
    return -1;
  }
  scan->p += 30;
  if (skip_fun_identity(scan) < 0 || skip_terms(scan, free_variables, held) < 0) {
    return -1;
  }
  if ((uint64_t)(scan->p - from) != 1 + size) {
    return term_scan_error(scan, "the size of a fun is wrong");
  }
  return 0;
}
