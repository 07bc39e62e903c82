/* Servers: the listener, the connections that it accepts, and the set of a server's connections. */
#ifndef BEAMLOOP_LISTENER_H
#define BEAMLOOP_LISTENER_H

#include "transport.h"

#include <sys/socket.h>

/* --- stream_accept.c --------------------------------------------------------------------------- */

/* What the connections of one listener have in common; the module's reference counts, GIL held. */
struct origin {
  Py_ssize_t refs;
  int family;
  int proto;
  bool wildcard; /* each connection has an address of its own */
  socklen_t size;
  struct sockaddr_storage address; /* the listener's */
};

/* Of the listening socket sock and its descriptor; NULL with an exception. */
struct origin *origin_new(loop_state *state, PyObject *sock, int fd);
/* A new socket.socket that owns the accepted descriptor fd; on failure fd is still open. */
PyObject *origin_socket(const struct origin *origin, loop_state *state, int fd);

/* What a connection that was accepted is made of. */
struct accepted {
  int fd;
  const struct sockaddr *peer;
  socklen_t peer_size;
  PyObject *context; /* the one that it is made in, where connection_made() runs */
};

/* A new transport, which will tell protocol in the next iteration and then begin to receive.  It owns
 * the descriptor, unless NULL is returned with an exception. */
stream *stream_accept(native_loop *loop, struct origin *origin, PyObject *protocol,
                      const struct accepted *from);

/* --- clients.c --------------------------------------------------------------------------------- */

/* The open connections of a server, in a list through themselves.  A connection that nobody else
 * knows is not kept alive by it. */
typedef struct clients {
  PyObject_HEAD
  stream *first;
  Py_ssize_t count;
  PyObject *emptied; /* called once when the last one goes, or NULL */
  bool closed;
} clients;

/* RuntimeError once the set is closed. */
int clients_add(clients *self, stream *client);
/* Makes a transport a connection of server, which may be None. */
int transport_attach(stream *self, PyObject *server);
/* The end of that; an exception that is set stays. */
int transport_detach(stream *self);

/* --- listener.c -------------------------------------------------------------------------------- */

int listener_type_init(PyObject *module, transport_state *state);
int clients_type_init(PyObject *module, transport_state *state);

#endif
