/* How a transport learns of readiness and runs.
 *
 * Registered once, edge-triggered.  What the kernel reported stays in readable and writable until a
 * system call has shown otherwise; pausing and resuming are bits too. */
#include "transport.h"

/* The answer of a transport that waits for its peer's end matters until its own. */
static bool
wants_to_read(const stream *self)
{
  return !self->at_eof && !self->paused && (!self->closing || self->kind->reads_while_closing);
}

bool
transport_may_read(const stream *self)
{
  return self->readable && self->started && wants_to_read(self) && !self->conn_lost;
}

bool
transport_is_open(PyObject *object, int fd)
{
  stream *self = (stream *)object;

  return self->open && self->fd == fd;
}

static bool
may_write(const stream *self)
{
  return self->writable && (self->out.count > 0 || self->drain_ends) && !self->corked &&
         !self->conn_lost;
}

int
transport_schedule(stream *self)
{
  if (self->queued || self->loop == NULL || !(transport_may_read(self) || may_write(self)))
    return 0;
  if (ready_push(&self->loop->ready, (PyObject *)self) < 0)
    return -1;
  self->queued = true;
  return 0;
}

void
transport_note(PyObject *object, uint32_t events)
{
  stream *self = (stream *)object;

  if (events & POLLER_READ)
    self->readable = true;
  if (events & POLLER_WRITE)
    self->writable = true;
  if (events & POLLER_ERROR)
    self->hung_up = true;
}

int
transport_event(PyObject *object, uint32_t events)
{
  transport_note(object, events);
  return transport_schedule((stream *)object);
}

uint32_t
transport_waits_for(PyObject *object)
{
  stream *self = (stream *)object;

  return (wants_to_read(self) ? POLLER_READ : 0) |
         (self->out.count > 0 && !self->corked ? POLLER_WRITE : 0);
}

/* Runs step in context.  An exception that it leaves goes to the loop's handler. */
static int
run_in(stream *self, PyObject *context, int (*step)(stream *), const char *name)
{
  native_loop *loop = (native_loop *)Py_NewRef(self->loop);
  PyObject *message;
  int rc;

  Py_INCREF(context);
  rc = PyContext_Enter(context);
  if (rc == 0) {
    rc = step(self);
    /* The exception, if any, stays set across the exit. */
    if (PyContext_Exit(context) < 0)
      rc = -1;
  }
  if (rc < 0) {
    message = PyUnicode_FromFormat("Exception in callback %s.%s()", self->kind->name, name);
    rc = message == NULL ? -1 : loop_report_exception(loop, message, NULL);
    Py_XDECREF(message);
  }
  Py_DECREF(context);
  Py_DECREF(loop);
  return rc;
}

/* The same through a handle, so that debug mode sees and times it as any callback. */
static int
debug_run_in(stream *self, PyObject *context, const char *name)
{
  native_loop *loop = (native_loop *)Py_NewRef(self->loop);
  PyObject *method = PyObject_GetAttrString((PyObject *)self, name);
  handle *h = method == NULL ? NULL : handle_new(loop, method, NULL, 0, context);
  int rc = h == NULL ? -1 : debug_run(loop, (PyObject *)h);

  if (h != NULL)
    handle_leave_queue(h);
  Py_XDECREF(method);
  Py_DECREF(loop);
  return rc;
}

static int
run_step(stream *self, PyObject *context, int (*step)(stream *), const char *name)
{
  return self->loop->debug ? debug_run_in(self, context, name) : run_in(self, context, step, name);
}

/* Whatever exception is set stays: what is ready must not be forgotten by it. */
static void
schedule_after_error(stream *self)
{
  PyObject *type, *value, *traceback;

  PyErr_Fetch(&type, &value, &traceback);
  if (transport_schedule(self) < 0)
    PyErr_WriteUnraisable((PyObject *)self);
  PyErr_Restore(type, value, traceback);
}

static int
lose(stream *self)
{
  PyObject *exception = self->lost_exception;
  int rc;

  self->lost_exception = NULL;
  rc = transport_connection_lost(self, exception);
  Py_DECREF(exception);
  return rc;
}

/* What _call_connection_lost() would do, in the context of who closed it. */
static int
run_lost(stream *self)
{
  PyObject *context = self->write_context;
  int rc = 0;

  self->lost_due = false;
  self->write_context = NULL;
  if (self->loop != NULL && context != NULL)
    rc = run_in(self, context, lose, "_call_connection_lost");
  Py_XDECREF(context);
  return rc;
}

/* What it is in the ready ring for, in the order in which it can be: to start, for what its
 * descriptor is ready for, and, after which nothing else puts it there, to end. */
int
transport_run(PyObject *object)
{
  stream *self = (stream *)object;
  int rc = 0;

  if (self->starting)
    return stream_begin(self);
  if (self->lost_due && !self->queued)
    return run_lost(self);
  self->queued = false;
  if (self->loop != NULL && transport_may_read(self))
    rc = run_step(self, self->read_context, self->kind->read, "_read_ready");
  if (rc == 0 && self->loop != NULL && may_write(self))
    rc = run_step(self, self->write_context, self->kind->write_ready, "_write_ready");
  if (rc == 0)
    return transport_schedule(self);
  schedule_after_error(self);
  return -1;
}
