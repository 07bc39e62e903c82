/* TLS for the load: a client that checks the server's certificate. */
#ifndef LOAD_TLS_H
#define LOAD_TLS_H

#include <sys/types.h>

struct tls;

/* Shakes hands on a connected, blocking socket, or ends the program.  The certificate must be for
 * localhost and signed by an authority of the file. */
struct tls *tls_connect(int fd, const char *ca_file);

/* As send() and recv() on a socket that does not block: -1 with EAGAIN when it would. */
ssize_t tls_send(struct tls *tls, const char *data, size_t n);
ssize_t tls_recv(struct tls *tls, char *data, size_t n);

#endif
