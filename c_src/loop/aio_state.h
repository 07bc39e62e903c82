/* What the classes behind asyncio's streams keep in the module's state. */
#ifndef BEAMLOOP_AIO_STATE_H
#define BEAMLOOP_AIO_STATE_H

/* The coroutine methods that are done in C. */
enum aio_method {
  AIO_READ,
  AIO_READEXACTLY,
  AIO_READUNTIL,
  AIO_READLINE,
  AIO_ANEXT,
  AIO_DRAIN,
  AIO_DRAIN_HELPER,
  AIO_METHODS,
  /* These are passed over: what they do is done without a call. */
  AIO_FEED_DATA = AIO_METHODS,
  AIO_WAIT_FOR_DATA,
  AIO_WAKEUP_WAITER,
  AIO_MAYBE_RESUME,
  AIO_EXCEPTION,
  AIO_AT_EOF,
  AIO_DATA_RECEIVED,
  AIO_REPLACED,
};

/* asyncio's classes, and ours that stand for them. */
enum aio_class {
  AIO_READER,
  AIO_PROTOCOL,
  AIO_WRITER,
  AIO_CLASSES,
};

struct aio_call;

typedef struct aio_state {
  PyTypeObject *data_type; /* what a reader of ours holds */
  PyTypeObject *call_type; /* what its methods return */
  PyTypeObject *asyncio[AIO_CLASSES];
  PyTypeObject *ours[AIO_CLASSES];      /* all NULL when asyncio's are not as they are known */
  PyObject *method_names[AIO_REPLACED]; /* interned */
  PyObject *methods[AIO_REPLACED];      /* asyncio's functions */
  PyObject *str_cancelled;
  PyObject *str_class;
  PyObject *str_client_connected_cb;
  PyObject *str_connection_lost;
  PyObject *str_create_future;
  PyObject *str_data;
  PyObject *str_feed_data;
  PyObject *str_is_closing;
  PyObject *str_pause_reading;
  PyObject *str_paused;
  PyObject *str_protocol;
  PyObject *str_reader;
  PyObject *str_reader_ref;
  PyObject *str_result;
  PyObject *str_resume_reading;
  PyObject *str_set_result;
  PyObject *str_stream_reader;
  PyObject *str_transport;
  PyObject *str_future_blocking;
  struct aio_call *free_calls; /* linked through owner */
  int free_count;
} aio_state;

#define AIO_NAMES(apply, state)                                                                    \
  apply((state)->str_cancelled, "cancelled");                                                      \
  apply((state)->str_class, "__class__");                                                          \
  apply((state)->str_client_connected_cb, "_client_connected_cb");                                 \
  apply((state)->str_connection_lost, "_connection_lost");                                         \
  apply((state)->str_create_future, "create_future");                                              \
  apply((state)->str_data, "_data");                                                               \
  apply((state)->str_feed_data, "feed_data");                                                      \
  apply((state)->str_is_closing, "is_closing");                                                    \
  apply((state)->str_pause_reading, "pause_reading");                                              \
  apply((state)->str_paused, "_paused");                                                           \
  apply((state)->str_protocol, "_protocol");                                                       \
  apply((state)->str_reader, "_reader");                                                           \
  apply((state)->str_reader_ref, "_stream_reader_wr");                                             \
  apply((state)->str_result, "result");                                                            \
  apply((state)->str_resume_reading, "resume_reading");                                            \
  apply((state)->str_set_result, "set_result");                                                    \
  apply((state)->str_stream_reader, "_stream_reader");                                             \
  apply((state)->str_transport, "_transport");                                                     \
  apply((state)->str_future_blocking, "_asyncio_future_blocking")

#endif
