/* The native transports: what their files share.
 *
 * Two rules own its life.  While its descriptor is registered, the loop's descriptor table holds a
 * reference to it; _call_connection_lost() alone unregisters, closes the socket and lets go of
 * protocol, loop and server.  Every function runs with the GIL held, on the loop's thread. */
#ifndef BEAMLOOP_TRANSPORT_H
#define BEAMLOOP_TRANSPORT_H

#include "loop_internal.h"

#define TRANSPORT_MAX_READ (256 * 1024)

/* Room for the slots of the asyncio class that is the base; checked when the type is made. */
#define TRANSPORT_INHERITED_SLOTS 8

#define WRITE_BUFFER_FEW 4

/* What waits to be sent: bytes objects in order, the first one from an offset on. */
struct write_buffer {
  PyObject **chunks;               /* owned references at first .. first + count - 1 */
  PyObject *few[WRITE_BUFFER_FEW]; /* the room that chunks begins with */
  size_t first;
  size_t count;
  size_t capacity;
  size_t offset; /* bytes of the first chunk that were sent */
  size_t bytes;  /* what is left in all */
};

struct stream;

/* What one kind of transport does differently. */
typedef struct transport_kind {
  const char *name;
  uint32_t watches; /* the directions that its descriptor is first watched for */
  int (*read)(struct stream *self);
  int (*write_ready)(struct stream *self);
} transport_kind;

/* What a transport is made of; extra and server may be None. */
struct transport_parts {
  PyObject *loop;
  PyObject *sock;
  PyObject *protocol;
  PyObject *extra;
  PyObject *server;
};

/* What every transport begins with. */
typedef struct stream {
  PyObject_HEAD
  PyObject *inherited[TRANSPORT_INHERITED_SLOTS]; /* the base's; ours shadow them */
  const transport_kind *kind;                     /* NULL before __init__ */
  PyObject *dict;
  PyObject *weakrefs;
  native_loop *loop; /* strong; NULL once the connection is lost, as are the next four */
  PyObject *protocol;
  PyObject *sock;
  PyObject *server;
  PyObject *extra;        /* kept */
  PyObject *empty_waiter; /* a future while sendfile runs, else NULL */
  PyObject *read_context; /* what protocol callbacks run in */
  PyObject *write_context;
  struct write_buffer out;
  Py_ssize_t high_water;
  Py_ssize_t low_water;
  size_t read_hint; /* how much the next read may bring, after the ones before */
  int fd;
  int conn_lost; /* nonzero once connection_lost is due; counts the writes after that */
  bool started;  /* connection_made was called */
  bool registered;
  bool queued;      /* in the ready ring */
  bool in_callback; /* its protocol is being given data: corked writes leave when that returns */
  bool corked;      /* nobody has tried yet to send what is in out */
  bool readable;
  bool writable;
  bool hung_up; /* an event told of an end or an error: a short read proves nothing */
  bool at_eof;  /* eof_received chose to keep the transport */
  bool buffered_protocol;
  bool feeds_tls; /* the protocol is TLS of ours, which takes what was received as it is */
  bool protocol_paused;
  bool drain_ends; /* the last buffered datagram failed: the buffer became empty unnoticed */
  bool closing;
  bool paused;
  bool eof; /* write_eof was called */
} stream;

/* --- transport_base.c: life cycle and flow control -------------------------------------------- */

int transport_open(stream *self, const transport_kind *kind, struct transport_parts parts);
/* Tells the protocol, begins to receive, then wakes waiter, in coming iterations. */
int transport_schedule_start(stream *self, PyObject *waiter);
int transport_register(stream *self);
void transport_unregister(stream *self);
/* A transport that nothing can happen to any more is held by whoever uses it, not by the loop: one that
 * is forgotten is then closed, as asyncio's is. */
void transport_unwatch_at_eof(stream *self);
int transport_close(stream *self);
int transport_force_close(stream *self, PyObject *exception);
/* Takes the exception that is set; -1 when it is one that ends the loop. */
int transport_fatal(stream *self, const char *message);
int transport_fatal_error(stream *self, PyObject *exception, PyObject *message);
int transport_connection_lost(stream *self, PyObject *exception);
int transport_set_protocol(stream *self, PyObject *protocol);
int transport_maybe_pause(stream *self);
int transport_maybe_resume(stream *self);
void transport_finalize(PyObject *self);
/* True when the exception that is set must go up to whoever runs the loop. */
bool transport_must_raise(void);
/* A debug line of asyncio's logger, in debug mode. */
int transport_debug(stream *self, const char *format);
PyObject *transport_repr(stream *self);

/* --- write_buffer.c ---------------------------------------------------------------------------- */

/* Keeps bytes from offset on; an offset needs an empty buffer. */
int buffer_append(struct write_buffer *out, PyObject *bytes, size_t offset);
/* Forgets the first n bytes, which were sent. */
void buffer_consume(struct write_buffer *out, size_t n);
/* For chunks of any type, each counted as size bytes. */
int buffer_append_sized(struct write_buffer *out, PyObject *chunk, size_t size);
void buffer_pop_sized(struct write_buffer *out, size_t size);
void buffer_drop(struct write_buffer *out);

/* --- stream_write.c ---------------------------------------------------------------------------- */

int stream_write_ready(stream *self);
/* Sends what is buffered as far as the kernel takes it, and waits for the kernel with the rest. */
int stream_flush(stream *self);
/* Sends what is corked, as far as the kernel takes it, before the rest is dropped; never raises. */
void stream_flush_before_drop(stream *self);
PyObject *stream_write(stream *self, PyObject *data);
PyObject *stream_writelines(stream *self, PyObject *list);
PyObject *stream_write_eof(stream *self, PyObject *);
PyObject *stream_make_empty_waiter(stream *self, PyObject *);
PyObject *stream_reset_empty_waiter(stream *self, PyObject *);

/* --- stream_read.c ------------------------------------------------------------------------------ */

/* One bounded read, for the protocol; what that writes is sent when it returns. */
int stream_read(stream *self);

/* --- stream_cork.c ------------------------------------------------------------------------------ */

/* True when size bytes in all may wait for the end of the callback that writes them. */
bool stream_may_cork(const stream *self, size_t size);
/* What is buffered leaves at the end of the running callback or batch. */
int stream_cork(stream *self);

/* --- transport_events.c ------------------------------------------------------------------------ */

static inline bool
transport_is_reading(const stream *self)
{
  return !self->closing && !self->paused;
}

bool transport_may_read(const stream *self);
/* Makes it run next time round if it is ready for something that it waits for. */
int transport_schedule(stream *self);

#endif
