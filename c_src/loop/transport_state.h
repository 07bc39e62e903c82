/* What the transports keep in the module's state. */
#ifndef BEAMLOOP_TRANSPORT_STATE_H
#define BEAMLOOP_TRANSPORT_STATE_H

typedef struct transport_state {
  PyTypeObject *stream_type;
  PyTypeObject *datagram_type;
  PyTypeObject *read_pipe_type;
  PyTypeObject *write_pipe_type;
  PyTypeObject *listener_type;
  PyTypeObject *clients_type;
  PyObject *transport_socket;  /* asyncio.trsock.TransportSocket */
  PyObject *buffered_protocol; /* asyncio.protocols.BufferedProtocol */
  PyObject *set_result;        /* asyncio.futures._set_result_unless_cancelled */
  PyObject *set_nodelay;       /* asyncio.base_events._set_nodelay */
  PyObject *str_data_received;
  PyObject *str_get_buffer;
  PyObject *str_buffer_updated;
  PyObject *str_eof_received;
  PyObject *minus_one;
  PyObject *str_datagram_received;
  PyObject *str_error_received;
  PyObject *str_accept_failed;
  PyObject *str_clients;
  PyObject *str_connection_lost;
  PyObject *str_connection_made;
  PyObject *str_peername;
  PyObject *str_socket;
  PyObject *str_sockname;
} transport_state;

#define TRANSPORT_STATE_OBJECTS(apply, state)                                                      \
  apply((state)->stream_type);                                                                     \
  apply((state)->datagram_type);                                                                   \
  apply((state)->read_pipe_type);                                                                  \
  apply((state)->write_pipe_type);                                                                 \
  apply((state)->listener_type);                                                                   \
  apply((state)->clients_type);                                                                    \
  apply((state)->transport_socket);                                                                \
  apply((state)->buffered_protocol);                                                               \
  apply((state)->set_result);                                                                      \
  apply((state)->set_nodelay);                                                                     \
  apply((state)->str_data_received);                                                               \
  apply((state)->str_get_buffer);                                                                  \
  apply((state)->str_buffer_updated);                                                              \
  apply((state)->str_eof_received);                                                                \
  apply((state)->minus_one);                                                                       \
  apply((state)->str_datagram_received);                                                           \
  apply((state)->str_error_received);                                                              \
  apply((state)->str_accept_failed);                                                               \
  apply((state)->str_clients);                                                                     \
  apply((state)->str_connection_lost);                                                             \
  apply((state)->str_connection_made);                                                             \
  apply((state)->str_peername);                                                                    \
  apply((state)->str_socket);                                                                      \
  apply((state)->str_sockname)

#endif
