/* The system calls under the socket operations: one attempt at a time, never blocking. */
#ifndef BEAMLOOP_SOCK_CALLS_H
#define BEAMLOOP_SOCK_CALLS_H

#include "loop_internal.h"

enum sock_kind {
  SOCK_RECV,
  SOCK_RECV_INTO,
  SOCK_RECVFROM,
  SOCK_RECVFROM_INTO,
  SOCK_ACCEPT,
  SOCK_SENDALL,
  SOCK_SENDTO,
  SOCK_CONNECT,
};

struct sock_call {
  loop_state *state;
  enum sock_kind kind;
  bool plain;  /* sock is exactly socket.socket: the system is called directly */
  bool viewed; /* view is held */
  PyObject *sock;
  PyObject *first;     /* size, buffer, data, or the address of a connect */
  PyObject *second;    /* address of sendto, size of recvfrom_into, or NULL */
  Py_buffer view;      /* data of sendall, from the first attempt on */
  Py_ssize_t position; /* how much of it was sent */
};

static inline bool
sock_call_writes(enum sock_kind kind)
{
  return kind >= SOCK_SENDALL;
}

void sock_call_init(struct sock_call *call, loop_state *state, enum sock_kind kind, PyObject *sock,
                    PyObject *first, PyObject *second);
void sock_call_clear(struct sock_call *call);
int sock_call_traverse(struct sock_call *call, visitproc visit, void *arg);

/* The socket's descriptor; -1 with an exception, or without one when it is closed. */
int sock_call_fileno(struct sock_call *call);

/* Refuses what asyncio refuses: a TLS socket, and in debug mode one that blocks. */
int sock_call_check(struct sock_call *call, bool debug);

/* 1 for a connect whose address may have to be resolved, 0 for others, -1 on error. */
int sock_call_needs_address(struct sock_call *call);

/* An iterator that resolves the address, by the loop's own _ensure_resolved(). */
PyObject *sock_call_resolver(struct sock_call *call, PyObject *loop);

/* Takes the address out of what the resolver returned; steals resolved. */
int sock_call_take_address(struct sock_call *call, PyObject *resolved);

/* One attempt.  1 and *result when it is done, 0 when it would block, -1 on error.  again tells
 * that the descriptor was reported ready since the last attempt. */
int sock_call_try(struct sock_call *call, bool again, PyObject **result);

#endif
