/* The type erlang._loop.NativeLoop: life cycle, attributes and the table of methods. */
#include "loop_internal.h"

#include <structmember.h>

int
loop_check_closed(native_loop *loop)
{
  if (!loop->closed)
    return 0;
  PyErr_SetString(PyExc_RuntimeError, "Event loop is closed");
  return -1;
}

/* Sets dict[name] = value unless value is NULL or None. */
static int
set_if_given(PyObject *dict, const char *name, PyObject *value)
{
  if (value == NULL || value == Py_None)
    return 0;
  return PyDict_SetItemString(dict, name, value);
}

int
loop_report_exception(native_loop *loop, PyObject *message, handle *h)
{
  PyObject *type, *value, *traceback, *context, *result = NULL;

  if (PyErr_ExceptionMatches(PyExc_SystemExit) || PyErr_ExceptionMatches(PyExc_KeyboardInterrupt))
    return -1;
  PyErr_Fetch(&type, &value, &traceback);
  PyErr_NormalizeException(&type, &value, &traceback);
  if (traceback != NULL)
    PyException_SetTraceback(value, traceback);
  context = PyDict_New();
  if (context != NULL && set_if_given(context, "message", message) == 0 &&
      set_if_given(context, "exception", value) == 0 &&
      set_if_given(context, "handle", (PyObject *)h) == 0 &&
      set_if_given(context, "source_traceback", h ? h->source_traceback : NULL) == 0)
    result = PyObject_CallMethodOneArg((PyObject *)loop, loop->state->str_call_exception_handler,
                                       context);
  Py_XDECREF(context);
  Py_XDECREF(type);
  Py_XDECREF(value);
  Py_XDECREF(traceback);
  Py_XDECREF(result);
  return result == NULL ? -1 : 0;
}

/* --- life cycle ------------------------------------------------------------------------------ */

/* 1 when type has another attribute of that name than NativeLoop, 0 when not, -1 on error. */
static int
overrides(PyTypeObject *type, loop_state *state, PyObject *name)
{
  PyObject *theirs = PyObject_GetAttr((PyObject *)type, name);
  PyObject *ours = PyObject_GetAttr((PyObject *)state->loop_type, name);
  int differ = theirs == NULL || ours == NULL ? -1 : theirs != ours;

  Py_XDECREF(theirs);
  Py_XDECREF(ours);
  return differ;
}

/* Notices which of the methods that C would call by itself are overridden in the type. */
static int
note_overrides(native_loop *self)
{
  int time = overrides(Py_TYPE(self), self->state, self->state->str_time);
  int call_at = overrides(Py_TYPE(self), self->state, self->state->str_call_at);

  self->foreign_time = time != 0;
  self->foreign_call_at = call_at != 0;
  return time < 0 || call_at < 0 ? -1 : 0;
}

static void
link_loop(native_loop *self)
{
  self->next = self->state->first_loop;
  if (self->next != NULL)
    self->next->previous = self;
  self->state->first_loop = self;
}

static void
unlink_loop(native_loop *self)
{
  if (self->previous != NULL)
    self->previous->next = self->next;
  else
    self->state->first_loop = self->next;
  if (self->next != NULL)
    self->next->previous = self->previous;
}

static PyObject *
loop_new(PyTypeObject *type, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(kwargs))
{
  PyObject *module = PyType_GetModuleByDef(type, &loop_module_def);
  native_loop *self;

  if (module == NULL)
    return NULL;
  self = (native_loop *)type->tp_alloc(type, 0);
  if (self == NULL)
    return NULL;
  self->module = Py_NewRef(module);
  self->state = PyModule_GetState(module);
  link_loop(self);
  self->core = pending_new();
  if (self->core == NULL)
    PyErr_NoMemory();
  else
    self->timers_map = PyDict_New();
  if (self->timers_map == NULL || note_overrides(self) < 0) {
    self->closed = true; /* asyncio's __del__ would close it, with what it has not got yet */
    Py_CLEAR(self);
  }
  return (PyObject *)self;
}

