/* What the reactor keeps in the module's state. */
#ifndef BEAMLOOP_REACTOR_STATE_H
#define BEAMLOOP_REACTOR_STATE_H

typedef struct reactor_state {
  PyTypeObject *reactor_type;
  PyTypeObject *protocol_type;
  PyTypeObject *connection_type;
  PyTypeObject *buffer_type;
  PyObject *not_adopted; /* the exception */
  PyObject *adopted;     /* a set: the descriptors that reactors of any loop serve */
  PyObject *str_connection_made;
  PyObject *str_data_received;
  PyObject *str_eof_received;
  PyObject *str_write_ready;
  PyObject *str_connection_lost;
  PyObject *str_emptied;
  PyObject *str_run;
  PyObject *str_continue; /* the actions */
  PyObject *str_read_pending;
  PyObject *str_write_pending;
  PyObject *str_async_pending;
  PyObject *str_close;
} reactor_state;

#define REACTOR_STATE_OBJECTS(apply, state)                                                        \
  apply((state)->reactor_type);                                                                    \
  apply((state)->protocol_type);                                                                   \
  apply((state)->connection_type);                                                                 \
  apply((state)->buffer_type);                                                                     \
  apply((state)->not_adopted);                                                                     \
  apply((state)->adopted);                                                                         \
  apply((state)->str_connection_made);                                                             \
  apply((state)->str_data_received);                                                               \
  apply((state)->str_eof_received);                                                                \
  apply((state)->str_write_ready);                                                                 \
  apply((state)->str_connection_lost);                                                             \
  apply((state)->str_emptied);                                                                     \
  apply((state)->str_run);                                                                         \
  apply((state)->str_continue);                                                                    \
  apply((state)->str_read_pending);                                                                \
  apply((state)->str_write_pending);                                                               \
  apply((state)->str_async_pending);                                                               \
  apply((state)->str_close)

#endif
