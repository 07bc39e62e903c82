/* Reading a byte channel as a stream: into a buffer, as a view, so many bytes, up to a separator.
 *
 * A read takes messages until it has what it wants, and holds them meanwhile: what it has not used at
 * its end, or all of it when it is given up, goes back to the head of the queue.  The GIL is held in
 * every function here.
 */
#ifndef BEAMLOOP_BYTE_READ_H
#define BEAMLOOP_BYTE_READ_H

#include "channel_python.h"

enum byte_read_kind { READ_INTO, READ_VIEW, READ_EXACTLY, READ_UNTIL, READ_LINE };

enum byte_read_state {
  READ_DONE, /* it has its result, or there is an exception */
  READ_MORE, /* it needs another message */
};

#define READ_HELD_FIRST 2

struct byte_read {
  enum byte_read_kind kind;
  channel_object *channel; /* borrowed: whoever reads holds it */
  int began;               /* the channel's other streaming reads are refused */
  Py_buffer target;        /* of READ_INTO; obj is NULL when there is none */
  size_t wanted;           /* of READ_EXACTLY: bytes */
  PyObject *separator;     /* of READ_UNTIL and READ_LINE: bytes */
  message first[READ_HELD_FIRST];
  message *held; /* claimed; first or memory of its own */
  size_t count, capacity;
  size_t size;       /* bytes held */
  uint8_t *gathered; /* a copy of what is held, once it is more than one message; or NULL */
  size_t gathered_size, gathered_capacity;
  size_t searched; /* bytes in which no separator begins */
};

/* A read of that kind, with nothing else set yet. */
void byte_read_init(byte_read *r, channel_object *channel, enum byte_read_kind kind);

/* Before its first message.  0, or -1 with an exception when another reads the stream. */
int byte_read_begin(byte_read *r);

/* Whether there is nothing to wait for: then *out is its result, or NULL with an exception. */
int byte_read_at_once(byte_read *r, PyObject **out);

/* Takes over a message that was claimed.  After READ_DONE *out is the result, or NULL with an exception.
 */
enum byte_read_state byte_read_feed(byte_read *r, message *m, PyObject **out);

/* The channel is closed and drained: the result, or NULL with an exception. */
PyObject *byte_read_end(byte_read *r);

/* Gives back what it holds.  Harmless when it holds nothing; it may not be used again. */
void byte_read_clear(byte_read *r);

/* byte_view.c: a memoryview of the message, which is consumed; NULL with an exception. */
extern PyType_Spec byte_view_spec;
PyObject *byte_view_of(channel_state *state, message *m);

/* byte_stream.c: the methods, each for a thread and for a coroutine. */
#define BYTE_READ_METHODS(name)                                                                    \
  PyObject *byte_##name(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names); \
  PyObject *byte_async_##name(PyObject *self, PyObject *const *args, Py_ssize_t count,             \
                              PyObject *names)

BYTE_READ_METHODS(receive_into);
BYTE_READ_METHODS(receive_view);
BYTE_READ_METHODS(readexactly);
BYTE_READ_METHODS(readuntil);
BYTE_READ_METHODS(readline);

/* byte_type.c: reads the arguments of a method that needs so many, and a timeout that may follow or be
 * named.  0, or -1 with an exception. */
int byte_parse_timeout(const char *name, PyObject *const *args, Py_ssize_t count, PyObject *names,
                       Py_ssize_t needed, int64_t *timeout);

#endif
