/* The reactor: descriptors that others opened, each served by one Python object, its protocol.
 *
 * Three types.  A reactor belongs to a loop and adopts descriptors.  A connection is what the loop's
 * descriptor table holds for an adopted one; it owns the descriptor and the protocol.  A protocol
 * points back at its connection as long as there is one.
 *
 * Two rules own a connection's life.  While its descriptor is registered, the loop's table holds a
 * reference to it; connection_finish() alone unregisters, tells the protocol and closes the
 * descriptor.  Only a connection's own turn (connection_run) calls its protocol.  Every function
 * runs with the GIL held, on the loop's thread. */
#ifndef BEAMLOOP_REACTOR_H
#define BEAMLOOP_REACTOR_H

#include "loop_internal.h"
#include "transport.h"

#include <sys/uio.h>

#define GATHER_PIECES 16

typedef struct connection connection;

/* What the running callback has written to its own connection and what leaves when it returns. */
struct gather {
  connection *owner; /* whose callback runs, or NULL */
  int count;
  size_t bytes;
  PyObject *kept[GATHER_PIECES]; /* what holds the memory of a piece, a reference each */
  struct iovec pieces[GATHER_PIECES];
};

/* The memory that is received into.  Views of it are read-only. */
typedef struct receive_buffer {
  PyObject_HEAD
  char *data;
  size_t capacity;
  size_t used; /* what a view that is made now shows */
} receive_buffer;

typedef struct reactor {
  PyObject_HEAD
  PyObject *module; /* strong until the end: state is in it */
  loop_state *state;
  native_loop *loop; /* strong */
  PyObject *factory;
  receive_buffer *buffer; /* NULL until needed, or when its last view was kept */
  PyObject *view;         /* a memoryview of buffer, used again unless somebody kept it */
  connection *first;      /* all that are served, linked; the loop's table owns them */
  struct gather gather;
  size_t read_size;
  size_t write_limit;
  size_t next_capacity; /* of the next buffer */
  Py_ssize_t max_connections;
  Py_ssize_t connections;
  uint64_t accepted;
  uint64_t closed;
  uint64_t errors; /* connections that ended by an exception */
  uint64_t received;
  uint64_t sent;
  bool draining; /* nothing is adopted any more */
} reactor;

struct connection {
  PyObject_HEAD
  reactor *reactor; /* strong; NULL once finished, as are the next three */
  PyObject *protocol;
  PyObject *context; /* what protocol callbacks run in */
  PyObject *info;    /* until connection_made has it */
  PyObject *early;   /* bytes that came before all others, or NULL */
  PyObject *error;   /* what connection_lost will be given, or NULL */
  connection *next, *previous;
  struct write_buffer out;
  unsigned long thread_id; /* of the callback that runs, if any */
  int fd;
  bool reserved;     /* adopted, but not to begin yet: may still be given back */
  bool was_blocking; /* before it was adopted */
  bool queued;       /* in the ready ring */
  bool started;
  bool in_callback;
  bool readable; /* the kernel said so, and no call has shown otherwise */
  bool writable;
  bool hung_up; /* an event told of an end or an error: a short read proves nothing */
  bool at_eof;
  bool paused;      /* until resume_reading() */
  bool held;        /* too much is unsent: nothing is read meanwhile */
  bool wants_write; /* write_ready() is asked for */
  bool closing;     /* nothing is read; ends when all is sent and write_ready() not asked for */
  bool shut;        /* close() was called: nothing may be written */
  bool lost;        /* ends at once */
};

typedef struct reactor_protocol {
  PyObject_HEAD
  connection *connection; /* borrowed: it owns the protocol; NULL unless connected */
} reactor_protocol;

/* --- reactor_type.c ---------------------------------------------------------------------------- */

extern PyType_Spec reactor_spec;

/* --- reactor_protocol.c ------------------------------------------------------------------------ */

extern PyType_Spec reactor_protocol_spec;

/* --- reactor_connection.c: life cycle ---------------------------------------------------------- */

extern PyType_Spec connection_spec;

/* A reserved one, which the loop's table owns: fd is watched, and nothing is done with it. */
connection *connection_new(reactor *owner, int fd, PyObject *protocol, PyObject *info);
/* A reserved one is to begin; early (or NULL) comes before all else. */
int connection_begin(connection *self, PyObject *early);
/* A reserved one ends, and its descriptor is the caller's as it was. */
void connection_give_back(connection *self);
/* Makes it run next time round if there is something for it to do. */
int connection_schedule(connection *self);
/* Ends it soon; what is unsent is lost.  Takes the reference to error, which may be NULL. */
int connection_abort(connection *self, PyObject *error);
/* Takes the exception that is set as the reason of the end. */
int connection_fail(connection *self);
int connection_close(connection *self);

/* --- reactor_turn.c: what a connection does in its turn ---------------------------------------- */

bool connection_has_work(const connection *self);
/* True when nothing is left but its end. */
bool connection_is_over(const connection *self);
/* Gives the exception that is set, of a method of the protocol, to the loop's handler, and leaves it
 * set; -1 with another one when that failed, or when it ends the loop. */
int connection_report(connection *self, PyObject *method);
/* All that is due, in the connection's context; -1 for exceptions that end the loop. */
int connection_turn(connection *self);

/* --- reactor_read.c ---------------------------------------------------------------------------- */

extern PyType_Spec receive_buffer_spec;

/* Receives once: a borrowed view of what came, or NULL with *outcome 0 (nothing), 1 (the end of the
 * stream) or -1 (an exception). */
PyObject *reactor_receive(connection *self, int *outcome);
/* After the callback that was given the view; forgets it where it was kept. */
void reactor_view_done(reactor *self);
/* True when object is a view of the buffer that is in use: it stays as it is until the callback
 * returns. */
bool reactor_is_own_view(const reactor *self, PyObject *object);
void reactor_buffer_clear(reactor *self);
PyObject *connection_read(connection *self, Py_ssize_t size);

/* --- reactor_write.c --------------------------------------------------------------------------- */

/* Sends data now or soon: its size.  What is written before the protocol can know that the connection
 * is lost is lost with the rest. */
Py_ssize_t connection_write(connection *self, PyObject *data);
/* Sends what the callback wrote, as far as the kernel takes it, and keeps the rest. */
int connection_send_gathered(connection *self);
/* The same for what was kept before. */
int connection_send_kept(connection *self);

#endif
