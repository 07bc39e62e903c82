/* What the files of erlang._loop share.  Every function here runs with the GIL held; one that must
 * run on the loop's thread says so.  NULL and -1 mean that a Python exception is set. */
#ifndef BEAMLOOP_LOOP_INTERNAL_H
#define BEAMLOOP_LOOP_INTERNAL_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <assert.h>
#include <stdbool.h>
#include <stdint.h>

#include "aio_state.h"
#include "loop_api.h"
#include "names.h"
#include "pending.h"
#include "poller.h"
#include "reactor_state.h"
#include "tls_state.h"
#include "transport_state.h"

#define NS_PER_SECOND INT64_C(1000000000)
#define DEADLINE_NEVER INT64_MAX

typedef struct native_loop native_loop;

/* --- handle.c -------------------------------------------------------------------------------- */

#define HANDLE_INLINE_ARGS 3
#define HANDLE_TUPLE_ARGS (-1) /* in nargs: args[0] is a tuple that holds them all */

enum handle_flags {
  HANDLE_CANCELLED = 1,
  HANDLE_RUNNING = 2, /* a cancel leaves callback and arguments until the call has returned */
};

typedef struct handle {
  PyObject_HEAD
  PyObject *callback; /* NULL once cancelled */
  PyObject *context;
  native_loop *loop;          /* strong */
  PyObject *source_traceback; /* NULL unless created in debug mode */
  PyObject *repr;             /* kept at cancel in debug mode, else NULL */
  PyObject *weakrefs;
  uint8_t flags;
  int8_t nargs;
  PyObject *args[HANDLE_INLINE_ARGS];
} handle;

typedef struct timer_handle {
  handle base;
  double when;
  int64_t slot; /* in the loop's timer heap; -1 when it is not there */
} timer_handle;

/* --- state ----------------------------------------------------------------------------------- */

struct free_list {
  handle *first; /* linked through callback */
  int count;
  Py_ssize_t allocated; /* those in use and those in the list */
};

typedef struct loop_state {
  native_loop *first_loop; /* of all that are alive, linked */
  PyTypeObject *handle_type;
  PyTypeObject *timer_handle_type;
  PyTypeObject *loop_type;
  PyTypeObject *ready_type;
  PyTypeObject *sock_op_type;
  PyTypeObject *socket_type; /* socket.socket */
  PyObject *future_type;     /* asyncio.Future */
  PyObject *task_type;       /* asyncio.Task */
  PyObject *extract_stack;   /* asyncio.format_helpers */
  PyObject *format_callback; /* asyncio.format_helpers._format_callback_source */
  PyObject *format_handle;   /* asyncio.base_events._format_handle */
  PyObject *create_task;     /* asyncio.BaseEventLoop.create_task */
  PyObject *logger;          /* asyncio.log.logger */
  PyObject *check_ssl;       /* asyncio.base_events._check_ssl_socket */
  PyObject *empty_tuple;
  PyObject *context_names; /* the tuple ("context",) that a call last had, see calls.c */
#define DECLARE_NAME(field, text) PyObject *field
  LOOP_NAMES(DECLARE_NAME);
#undef DECLARE_NAME
  struct free_list free_handles;
  struct free_list free_timers;
  transport_state transports;
  reactor_state reactor;
  tls_state tls;
  aio_state aio;
} loop_state;

extern struct PyModuleDef loop_module_def;

/* The types are made of specs by module.c. */
extern PyType_Spec handle_spec;
extern PyType_Spec timer_handle_spec;
extern PyType_Spec loop_spec;
extern PyType_Spec ready_spec;
extern PyType_Spec sock_op_spec;

/* A new handle that calls callback(*args) in context (NULL or None: a copy of the current one). */
handle *handle_new(native_loop *loop, PyObject *callback, PyObject *const *args, Py_ssize_t nargs,
                   PyObject *context);
timer_handle *timer_handle_new(native_loop *loop, double when, PyObject *callback,
                               PyObject *const *args, Py_ssize_t nargs, PyObject *context);

/* New handles are not tracked by the garbage collector.  Whoever takes one out of a loop's queue, or
 * puts it elsewhere, calls handle_track unless it drops the last reference. */
void handle_track(handle *self);

/* Visits a handle that one of the loop's queues owns a reference to. */
int handle_traverse_owned(handle *self, visitproc visit, void *arg);

