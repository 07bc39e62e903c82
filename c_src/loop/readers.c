/* The table of watched descriptors, and add_reader and its like over it.  Registrations are
 * level-triggered, as asyncio's users expect. */
#include "loop_internal.h"

#include <fcntl.h>

#define POLL_BATCH 256
#define MOST_READY_BY_EVENT 3 /* a transport, a reader and a writer beside it */

/* --- the table ------------------------------------------------------------------------------- */

int
readers_fileno(loop_state *state, PyObject *object)
{
  PyObject *number = NULL;
  int overflow = 0;
  long fd;

  if (PyLong_Check(object)) {
    number = Py_NewRef(object);
  } else {
    number = PyObject_CallMethodNoArgs(object, state->str_fileno);
    if (number == NULL && !PyErr_ExceptionMatches(PyExc_AttributeError) &&
        !PyErr_ExceptionMatches(PyExc_TypeError) && !PyErr_ExceptionMatches(PyExc_ValueError))
      return -1;
    if (number == NULL || !PyLong_Check(number)) {
      Py_XDECREF(number);
      PyErr_Clear();
      PyErr_Format(PyExc_ValueError, "Invalid file object: %R", object);
      return -1;
    }
  }
  fd = PyLong_AsLongAndOverflow(number, &overflow);
  if (overflow > 0 || fd > INT_MAX) {
    PyErr_SetString(PyExc_OverflowError, "Python int too large to convert to C int");
    fd = -1;
  } else if (overflow < 0 || fd < 0) {
    PyErr_Format(PyExc_ValueError, "Invalid file descriptor: %S", number);
    fd = -1;
  }
  Py_DECREF(number);
  return (int)fd;
}

int
readers_reserve(struct fd_table *table, int fd)
{
  int capacity = table->capacity ? table->capacity : 32;
  struct fd_watch *watches;

  if (fd < table->capacity)
    return 0;
  /* The system bounds the numbers of open descriptors, and with them the table. */
  if (fcntl(fd, F_GETFD) < 0) {
    PyErr_SetFromErrno(PyExc_OSError);
    return -1;
  }
  while (capacity <= fd && capacity < INT_MAX / 2)
    capacity *= 2;
  watches = PyMem_Realloc(table->watches, (size_t)capacity * sizeof(*watches));
  if (watches == NULL) {
    PyErr_NoMemory();
    return -1;
  }
  for (int i = table->capacity; i < capacity; i++)
    watches[i] = (struct fd_watch){0};
  table->watches = watches;
  table->capacity = capacity;
  return 0;
}

static PyObject **
watch_slot(struct fd_watch *watch, uint32_t direction)
{
  return direction == POLLER_READ ? &watch->reader : &watch->writer;
}

int
readers_open_poller(native_loop *loop)
{
  int waker;

  if (loop->poller != NULL)
    return 0;
  loop->poller = poller_new();
  if (loop->poller == NULL)
    goto error;
  waker = pending_waker_fd(loop->core);
  if (waker < 0 || poller_watch(loop->poller, waker, POLLER_READ | POLLER_EDGE, 0) < 0)
    goto error;
  return 0;

error:
  PyErr_SetFromErrno(PyExc_OSError);
  if (loop->poller != NULL)
    poller_free(loop->poller);
  loop->poller = NULL;
  return -1;
}

/* Tells the kernel the flags that fd is to be watched for now. */
static int
install(native_loop *loop, int fd, uint32_t flags)
{
  struct fd_watch *watch = &loop->fds.watches[fd];

  if (readers_open_poller(loop) < 0)
    return -1;
  if (poller_watch(loop->poller, fd, flags, watch->installed != 0) < 0) {
    PyErr_SetFromErrno(PyExc_OSError);
    return -1;
  }
  loop->fds.watched += watch->installed == 0;
  loop->fds.changed = true;
  watch->installed = flags;
  return 0;
}

/* Cancels and releases what served a descriptor. */
static void
drop_server(native_loop *loop, PyObject *object)
{
  if (object == NULL)
    return;
  if (handle_check(loop->state, object))
    handle_cancel((handle *)object);
  Py_DECREF(object);
}

