/* Gates: through which a queue wakes the coroutines that wait on one loop.
 *
 * A queue that hands over a message puts the awaitable on its gate's list and, when the list was
 * empty, posts one event to the loop: to the loop's core on an ErlangEventLoop, through an eventfd
 * that add_reader watches on a foreign loop.  The loop then runs all that are on the list.
 *
 * The loop owns its gate (as a source's owner or in the reader's callback) and the gate owns the
 * awaitables that wait: nothing that waits for a message is collected, and when the loop is closed,
 * all that waited there give back what they were handed.
 */
#include "channel_python.h"

#include <errno.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct channel_gate {
  PyObject_HEAD
  channel_state *state;
  channel_gate *next; /* in state->gates */
  PyObject *loop;     /* its address, for comparison only */
  PyObject *loop_ref; /* weak reference */
  gate_link *waiting; /* all that wait here; one reference each */
  const loop_api *api;
  loop_core *core; /* of a native loop, else NULL; constant after opening */
  uint64_t source; /* its source there; constant after opening */
  int event_fd;    /* of a foreign loop, else -1; constant after opening */
  pthread_mutex_t mutex;
  gate_link *first_woken; /* guarded by mutex, and so the rest */
  gate_link *last_woken;
  size_t woken;
  int posted; /* an event is under way */
  int closed; /* nobody will come for what is woken */
};

/* --- waking: any thread --- */

/* Mutex held.  0 or -1. */
static int
post_event(channel_gate *gate)
{
  if (gate->core != NULL) {
    return gate->api->post(gate->core, gate->source, LOOP_EVENT_SOURCE);
  }
  return eventfd_write(gate->event_fd, 1) < 0 && errno != EAGAIN ? -1 : 0;
}

/* Mutex held. */
static void
append_woken(channel_gate *gate, gate_link *link)
{
  link->woken = 1;
  link->woken_next = NULL;
  link->woken_prev = gate->last_woken;
  if (gate->last_woken != NULL) {
    gate->last_woken->woken_next = link;
  } else {
    gate->first_woken = link;
  }
  gate->last_woken = link;
  gate->woken++;
}

/* Mutex held; the link is on the list. */
static void
remove_woken(channel_gate *gate, gate_link *link)
{
  if (link->woken_prev != NULL) {
    link->woken_prev->woken_next = link->woken_next;
  } else {
    gate->first_woken = link->woken_next;
  }
  if (link->woken_next != NULL) {
    link->woken_next->woken_prev = link->woken_prev;
  } else {
    gate->last_woken = link->woken_prev;
  }
  link->woken = 0;
  gate->woken--;
}

int
gate_wake(gate_link *link)
{
  channel_gate *gate = link->gate;
  int result = -1;
  pthread_mutex_lock(&gate->mutex);
  if (!gate->closed && (gate->posted || post_event(gate) == 0)) {
    gate->posted = 1;
    append_woken(gate, link);
    result = 0;
  }
  pthread_mutex_unlock(&gate->mutex);
  return result;
}

/* --- running: the loop's thread --- */

/* The next awaitable that was woken, as a new reference, or NULL. */
static channel_await *
next_woken(channel_gate *gate)
{
  channel_await *next = NULL;
  pthread_mutex_lock(&gate->mutex);
  gate_link *link = gate->first_woken;
  if (link != NULL) {
    remove_woken(gate, link);
    next = (channel_await *)Py_NewRef(link->await);
  }
  pthread_mutex_unlock(&gate->mutex);
  return next;
}

/* Runs those that were woken when it begins: one that is woken again meanwhile has to wait for the
 * loop's next turn, or a flooded channel would keep the loop for itself.  0, or -1 with an
 * exception. */
static int
run_woken(channel_gate *gate)
{
  channel_await *await;
  int result = 0;
  pthread_mutex_lock(&gate->mutex);
  size_t left = gate->woken;
  pthread_mutex_unlock(&gate->mutex);
  while (result == 0 && left-- > 0 && (await = next_woken(gate)) != NULL) {
    result = channel_await_run(await);
    Py_DECREF(await);
  }
  pthread_mutex_lock(&gate->mutex);
  gate->posted = gate->woken > 0 && post_event(gate) == 0;
  pthread_mutex_unlock(&gate->mutex);
  return result;
}

static int
run_source(PyObject *owner, int kind)
{
  (void)kind;
  return run_woken((channel_gate *)owner);
}

/* The reader's callback on a foreign loop. */
static PyObject *
run_reader(PyObject *self, PyObject *Py_UNUSED(ignored))
{
  eventfd_t count;
  eventfd_read(((channel_gate *)self)->event_fd, &count);
  if (run_woken((channel_gate *)self) < 0) {
    return NULL;
  }
  Py_RETURN_NONE;
}

static PyMethodDef run_reader_definition = {"_run_channel_waits", run_reader, METH_NOARGS, NULL};

/* --- entering and leaving --- */

void
gate_enter(channel_gate *gate, gate_link *link)
{
  Py_INCREF(link->await);
  link->gate = gate;
  link->prev = NULL;
  link->next = gate->waiting;
  if (gate->waiting != NULL) {
    gate->waiting->prev = link;
  }
  gate->waiting = link;
}

void
gate_leave(gate_link *link)
{
  channel_gate *gate = link->gate;
  if (gate == NULL) {
    return;
  }
  pthread_mutex_lock(&gate->mutex);
  if (link->woken) {
    remove_woken(gate, link);
  }
  pthread_mutex_unlock(&gate->mutex);
  if (link->prev != NULL) {
    link->prev->next = link->next;
  } else {
    gate->waiting = link->next;
  }
  if (link->next != NULL) {
    link->next->prev = link->prev;
  }
  link->gate = NULL;
  Py_DECREF(link->await);
}