/* Calls the callback unless cancelled.  An exception goes to the loop's handler; -1 only for
 * SystemExit and KeyboardInterrupt (and what the exception handler itself raises). */
int handle_run(handle *self);

/* Reports the exception that is set as that of a call that was made without a handle. */
int handle_report(native_loop *loop, PyObject *callback, PyObject *const *args, Py_ssize_t nargs,
                  PyObject *context);

/* What cancel() does.  Never fails; an error in the callback's repr is reported as unraisable. */
void handle_cancel(handle *self);

/* A new tuple of the arguments. */
PyObject *handle_args_tuple(handle *self);

/* Frees what the free lists hold; at module dealloc. */
void handle_free_lists_clear(loop_state *state);

static inline bool
handle_check(loop_state *state, PyObject *object)
{
  return Py_IS_TYPE(object, state->handle_type) || Py_IS_TYPE(object, state->timer_handle_type);
}

/* Drops a queue's reference to a handle. */
static inline void
handle_leave_queue(handle *self)
{
  if (Py_REFCNT(self) > 1)
    handle_track(self);
  Py_DECREF(self);
}

/* --- ready.c --------------------------------------------------------------------------------- */

/* A ring of what is to run.  An item is an owned PyObject *, or a source event with bit 0 set. */
struct ready_ring {
  uintptr_t *items;
  size_t head;
  size_t len;
  size_t capacity; /* a power of two, or 0 */
};

int ready_grow(struct ready_ring *ring);
/* So many pushes find room.  0, or -1 with an exception. */
int ready_reserve(struct ready_ring *ring, size_t count);
int ready_push(struct ready_ring *ring, PyObject *object);
int ready_push_owned(struct ready_ring *ring, PyObject *object); /* takes the reference */
int ready_push_source(struct ready_ring *ring, uint64_t id, int kind);
uintptr_t ready_pop(struct ready_ring *ring);
void ready_clear(native_loop *loop);
void ready_shrink(struct ready_ring *ring);
int ready_traverse(native_loop *loop, visitproc visit, void *arg);
PyObject *ready_view_new(native_loop *loop);

#define READY_IS_SOURCE(item) ((item)&1)
#define READY_SOURCE_ID(item) ((uint64_t)(item) >> 4)
#define READY_SOURCE_KIND(item) ((int)(((item) >> 1) & 7))

/* --- timers.c -------------------------------------------------------------------------------- */

struct timer_entry {
  int64_t when; /* monotonic ns */
  uint32_t seq; /* equal deadlines fire in the order in which they were set */
  uint32_t slot;
};

struct timer_heap {
  struct timer_entry *entries; /* the heap proper */
  timer_handle **handles;      /* slot -> handle, a reference each */
  uint32_t *places;            /* slot -> index in entries, or the next free slot */
  char *block;                 /* what holds the three */
  uint32_t len;
  uint32_t capacity;
  uint32_t free_slot; /* the first of those given back */
  uint64_t next_seq;
};

int timers_insert(struct timer_heap *heap, timer_handle *timer, int64_t when);
void timers_remove(struct timer_heap *heap, timer_handle *timer);
timer_handle *timers_pop(struct timer_heap *heap);
void timers_clear(struct timer_heap *heap);
int timers_traverse(struct timer_heap *heap, visitproc visit, void *arg);
PyObject *timers_snapshot(struct timer_heap *heap);

/* Of a heap that is not empty; borrowed. */
static inline timer_handle *
timers_peek(const struct timer_heap *heap)
{
  return heap->handles[heap->entries[0].slot];
}

static inline int64_t
timers_first(const struct timer_heap *heap)
{
  return heap->len > 0 ? heap->entries[0].when : DEADLINE_NEVER;
}

/* --- readers.c ------------------------------------------------------------------------------- */

struct fd_watch {
  PyObject *reader; /* a handle or a sock_op, or NULL */
  PyObject *writer;
  PyObject *transport; /* a native transport or listener, or NULL; then edge-triggered */
  PyObject *claimant;  /* borrowed: the open native transport over it, watched or not, or NULL */
  uint32_t installed;  /* the poller flags that the kernel was told */
  bool held;           /* transport is an owned reference; it unsets itself before its end */
};

struct fd_table {
  struct fd_watch *watches; /* indexed by descriptor */
  int capacity;
  int watched;  /* how many have installed != 0 */
  bool changed; /* since the last poll */
};