int
readers_set(native_loop *loop, int fd, uint32_t direction, PyObject *object)
{
  struct fd_watch *watch;
  PyObject **slot;
  PyObject *old;

  if (readers_reserve(&loop->fds, fd) < 0)
    return -1;
  watch = &loop->fds.watches[fd];
  slot = watch_slot(watch, direction);
  /* One that is replaced is installed again, since the number may name another file by now. */
  if (install(loop, fd, watch->installed | direction) < 0)
    return -1;
  old = *slot;
  *slot = Py_NewRef(object);
  drop_server(loop, old);
  return 0;
}

int
readers_unset(native_loop *loop, int fd, uint32_t direction)
{
  struct fd_watch *watch;
  PyObject **slot;
  PyObject *old;

  if (readers_get(loop, fd, direction) == NULL)
    return 0;
  watch = &loop->fds.watches[fd];
  slot = watch_slot(watch, direction);
  old = *slot;
  *slot = NULL;
  if (watch->transport != NULL) {
    drop_server(loop, old);
    return 1;
  }
  watch->installed &= ~direction;
  if (watch->installed == 0) {
    poller_forget(loop->poller, fd);
    loop->fds.watched--;
  } else {
    /* It fails for a descriptor that was closed, which reports nothing more anyway. */
    (void)poller_watch(loop->poller, fd, watch->installed, 1);
  }
  drop_server(loop, old);
  return 1;
}

PyObject *
readers_get(native_loop *loop, int fd, uint32_t direction)
{
  if (fd < 0 || fd >= loop->fds.capacity)
    return NULL;
  return *watch_slot(&loop->fds.watches[fd], direction);
}

PyObject *
readers_server(native_loop *loop, int fd, uint32_t direction)
{
  PyObject *object = readers_get(loop, fd, direction);

  if (object == NULL && fd >= 0 && fd < loop->fds.capacity)
    object = loop->fds.watches[fd].transport;
  return object;
}

bool
readers_serves(native_loop *loop, int fd)
{
  return readers_server(loop, fd, POLLER_READ) != NULL ||
         readers_get(loop, fd, POLLER_WRITE) != NULL;
}

bool
readers_any_serves(const loop_state *state, int fd)
{
  for (native_loop *loop = state->first_loop; loop != NULL; loop = loop->next) {
    if (readers_serves(loop, fd))
      return true;
  }
  return false;
}

int
readers_set_transport(native_loop *loop, int fd, PyObject *transport, uint32_t directions)
{
  PyObject *old;

  if (readers_reserve(&loop->fds, fd) < 0 || install(loop, fd, directions | POLLER_EDGE) < 0)
    return -1;
  old = loop->fds.watches[fd].held ? loop->fds.watches[fd].transport : NULL;
  loop->fds.watches[fd].transport = Py_NewRef(transport);
  loop->fds.watches[fd].held = true;
  Py_XDECREF(old);
  return 0;
}

void
readers_hold_transport(native_loop *loop, int fd, PyObject *transport, bool hold)
{
  struct fd_watch *watch;

  if (fd >= loop->fds.capacity)
    return;
  watch = &loop->fds.watches[fd];
  if (watch->transport != transport || watch->held == hold)
    return;
  watch->held = hold;
  if (hold)
    Py_INCREF(transport);
  else
    Py_DECREF(transport);
}

bool
readers_is_watched(const native_loop *loop, int fd)
{
  return fd < loop->fds.capacity && loop->fds.watches[fd].installed != 0;
}

void
readers_unset_transport(native_loop *loop, int fd, PyObject *transport)
{
  struct fd_watch watch;

  if (fd >= loop->fds.capacity || loop->fds.watches[fd].transport != transport)
    return;
  watch = loop->fds.watches[fd];
  loop->fds.watches[fd] = (struct fd_watch){.claimant = watch.claimant};
  poller_forget(loop->poller, fd);
  loop->fds.watched--;
  drop_server(loop, watch.reader);
  drop_server(loop, watch.writer);
  if (watch.held)
    Py_DECREF(watch.transport);
}

