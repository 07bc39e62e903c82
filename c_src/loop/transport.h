/* The native transports: what their files share.
 *
 * Two rules own its life.  While its descriptor is registered, the loop's descriptor table holds a
 * reference to it; _call_connection_lost() alone unregisters, closes the descriptor and lets go of
 * protocol, loop and server.  Every function runs with the GIL held, on the loop's thread. */
#ifndef BEAMLOOP_TRANSPORT_H
#define BEAMLOOP_TRANSPORT_H

#include "loop_internal.h"

#include <sys/socket.h>
#include <sys/uio.h>

#define TRANSPORT_MAX_READ (256 * 1024)
#define WARN_LOST_WRITES 5 /* asyncio.constants.LOG_THRESHOLD_FOR_CONNLOST_WRITES */

/* Room for the slots of the asyncio class that is the base; checked when the type is made. */
#define TRANSPORT_INHERITED_SLOTS 8

#define WRITE_BUFFER_FEW 2

/* A part of an object that does not change, or a datagram. */
struct write_chunk {
  PyObject *owner;   /* strong */
  const char *start; /* NULL for a datagram */
  size_t size;
};

/* What waits to be sent, in order. */
struct write_buffer {
  struct write_chunk *chunks;               /* used are first .. first + count - 1 */
  struct write_chunk few[WRITE_BUFFER_FEW]; /* the room that chunks begins with */
  size_t first;
  size_t count;
  size_t capacity;
  size_t bytes; /* what is left in all */
};

/* The kernel's form of an address; size 0 when it is not known. */
struct raw_address {
  union {
    struct sockaddr any;
    uint32_t words[7]; /* as large as an IPv6 address, and aligned as one */
    char bytes[28];
  } raw;
  uint8_t size;
};

struct clients;
struct origin;
struct stream;

/* What one kind of transport does differently. */
typedef struct transport_kind {
  const char *name;
  const char *error; /* what the loop's exception handler is told */
  const char *read_error;
  const char *write_error;
  uint32_t watches;     /* the directions that its descriptor is first watched for */
  bool shares;          /* others may watch its descriptor, too, as asyncio's pipes let them */
  bool tells_os_errors; /* the exception handler is told of those, too, but for EIO */
  bool reads_while_closing;
  bool takes_parts; /* a descriptor that takes a part of a write may take more */
  int (*read)(struct stream *self);
  int (*write_ready)(struct stream *self);
  ssize_t (*receive)(int fd, void *room, size_t size); /* as recv(); of byte streams, as the next */
  ssize_t (*send)(int fd, struct iovec *iov, size_t count); /* as writev() */
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
  PyObject *sock; /* NULL too while nobody has asked for that of an accepted connection */
  PyObject *server;
  PyObject *extra;          /* kept */
  PyObject *empty_waiter;   /* a future while sendfile runs, else NULL */
  PyObject *read_context;   /* what protocol callbacks run in */
  PyObject *write_context;  /* and connection_made() while starting, connection_lost() at the end */
  PyObject *lost_exception; /* what connection_lost() is called with, while lost_due */
  struct clients *clients;  /* the server's set that it is in, or NULL */
  struct stream *next_client;
  struct stream *previous_client;
  struct origin *origin;   /* of an accepted connection, or NULL */
  struct raw_address peer; /* of an accepted connection */
  struct raw_address own;  /* known when the descriptor is closed, if nobody asked before */
  struct write_buffer out;
  Py_ssize_t high_water;
  Py_ssize_t low_water;
  size_t read_hint; /* how much the next read may bring, after the ones before */
  int fd;
  int watched_fd; /* a duplicate of fd where that is watched by others; while registered */
  int conn_lost;  /* nonzero once connection_lost is due; counts the writes after that */
  bool open;      /* fd is its descriptor */
  bool starting;  /* in the ready ring, for connection_made */
  bool lost_due;  /* in the ready ring, for connection_lost */
  bool nodelay_due;
  bool started; /* connection_made was called */
  bool registered;
  bool held;        /* the descriptor table holds a reference */
  bool queued;      /* in the ready ring */
  bool in_callback; /* its protocol is being given data: corked writes leave when that returns */
  bool corked;      /* nobody has tried yet to send what is in out */
  bool readable;
  bool writable;
  bool keeps_pieces; /* the protocol has kept the last piece that was large */
  bool hung_up;      /* an event told of an end or an error: a short read proves nothing */
  bool at_eof;       /* eof_received chose to keep the transport */
  bool buffered_protocol;
  bool feeds_tls; /* the protocol is TLS of ours, which takes what was received as it is */
  bool protocol_paused;
  bool drain_ends; /* the last buffered datagram failed: the buffer became empty unnoticed */
  bool closing;
  bool paused;
  bool eof; /* write_eof was called */
} stream;

/* --- transport_base.c: life cycle and flow control -------------------------------------------- */

/* RuntimeError before __init__. */
int transport_check_initialized(stream *self);
/* Fills a new transport over fd; transport_open() also what needs a socket object. */
int transport_begin(stream *self, const transport_kind *kind, native_loop *loop, int fd,
                    PyObject *protocol);
int transport_open(stream *self, const transport_kind *kind, struct transport_parts parts);
/* Tells the protocol, begins to receive, then wakes waiter, in coming iterations. */
int transport_schedule_start(stream *self, PyObject *waiter);
/* Begins to receive. */
int transport_start(stream *self);
int transport_register(stream *self);
void transport_unregister(stream *self);
/* Registers it, or changes the directions. */
int transport_watch(stream *self, uint32_t directions);
/* After what it waits for has changed.  A transport that waits for nothing is held by whoever uses it,
 * not by the loop: one that is forgotten is then closed, as asyncio's is. */