/* The descriptor of an integer or an object with fileno(); -1 with ValueError as selectors has. */
int readers_fileno(loop_state *state, PyObject *object);

/* Loop's thread.  Makes object (a handle or a sock_op) what events of one direction run; the one
 * that was there is cancelled. */
int readers_set(native_loop *loop, int fd, uint32_t direction, PyObject *object);

/* 1 when something was there, 0 when not; never raises. */
int readers_unset(native_loop *loop, int fd, uint32_t direction);

/* The borrowed object that serves a direction of fd, or NULL without an exception. */
PyObject *readers_get(native_loop *loop, int fd, uint32_t direction);
/* The same, or else the native transport over fd. */
PyObject *readers_server(native_loop *loop, int fd, uint32_t direction);
/* True when the loop serves the descriptor in any way. */
bool readers_serves(native_loop *loop, int fd);
/* True when a loop of this module serves the descriptor, on whatever thread. */
bool readers_any_serves(const loop_state *state, int fd);

/* Loop's thread.  Watches fd for a native transport, edge-triggered; done again when
 * the directions change. */
int readers_set_transport(native_loop *loop, int fd, PyObject *transport, uint32_t directions);

/* Holds or lets go of the reference to the transport that fd is watched for. */
void readers_hold_transport(native_loop *loop, int fd, PyObject *transport, bool hold);

/* True when the kernel was told to watch fd for anything. */
bool readers_is_watched(const native_loop *loop, int fd);

/* Forgets fd if transport is what it is watched for; never raises. */
void readers_unset_transport(native_loop *loop, int fd, PyObject *transport);

/* Makes sure that the table has a place for the open descriptor fd. */
int readers_reserve(struct fd_table *table, int fd);

/* The loop's buffer for received data, of that size at every call; what it holds is gone with the
 * next call. */
char *readers_scratch(native_loop *loop, size_t size);

/* Waits in the poller and makes ready what the events name.  With collect (a list), appends
 * (fd, kind) pairs to it instead.  timeout_ns 0 keeps the GIL; otherwise it is released. */
int readers_poll(native_loop *loop, int64_t timeout_ns, PyObject *collect);

/* Makes sure that the poller exists and that the core's waker is watched. */
int readers_open_poller(native_loop *loop);

void readers_clear(native_loop *loop);
int readers_traverse(native_loop *loop, visitproc visit, void *arg);

PyObject *loop_add_reader(native_loop *, PyObject *const *, Py_ssize_t);
PyObject *loop_add_writer(native_loop *, PyObject *const *, Py_ssize_t);
PyObject *loop_remove_reader(native_loop *, PyObject *);
PyObject *loop_remove_writer(native_loop *, PyObject *);
PyObject *loop_private_add_reader(native_loop *, PyObject *const *, Py_ssize_t);
PyObject *loop_private_add_writer(native_loop *, PyObject *const *, Py_ssize_t);
PyObject *loop_private_remove_reader(native_loop *, PyObject *);
PyObject *loop_private_remove_writer(native_loop *, PyObject *);
PyObject *loop_watched(native_loop *, PyObject *);

/* --- claims.c -------------------------------------------------------------------------------- */

/* Notes that an open transport is over fd, for readers_check_no_transport; the claim of another one is
 * forgotten. */
int readers_claim(native_loop *loop, int fd, PyObject *transport);
void readers_disclaim(native_loop *loop, int fd, PyObject *transport);

/* RuntimeError when an open transport uses fd, as asyncio has it; shown is what the
 * caller named, or NULL. */
int readers_check_no_transport(native_loop *loop, int fd, PyObject *shown);
PyObject *loop_ensure_fd_no_transport(native_loop *, PyObject *);
PyObject *loop_claimant(native_loop *, PyObject *);
PyObject *loop_claim(native_loop *, PyObject *const *, Py_ssize_t);

/* --- sources.c ------------------------------------------------------------------------------- */

struct source {
  loop_source_fn fn; /* NULL when the slot is free */
  PyObject *owner;
  uint64_t id; /* generation and slot; the last one used when the slot is free */
  uint32_t next_free;
};

struct source_table {
  struct source *slots;
  uint32_t len; /* slots in use or on the free list */
  uint32_t capacity;
  uint32_t first_free; /* slot + 1, or 0 */
  uint32_t live;
};