char *
readers_scratch(native_loop *loop, size_t size)
{
  if (loop->scratch == NULL)
    loop->scratch = PyMem_Malloc(size);
  if (loop->scratch == NULL)
    PyErr_NoMemory();
  return loop->scratch;
}

void
readers_clear(native_loop *loop)
{
  struct fd_table table = loop->fds;

  loop->fds = (struct fd_table){0};
  if (loop->poller != NULL)
    poller_free(loop->poller);
  loop->poller = NULL;
  for (int fd = 0; fd < table.capacity; fd++) {
    drop_server(loop, table.watches[fd].reader);
    drop_server(loop, table.watches[fd].writer);
    if (table.watches[fd].held)
      Py_DECREF(table.watches[fd].transport);
  }
  PyMem_Free(table.watches);
}

int
readers_traverse(native_loop *loop, visitproc visit, void *arg)
{
  for (int fd = 0; fd < loop->fds.capacity; fd++) {
    Py_VISIT(loop->fds.watches[fd].reader);
    Py_VISIT(loop->fds.watches[fd].writer);
    if (loop->fds.watches[fd].held)
      Py_VISIT(loop->fds.watches[fd].transport);
  }
  return 0;
}

#ifndef NDEBUG
#define CHECKED_DESCRIPTORS 1024

/* For assert alone: what is served is watched, and watched counts it.  Large tables are not looked at. */
static bool
table_is_sound(const struct fd_table *table)
{
  int watched = 0;

  if (table->capacity > CHECKED_DESCRIPTORS)
    return true;
  for (int fd = 0; fd < table->capacity; fd++) {
    const struct fd_watch *watch = &table->watches[fd];

    watched += watch->installed != 0;
    if (watch->installed == 0 && (watch->reader != NULL || watch->writer != NULL || watch->held))
      return false;
    if (watch->held && watch->transport == NULL)
      return false;
  }
  return watched == table->watched;
}
#endif

/* --- events ---------------------------------------------------------------------------------- */

/* Makes ready what serves one direction of fd, or notes the event in collect. */
static int
serve(native_loop *loop, int fd, uint32_t direction, PyObject *collect)
{
  PyObject *object = readers_get(loop, fd, direction);
  PyObject *pair;
  int rc;

  if (object == NULL)
    return 0;
  if (collect != NULL) {
    pair = Py_BuildValue("(ii)", fd, (int)direction);
    rc = pair == NULL ? -1 : PyList_Append(collect, pair);
    Py_XDECREF(pair);
    return rc;
  }
  if (Py_IS_TYPE(object, loop->state->sock_op_type)) {
    sock_op_ready(object);
    return 0;
  }
  if (handle_check(loop->state, object) && (((handle *)object)->flags & HANDLE_CANCELLED)) {
    /* It would be reported again and again. */
    readers_unset(loop, fd, direction);
    return 0;
  }
  return ready_push(&loop->ready, object);
}

static uint32_t
waits_for(native_loop *loop, PyObject *transport)
{
  if (connection_check(loop->state, transport))
    return connection_waits_for(transport);
  return listener_check(loop->state, transport) ? listener_waits_for(transport)
                                                : transport_waits_for(transport);
}

static void
note(native_loop *loop, PyObject *transport, uint32_t events)
{
  if (connection_check(loop->state, transport))
    connection_note(transport, events);
  else if (listener_check(loop->state, transport))
    listener_note(transport, events);
  else
    transport_note(transport, events);
}

static int
note_and_schedule(native_loop *loop, PyObject *transport, uint32_t events)
{
  if (connection_check(loop->state, transport))
    return connection_event(transport, events);
  return listener_check(loop->state, transport) ? listener_event(transport, events)
                                                : transport_event(transport, events);
}

/* Tells what serves a descriptor edge-triggered what happened, or notes in collect what it waits for of
 * that. */