/* Ends posts and drops everything that could run. */
static void
loop_release_all(native_loop *self)
{
  if (self->core != NULL)
    pending_close(self->core);
  ready_clear(self);
  timers_clear(&self->timers);
  readers_clear(self);
  sources_clear(self);
  methods_clear(self);
  Py_CLEAR(self->loop_keyword);
  Py_CLEAR(self->task_args);
  if (self->timers_map != NULL)
    PyDict_Clear(self->timers_map);
}

static int
loop_traverse(native_loop *self, visitproc visit, void *arg)
{
  int rc;

  Py_VISIT(Py_TYPE(self));
  Py_VISIT(self->module);
  Py_VISIT(self->timers_map);
  Py_VISIT(self->transports);
  Py_VISIT(self->transports_data);
  Py_VISIT(self->task_factory);
  Py_VISIT(self->loop_keyword);
  Py_VISIT(self->task_args);
  if ((rc = methods_traverse(self, visit, arg)) != 0)
    return rc;
  if ((rc = ready_traverse(self, visit, arg)) != 0 ||
      (rc = timers_traverse(&self->timers, visit, arg)) != 0 ||
      (rc = readers_traverse(self, visit, arg)) != 0)
    return rc;
  return sources_traverse(&self->sources, visit, arg);
}

static int
loop_clear(native_loop *self)
{
  loop_release_all(self);
  Py_CLEAR(self->transports);
  Py_CLEAR(self->transports_data);
  Py_CLEAR(self->task_factory);
  return 0;
}

static void
loop_dealloc(native_loop *self)
{
  PyTypeObject *type = Py_TYPE(self);

  PyObject_GC_UnTrack(self);
  unlink_loop(self);
  loop_clear(self);
  Py_CLEAR(self->timers_map);
  PyMem_Free(self->ready.items);
  Py_CLEAR(self->spare.bytes);
  PyMem_Free(self->scratch);
  PyMem_Free(self->corked.items);
  if (self->core != NULL)
    pending_decref(self->core);
  Py_XDECREF(self->module);
  type->tp_free(self);
  Py_DECREF(type);
}

static PyObject *
loop_close_native(native_loop *self, PyObject *Py_UNUSED(ignored))
{
  self->closed = true;
  Py_CLEAR(self->spare.bytes);
  loop_release_all(self);
  Py_RETURN_NONE;
}

/* --- simple methods -------------------------------------------------------------------------- */

static PyObject *
loop_time(native_loop *Py_UNUSED(self), PyObject *Py_UNUSED(ignored))
{
  return PyFloat_FromDouble((double)loop_now() / (double)NS_PER_SECOND);
}

static PyObject *
loop_get_debug(native_loop *self, PyObject *Py_UNUSED(ignored))
{
  return PyBool_FromLong(self->debug);
}

static PyObject *
loop_is_closed(native_loop *self, PyObject *Py_UNUSED(ignored))
{
  return PyBool_FromLong(self->closed);
}

static PyObject *
loop_is_running(native_loop *self, PyObject *Py_UNUSED(ignored))
{
  return PyBool_FromLong(self->running);
}

static PyObject *
loop_stop(native_loop *self, PyObject *Py_UNUSED(ignored))
{
  self->stopping = true;
  Py_RETURN_NONE;
}

static PyObject *
loop_write_to_self(native_loop *self, PyObject *Py_UNUSED(ignored))
{
  pending_wake_if_asleep(self->core);
  Py_RETURN_NONE;
}

static PyObject *
loop_timer_handle_cancelled(native_loop *Py_UNUSED(self), PyObject *Py_UNUSED(handle))
{
  Py_RETURN_NONE;
}

/* event_loop_add_pending, for Python callers. */
static PyObject *
loop_post(native_loop *self, PyObject *args)
{
  unsigned long long id;
  int kind;

  if (!PyArg_ParseTuple(args, "Ki:_post", &id, &kind))
    return NULL;
  return PyBool_FromLong(pending_post(self->core, id, kind) == 0);
}

