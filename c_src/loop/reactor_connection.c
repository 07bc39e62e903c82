/* A connection: how it begins, learns of readiness, runs and ends.
 *
 * Registered once, edge-triggered.  What the kernel reported stays in readable and writable until a
 * system call has shown otherwise. */
#include "reactor.h"

#include <fcntl.h>
#include <unistd.h>

static void release(connection *self);

static reactor_state *
state_of(connection *self)
{
  return &self->reactor->state->reactor;
}

/* --- the beginning ----------------------------------------------------------------------------- */

static void
link_connection(connection *self)
{
  reactor *owner = self->reactor;

  self->next = owner->first;
  if (self->next != NULL)
    self->next->previous = self;
  owner->first = self;
  owner->connections++;
}

static void
unlink_connection(connection *self)
{
  if (self->previous != NULL)
    self->previous->next = self->next;
  else
    self->reactor->first = self->next;
  if (self->next != NULL)
    self->next->previous = self->previous;
  self->next = self->previous = NULL;
  self->reactor->connections--;
}

/* Adds fd to the descriptors that are served, or takes it out; never raises in the second case. */
static int
note_adopted(loop_state *state, int fd, bool adopted)
{
  PyObject *key = state->reactor.adopted == NULL ? NULL : PyLong_FromLong(fd);
  int rc = -1;

  if (key != NULL)
    rc = adopted ? PySet_Add(state->reactor.adopted, key)
                 : PySet_Discard(state->reactor.adopted, key);
  Py_XDECREF(key);
  if (rc < 0 && !adopted && PyErr_Occurred())
    PyErr_WriteUnraisable(NULL);
  return rc < 0 ? -1 : 0;
}

connection *
connection_new(reactor *owner, int fd, PyObject *protocol, PyObject *info)
{
  loop_state *state = owner->state;
  PyTypeObject *type = state->reactor.connection_type;
  connection *self = (connection *)type->tp_alloc(type, 0);

  if (self == NULL)
    return NULL;
  self->fd = -1;
  self->reserved = true;
  self->reactor = (reactor *)Py_NewRef(owner);
  self->info = Py_NewRef(info);
  link_connection(self);
  self->context = PyContext_CopyCurrent();
  if (self->context == NULL || note_adopted(state, fd, true) < 0) {
    Py_DECREF(self);
    return NULL;
  }
  if (readers_set_transport(owner->loop, fd, (PyObject *)self, POLLER_READ | POLLER_WRITE) < 0) {
    (void)note_adopted(state, fd, false);
    Py_DECREF(self);
    return NULL;
  }
  self->fd = fd;
  self->protocol = Py_NewRef(protocol);
  ((reactor_protocol *)protocol)->connection = self;
  Py_DECREF(self);
  return self;
}

int
connection_begin(connection *self, PyObject *early)
{
  self->reserved = false;
  self->early = Py_XNewRef(early);
  if (connection_schedule(self) < 0)
    return -1;
  self->reactor->received += early == NULL ? 0 : (uint64_t)PyBytes_GET_SIZE(early);
  return 0;
}

void
connection_give_back(connection *self)
{
  int fd = self->fd;
  int flags;

  Py_INCREF(self);
  readers_unset_transport(self->reactor->loop, fd, (PyObject *)self);
  (void)note_adopted(self->reactor->state, fd, false);
  if (self->was_blocking && (flags = fcntl(fd, F_GETFL)) >= 0)
    (void)fcntl(fd, F_SETFL, flags & ~O_NONBLOCK);
  self->fd = -1;
  release(self);
  Py_CLEAR(self->protocol);
  Py_DECREF(self);
}

/* --- the end ----------------------------------------------------------------------------------- */

int
connection_close(connection *self)
{
  self->closing = true;
  self->shut = true;
  self->wants_write = false;
  return connection_schedule(self);
}

int
connection_abort(connection *self, PyObject *error)
{
  if (self->lost) {
    Py_XDECREF(error);
    return 0;
  }
  self->lost = true;
  self->error = error;
  buffer_drop(&self->out);
  return connection_schedule(self);
}

int
connection_fail(connection *self)
{
  PyObject *type, *value, *traceback;

  PyErr_Fetch(&type, &value, &traceback);
  PyErr_NormalizeException(&type, &value, &traceback);
  if (traceback != NULL)
    PyException_SetTraceback(value, traceback);
  Py_XDECREF(type);
  Py_XDECREF(traceback);
  return connection_abort(self, value);
}