static int
serve_transport(native_loop *loop, const struct poller_event *event, PyObject *collect)
{
  PyObject *transport = loop->fds.watches[event->fd].transport;
  uint32_t waits;

  if (collect == NULL)
    return note_and_schedule(loop, transport, event->events);
  waits = waits_for(loop, transport) & event->events;
  note(loop, transport, event->events);
  for (uint32_t kind = POLLER_READ; kind <= POLLER_WRITE; kind <<= 1) {
    PyObject *pair;
    int rc;

    if (!(waits & kind) || readers_get(loop, event->fd, kind) != NULL)
      continue;
    pair = Py_BuildValue("(ii)", event->fd, (int)kind);
    rc = pair == NULL ? -1 : PyList_Append(collect, pair);
    Py_XDECREF(pair);
    if (rc < 0)
      return -1;
  }
  return 0;
}

/* A reader or writer that shares a descriptor with a transport is told for as long as it is ready, as
 * any other: the kernel reports an edge anew when it is told again. */
static void
report_again(native_loop *loop, int fd, uint32_t events)
{
  struct fd_watch *watch = &loop->fds.watches[fd];

  if (watch->transport == NULL || !(((events & POLLER_READ) && watch->reader != NULL) ||
                                    ((events & POLLER_WRITE) && watch->writer != NULL)))
    return;
  /* It fails for a descriptor that was closed, which reports nothing more anyway. */
  (void)poller_watch(loop->poller, fd, watch->installed, 1);
}

static int
serve_event(native_loop *loop, const struct poller_event *event, PyObject *collect)
{
  uint32_t wanted = 0;

  if (event->fd < loop->fds.capacity)
    wanted = loop->fds.watches[event->fd].installed;
  if (wanted == 0) {
    /* The waker, or an open file that lives on under another number. */
    if (event->fd != pending_waker_fd(loop->core))
      poller_forget(loop->poller, event->fd);
    return 0;
  }
  if (loop->fds.watches[event->fd].transport != NULL && serve_transport(loop, event, collect) < 0)
    return -1;
  wanted &= event->events;
  if ((wanted & POLLER_READ) && serve(loop, event->fd, POLLER_READ, collect) < 0)
    return -1;
  if ((wanted & POLLER_WRITE) && serve(loop, event->fd, POLLER_WRITE, collect) < 0)
    return -1;
  report_again(loop, event->fd, wanted);
  return 0;
}

/* Has the kernel report events anew that nobody was told of. */
static void
watch_again(native_loop *loop, const struct poller_event *events, int count)
{
  for (int i = 0; i < count; i++) {
    int fd = events[i].fd;

    if (fd < loop->fds.capacity && loop->fds.watches[fd].installed != 0)
      (void)poller_watch(loop->poller, fd, loop->fds.watches[fd].installed, 1);
  }
}

int
readers_poll(native_loop *loop, int64_t timeout_ns, PyObject *collect)
{
  struct poller_event events[POLL_BATCH];
  PyThreadState *saved;
  int error = 0;
  int n;

  /* An edge is reported once: nothing may fail afterwards. */
  if (collect == NULL && ready_reserve(&loop->ready, MOST_READY_BY_EVENT * POLL_BATCH) < 0) {
    if (timeout_ns != 0)
      pending_awake(loop->core); /* the sleep was announced */
    return -1;
  }
  assert(PyGILState_Check() && table_is_sound(&loop->fds));

  if (timeout_ns == 0) {
    n = poller_wait(loop->poller, events, POLL_BATCH, 0);
    error = errno;
  } else {
    saved = PyEval_SaveThread();
    n = poller_wait(loop->poller, events, POLL_BATCH, timeout_ns);
    error = errno;
    pending_awake(loop->core);
    PyEval_RestoreThread(saved);
  }
  if (n < 0) {
    if (error == EINTR)
      return PyErr_CheckSignals();
    errno = error;
    PyErr_SetFromErrno(PyExc_OSError);
    return -1;
  }
  /* A full batch means that there is more. */
  loop->fds.changed = n == POLL_BATCH;
  for (int i = 0; i < n; i++) {
    if (serve_event(loop, &events[i], collect) < 0) {
      watch_again(loop, &events[i], n - i);
      return -1;
    }
  }
  return 0;
}

/* --- methods --------------------------------------------------------------------------------- */

