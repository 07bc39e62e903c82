/* The life of a handle: made, run, cancelled and freed.  Freed ones are kept for reuse in the
 * module's state.  handle_type.c has what Python sees of them. */
#include "handle_internal.h"

#ifdef __SANITIZE_ADDRESS__
#define FREE_LIST_MAX 0 /* one that was freed is not to be touched */
#else
#define FREE_LIST_MAX 1024
#endif

static inline loop_state *
handle_state(handle *self)
{
  return PyType_GetModuleState(Py_TYPE(self));
}

/* --- creation and release --------------------------------------------------------------------
 *
 * A handle that only its loop's queues know is no business of the garbage collector: the loop
 * visits what it holds as if it were its own.  It is tracked when it leaves the queues and somebody
 * else has it still.  This halves what a burst of callbacks gives the collector to do. */

/* The type's own size is allocated, so this makes timer handles too. */
static handle *
handle_alloc(struct free_list *list, PyTypeObject *type)
{
  handle *self = list->first;

  assert(PyGILState_Check());
  assert((self == NULL) == (list->count == 0));
  if (self == NULL) {
    self = PyObject_GC_New(handle, type);
    list->allocated += self != NULL;
    return self;
  }
  list->first = (handle *)self->callback;
  list->count--;
  /* Handles are freed in the order in which they ran: the next one may be far away. */
  __builtin_prefetch(list->first);
  __builtin_prefetch((char *)list->first + 64);
  (void)PyObject_Init((PyObject *)self, type);
  return self;
}

/* Fills a fresh handle whose fields hold nothing yet. */
static int
handle_fill(handle *self, native_loop *loop, PyObject *callback, PyObject *const *args,
            Py_ssize_t nargs, PyObject *context)
{
  int rc = 0;

  assert(nargs >= 0);
  self->callback = Py_NewRef(callback);
  self->loop = (native_loop *)Py_NewRef(loop);
  self->source_traceback = NULL;
  self->repr = NULL;
  self->weakrefs = NULL;
  self->flags = 0;
  self->nargs = 0;
  if (context == NULL || context == Py_None)
    self->context = PyContext_CopyCurrent();
  else
    self->context = Py_NewRef(context);
  if (self->context == NULL)
    rc = -1;
  if (nargs <= HANDLE_INLINE_ARGS) {
    for (Py_ssize_t i = 0; i < nargs; i++)
      self->args[i] = Py_NewRef(args[i]);
    self->nargs = (int8_t)nargs;
  } else {
    self->args[0] = PyTuple_New(nargs);
    if (self->args[0] == NULL)
      return -1;
    for (Py_ssize_t i = 0; i < nargs; i++)
      PyTuple_SET_ITEM(self->args[0], i, Py_NewRef(args[i]));
    self->nargs = HANDLE_TUPLE_ARGS;
  }
  if (rc == 0 && loop->debug) {
    self->source_traceback = debug_source_traceback(loop->state);
    rc = self->source_traceback == NULL ? -1 : 0;
  }
  return rc;
}

handle *
handle_new(native_loop *loop, PyObject *callback, PyObject *const *args, Py_ssize_t nargs,
           PyObject *context)
{
  handle *self = handle_alloc(&loop->state->free_handles, loop->state->handle_type);

  if (self == NULL)
    return NULL;
  if (handle_fill(self, loop, callback, args, nargs, context) < 0)
    Py_CLEAR(self);
  return self;
}

timer_handle *
timer_handle_new(native_loop *loop, double when, PyObject *callback, PyObject *const *args,
                 Py_ssize_t nargs, PyObject *context)
{
  loop_state *state = loop->state;
  timer_handle *self = (timer_handle *)handle_alloc(&state->free_timers, state->timer_handle_type);

  if (self == NULL)
    return NULL;
  self->when = when;
  self->slot = -1;
  if (handle_fill(&self->base, loop, callback, args, nargs, context) < 0)
    Py_CLEAR(self);
  return self;
}

void
handle_track(handle *self)
{
  if (!PyObject_GC_IsTracked((PyObject *)self))
    PyObject_GC_Track(self);
}

/* Drops callback and arguments. */
static void
handle_drop_call(handle *self)
{
  int count = self->nargs == HANDLE_TUPLE_ARGS ? 1 : self->nargs;

  self->nargs = 0;
  Py_CLEAR(self->callback);
  for (int i = 0; i < count; i++)
    Py_CLEAR(self->args[i]);
}

int
handle_traverse(handle *self, visitproc visit, void *arg)
{
  int count = self->nargs == HANDLE_TUPLE_ARGS ? 1 : self->nargs;

  Py_VISIT(Py_TYPE(self));
  Py_VISIT(self->callback);
  Py_VISIT(self->context);
  Py_VISIT(self->loop);
  Py_VISIT(self->source_traceback);
  for (int i = 0; i < count; i++)
    Py_VISIT(self->args[i]);
  return 0;
}

int
handle_traverse_owned(handle *self, visitproc visit, void *arg)
{
  if (PyObject_GC_IsTracked((PyObject *)self)) {
    Py_VISIT(self);
    return 0;
  }
  return Py_REFCNT(self) == 1 ? handle_traverse(self, visit, arg) : 0;
}

int
handle_clear(handle *self)
{
  handle_drop_call(self);
  Py_CLEAR(self->context);
  Py_CLEAR(self->source_traceback);
  Py_CLEAR(self->repr);
  return 0;
}

