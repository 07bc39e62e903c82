/* What the types of transports are made of: shared methods, attributes and object slots. */
#ifndef BEAMLOOP_TRANSPORT_TYPE_H
#define BEAMLOOP_TRANSPORT_TYPE_H

#include "transport.h"

#include <structmember.h>

PyObject *method_read_ready(stream *self, PyObject *argument);
PyObject *method_write_ready(stream *self, PyObject *argument);
PyObject *method_start(stream *self, PyObject *argument);
PyObject *method_pause_reading(stream *self, PyObject *argument);
PyObject *method_resume_reading(stream *self, PyObject *argument);
PyObject *method_close(stream *self, PyObject *argument);
PyObject *method_abort(stream *self, PyObject *argument);
PyObject *method_force_close(stream *self, PyObject *argument);
PyObject *method_fatal_error(stream *self, PyObject *args, PyObject *kwargs);
PyObject *method_connection_lost(stream *self, PyObject *argument);
PyObject *method_set_protocol(stream *self, PyObject *argument);
PyObject *method_get_protocol(stream *self, PyObject *argument);
PyObject *method_is_closing(stream *self, PyObject *argument);
PyObject *method_is_reading(stream *self, PyObject *argument);
PyObject *method_maybe_resume(stream *self, PyObject *argument);

PyObject *method_buffer_size(stream *self, PyObject *argument);
PyObject *method_maybe_pause(stream *self, PyObject *argument);

/* Of an attribute that is a Py_ssize_t at offset. */
PyObject *transport_get_limit(PyObject *self, void *offset);
int transport_set_limit(PyObject *self, PyObject *value, void *offset);

extern PyGetSetDef transport_getset[];

/* --- transport_types.c ------------------------------------------------------------------------- */

/* Makes a type over classes of asyncio.transports and adds it to the module.  Where those have a layout
 * that is not known *place stays NULL and the module has None: asyncio's own transports have to do. */
int transport_type_new(PyObject *module, PyType_Spec *spec, const char *const *base_names,
                       PyTypeObject **place);

int transport_traverse(stream *self, visitproc visit, void *arg);
int transport_clear(stream *self);

#define METHOD(name, function, flags, doc)                                                         \
  {                                                                                                \
    name, (PyCFunction)(void (*)(void))function, flags, PyDoc_STR(doc)                             \
  }

#define TRANSPORT_END_METHODS                                                                      \
  METHOD("is_closing", method_is_closing, METH_NOARGS, "True once closing or closed."),            \
      METHOD("close", method_close, METH_NOARGS, "Close once all is sent."),                       \
      METHOD("set_protocol", method_set_protocol, METH_O, "Receive with another protocol."),       \
      METHOD("get_protocol", method_get_protocol, METH_NOARGS, "The protocol."),                   \
      METHOD("_fatal_error", method_fatal_error, METH_VARARGS | METH_KEYWORDS, ""),                \
      METHOD("_call_connection_lost", method_connection_lost, METH_O, ""),                         \
      METHOD("_read_ready", method_read_ready, METH_NOARGS, "")

#define TRANSPORT_READING_METHODS                                                                  \
  METHOD("pause_reading", method_pause_reading, METH_NOARGS, "Receive nothing for now."),          \
      METHOD("resume_reading", method_resume_reading, METH_NOARGS, "Receive again."),              \
      METHOD("is_reading", method_is_reading, METH_NOARGS, "True unless paused or closing."),      \
      METHOD("_start", method_start, METH_NOARGS, "")

#define TRANSPORT_WRITING_METHODS                                                                  \
  METHOD("abort", method_abort, METH_NOARGS, "Close at once; what is not sent is lost."),          \
      METHOD("_maybe_resume_protocol", method_maybe_resume, METH_NOARGS, ""),                      \
      METHOD("_write_ready", method_write_ready, METH_NOARGS, "")

/* Where nothing is corked. */
#define TRANSPORT_BUFFER_METHODS                                                                   \
  METHOD("get_write_buffer_size", method_buffer_size, METH_NOARGS,                                 \
         "How many bytes the kernel has not taken yet."),                                          \
      METHOD("_maybe_pause_protocol", method_maybe_pause, METH_NOARGS, "")

#define TRANSPORT_METHODS                                                                          \
  TRANSPORT_END_METHODS, TRANSPORT_READING_METHODS, TRANSPORT_WRITING_METHODS,                     \
      METHOD("_force_close", method_force_close, METH_O, "")

#define TRANSPORT_MEMBERS                                                                          \
  {"__dictoffset__", T_PYSSIZET, offsetof(stream, dict), READONLY, NULL},                          \
      {"__weaklistoffset__", T_PYSSIZET, offsetof(stream, weakrefs), READONLY, NULL},              \
      {"_loop", T_OBJECT, offsetof(stream, loop), READONLY, NULL},                                 \
      {"_protocol", T_OBJECT, offsetof(stream, protocol), READONLY, NULL},                         \
      {"_server", T_OBJECT, offsetof(stream, server), READONLY, NULL},                             \
      {"_empty_waiter", T_OBJECT, offsetof(stream, empty_waiter), READONLY, NULL},                 \
      {"_sock_fd", T_INT, offsetof(stream, fd), READONLY, NULL},                                   \
      {"_conn_lost", T_INT, offsetof(stream, conn_lost), READONLY, NULL},                          \
      {"_closing", T_BOOL, offsetof(stream, closing), READONLY, NULL},                             \
      {"_paused", T_BOOL, offsetof(stream, paused), READONLY, NULL},                               \
      {"_eof", T_BOOL, offsetof(stream, eof), READONLY, NULL},                                     \
  {                                                                                                \
    "_protocol_paused", T_BOOL, offsetof(stream, protocol_paused), READONLY, NULL                  \
  }

#endif
