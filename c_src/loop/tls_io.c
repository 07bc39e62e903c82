/* The BIO between OpenSSL and a transport, and the bytes on both its sides. */
#include "tls_io.h"

#include <stdlib.h>
#include <string.h>

#define SPILL_MIN 4096

/* OpenSSL's numbers, as in openssl/bio.h. */
enum {
  FLAG_READ = 1,
  FLAG_RETRY = 8,
  FLAGS_ALL = 15,
  CTRL_PENDING = 10,
  CTRL_FLUSH = 11,
  CTRL_WPENDING = 13,
  TYPE_SOURCE_SINK = 0x400,
};

/* --- bytes ------------------------------------------------------------------------------------- */

static bool
bytes_append(struct tls_bytes *bytes, const char *data, size_t n)
{
  size_t capacity = bytes->capacity ? bytes->capacity : SPILL_MIN;
  char *grown;

  if (bytes->first + bytes->size + n > bytes->capacity && bytes->first > 0) {
    memmove(bytes->data, bytes->data + bytes->first, bytes->size);
    bytes->first = 0;
  }
  if (bytes->size + n > bytes->capacity) {
    while (capacity < bytes->size + n)
      capacity *= 2;
    grown = realloc(bytes->data, capacity);
    if (grown == NULL)
      return false;
    bytes->data = grown;
    bytes->capacity = capacity;
  }
  memcpy(bytes->data + bytes->first + bytes->size, data, n);
  bytes->size += n;
  return true;
}

/* Memory is kept for no more than is there. */
static void
bytes_free(struct tls_bytes *bytes)
{
  free(bytes->data);
  *bytes = (struct tls_bytes){0};
}

size_t
tls_bytes_take(struct tls_bytes *bytes, char *to, size_t n)
{
  if (n > bytes->size)
    n = bytes->size;
  memcpy(to, bytes->data + bytes->first, n);
  bytes->first += n;
  bytes->size -= n;
  if (bytes->size == 0)
    bytes_free(bytes);
  return n;
}

bool
tls_io_hold(struct tls_io *io)
{
  bool held = io->window_size == 0 || bytes_append(&io->held, io->window, io->window_size);

  io->window = NULL;
  io->window_size = 0;
  return held;
}

void
tls_io_clear(struct tls_io *io)
{
  bytes_free(&io->held);
  bytes_free(&io->spilled);
  *io = (struct tls_io){0};
}

/* --- the BIO ----------------------------------------------------------------------------------- */

/* Runs inside OpenSSL, at times without the GIL. */
static int
bio_read(tls_bio *bio, char *to, int n)
{
  const struct tls_library *library = tls_library_found();
  struct tls_io *io = library->bio_get_data(bio);
  size_t wanted = n > 0 ? (size_t)n : 0, got = 0;

  library->bio_clear_flags(bio, FLAGS_ALL);
  if (io != NULL && io->held.size > 0)
    got = tls_bytes_take(&io->held, to, wanted);
  if (io != NULL && got < wanted && io->window_size > 0) {
    size_t more = wanted - got < io->window_size ? wanted - got : io->window_size;

    memcpy(to + got, io->window, more);
    io->window += more;
    io->window_size -= more;
    got += more;
  }
  if (got > 0)
    return (int)got;
  library->bio_set_flags(bio, FLAG_READ | FLAG_RETRY);
  return -1;
}

/* Runs inside OpenSSL, at times without the GIL. */
static int
bio_write(tls_bio *bio, const char *data, int n)
{
  const struct tls_library *library = tls_library_found();
  struct tls_io *io = library->bio_get_data(bio);
  size_t size = n > 0 ? (size_t)n : 0;

  library->bio_clear_flags(bio, FLAGS_ALL);
  if (io == NULL)
    return -1;
  if (io->spilled.size == 0 && size <= io->direct_capacity - io->direct_size) {
    memcpy(io->direct + io->direct_size, data, size);
    io->direct_size += size;
    return n;
  }
  return bytes_append(&io->spilled, data, size) ? n : -1;
}

static long
bio_ctrl(tls_bio *bio, int command, long number, void *pointer)
{
  struct tls_io *io = tls_library_found()->bio_get_data(bio);

  (void)number;
  (void)pointer;
  if (command == CTRL_FLUSH)
    return 1;
  if (command == CTRL_PENDING && io != NULL)
    return (long)tls_io_unread(io);
  if (command == CTRL_WPENDING && io != NULL)
    return (long)tls_io_unsent(io);
  return 0;
}

tls_bio_method *
tls_bio_method_new(const struct tls_library *library)
{
  tls_bio_method *method =
      library->method_new(TYPE_SOURCE_SINK | library->new_index(), "transport");

  if (method != NULL && library->method_set_read(method, bio_read) == 1 &&
      library->method_set_write(method, bio_write) == 1 &&
      library->method_set_ctrl(method, bio_ctrl) == 1)
    return method;
  return NULL;
}

tls_bio *
tls_bio_new(struct tls_io *io)
{
  const struct tls_library *library = tls_library_found();
  tls_bio *bio = library->bio_new(library->method);

  if (bio == NULL)
    return NULL;
  library->bio_set_data(bio, io);
  library->bio_set_init(bio, 1);
  return bio;
}