static PyObject *
loop_stats(native_loop *self, PyObject *Py_UNUSED(ignored))
{
  return Py_BuildValue(
      "{sKsnsnsnsnsIsKsdsd}", "callbacks", (unsigned long long)self->stats.callbacks, "ready",
      (Py_ssize_t)self->ready.len, "timers", (Py_ssize_t)self->timers.len, "pending",
      (Py_ssize_t)pending_count(self->core), "watched", (Py_ssize_t)self->fds.watched, "sources",
      self->sources.live, "iterations", (unsigned long long)self->stats.iterations,
      "last_iteration", (double)self->stats.last_iteration / (double)NS_PER_SECOND, "max_lag",
      (double)self->stats.max_lag / (double)NS_PER_SECOND);
}

/* --- attributes ------------------------------------------------------------------------------ */

static PyObject *
get_flag(PyObject *self, void *offset)
{
  return PyBool_FromLong(*(bool *)((char *)self + (size_t)offset));
}

static int
set_flag(PyObject *self, PyObject *value, void *offset)
{
  int truth = value == NULL ? 0 : PyObject_IsTrue(value);

  if (truth < 0)
    return -1;
  *(bool *)((char *)self + (size_t)offset) = truth;
  return 0;
}

static PyObject *
get_thread_id(native_loop *self, void *Py_UNUSED(closure))
{
  if (!self->running)
    Py_RETURN_NONE;
  return PyLong_FromUnsignedLong(self->thread_id);
}

static int
set_thread_id(native_loop *self, PyObject *value, void *Py_UNUSED(closure))
{
  unsigned long id = 0;

  if (value != NULL && value != Py_None) {
    id = PyLong_AsUnsignedLong(value);
    if (PyErr_Occurred())
      return -1;
  }
  self->running = value != NULL && value != Py_None;
  self->thread_id = id;
  return 0;
}

static PyObject *
get_ready(native_loop *self, void *Py_UNUSED(closure))
{
  return ready_view_new(self);
}

static int
set_ready(native_loop *self, PyObject *value, void *Py_UNUSED(closure))
{
  PyObject *list, *view, *result = NULL;

  list = value == NULL ? PyList_New(0) : PySequence_List(value);
  if (list == NULL)
    return -1;
  ready_clear(self);
  view = ready_view_new(self);
  if (view != NULL)
    result = PyObject_CallMethod(view, "extend", "O", list);
  Py_XDECREF(view);
  Py_DECREF(list);
  Py_XDECREF(result);
  return result == NULL ? -1 : 0;
}

static PyObject *
get_scheduled(native_loop *self, void *Py_UNUSED(closure))
{
  return timers_snapshot(&self->timers);
}

static int
set_scheduled(native_loop *self, PyObject *value, void *Py_UNUSED(closure))
{
  Py_ssize_t len = value == NULL ? 0 : PyObject_Size(value);

  if (len < 0)
    return -1;
  if (len > 0) {
    PyErr_SetString(PyExc_ValueError, "_scheduled can only be emptied; use call_at()");
    return -1;
  }
  timers_clear(&self->timers);
  return 0;
}

static PyObject *
get_timers(native_loop *self, void *Py_UNUSED(closure))
{
  return Py_NewRef(self->timers_map);
}

static PyObject *
get_transports(native_loop *self, void *Py_UNUSED(closure))
{
  return Py_NewRef(self->transports ? self->transports : Py_None);
}

static int
set_transports(native_loop *self, PyObject *value, void *Py_UNUSED(closure))
{
  PyObject *data = value == NULL ? NULL : PyObject_GetAttrString(value, "data");

  if (data != NULL && !PyDict_Check(data))
    Py_CLEAR(data);
  PyErr_Clear();
  Py_XSETREF(self->transports, Py_XNewRef(value));
  Py_XSETREF(self->transports_data, data);
  return 0;
}

static PyObject *
get_task_factory(native_loop *self, void *Py_UNUSED(closure))
{
  return Py_NewRef(self->task_factory ? self->task_factory : Py_None);
}