void transport_hold(stream *self);
/* Has the protocol told of the end in a coming iteration. */
int transport_schedule_lost(stream *self, PyObject *exception);
int transport_close(stream *self);
int transport_force_close(stream *self, PyObject *exception);
/* Takes the exception that is set; -1 when it is one that ends the loop. */
int transport_fatal(stream *self, const char *message);
int transport_fatal_error(stream *self, PyObject *exception, PyObject *message);
int transport_connection_lost(stream *self, PyObject *exception);
/* The end of one whose protocol was never told of it. */
int transport_drop(stream *self);
int transport_set_protocol(stream *self, PyObject *protocol);
int transport_maybe_pause(stream *self);
int transport_maybe_resume(stream *self);
void transport_finalize(PyObject *self);
/* True when the exception that is set must go up to whoever runs the loop. */
bool transport_must_raise(void);
/* A line of asyncio's logger, in debug mode; transport_debug() on the level debug. */
int transport_log(stream *self, const char *level, const char *format);
int transport_debug(stream *self, const char *format);
/* loop.call_soon(callback, argument), taking over the reference to callback; argument may be NULL. */
int transport_call_soon(native_loop *loop, PyObject *callback, PyObject *argument);
PyObject *transport_repr(stream *self);

/* --- stream_accept.c --------------------------------------------------------------------------- */

/* Its socket object, borrowed; None when closed, NULL with an exception. */
PyObject *transport_socket(stream *self);
/* The dict behind get_extra_info(), borrowed, with name in it if there is such a thing (NULL: all);
 * None after a clear, NULL with an exception. */
PyObject *transport_extra(stream *self, PyObject *name);
/* Before the descriptor is closed: keeps the address that can be asked for afterwards. */
void transport_note_sockname(stream *self);
/* Runs a transport that is starting. */
int stream_begin(stream *self);
/* Drops the reference to it. */
void origin_decref(struct origin *origin);

/* --- clients.c --------------------------------------------------------------------------------- */

/* Takes a connection out of its server's set; the last one of a closed server wakes who waits. */
int clients_remove(stream *client);
/* The same without telling anybody. */
void clients_forget(stream *client);

/* --- datagram_address.c ------------------------------------------------------------------------ */

/* What the socket module would return as the address: of IP and Unix sockets. */
PyObject *address_new(const struct sockaddr *address, socklen_t size);

/* --- stream_transport.c ------------------------------------------------------------------------ */

extern const transport_kind stream_kind;

/* --- write_buffer.c ---------------------------------------------------------------------------- */

/* Keeps size bytes from start on, which is in owner; or a datagram, counted as size bytes. */
int buffer_append(struct write_buffer *out, PyObject *owner, const char *start, size_t size);
/* Forgets the first n bytes, which were sent. */
void buffer_consume(struct write_buffer *out, size_t n);
/* Forgets the first chunk. */
void buffer_pop(struct write_buffer *out);
void buffer_drop(struct write_buffer *out);

/* --- transport_receive.c ------------------------------------------------------------------------ */

/* One bounded receive: 1 and what came, empty at the end of file; 0 when there is nothing now, -1 with
 * an OSError set. */
int transport_receive(stream *self, struct piece *piece);
/* What protocol.data_received() returns of a piece, which may become the next one after that. */
PyObject *transport_give(stream *self, PyObject *protocol, struct piece *piece);
/* The same into the loop's scratch buffer. */
int transport_receive_scratch(stream *self, char **scratch, size_t *size);
/* After recv(): what its result says about there being more.  -1 with an OSError set, 0 when there
 * was nothing to read. */
int transport_note_read(stream *self, ssize_t n, size_t room);

/* --- transport_write.c -------------------------------------------------------------------------- */

/* Sends until the buffer is empty or the kernel takes no more; -1 with an OSError set. */
int transport_send_buffer(stream *self);
/* After a failed send of what was buffered: the error goes to the protocol, and to sendfile. */
int transport_write_failed(stream *self);
/* With an empty buffer: sends what the kernel takes of view and keeps the rest. */
int transport_send_view(stream *self, PyObject *data, const Py_buffer *view);
/* What keeps the memory of data as it is, borrowed: data itself, or what it is a view of; NULL when it
 * may change. */
PyObject *transport_unchanging(PyObject *data);
/* Keeps data from sent on, as a copy if it may change. */
int transport_keep_rest(stream *self, PyObject *data, const Py_buffer *view, size_t sent);
/* Sets the context to a copy of the current one; where memory is short, to what there is. */
void transport_take_context(stream *self, PyObject **slot);
/* The buffer is not empty any more: wait for the kernel. */
int transport_await_writable(stream *self);
/* Counts a write to a connection that is lost, and warns from the fifth on. */
int transport_drop_write(stream *self, int *lost, const char *warning);
/* After data gave no buffer, with that exception: as asyncio does where the kernel's call fails. */
int transport_refuse(stream *self, PyObject *data);

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

/* --- stream_piece.c ----------------------------------------------------------------------------- */

/* A bytes object of that size, its content undefined, with at most an eighth more room. */
int piece_new(native_loop *loop, size_t size, struct piece *piece);
/* Makes it smaller before anybody sees it.  The room too if exact, or if much of it is left. */
int piece_cut(struct piece *piece, size_t size, bool exact);
/* The protocol has returned.  True when it has kept nothing. */
bool piece_done(native_loop *loop, struct piece *piece);

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
