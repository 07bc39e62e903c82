/* asyncio's StreamReader, StreamReaderProtocol and StreamWriter, their hot paths in C.
 *
 * asyncio makes the objects.  When a transport of ours gets a protocol that is exactly asyncio's,
 * the three change into subclasses of asyncio's classes (aio_adopt.c) whose hot methods are here;
 * whatever is not plain (an error, an end, odd arguments) is done by asyncio's own methods on the
 * same object.  Every function runs with the GIL held, on the loop's thread. */
#ifndef BEAMLOOP_AIO_H
#define BEAMLOOP_AIO_H

#include "loop_internal.h"

/* --- aio_data.c: what a reader holds ------------------------------------------------------------ */

/* Data that comes while there is none is kept as it came, as one piece.  More goes into a bytearray
 * with the rest of it; so does all once somebody has seen the bytearray. */
typedef struct aio_data {
  PyObject_HEAD
  const aio_state *state;
  PyObject *piece;   /* bytes, NULL: what there is is in buffer */
  Py_ssize_t offset; /* how much of piece was taken */
  PyObject *buffer;  /* a bytearray, or what _buffer was set to; NULL: not needed yet */
  PyObject *loop;    /* these may be None or NULL */
  PyObject *transport;
  PyObject *waiter; /* the future of the one who waits for data */
  PyObject *exception;
  PyObject *limit;
  double limit_value;
  bool eof;
  bool paused;
  bool shown; /* somebody may hold buffer */
} aio_data;

extern PyType_Spec aio_data_spec;

aio_data *aio_data_new(const aio_state *state);

/* False when somebody has put something else in the place of the buffer. */
static inline bool
aio_data_plain(const aio_data *self)
{
  return self->buffer == NULL || PyByteArray_CheckExact(self->buffer);
}

/* How much there is to read, where it is plain, as the next two want it too. */
static inline Py_ssize_t
aio_data_size(const aio_data *self)
{
  if (self->piece != NULL)
    return PyBytes_GET_SIZE(self->piece) - self->offset;
  return self->buffer == NULL ? 0 : PyByteArray_GET_SIZE(self->buffer);
}

static inline const char *
aio_data_start(const aio_data *self)
{
  if (self->piece != NULL)
    return PyBytes_AS_STRING(self->piece) + self->offset;
  return self->buffer == NULL ? "" : PyByteArray_AS_STRING(self->buffer);
}

/* The first size bytes, which are forgotten. */
PyObject *aio_data_take(aio_data *self, Py_ssize_t size);
/* All that there is in a bytearray, a new reference; from now on it stays there. */
PyObject *aio_data_show(aio_data *self);
/* StreamReader.feed_data() for bytes, before the end. */
int aio_data_feed(aio_data *self, PyObject *bytes);
/* Lets the transport go on if it was paused and there is room, or (always) whatever there is. */
int aio_data_resume(aio_data *self, bool always);

/* --- aio_call.c: awaitable calls of methods ------------------------------------------------------ */

extern PyType_Spec aio_call_spec;

/* owner.method(argument) to be awaited.  data is the reader's, NULL for the other classes; argument
 * may be NULL; size is its value where it is a number. */
PyObject *aio_call_new(aio_state *state, enum aio_method method, PyObject *owner, aio_data *data,
                       PyObject *argument, Py_ssize_t size);
void aio_calls_clear(aio_state *state);

/* --- aio_types.c: the classes --------------------------------------------------------------------- */

extern PyType_Spec aio_specs[AIO_CLASSES];

/* NULL with TypeError for an object of no class of ours. */
aio_state *aio_state_of(PyObject *object);
/* The data of a reader of ours, a new reference. */
aio_data *aio_reader_data(aio_state *state, PyObject *reader);
/* True when a drain() need not wait: 0 also when only asyncio's code can tell. */
bool aio_may_write(aio_state *state, PyObject *protocol);

/* --- aio_adopt.c ----------------------------------------------------------------------------------- */

int aio_state_init(PyObject *module, aio_state *state);
int aio_state_traverse(aio_state *state, visitproc visit, void *arg);
void aio_state_clear(aio_state *state);
/* A protocol that is exactly asyncio's StreamReaderProtocol, with its reader, becomes ours. */
int aio_adopt(aio_state *state, PyObject *protocol);
/* The module's function _adopt_stream(protocol). */
PyObject *aio_adopt_method(PyObject *module, PyObject *protocol);

/* True for an object, neither NULL nor None. */
static inline bool
aio_is_some(const PyObject *object)
{
  return object != NULL && object != Py_None;
}

static inline int
aio_discard(PyObject *result)
{
  Py_XDECREF(result);
  return result == NULL ? -1 : 0;
}

#endif