uint64_t sources_add(native_loop *loop, loop_source_fn fn, PyObject *owner);
int sources_remove(native_loop *loop, uint64_t id);
/* Loop's thread.  Runs the source of id, if it is there still.  As handle_run reports errors. */
int sources_run(native_loop *loop, uint64_t id, int kind);
void sources_clear(native_loop *loop);
int sources_traverse(struct source_table *table, visitproc visit, void *arg);

/* --- stream_cork.c --------------------------------------------------------------------------- */

/* The transports that hold back what was written, owned references. */
struct corked_list {
  PyObject **items;
  size_t len;
  size_t capacity;
};

/* Loop's thread.  Sends what transports hold back.  An exception that is set stays; -1 when there is
 * one at the end. */
int streams_uncork(native_loop *loop);

/* --- stream_piece.c --------------------------------------------------------------------------- */

/* A bytes object for received data, with room for more than it shows. */
struct piece {
  PyObject *bytes;
  size_t room;
};

/* --- the loop object ------------------------------------------------------------------------- */

struct loop_stats {
  uint64_t callbacks; /* run since the loop was made */
  uint64_t iterations;
  int64_t last_iteration; /* how long it took from its wait to the next, ns; see loop_wait */
  int64_t began;          /* when the one under way began, ns; 0 when it is not timed */
  int64_t max_lag;        /* the latest that a timer fired, ns */
};

#define METHODS_KEPT 32

struct kept_method {
  PyObject *name;   /* interned, or NULL */
  PyObject *method; /* bound: a reference cycle until the loop is closed */
};

struct kept_methods {
  unsigned int version; /* the type's when they were kept */
  bool dict_known;      /* somebody has the instance's dict or has changed _run_once */
  struct kept_method kept[METHODS_KEPT];
};

struct native_loop {
  PyObject_HEAD
  native_loop *next, *previous; /* of all loops of the module */
  loop_core *core;
  PyObject *module;  /* strong until the end: state is in it */
  loop_state *state; /* at exit the collector clears it, but it stays there */
  poller *poller;    /* NULL until a descriptor is watched */
  struct ready_ring ready;
  struct timer_heap timers;
  struct fd_table fds;
  struct source_table sources;
  struct corked_list corked;
  struct piece
      spare; /* what the last receive was given in, if nobody kept it; else bytes is NULL */
  struct loop_stats stats;
  struct kept_methods methods;
  char *scratch;             /* see readers_scratch; NULL until needed */
  PyObject *timers_map;      /* loop._timers: callback id -> handle */
  PyObject *transports;      /* loop._transports */
  PyObject *transports_data; /* its dict of weak references, or NULL */
  PyObject *task_factory;    /* NULL: none */
  PyObject *loop_keyword;    /* {"loop": self}, made when first needed and kept until close */
  PyObject *task_args;       /* a tuple for one argument, NULL while in use */
  unsigned long thread_id;   /* valid while running */
  bool running;
  bool closed;
  bool stopping;
  bool debug;
  bool interruptible;   /* signals must end the sleep: sleep in the poller */
  bool foreign_time;    /* a subclass or the instance has a time() of its own */
  bool foreign_call_at; /* and a call_at() of its own */
  int64_t last_poll;    /* monotonic ns */
  int64_t last_yield;   /* monotonic ns: when other threads were given a turn */
};

/* The monotonic clock, ns. */
int64_t loop_now(void);
/* What timers go by: the same, unless time() is overridden; -1 on error. */
int64_t loop_clock(native_loop *loop);
/* The deadline in nanoseconds of a time in seconds, rounded up: a timer is never early. */
int64_t loop_deadline(double when);
int loop_check_closed(native_loop *loop);
/* Calls the loop's exception handler with the exception that is set now, as asyncio words it. */
int loop_report_exception(native_loop *loop, PyObject *message, handle *h);

/* --- methods.c ------------------------------------------------------------------------------- */

void methods_clear(native_loop *loop);
int methods_traverse(native_loop *loop, visitproc visit, void *arg);
/* The type's attribute slots. */
PyObject *loop_getattro(PyObject *loop, PyObject *name);
int loop_setattro(PyObject *loop, PyObject *name, PyObject *value);

/* --- calls.c: call_soon and its like --------------------------------------------------------- */