/* Closes the descriptor and lets go of everything but the protocol. */
static void
release(connection *self)
{
  reactor *owner = self->reactor;
  int fd = self->fd;

  if (owner == NULL)
    return;
  unlink_connection(self);
  self->reactor = NULL;
  self->fd = -1;
  if (fd >= 0) {
    /* Before it is closed: the number may be another's at once. */
    (void)note_adopted(owner->state, fd, false);
    (void)close(fd);
    owner->closed++;
    owner->errors += self->error != NULL;
  }
  if (self->protocol != NULL)
    ((reactor_protocol *)self->protocol)->connection = NULL;
  buffer_drop(&self->out);
  Py_CLEAR(self->info);
  Py_CLEAR(self->early);
  Py_CLEAR(self->error);
  Py_DECREF(owner);
}

/* Its last turn: tells the protocol and closes the descriptor. */
static int
connection_finish(connection *self)
{
  reactor *owner = (reactor *)Py_NewRef(self->reactor);
  PyObject *method = state_of(self)->str_connection_lost;
  PyObject *error = Py_NewRef(self->error != NULL ? self->error : Py_None);
  PyObject *protocol = Py_NewRef(self->protocol);
  PyObject *result = NULL;
  int rc = 0;

  readers_unset_transport(owner->loop, self->fd, (PyObject *)self);
  self->lost = true;
  self->shut = true;
  if (self->started) {
    self->in_callback = true;
    self->thread_id = PyThread_get_thread_ident();
    result = PyObject_CallMethodOneArg(protocol, method, error);
    self->in_callback = false;
    if (result == NULL && (rc = connection_report(self, method)) == 0)
      PyErr_Clear();
    Py_XDECREF(result);
  }
  if (rc < 0) {
    PyObject *type, *value, *traceback;

    PyErr_Fetch(&type, &value, &traceback);
    release(self);
    PyErr_Restore(type, value, traceback);
  } else {
    release(self);
    if (owner->draining && owner->connections == 0) {
      result = PyObject_CallMethodNoArgs((PyObject *)owner, owner->state->reactor.str_emptied);
      Py_XDECREF(result);
      rc = result == NULL ? -1 : 0;
    }
  }
  Py_CLEAR(self->protocol);
  Py_DECREF(protocol);
  Py_DECREF(error);
  Py_DECREF(owner);
  return rc;
}

/* --- readiness --------------------------------------------------------------------------------- */

int
connection_schedule(connection *self)
{
  if (self->queued || self->in_callback || self->reactor == NULL || !connection_has_work(self))
    return 0;
  if (ready_push(&self->reactor->loop->ready, (PyObject *)self) < 0)
    return -1;
  self->queued = true;
  return 0;
}

void
connection_note(PyObject *object, uint32_t events)
{
  connection *self = (connection *)object;

  if (events & POLLER_READ)
    self->readable = true;
  if (events & POLLER_WRITE)
    self->writable = true;
  if (events & POLLER_ERROR)
    self->hung_up = true;
}

int
connection_event(PyObject *object, uint32_t events)
{
  connection_note(object, events);
  return connection_schedule((connection *)object);
}

uint32_t
connection_waits_for(PyObject *object)
{
  connection *self = (connection *)object;
  bool reads = !self->paused && !self->held && !self->at_eof && !self->closing && !self->lost;
  bool writes = self->out.count > 0 || self->wants_write;

  return (reads ? POLLER_READ : 0) | (writes ? POLLER_WRITE : 0);
}

/* A turn in the connection's context. */
static int
run_in_context(connection *self)
{
  native_loop *loop = (native_loop *)Py_NewRef(self->reactor->loop);
  PyObject *context = Py_NewRef(self->context);
  PyObject *message;
  int rc = PyContext_Enter(context);

  if (rc == 0) {
    rc = connection_turn(self);
    if (rc == 0 && connection_is_over(self))
      rc = connection_finish(self);
    /* The exception, if any, stays set across the exit. */
    if (PyContext_Exit(context) < 0)
      rc = -1;
  }
  if (rc < 0) {
    message = PyUnicode_FromString("Exception in a connection of a reactor");
    rc = message == NULL ? -1 : loop_report_exception(loop, message, NULL);
    Py_XDECREF(message);
  }
  Py_DECREF(context);
  Py_DECREF(loop);
  return rc;
}

