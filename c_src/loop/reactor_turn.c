/* A connection's turn: what is due is read, given to the protocol, sent.  One receive and one
 * write_ready() a turn, so that connections share the loop; what the protocol returns says how to go
 * on. */
#include "reactor.h"

enum action {
  CONTINUE,
  READ_PENDING,
  WRITE_PENDING,
  ASYNC_PENDING,
  CLOSE,
  NO_ACTION, /* how many there are */
  END        /* what no answer to eof_received() means: close, but write_ready() may go on */
};

static reactor_state *
state_of(connection *self)
{
  return &self->reactor->state->reactor;
}

/* --- what there is to do ----------------------------------------------------------------------- */

static bool
may_read(const connection *self)
{
  return (self->readable || self->early != NULL) && !self->paused && !self->held && !self->at_eof &&
         !self->closing && !self->lost;
}

static bool
may_write(const connection *self)
{
  return (self->out.count > 0 || self->wants_write) && self->writable && !self->lost;
}

bool
connection_is_over(const connection *self)
{
  return self->lost || (self->closing && self->out.count == 0 && !self->wants_write);
}

/* While its reactor drains: what has come is served and nothing is under way. */
static bool
is_drained(const connection *self)
{
  return self->reactor->draining && !self->readable && self->early == NULL && !self->paused &&
         !self->wants_write && !self->closing;
}

bool
connection_has_work(const connection *self)
{
  if (self->reserved)
    return self->lost;
  if (!self->started)
    return true;
  return may_read(self) || may_write(self) || connection_is_over(self) || is_drained(self);
}

/* --- actions ----------------------------------------------------------------------------------- */

static enum action
action_of(const reactor_state *state, PyObject *result)
{
  PyObject *const names[] = {state->str_continue, state->str_read_pending, state->str_write_pending,
                             state->str_async_pending, state->str_close};

  for (int i = 0; i < NO_ACTION; i++) {
    if (result == names[i])
      return (enum action)i;
  }
  for (int i = 0; PyUnicode_Check(result) && i < NO_ACTION; i++) {
    if (PyUnicode_Compare(result, names[i]) == 0)
      return (enum action)i;
  }
  return NO_ACTION;
}

static int
obey(connection *self, enum action action)
{
  switch (action) {
  case READ_PENDING:
    self->paused = false;
    self->readable = true;
    return 0;
  case WRITE_PENDING:
    /* After close() there is nothing to ask for. */
    self->wants_write = !self->shut;
    return 0;
  case ASYNC_PENDING:
    self->paused = true;
    return 0;
  case CLOSE:
    return connection_close(self);
  case END:
    self->closing = true;
    return 0;
  default:
    return 0;
  }
}

/* --- calling the protocol ---------------------------------------------------------------------- */

int
connection_report(connection *self, PyObject *method)
{
  PyObject *type, *value, *traceback;
  PyObject *context, *result = NULL;

  if (transport_must_raise())
    return -1;
  PyErr_Fetch(&type, &value, &traceback);
  PyErr_NormalizeException(&type, &value, &traceback);
  if (traceback != NULL)
    PyException_SetTraceback(value, traceback);
  context = Py_BuildValue("{sNsOsOsO}", "message",
                          PyUnicode_FromFormat("Exception in %U() of a reactor's protocol", method),
                          "exception", value, "protocol", self->protocol, "reactor", self->reactor);
  if (context != NULL)
    result =
        PyObject_CallMethodOneArg((PyObject *)self->reactor->loop,
                                  self->reactor->loop->state->str_call_exception_handler, context);
  Py_XDECREF(context);
  if (result == NULL) {
    Py_XDECREF(type);
    Py_XDECREF(value);
    Py_XDECREF(traceback);
    return -1;
  }
  Py_DECREF(result);
  PyErr_Restore(type, value, traceback);
  return 0;
}

/* After a method of the protocol raised: the handler is told, and the connection ends by it. */
static int
protocol_failed(connection *self, PyObject *method)
{
  if (connection_report(self, method) < 0)
    return -1;
  return connection_fail(self);
}

/* Sends what the callback wrote.  What handlers and finalisers write from here on leaves at once. */
static int
end_gather(connection *self, connection *outer)
{
  struct gather *gather = &self->reactor->gather;
  int rc = connection_send_gathered(self);

  gather->owner = outer;
  return rc;
}