/* A new handle that serves args[0] by args[1](*args[2:]). */
static PyObject *
add_server(native_loop *self, PyObject *const *args, Py_ssize_t nargs, uint32_t direction,
           bool public)
{
  handle *h;
  int fd;

  if (nargs < 2) {
    PyErr_Format(PyExc_TypeError, "a descriptor and a callback are needed, %zd arguments given",
                 nargs);
    return NULL;
  }
  fd = readers_fileno(self->state, args[0]);
  if (fd < 0 || (public && readers_check_no_transport(self, fd, args[0]) < 0) ||
      loop_check_closed(self) < 0)
    return NULL;
  h = handle_new(self, args[1], args + 2, nargs - 2, NULL);
  if (h != NULL)
    handle_track(h);
  if (h != NULL && readers_set(self, fd, direction, (PyObject *)h) < 0)
    Py_CLEAR(h);
  return (PyObject *)h;
}

static PyObject *
remove_server(native_loop *self, PyObject *object, uint32_t direction, bool public)
{
  int fd = readers_fileno(self->state, object);

  if (fd < 0 && PyErr_ExceptionMatches(PyExc_OverflowError)) {
    PyErr_Clear();
    Py_RETURN_FALSE;
  }
  if (fd < 0 || (public && readers_check_no_transport(self, fd, object) < 0))
    return NULL;
  return PyBool_FromLong(readers_unset(self, fd, direction));
}

static PyObject *
none_for(PyObject *handle)
{
  if (handle == NULL)
    return NULL;
  Py_DECREF(handle);
  Py_RETURN_NONE;
}

PyObject *
loop_add_reader(native_loop *self, PyObject *const *args, Py_ssize_t nargs)
{
  return none_for(add_server(self, args, nargs, POLLER_READ, true));
}

PyObject *
loop_add_writer(native_loop *self, PyObject *const *args, Py_ssize_t nargs)
{
  return none_for(add_server(self, args, nargs, POLLER_WRITE, true));
}

PyObject *
loop_remove_reader(native_loop *self, PyObject *fd)
{
  return remove_server(self, fd, POLLER_READ, true);
}

PyObject *
loop_remove_writer(native_loop *self, PyObject *fd)
{
  return remove_server(self, fd, POLLER_WRITE, true);
}

PyObject *
loop_private_add_reader(native_loop *self, PyObject *const *args, Py_ssize_t nargs)
{
  return add_server(self, args, nargs, POLLER_READ, false);
}

PyObject *
loop_private_add_writer(native_loop *self, PyObject *const *args, Py_ssize_t nargs)
{
  return add_server(self, args, nargs, POLLER_WRITE, false);
}

PyObject *
loop_private_remove_reader(native_loop *self, PyObject *fd)
{
  return remove_server(self, fd, POLLER_READ, false);
}

PyObject *
loop_private_remove_writer(native_loop *self, PyObject *fd)
{
  return remove_server(self, fd, POLLER_WRITE, false);
}

/* What serves a direction, borrowed. */
static PyObject *
shown(PyObject *server, uint32_t waits, PyObject *transport)
{
  if (server == NULL && waits)
    server = transport;
  return server == NULL ? Py_None : server;
}

/* A new dict of descriptor -> (reader or None, writer or None). */
PyObject *
loop_watched(native_loop *self, PyObject *Py_UNUSED(ignored))
{
  PyObject *result = PyDict_New();

  for (int fd = 0; result != NULL && fd < self->fds.capacity; fd++) {
    struct fd_watch *watch = &self->fds.watches[fd];
    PyObject *key, *pair;
    uint32_t waits;

    if (watch->installed == 0)
      continue;
    key = PyLong_FromLong(fd);
    waits = watch->transport == NULL ? 0 : waits_for(self, watch->transport);
    pair = Py_BuildValue("(OO)", shown(watch->reader, waits & POLLER_READ, watch->transport),
                         shown(watch->writer, waits & POLLER_WRITE, watch->transport));
    if (key == NULL || pair == NULL || PyDict_SetItem(result, key, pair) < 0)
      Py_CLEAR(result);
    Py_XDECREF(key);
    Py_XDECREF(pair);
  }
  return result;
}
