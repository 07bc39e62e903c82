/* OpenSSL, found at run time in the library that CPython's _ssl is linked to, and the BIO of ours that
 * stands between it and a transport.  Includes neither Python.h nor OpenSSL's headers.
 *
 * An io belongs to one connection and is used by one thread at a time, with or without the GIL: the
 * handshake runs in _ssl, which releases it. */
#ifndef BEAMLOOP_TLS_IO_H
#define BEAMLOOP_TLS_IO_H

#include <stdbool.h>
#include <stddef.h>

/* OpenSSL's own types, never looked into. */
typedef struct ssl_st tls_ssl;
typedef struct ssl_ctx_st tls_ctx;
typedef struct bio_st tls_bio;
typedef struct bio_method_st tls_bio_method;

/* OpenSSL's numbers that are part of its binary interface. */
enum {
  TLS_ERROR_WANT_READ = 2,
  TLS_ERROR_WANT_WRITE = 3,
  TLS_ERROR_ZERO_RETURN = 6,
  TLS_RECEIVED_SHUTDOWN = 2,
};

struct tls_library {
  int (*read)(tls_ssl *, void *, int);
  int (*write)(tls_ssl *, const void *, int);
  int (*has_pending)(const tls_ssl *);
  int (*get_error)(const tls_ssl *, int);
  int (*get_shutdown)(const tls_ssl *);
  tls_bio *(*get_rbio)(const tls_ssl *);
  tls_bio *(*get_wbio)(const tls_ssl *);
  tls_ctx *(*get_ctx)(const tls_ssl *);
  void (*set_bio)(tls_ssl *, tls_bio *, tls_bio *);
  unsigned long (*peek_error)(void);
  void (*clear_errors)(void);
  unsigned long (*version)(void);
  tls_bio *(*bio_new)(const tls_bio_method *);
  void (*bio_set_data)(tls_bio *, void *);
  void *(*bio_get_data)(tls_bio *);
  void (*bio_set_init)(tls_bio *, int);
  void (*bio_set_flags)(tls_bio *, int);
  void (*bio_clear_flags)(tls_bio *, int);
  tls_bio_method *(*method_new)(int, const char *);
  int (*method_set_read)(tls_bio_method *, int (*)(tls_bio *, char *, int));
  int (*method_set_write)(tls_bio_method *, int (*)(tls_bio *, const char *, int));
  int (*method_set_ctrl)(tls_bio_method *, long (*)(tls_bio *, int, long, void *));
  int (*new_index)(void);
  tls_bio_method *method; /* of our BIO */
};

/* Bytes of our own. */
struct tls_bytes {
  char *data;
  size_t first; /* where what is left begins */
  size_t size;  /* what is left */
  size_t capacity;
};

struct tls_io {
  const char *window; /* what was received just now, not copied; read after held */
  size_t window_size;
  struct tls_bytes held; /* received earlier and not read yet */
  char *direct;          /* where records go first, or NULL */
  size_t direct_size;
  size_t direct_capacity;
  struct tls_bytes spilled; /* records that did not fit there; they come after it */
};

/* Any thread.  Finds OpenSSL through the file of _ssl, once per process; NULL and a reason when that
 * is not the very library, or not one that is known. */
const struct tls_library *tls_library_find(const char *path, unsigned long version,
                                           const char **reason);
/* The library that was found, or NULL. */
const struct tls_library *tls_library_found(void);

/* The method of our BIO, for good; NULL without memory. */
tls_bio_method *tls_bio_method_new(const struct tls_library *library);

/* A new BIO that reads and writes io, owned by the caller; NULL without memory.  Before io ends,
 * bio_set_data(bio, NULL). */
tls_bio *tls_bio_new(struct tls_io *io);

/* Takes up to n bytes out; how many there were. */
size_t tls_bytes_take(struct tls_bytes *bytes, char *to, size_t n);
/* Copies what is left in the window; false without memory, and the rest of it is lost. */
bool tls_io_hold(struct tls_io *io);
void tls_io_clear(struct tls_io *io);

/* What others left would be taken for an error of the call that follows. */
static inline void
tls_forget_errors(const struct tls_library *library)
{
  if (library->peek_error() != 0)
    library->clear_errors();
}

static inline size_t
tls_io_unread(const struct tls_io *io)
{
  return io->held.size + io->window_size;
}

static inline size_t
tls_io_unsent(const struct tls_io *io)
{
  return io->direct_size + io->spilled.size;
}

#endif