static int
set_task_factory(native_loop *self, PyObject *value, void *Py_UNUSED(closure))
{
  Py_XSETREF(self->task_factory, value == Py_None ? NULL : Py_XNewRef(value));
  return 0;
}

#define FLAG(name, field)                                                                          \
  {                                                                                                \
    name, get_flag, set_flag, NULL, (void *)offsetof(native_loop, field)                           \
  }

static PyGetSetDef loop_getset[] = {
    FLAG("_closed", closed),
    FLAG("_stopping", stopping),
    FLAG("_debug", debug),
    FLAG("_interruptible", interruptible),
    FLAG("_dict_known", methods.dict_known),
    {"_thread_id", (getter)get_thread_id, (setter)set_thread_id, NULL, NULL},
    {"_ready", (getter)get_ready, (setter)set_ready, NULL, NULL},
    {"_scheduled", (getter)get_scheduled, (setter)set_scheduled, NULL, NULL},
    {"_timers", (getter)get_timers, NULL,
     PyDoc_STR("Callback id -> handle; an event of kind TIMER takes its handle out and runs it."),
     NULL},
    {"_transports", (getter)get_transports, (setter)set_transports, NULL, NULL},
    {"_task_factory", (getter)get_task_factory, (setter)set_task_factory, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

#define KEYWORDS (METH_FASTCALL | METH_KEYWORDS)
#define METHOD(name, function, flags, doc)                                                         \
  {                                                                                                \
    name, (PyCFunction)(void (*)(void))function, flags, PyDoc_STR(doc)                             \
  }

static PyMethodDef loop_methods[] = {
    METHOD("call_soon", loop_call_soon, KEYWORDS,
           "call_soon($self, callback, *args, context=None)\n--\n\n"
           "Run callback(*args) in the next iteration; a Handle that cancels it."),
    METHOD("call_soon_threadsafe", loop_call_soon_threadsafe, KEYWORDS,
           "call_soon_threadsafe($self, callback, *args, context=None)\n--\n\n"
           "As call_soon, from any thread; wakes the loop when it sleeps."),
    METHOD("call_later", loop_call_later, KEYWORDS,
           "call_later($self, delay, callback, *args, context=None)\n--\n\n"
           "Run callback(*args) after delay seconds, never earlier; a TimerHandle."),
    METHOD("call_at", loop_call_at, KEYWORDS,
           "call_at($self, when, callback, *args, context=None)\n--\n\n"
           "Run callback(*args) at when, in seconds of time(); a TimerHandle."),
    METHOD("create_future", loop_create_future, METH_NOARGS, "A new asyncio.Future of this loop."),
    METHOD("create_task", loop_create_task, KEYWORDS,
           "create_task($self, coro, *, name=None, context=None)\n--\n\n"
           "Schedule a coroutine; the task that runs it."),
    METHOD("time", loop_time, METH_NOARGS, "Seconds of the monotonic clock."),
    METHOD("get_debug", loop_get_debug, METH_NOARGS, "True in debug mode."),
    METHOD("is_closed", loop_is_closed, METH_NOARGS, "True once the loop was closed."),
    METHOD("is_running", loop_is_running, METH_NOARGS, "True while run_forever() runs."),
    METHOD("stop", loop_stop, METH_NOARGS, "End run_forever() after this iteration."),
    METHOD("add_reader", loop_add_reader, METH_FASTCALL,
           "Run callback(*args) whenever fd is readable: add_reader(fd, callback, *args)."),
    METHOD("add_writer", loop_add_writer, METH_FASTCALL,
           "Run callback(*args) whenever fd is writable: add_writer(fd, callback, *args)."),
    METHOD("remove_reader", loop_remove_reader, METH_O, "Undo add_reader; True if there was one."),
    METHOD("remove_writer", loop_remove_writer, METH_O, "Undo add_writer; True if there was one."),
    METHOD("sock_recv", loop_sock_recv, KEYWORDS,
           "sock_recv($self, sock, n)\n--\n\nReceive at most n bytes."),
    METHOD("sock_recv_into", loop_sock_recv_into, KEYWORDS,
           "sock_recv_into($self, sock, buf)\n--\n\nReceive into buf; how many bytes."),
    METHOD("sock_recvfrom", loop_sock_recvfrom, KEYWORDS,
           "sock_recvfrom($self, sock, bufsize)\n--\n\nReceive a datagram; (bytes, address)."),
    METHOD("sock_recvfrom_into", loop_sock_recvfrom_into, KEYWORDS,
           "sock_recvfrom_into($self, sock, buf, nbytes=0)\n--\n\nReceive a datagram into buf; "
           "(count, address)."),
    METHOD("sock_sendall", loop_sock_sendall, KEYWORDS,
           "sock_sendall($self, sock, data)\n--\n\nSend all of data."),
    METHOD("sock_sendto", loop_sock_sendto, KEYWORDS,
           "sock_sendto($self, sock, data, address)\n--\n\nSend a datagram; how many bytes."),
    METHOD("sock_connect", loop_sock_connect, KEYWORDS,
           "sock_connect($self, sock, address)\n--\n\nConnect to address."),
    METHOD("sock_accept", loop_sock_accept, KEYWORDS,
           "sock_accept($self, sock)\n--\n\nAccept a connection; (socket, address)."),
    METHOD("_add_reader", loop_private_add_reader, METH_FASTCALL, ""),
    METHOD("_add_writer", loop_private_add_writer, METH_FASTCALL, ""),
    METHOD("_remove_reader", loop_private_remove_reader, METH_O, ""),
    METHOD("_remove_writer", loop_private_remove_writer, METH_O, ""),
    METHOD("_ensure_fd_no_transport", loop_ensure_fd_no_transport, METH_O, ""),
    METHOD("_claimant", loop_claimant, METH_O, "The native transport over fd, or None."),
    METHOD("_claim", loop_claim, METH_FASTCALL, ""),
    METHOD("_watched", loop_watched, METH_NOARGS, "fd -> (reader or None, writer or None)."),
    METHOD("_run_native", loop_run_native, METH_NOARGS, "Iterate until stop() was called."),
    METHOD("_run_once", loop_run_once, METH_NOARGS, "One iteration."),
    METHOD("_run_once_native_for", loop_run_once_native_for, METH_O,
           "Wait once, at most timeout_ms milliseconds (None: no limit), and run nothing.\n\n"
           "Returns [(callback_id, kind)], each for _dispatch()."),
    METHOD("_dispatch", loop_dispatch, METH_FASTCALL,
           "Run what the event (callback_id, kind) stands for; nothing if that is gone."),
    METHOD("_write_to_self", loop_write_to_self, METH_NOARGS, "Wake the loop if it sleeps."),
    METHOD("_timer_handle_cancelled", loop_timer_handle_cancelled, METH_O, ""),
    METHOD("_post", loop_post, METH_VARARGS,
           "Post the event (id, kind) from any thread; False when the loop is closed."),
    METHOD("_stats", loop_stats, METH_NOARGS, "Counters and queue lengths, as a dict."),
    METHOD("_close_native", loop_close_native, METH_NOARGS,
           "End posts and drop all that could run."),
    {NULL, NULL, 0, NULL},
};

static PyType_Slot loop_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("The part of an asyncio event loop that is hot, in C.")},
    {Py_tp_new, loop_new},
    {Py_tp_dealloc, loop_dealloc},
    {Py_tp_traverse, loop_traverse},
    {Py_tp_clear, loop_clear},
    {Py_tp_getattro, loop_getattro},
    {Py_tp_setattro, loop_setattro},
    {Py_tp_methods, loop_methods},
    {Py_tp_getset, loop_getset},
    {0, NULL},
};

PyType_Spec loop_spec = {
    .name = "erlang._loop.NativeLoop",
    .basicsize = sizeof(native_loop),
    .flags =
        Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = loop_slots,
};