PyObject *loop_call_soon(native_loop *, PyObject *const *, Py_ssize_t, PyObject *);
PyObject *loop_call_soon_threadsafe(native_loop *, PyObject *const *, Py_ssize_t, PyObject *);
PyObject *loop_call_later(native_loop *, PyObject *const *, Py_ssize_t, PyObject *);
PyObject *loop_call_at(native_loop *, PyObject *const *, Py_ssize_t, PyObject *);
PyObject *loop_create_future(native_loop *, PyObject *);
PyObject *loop_create_task(native_loop *, PyObject *const *, Py_ssize_t, PyObject *);

/* --- loop_run.c ------------------------------------------------------------------------------ */

/* The native loop that runs on this thread, borrowed; NULL without an exception. */
PyObject *loop_running(void);
PyObject *loop_run_native(native_loop *, PyObject *);
PyObject *loop_run_once(native_loop *, PyObject *);
PyObject *loop_run_once_native_for(native_loop *, PyObject *);
PyObject *loop_dispatch(native_loop *, PyObject *const *, Py_ssize_t);

/* --- debug.c --------------------------------------------------------------------------------- */

/* The stack of the Python code that runs now, as asyncio keeps it in debug mode. */
PyObject *debug_source_traceback(loop_state *state);
/* "callback(args) at file:line". */
PyObject *debug_format_callback(native_loop *loop, PyObject *callback, PyObject *args);
/* Thread and callback checks of debug mode; check_thread false for call_soon_threadsafe. */
int debug_check_call(native_loop *loop, PyObject *callback, const char *method, bool check_thread);
/* handle_run with the current handle set and slow callbacks logged. */
int debug_run(native_loop *loop, PyObject *object);

/* --- transport_events.c ------------------------------------------------------------------------ */

/* Of every native transport, and of nothing else. */
void transport_dealloc(PyObject *transport);

static inline bool
transport_check(PyObject *object)
{
  return Py_TYPE(object)->tp_dealloc == transport_dealloc;
}

/* True when the transport has fd open. */
bool transport_is_open(PyObject *transport, int fd);

/* Loop's thread.  Notes what the poller reported; transport_event also makes the transport ready
 * if it waits for that. */
void transport_note(PyObject *transport, uint32_t events);
int transport_event(PyObject *transport, uint32_t events);
/* Loop's thread.  Reads and writes what it can.  As handle_run reports errors. */
int transport_run(PyObject *transport);
/* The poller flags that it waits for now. */
uint32_t transport_waits_for(PyObject *transport);

/* --- the types of transports ------------------------------------------------------------------- */

/* Makes the transports' types and what they need. */
int transport_state_init(PyObject *module, transport_state *state);
int stream_type_init(PyObject *module, transport_state *state);
int datagram_type_init(PyObject *module, transport_state *state);
int read_pipe_type_init(PyObject *module, transport_state *state);
int write_pipe_type_init(PyObject *module, transport_state *state);

/* --- listener.c -------------------------------------------------------------------------------- */

static inline bool
listener_check(loop_state *state, PyObject *object)
{
  return Py_IS_TYPE(object, state->transports.listener_type);
}

/* Loop's thread.  As the functions of transports. */
void listener_note(PyObject *listener, uint32_t events);
int listener_event(PyObject *listener, uint32_t events);
int listener_run(PyObject *listener);
uint32_t listener_waits_for(PyObject *listener);

/* --- reactor_connection.c and reactor_type.c ---------------------------------------------------- */

/* As those of transports. */
void connection_note(PyObject *connection, uint32_t events);
int connection_event(PyObject *connection, uint32_t events);
int connection_run(PyObject *connection);
uint32_t connection_waits_for(PyObject *connection);

static inline bool
connection_check(loop_state *state, PyObject *object)
{
  return Py_IS_TYPE(object, state->reactor.connection_type);
}

int reactor_state_init(PyObject *module, reactor_state *state);

/* --- sock_ops.c ------------------------------------------------------------------------------ */

/* Loop's thread.  The descriptor that a sock_op waits for is ready; never raises. */
void sock_op_ready(PyObject *op);

#define SOCK_METHOD(name)                                                                          \
  PyObject *name(native_loop *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
SOCK_METHOD(loop_sock_recv);
SOCK_METHOD(loop_sock_recv_into);
SOCK_METHOD(loop_sock_recvfrom);
SOCK_METHOD(loop_sock_recvfrom_into);
SOCK_METHOD(loop_sock_sendall);
SOCK_METHOD(loop_sock_sendto);
SOCK_METHOD(loop_sock_connect);
SOCK_METHOD(loop_sock_accept);

#endif
