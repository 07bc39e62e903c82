/* TLS for the load, by OpenSSL. */
#include "load_tls.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdlib.h>

static void
die(void)
{
  ERR_print_errors_fp(stderr);
  exit(1);
}

static SSL_CTX *
context(const char *ca_file)
{
  static SSL_CTX *made;

  if (made != NULL)
    return made;
  made = SSL_CTX_new(TLS_client_method());
  if (made == NULL || SSL_CTX_load_verify_locations(made, ca_file, NULL) != 1)
    die();
  SSL_CTX_set_verify(made, SSL_VERIFY_PEER, NULL);
  SSL_CTX_set_min_proto_version(made, TLS1_3_VERSION);
  SSL_CTX_set_mode(made, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  return made;
}

struct tls *
tls_connect(int fd, const char *ca_file)
{
  SSL *ssl = SSL_new(context(ca_file));

  if (ssl == NULL || SSL_set1_host(ssl, "localhost") != 1 || SSL_set_fd(ssl, fd) != 1 ||
      SSL_connect(ssl) != 1)
    die();
  return (struct tls *)ssl;
}

static ssize_t
result(SSL *ssl, int n)
{
  int error;

  if (n > 0)
    return n;
  error = SSL_get_error(ssl, n);
  if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE) {
    errno = EAGAIN;
    return -1;
  }
  die();
  return 0;
}

ssize_t
tls_send(struct tls *tls, const char *data, size_t n)
{
  return result((SSL *)tls, SSL_write((SSL *)tls, data, (int)n));
}

ssize_t
tls_recv(struct tls *tls, char *data, size_t n)
{
  return result((SSL *)tls, SSL_read((SSL *)tls, data, (int)n));
}