/* --- making gates --- */

/* 1 open, 0 the loop has no add_reader, -1 with an exception. */
static int
open_foreign(channel_gate *gate, PyObject *loop)
{
  gate->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (gate->event_fd < 0) {
    PyErr_SetFromErrno(PyExc_OSError);
    return -1;
  }
  PyObject *fd = PyLong_FromLong(gate->event_fd);
  PyObject *callback = PyCFunction_New(&run_reader_definition, (PyObject *)gate);
  PyObject *handle = NULL;
  if (fd != NULL && callback != NULL) {
    handle = PyObject_CallMethodObjArgs(loop, gate->state->name_add_reader, fd, callback, NULL);
  }
  Py_XDECREF(fd);
  Py_XDECREF(callback);
  if (handle != NULL) {
    Py_DECREF(handle);
    return 1;
  }
  if (PyErr_ExceptionMatches(PyExc_NotImplementedError) ||
      PyErr_ExceptionMatches(PyExc_AttributeError)) {
    PyErr_Clear();
    return 0;
  }
  return -1;
}

static int
open_native(channel_gate *gate, PyObject *loop, loop_core *core)
{
  gate->core = core;
  gate->source = gate->api->source_add(loop, run_source, (PyObject *)gate);
  return gate->source == 0 ? -1 : 1;
}

static channel_gate *
gate_new(channel_state *state, PyObject *loop)
{
  PyObject *loop_ref = PyWeakref_NewRef(loop, NULL);
  if (loop_ref == NULL) {
    return NULL;
  }
  channel_gate *gate = (channel_gate *)state->gate_type->tp_alloc(state->gate_type, 0);
  if (gate == NULL) {
    Py_DECREF(loop_ref);
    return NULL;
  }
  gate->state = state;
  gate->api = state->loop_api;
  gate->loop = loop;
  gate->loop_ref = loop_ref;
  gate->event_fd = -1;
  pthread_mutex_init(&gate->mutex, NULL);
  gate->next = state->gates;
  state->gates = gate;
  return gate;
}

/* A dead loop's gate may linger a while, and its address may be another loop's by then. */
static int
serves(channel_gate *gate, PyObject *loop)
{
  if (gate->loop != loop || gate->closed) {
    return 0;
  }
#if PY_VERSION_HEX >= 0x030D0000
  PyObject *alive = NULL;
  PyWeakref_GetRef(gate->loop_ref, &alive);
  Py_XDECREF(alive);
  return alive == loop;
#else
  return PyWeakref_GetObject(gate->loop_ref) == loop;
#endif
}

static channel_gate *
find_gate(channel_state *state, PyObject *loop)
{
  channel_gate *gate = state->gates;
  while (gate != NULL && !serves(gate, loop)) {
    gate = gate->next;
  }
  return gate;
}

channel_gate *
channel_gate_for(channel_state *state, PyObject *loop)
{
  channel_gate *gate = find_gate(state, loop);
  if (gate != NULL) {
    return gate;
  }
  gate = gate_new(state, loop);
  if (gate == NULL) {
    return NULL;
  }
  loop_core *core = state->loop_api->core_of(loop);
  int opened = core != NULL ? open_native(gate, loop, core) : open_foreign(gate, loop);
  /* The loop holds it when it is open; else it goes here. */
  Py_DECREF(gate);
  return opened > 0 ? gate : NULL;
}

/* --- the type --- */

static int
gate_traverse(PyObject *self, visitproc visit, void *arg)
{
  channel_gate *gate = (channel_gate *)self;
  Py_VISIT(Py_TYPE(self));
  Py_VISIT(gate->loop_ref);
  for (gate_link *link = gate->waiting; link != NULL; link = link->next) {
    Py_VISIT(link->await);
  }
  return 0;
}

/* Lets everybody go who waits here: what they were handed goes to others. */
static int
gate_clear(PyObject *self)
{
  channel_gate *gate = (channel_gate *)self;
  pthread_mutex_lock(&gate->mutex);
  gate->closed = 1;
  pthread_mutex_unlock(&gate->mutex);
  while (gate->waiting != NULL) {
    channel_await_loop_closed(gate->waiting->await);
  }
  return 0;
}

static void
forget_gate(channel_gate *gate)
{
  channel_gate **at = &gate->state->gates;
  while (*at != gate) {
    at = &(*at)->next;
  }
  *at = gate->next;
}

static void
gate_dealloc(PyObject *self)
{
  channel_gate *gate = (channel_gate *)self;
  PyTypeObject *type = Py_TYPE(self);
  PyObject_GC_UnTrack(self);
  gate_clear(self);
  forget_gate(gate);
  if (gate->core != NULL) {
    gate->api->core_decref(gate->core);
  }
  if (gate->event_fd >= 0) {
    close(gate->event_fd);
  }
  Py_CLEAR(gate->loop_ref);
  pthread_mutex_destroy(&gate->mutex);
  type->tp_free(self);
  Py_DECREF(type);
}

static PyType_Slot gate_slots[] = {
    {Py_tp_doc, "Wakes the coroutines that wait for channels on one event loop."},
    {Py_tp_dealloc, gate_dealloc},
    {Py_tp_traverse, gate_traverse},
    {Py_tp_clear, gate_clear},
    {0, NULL},
};

PyType_Spec channel_gate_spec = {
    .name = "erlang.channel._Gate",
    .basicsize = sizeof(channel_gate),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION |
             Py_TPFLAGS_IMMUTABLETYPE,
    .slots = gate_slots,
};