/* The same through a handle, so that debug mode sees and times it as any callback. */
static int
debug_run_in_context(connection *self)
{
  native_loop *loop = (native_loop *)Py_NewRef(self->reactor->loop);
  PyObject *method = PyObject_GetAttr((PyObject *)self, state_of(self)->str_run);
  handle *h = method == NULL ? NULL : handle_new(loop, method, NULL, 0, NULL);
  int rc = h == NULL ? -1 : debug_run(loop, (PyObject *)h);

  if (h != NULL)
    handle_leave_queue(h);
  Py_XDECREF(method);
  Py_DECREF(loop);
  return rc;
}

/* Whatever exception is set stays: what is ready must not be forgotten by it. */
static void
schedule_after_error(connection *self)
{
  PyObject *type, *value, *traceback;

  PyErr_Fetch(&type, &value, &traceback);
  if (connection_schedule(self) < 0)
    PyErr_WriteUnraisable((PyObject *)self);
  PyErr_Restore(type, value, traceback);
}

int
connection_run(PyObject *object)
{
  connection *self = (connection *)object;
  int rc;

  self->queued = false;
  /* A callback may run the loop, where its own connection has no turn. */
  if (self->reactor == NULL || self->in_callback)
    return 0;
  rc = self->reactor->loop->debug ? debug_run_in_context(self) : run_in_context(self);
  if (rc == 0)
    return connection_schedule(self);
  schedule_after_error(self);
  return -1;
}

/* --- the object -------------------------------------------------------------------------------- */

static PyObject *
method_run(connection *self, PyObject *Py_UNUSED(ignored))
{
  if (self->reactor != NULL && !self->in_callback && run_in_context(self) < 0)
    return NULL;
  Py_RETURN_NONE;
}

static PyObject *
connection_repr(connection *self)
{
  if (self->reactor == NULL)
    return PyUnicode_FromFormat("<Connection closed of %R>",
                                self->protocol ? self->protocol : Py_None);
  return PyUnicode_FromFormat("<Connection fd=%d%s unsent=%zu of %R>", self->fd,
                              self->closing || self->lost ? " closing" : "", self->out.bytes,
                              self->protocol);
}

static int
connection_traverse(connection *self, visitproc visit, void *arg)
{
  Py_VISIT(Py_TYPE(self));
  Py_VISIT(self->reactor);
  Py_VISIT(self->protocol);
  Py_VISIT(self->context);
  Py_VISIT(self->info);
  Py_VISIT(self->early);
  Py_VISIT(self->error);
  return 0;
}

static int
connection_clear(connection *self)
{
  release(self);
  Py_CLEAR(self->protocol);
  Py_CLEAR(self->context);
  return 0;
}

/* Only where the loop was closed before: the descriptor is closed, as any object's is that owns one. */
static void
connection_finalize(PyObject *object)
{
  connection *self = (connection *)object;
  PyObject *type, *value, *traceback;

  if (self->fd < 0)
    return;
  PyErr_Fetch(&type, &value, &traceback);
  if (PyErr_ResourceWarning(object, 1, "unclosed connection %R", object) < 0)
    PyErr_WriteUnraisable(object);
  PyErr_Restore(type, value, traceback);
}

static void
connection_dealloc(PyObject *self)
{
  PyTypeObject *type = Py_TYPE(self);

  if (PyObject_CallFinalizerFromDealloc(self) < 0)
    return;
  PyObject_GC_UnTrack(self);
  (void)connection_clear((connection *)self);
  type->tp_free(self);
  Py_DECREF(type);
}

static PyMethodDef connection_methods[] = {
    {"_run", (PyCFunction)(void (*)(void))method_run, METH_NOARGS, PyDoc_STR("A turn.")},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot connection_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("A descriptor that a reactor serves.")},
    {Py_tp_dealloc, connection_dealloc},
    {Py_tp_finalize, connection_finalize},
    {Py_tp_traverse, connection_traverse},
    {Py_tp_clear, connection_clear},
    {Py_tp_repr, connection_repr},
    {Py_tp_methods, connection_methods},
    {0, NULL},
};

PyType_Spec connection_spec = {
    .name = "erlang._loop.Connection",
    .basicsize = sizeof(connection),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION |
             Py_TPFLAGS_IMMUTABLETYPE,
    .slots = connection_slots,
};
