/* TLS over a transport: what its files share.
 *
 * The type erlang._loop.TlsProtocol comes before asyncio.sslproto.SSLProtocol among the bases of
 * erlang.tls.TlsProtocol.  It holds, as attributes under asyncio's names, what moving data needs, and
 * replaces the methods that move it; handshake, shutdown, time-outs and errors stay asyncio's.  Every
 * function runs with the GIL held, on the loop's thread; -1 and NULL mean that an exception is set. */
#ifndef BEAMLOOP_TLS_H
#define BEAMLOOP_TLS_H

#include "loop_internal.h"
#include "tls_io.h"

/* asyncio.sslproto.SSLProtocolState, as far as moving data tells them apart. */
enum tls_stage { TLS_UNWRAPPED, TLS_HANDSHAKE, TLS_WRAPPED, TLS_FLUSHING, TLS_SHUTDOWN };

typedef struct tls {
  PyObject_HEAD
  const struct tls_library *library; /* NULL until attached */
  tls_state *names;
  PyObject *socket; /* the _ssl._SSLSocket, which owns ssl */
  tls_ssl *ssl;
  tls_bio *bio; /* ssl's, for both directions */
  struct tls_io io;
  PyObject *records;      /* the bytes object whose memory is io.direct, or NULL */
  PyObject *state;        /* _state */
  PyObject *transport;    /* _transport: below; None when there is none */
  PyObject *app_protocol; /* _app_protocol: above; None when there is none */
  PyObject *app_get_buffer;
  PyObject *app_buffer_updated;
  PyObject *backlog;       /* _write_backlog: a deque of what waits for the handshake */
  Py_ssize_t backlog_size; /* _write_buffer_size: its bytes */
  Py_ssize_t incoming_high_water;
  Py_ssize_t incoming_low_water;
  Py_ssize_t outgoing_high_water;
  Py_ssize_t outgoing_low_water;
  enum tls_stage stage; /* of state */
  int corks;            /* how many callbacks are running that records are gathered for */
  bool app_is_buffer;   /* app_protocol is a BufferedProtocol */
  bool app_reading_paused;
  bool app_writing_paused;
  bool ssl_reading_paused;
  bool ssl_writing_paused;
} tls;

/* --- tls_read.c -------------------------------------------------------------------------------- */

/* What was received: data is not kept. */
int tls_feed(tls *self, const char *data, size_t size);
/* Gives the application what there is to read, sends what it wrote, minds the pauses. */
int tls_do_read(tls *self);

/* --- tls_write.c ------------------------------------------------------------------------------- */

/* How much of data was encrypted: less only when OpenSSL has to read first. */
Py_ssize_t tls_encrypt(tls *self, const char *data, Py_ssize_t size);
/* Encrypts the backlog and sends it. */
int tls_do_write(tls *self);
/* Hands the records that there are to the transport, unless it is full. */
int tls_process_outgoing(tls *self);
/* Forgets them. */
void tls_drop_records(tls *self);
/* What asyncio's code does with an exception of Exception that is set; -1 when it stays set. */
int tls_fatal(tls *self);
PyObject *tls_writer_write(PyObject *transport, PyObject *data);
PyObject *tls_writer_writelines(PyObject *transport, PyObject *list);

/* True when protocol takes what was received by tls_feed(). */
static inline bool
tls_is_fed(const tls_state *state, PyObject *protocol)
{
  return PyObject_TypeCheck(protocol, state->protocol_type) && ((tls *)protocol)->library != NULL;
}

/* --- tls_type.c -------------------------------------------------------------------------------- */

/* What the module of an instance keeps. */
tls_state *tls_state_of(PyObject *object);
int tls_state_init(PyObject *module, tls_state *state);
/* The module's function _load_tls(path, version): why TLS cannot be native, or None. */
PyObject *tls_load(PyObject *module, PyObject *args);

static inline bool
tls_is_some(const PyObject *object)
{
  return object != NULL && object != Py_None;
}

static inline int
tls_discard(PyObject *result)
{
  Py_XDECREF(result);
  return result == NULL ? -1 : 0;
}

#endif
