/* What TLS keeps in the module's state. */
#ifndef BEAMLOOP_TLS_STATE_H
#define BEAMLOOP_TLS_STATE_H

typedef struct tls_state {
  PyTypeObject *protocol_type;
  PyTypeObject *writer_type;
  PyObject *str_ssl_protocol; /* _ssl_protocol */
  PyObject *str_data_received;
  PyObject *str_write;
} tls_state;

#define TLS_STATE_OBJECTS(apply, state)                                                            \
  apply((state)->protocol_type);                                                                   \
  apply((state)->writer_type);                                                                     \
  apply((state)->str_ssl_protocol);                                                                \
  apply((state)->str_data_received);                                                               \
  apply((state)->str_write)

#endif
