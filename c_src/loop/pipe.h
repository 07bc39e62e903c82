/* The native pipe transports: what their files share. */
#ifndef BEAMLOOP_PIPE_H
#define BEAMLOOP_PIPE_H

#include "transport_type.h"

#include <sys/types.h>

/* What both types begin with; base.sock is the pipe, a file object. */
typedef struct pipe_transport {
  stream base;
  int lost_writes; /* since it is closing or broken; a write that broke it included */
  bool packets;    /* a socket that drops what a read has no room for */
} pipe_transport;

/* Chooses what serves a descriptor of that mode; NULL, without an exception, when nothing does. */
typedef const transport_kind *(*pipe_chooser)(mode_t mode);

/* --- pipe_transport.c -------------------------------------------------------------------------- */

/* __init__(loop, pipe, protocol, waiter=None, extra=None); refusal is what a ValueError says about a
 * descriptor that is served by nothing. */
int pipe_init(pipe_transport *self, PyObject *args, PyObject *kwargs, pipe_chooser choose,
              const char *refusal);
/* What asyncio shows of it: "<NAME closing fd=3 polling>"; NULL with an exception. */
PyObject *pipe_repr(pipe_transport *self, bool polling, const char *rest);

/* transport._pipe, which may be set to None: whoever does so closes the pipe. */
PyObject *pipe_get_pipe(stream *self, void *ignored);
int pipe_set_pipe(stream *self, PyObject *value, void *ignored);

#define PIPE_GETSET                                                                                \
  {"__dict__", PyObject_GenericGetDict, PyObject_GenericSetDict, NULL, NULL},                      \
  {                                                                                                \
    "_pipe", (getter)pipe_get_pipe, (setter)pipe_set_pipe, NULL, NULL                              \
  }

#define PIPE_METHODS TRANSPORT_END_METHODS, METHOD("_close", method_force_close, METH_O, "")

#define PIPE_MEMBERS                                                                               \
  {"__dictoffset__", T_PYSSIZET, offsetof(stream, dict), READONLY, NULL},                          \
      {"__weaklistoffset__", T_PYSSIZET, offsetof(stream, weakrefs), READONLY, NULL},              \
      {"_loop", T_OBJECT, offsetof(stream, loop), READONLY, NULL},                                 \
      {"_protocol", T_OBJECT, offsetof(stream, protocol), READONLY, NULL},                         \
      {"_extra", T_OBJECT, offsetof(stream, extra), READONLY, NULL},                               \
      {"_fileno", T_INT, offsetof(stream, fd), READONLY, NULL},                                    \
  {                                                                                                \
    "_closing", T_BOOL, offsetof(stream, closing), READONLY, NULL                                  \
  }

#endif