/* After the callback: does what it returned (NULL: it raised), and sends what it wrote. */
static int
end_callback(connection *self, PyObject *result, PyObject *method, enum action by_default,
             connection *outer)
{
  enum action action = by_default;
  int rc;

  if (result != NULL && result != Py_None)
    action = action_of(state_of(self), result);
  if (action == NO_ACTION) {
    PyErr_Format(PyExc_ValueError, "%U() returned %R, which is no action", method, result);
    Py_CLEAR(result);
  }
  if (result == NULL) {
    PyObject *type, *value, *traceback;

    PyErr_Fetch(&type, &value, &traceback);
    if (end_gather(self, outer) < 0)
      PyErr_WriteUnraisable((PyObject *)self);
    PyErr_Restore(type, value, traceback);
    rc = protocol_failed(self, method);
  } else {
    rc = end_gather(self, outer);
    if (rc == 0 && !self->lost)
      rc = obey(self, action);
  }
  Py_XDECREF(result);
  return rc;
}

/* Calls a method of the protocol, with up to two arguments, and does what it returns. */
static int
call_protocol(connection *self, PyObject *method, PyObject *const *args, size_t count,
              enum action by_default)
{
  reactor *owner = self->reactor;
  connection *outer = owner->gather.owner;
  PyObject *stack[3] = {self->protocol};
  PyObject *result;
  int rc;

  for (size_t i = 0; i < count; i++)
    stack[1 + i] = args[i];
  /* Somebody who runs the loop in a callback gathers nothing inside. */
  if (outer == NULL)
    owner->gather.owner = self;
  self->in_callback = true;
  self->thread_id = PyThread_get_thread_ident();
  result = PyObject_VectorcallMethod(method, stack, 1 + count, NULL);
  rc = end_callback(self, result, method, by_default, outer);
  self->in_callback = false;
  return rc;
}

/* --- the turn ---------------------------------------------------------------------------------- */

static int
begin(connection *self)
{
  PyObject *args[2] = {PyLong_FromLong(self->fd), self->info};
  int rc = -1;

  self->started = true;
  if (args[0] != NULL)
    rc = call_protocol(self, state_of(self)->str_connection_made, args, 2, CONTINUE);
  Py_XDECREF(args[0]);
  Py_CLEAR(self->info);
  return rc;
}

static int
give_early(connection *self)
{
  PyObject *view = PyMemoryView_FromObject(self->early);
  int rc = -1;

  Py_CLEAR(self->early);
  if (view != NULL)
    rc = call_protocol(self, state_of(self)->str_data_received, &view, 1, CONTINUE);
  Py_XDECREF(view);
  return rc;
}

static int
read_step(connection *self)
{
  reactor *owner = self->reactor;
  PyObject *view;
  int outcome, rc;

  if (self->early != NULL)
    return give_early(self);
  if (owner->gather.owner != NULL)
    /* The view in use belongs to the callback that runs this loop. */
    reactor_buffer_clear(owner);
  view = reactor_receive(self, &outcome);
  if (view == NULL && outcome < 0)
    return connection_fail(self);
  if (view == NULL && outcome == 0)
    return 0;
  if (view == NULL) {
    self->at_eof = true;
    self->readable = false;
    return call_protocol(self, state_of(self)->str_eof_received, NULL, 0, END);
  }
  rc = call_protocol(self, state_of(self)->str_data_received, &view, 1, CONTINUE);
  reactor_view_done(owner);
  return rc;
}

static int
write_step(connection *self)
{
  if (self->out.count > 0 && connection_send_kept(self) < 0)
    return -1;
  if (!may_write(self) || self->out.count > 0)
    return 0;
  self->wants_write = false;
  return call_protocol(self, state_of(self)->str_write_ready, NULL, 0, CONTINUE);
}

int
connection_turn(connection *self)
{
  int rc = 0;

  if (!self->started && !self->lost)
    rc = begin(self);
  if (rc == 0 && may_read(self))
    rc = read_step(self);
  if (rc == 0 && may_write(self))
    rc = write_step(self);
  if (rc == 0 && is_drained(self) && !self->lost)
    rc = connection_close(self);
  return rc;
}