static void
handle_release(handle *self, struct free_list *list)
{
  PyTypeObject *type = Py_TYPE(self);

  if (list->count < FREE_LIST_MAX) {
    self->callback = (PyObject *)list->first;
    list->first = self;
    list->count++;
  } else {
    list->allocated--;
    PyObject_GC_Del(self);
  }
  Py_DECREF(type);
}

void
handle_dealloc(handle *self)
{
  loop_state *state = handle_state(self);

  assert(PyGILState_Check());
  /* The heap has a reference to what is in it. */
  assert(!is_timer(self) || ((timer_handle *)self)->slot < 0);
  PyObject_GC_UnTrack(self);
  if (self->weakrefs != NULL)
    PyObject_ClearWeakRefs((PyObject *)self);
  handle_clear(self);
  Py_CLEAR(self->loop);
  handle_release(self, is_timer(self) ? &state->free_timers : &state->free_handles);
}

static void
free_list_clear(struct free_list *list)
{
  while (list->first != NULL) {
    handle *self = list->first;

    list->first = (handle *)self->callback;
    list->allocated--;
    PyObject_GC_Del(self);
  }
  list->count = 0;
}

void
handle_free_lists_clear(loop_state *state)
{
  free_list_clear(&state->free_handles);
  free_list_clear(&state->free_timers);
}

/* --- running --------------------------------------------------------------------------------- */

PyObject *
handle_args_tuple(handle *self)
{
  PyObject *tuple;

  if (self->nargs == HANDLE_TUPLE_ARGS)
    return Py_NewRef(self->args[0]);
  tuple = PyTuple_New(self->nargs);
  for (int i = 0; tuple != NULL && i < self->nargs; i++)
    PyTuple_SET_ITEM(tuple, i, Py_NewRef(self->args[i]));
  return tuple;
}

/* Hands the exception that is set to the loop, unless it must end the loop. */
static int
handle_failed(handle *self)
{
  PyObject *type, *value, *traceback, *args, *callback, *message = NULL;
  int rc;

  if (PyErr_ExceptionMatches(PyExc_SystemExit) || PyErr_ExceptionMatches(PyExc_KeyboardInterrupt))
    return -1;
  PyErr_Fetch(&type, &value, &traceback);
  args = handle_args_tuple(self);
  if (args != NULL) {
    callback = debug_format_callback(self->loop, self->callback, args);
    if (callback != NULL)
      message = PyUnicode_FromFormat("Exception in callback %U", callback);
    Py_XDECREF(callback);
    Py_DECREF(args);
  }
  if (message == NULL) {
    /* The callback's own repr failed; the exception itself matters more. */
    PyErr_Clear();
    message = PyUnicode_FromString("Exception in callback");
  }
  PyErr_Restore(type, value, traceback);
  rc = loop_report_exception(self->loop, message, self);
  Py_XDECREF(message);
  return rc;
}

int
handle_report(native_loop *loop, PyObject *callback, PyObject *const *args, Py_ssize_t nargs,
              PyObject *context)
{
  PyObject *type, *value, *traceback;
  handle *self;
  int rc;

  PyErr_Fetch(&type, &value, &traceback);
  self = handle_new(loop, callback, args, nargs, context);
  if (self == NULL) {
    /* No memory to report it with. */
    Py_XDECREF(type);
    Py_XDECREF(value);
    Py_XDECREF(traceback);
    return -1;
  }
  PyErr_Restore(type, value, traceback);
  rc = handle_failed(self);
  handle_leave_queue(self);
  return rc;
}

static PyObject *
handle_invoke(handle *self)
{
  /* The slot before the arguments is the callee's to use. */
  PyObject *stack[1 + HANDLE_INLINE_ARGS];

  if (self->nargs == HANDLE_TUPLE_ARGS)
    return PyObject_Call(self->callback, self->args[0], NULL);
  stack[0] = NULL;
  for (int i = 0; i < self->nargs; i++)
    stack[1 + i] = self->args[i];
  return PyObject_Vectorcall(self->callback, stack + 1,
                             (size_t)self->nargs | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
}

int
handle_run(handle *self)
{
  uint8_t was_running = self->flags & HANDLE_RUNNING;
  PyObject *result = NULL;
  int rc = 0;

  assert(PyGILState_Check() && Py_REFCNT(self) > 0 && !PyErr_Occurred());
  if (self->callback == NULL || (self->flags & HANDLE_CANCELLED))
    return 0;
  self->flags |= HANDLE_RUNNING;
  if (PyContext_Enter(self->context) == 0) {
    result = handle_invoke(self);
    if (PyContext_Exit(self->context) < 0)
      Py_CLEAR(result);
  }
  if (result == NULL)
    rc = handle_failed(self);
  else
    Py_DECREF(result);
  if (!was_running) {
    self->flags &= (uint8_t)~HANDLE_RUNNING;
    if (self->flags & HANDLE_CANCELLED)
      handle_drop_call(self);
  }
  return rc;
}

void
handle_cancel(handle *self)
{
  timer_handle *timer = (timer_handle *)self;

  if (self->flags & HANDLE_CANCELLED)
    return;
  self->flags |= HANDLE_CANCELLED;
  if (self->loop->debug && self->repr == NULL) {
    self->repr = PyObject_Repr((PyObject *)self);
    if (self->repr == NULL)
      PyErr_WriteUnraisable((PyObject *)self->loop);
  }
  if (!(self->flags & HANDLE_RUNNING))
    handle_drop_call(self);
  if (is_timer(self) && timer->slot >= 0)
    timers_remove(&self->loop->timers, timer);
}
