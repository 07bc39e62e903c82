/* Iterations of the loop: wait, gather what became due, run what is ready. */
#include "loop_internal.h"

#include <time.h>

/* A busy loop asks the poller at least this often, so that ready callbacks never starve I/O. */
#define POLL_INTERVAL_NS 250000

/* Callbacks written in C reach neither the interpreter's check for other threads that want the GIL
 * nor its check for signals.  The loop makes up for it after so long, and asks the clock only every
 * so many iterations. */
#define YIELD_INTERVAL_NS 5000000
#define YIELD_CHECK_ITERATIONS 64

/* Ids that _run_once_native_for gives due timers lie above those that callers choose. */
#define TIMER_ID_BASE (INT64_C(1) << 62)

/* The loop that runs on this thread: borrowed, set only while its C code is on the stack. */
static _Thread_local native_loop *running_here;

PyObject *
loop_running(void)
{
  return (PyObject *)running_here;
}

int64_t
loop_now(void)
{
  struct timespec ts;

  clock_gettime(CLOCK_MONOTONIC, &ts);
  return (int64_t)ts.tv_sec * NS_PER_SECOND + ts.tv_nsec;
}

/* --- waiting --------------------------------------------------------------------------------- */

/* loop_sleep, while the loop counts as running. */
static int
sleep_running(native_loop *self, int64_t now, int64_t deadline, PyObject *collect)
{
  PyThreadState *saved;

  ready_shrink(&self->ready);
  if (self->fds.watched > 0 || self->interruptible) {
    if (readers_open_poller(self) < 0)
      return -1;
    if (!pending_prepare(self->core, PENDING_WAIT_POLLER))
      return 0;
    return readers_poll(self, deadline == DEADLINE_NEVER ? -1 : deadline - now, collect);
  }
  if (!pending_prepare(self->core, PENDING_WAIT_COND))
    return 0;
  /* An overridden clock counts from elsewhere. */
  if (self->foreign_time && deadline != DEADLINE_NEVER)
    deadline += loop_now() - now;
  saved = PyEval_SaveThread();
  pending_wait(self->core, deadline == DEADLINE_NEVER ? -1 : deadline);
  PyEval_RestoreThread(saved);
  return 0;
}

/* Sleeps until something is posted or ready, or until the deadline.  Without run_forever too nobody closes
 * the loop meanwhile: another thread's close() finds it running. */
static int
loop_sleep(native_loop *self, int64_t now, int64_t deadline, PyObject *collect)
{
  bool was_running = self->running;
  int rc;

  if (!was_running)
    self->thread_id = PyThread_get_thread_ident();
  self->running = true;
  rc = sleep_running(self, now, deadline, collect);
  self->running = was_running;
  return rc;
}

/* Asks the poller without waiting, unless it was asked just now. */
static int
loop_poll(native_loop *self, int64_t now, PyObject *collect)
{
  if (self->fds.watched == 0)
    return 0;
  if (!self->fds.changed && now - self->last_poll < POLL_INTERVAL_NS)
    return 0;
  self->last_poll = now;
  if (PyErr_CheckSignals() < 0)
    return -1;
  return readers_poll(self, 0, collect);
}

/* The iteration before ends now.  It is timed where the clock is read anyhow. */
static void
note_iteration(native_loop *self, int64_t now)
{
  if (self->stats.began != 0)
    self->stats.last_iteration = now - self->stats.began;
  self->stats.began = 0;
}

static bool
is_busy(native_loop *self)
{
  return self->ready.len > 0 || self->stopping || pending_count(self->core) > 0;
}

/* Waits once, at most until limit.  *now is the time afterwards, 0 when nothing needs it. */
static int
loop_wait(native_loop *self, int64_t limit, PyObject *collect, int64_t *now)
{
  bool busy = is_busy(self);
  int64_t deadline = timers_first(&self->timers);
  int rc;

  *now = 0;
  if (busy && self->fds.watched == 0 && deadline == DEADLINE_NEVER) {
    self->stats.began = 0;
    return 0;
  }
  *now = loop_clock(self);
  if (*now < 0)
    return -1;
  note_iteration(self, *now);
  /* An overridden clock is Python: other threads had the GIL meanwhile, and from here on the loop keeps it
   * until it has announced its sleep (invariant PENDING_READY). */
  if (self->foreign_time) {
    busy = is_busy(self);
    deadline = timers_first(&self->timers);
  }
  if (limit < deadline)
    deadline = limit;
  if (busy || deadline <= *now)
    return loop_poll(self, *now, collect);
  rc = loop_sleep(self, *now, deadline, collect);
  if (rc == 0)
    *now = self->last_poll = loop_clock(self);
  return *now < 0 ? -1 : rc;
}

/* --- what became due ------------------------------------------------------------------------- */

/* Takes the handle of a callback id out of loop._timers; NULL without an exception when it is not
 * there. */
static PyObject *
take_timer(native_loop *self, uint64_t id)
{
  PyObject *key = PyLong_FromUnsignedLongLong(id);
  PyObject *object;

  if (key == NULL)
    return NULL;
  object = PyDict_GetItemWithError(self->timers_map, key);
  if (object != NULL) {
    Py_INCREF(object);
    if (PyDict_DelItem(self->timers_map, key) < 0)
      Py_CLEAR(object);
  }
  Py_DECREF(key);
  return object;
}

/* Makes ready what a posted event stands for.  One that stands for nothing any more is ignored. */
static int
ready_event(native_loop *self, uint64_t id, int kind)
{
  PyObject *object;

  if (kind >= LOOP_EVENT_SOURCE)
    return ready_push_source(&self->ready, id, kind);
  if (kind == LOOP_EVENT_TIMER) {
    object = take_timer(self, id);
    if (object == NULL)
      return PyErr_Occurred() ? -1 : 0;
    return ready_push_owned(&self->ready, object);
  }
  object = id > INT_MAX ? NULL : readers_get(self, (int)id, (uint32_t)kind);
  return object == NULL ? 0 : ready_push(&self->ready, object);
}

static int
append_event(PyObject *list, uint64_t id, int kind)
{
  PyObject *pair = Py_BuildValue("(Ki)", (unsigned long long)id, kind);
  int rc = pair == NULL ? -1 : PyList_Append(list, pair);

  Py_XDECREF(pair);
  return rc;
}

/* Empties the pending queue, in one batch, into the ready ring or into collect.  What finds no memory
 * comes again. */
static int
drain_pending(native_loop *self, PyObject *collect)
{
  pending_event *events;
  size_t count;

  if (pending_count(self->core) == 0)
    return 0;
  events = pending_take(self->core, &count);
  if (collect == NULL && ready_reserve(&self->ready, count) < 0) {
    pending_keep(self->core, count);
    return -1;
  }
  for (size_t i = 0; i < count; i++) {
    int rc = collect != NULL ? append_event(collect, events[i].id, events[i].kind)
                             : ready_event(self, events[i].id, events[i].kind);

    if (rc < 0) {
      pending_keep(self->core, count - i);
      return -1;
    }
  }
  return 0;
}

static void
note_lag(native_loop *self, int64_t now)
{
  int64_t lag = now - timers_first(&self->timers);

  if (lag > self->stats.max_lag)
    self->stats.max_lag = lag;
}

/* Moves the timers that are due into the ready ring. */
static int
fire_timers(native_loop *self, int64_t now)
{
  while (timers_first(&self->timers) <= now) {
    if (ready_reserve(&self->ready, 1) < 0)
      return -1;
    note_lag(self, now);
    (void)ready_push_owned(&self->ready, (PyObject *)timers_pop(&self->timers));
  }
  return 0;
}

/* Moves the first timer into loop._timers and notes its id; it stays where it is when memory is short. */
static int
collect_timer(native_loop *self, uint64_t id, PyObject *collect)
{
  PyObject *timer = (PyObject *)timers_peek(&self->timers);
  PyObject *key = PyLong_FromUnsignedLongLong(id);
  int rc;

  if (key == NULL)
    return -1;
  rc = append_event(collect, id, LOOP_EVENT_TIMER);
  if (rc == 0)
    rc = PyDict_SetItem(self->timers_map, key, timer);
  Py_DECREF(key);
  if (rc < 0)
    return -1;
  (void)timers_pop(&self->timers);
  handle_track((handle *)timer);
  Py_DECREF(timer);
  return 0;
}

/* Moves the timers that are due into loop._timers and notes their ids. */
static int
collect_timers(native_loop *self, int64_t now, PyObject *collect)
{
  while (timers_first(&self->timers) <= now) {
    uint64_t id = (uint64_t)TIMER_ID_BASE + self->timers.next_seq++;

    note_lag(self, now);
    if (collect_timer(self, id, collect) < 0)
      return -1;
  }
  return 0;
}

/* --- running --------------------------------------------------------------------------------- */

/* Runs a handle that is not ours, as asyncio does. */
static int
run_foreign(native_loop *self, PyObject *object)
{
  PyObject *cancelled = PyObject_GetAttr(object, self->state->str_cancelled);
  int skip = cancelled == NULL ? -1 : PyObject_IsTrue(cancelled);
  PyObject *result;

  Py_XDECREF(cancelled);
  if (skip != 0)
    return skip < 0 ? -1 : 0;
  if (self->debug)
    return debug_run(self, object);
  result = PyObject_CallMethodNoArgs(object, self->state->str_run);
  Py_XDECREF(result);
  return result == NULL ? -1 : 0;
}

static int
run_object(native_loop *self, PyObject *object)
{
  if (Py_IS_TYPE(object, self->state->sock_op_type)) {
    sock_op_ready(object);
    return 0;
  }
  if (transport_check(object))
    return transport_run(object);
  if (listener_check(self->state, object))
    return listener_run(object);
  if (connection_check(self->state, object))
    return connection_run(object);
  if (!handle_check(self->state, object))
    return run_foreign(self, object);
  if (((handle *)object)->flags & HANDLE_CANCELLED)
    return 0;
  return self->debug ? debug_run(self, object) : handle_run((handle *)object);
}

/* Drops the ready ring's reference to what has run. */
static inline void
drop_object(native_loop *self, PyObject *object)
{
  if (handle_check(self->state, object))
    handle_leave_queue((handle *)object);
  else
    Py_DECREF(object);
}

/* Runs what is ready now; what that makes ready waits for the next iteration. */
static int
run_ready(native_loop *self)
{
  size_t todo = self->ready.len;
  int rc = 0;

  self->stats.callbacks += todo;
  while (todo-- > 0 && self->ready.len > 0 && rc == 0) {
    uintptr_t item = ready_pop(&self->ready);

    if (READY_IS_SOURCE(item)) {
      rc = sources_run(self, READY_SOURCE_ID(item), READY_SOURCE_KIND(item));
    } else {
      rc = run_object(self, (PyObject *)item);
      drop_object(self, (PyObject *)item);
    }
  }
  return rc;
}

/* Gives other threads a turn and signal handlers theirs, unless that was done just now.  A Python
 * function does it, as the interpreter's own check is made at its start.  To release the GIL and take
 * it again here would be no turn: a thread that waits for it asks for the switch when it has waited
 * undisturbed for the switch interval, and each release begins that wait anew. */
static int
yield_now_and_then(native_loop *self)
{
  PyObject *result;
  int64_t now;

  if (self->stats.iterations % YIELD_CHECK_ITERATIONS != 0)
    return 0;
  now = loop_now();
  if (now - self->last_yield < YIELD_INTERVAL_NS)
    return 0;
  self->last_yield = now;
  result = PyObject_CallMethodNoArgs((PyObject *)self, self->state->str_check_in);
  Py_XDECREF(result);
  return result == NULL ? -1 : 0;
}

static int
iterate(native_loop *self)
{
  int64_t now;
  int rc;

  assert(PyGILState_Check() && !PyErr_Occurred());
  assert(!self->running || self->thread_id == PyThread_get_thread_ident());
  if (loop_wait(self, DEADLINE_NEVER, NULL, &now) < 0 || drain_pending(self, NULL) < 0)
    return -1;
  if (now != 0) {
    self->stats.began = now;
    if (fire_timers(self, now) < 0)
      return -1;
  }
  self->stats.iterations++;
  rc = run_ready(self);
  if (self->corked.len > 0)
    rc = streams_uncork(self);
  return rc < 0 ? -1 : yield_now_and_then(self);
}

PyObject *
loop_run_native(native_loop *self, PyObject *Py_UNUSED(ignored))
{
  native_loop *outer = running_here;
  int rc;

  running_here = self;
  self->fds.changed = true;
  do {
    rc = iterate(self);
  } while (rc == 0 && !self->stopping);
  running_here = outer;
  if (rc < 0)
    return NULL;
  Py_RETURN_NONE;
}

PyObject *
loop_run_once(native_loop *self, PyObject *Py_UNUSED(ignored))
{
  native_loop *outer = running_here;
  int rc;

  running_here = self;
  self->fds.changed = true;
  rc = iterate(self);
  running_here = outer;
  if (rc < 0)
    return NULL;
  Py_RETURN_NONE;
}

/* The time that is timeout_ms (a number, or None for no limit) from now; -1 on error. */
static int64_t
limit_after(native_loop *self, PyObject *timeout_ms)
{
  double ns;

  if (timeout_ms == Py_None)
    return DEADLINE_NEVER;
  ns = PyFloat_AsDouble(timeout_ms) * 1e6;
  if (PyErr_Occurred())
    return -1;
  if (ns < 0.0 || ns >= 9e18)
    return DEADLINE_NEVER;
  return loop_clock(self) + (int64_t)ns;
}

PyObject *
loop_run_once_native_for(native_loop *self, PyObject *timeout_ms)
{
  native_loop *outer = running_here;
  int64_t limit, now;
  PyObject *collect;
  int rc;

  if (loop_check_closed(self) < 0)
    return NULL;
  limit = limit_after(self, timeout_ms);
  if (limit < 0)
    return NULL;
  collect = PyList_New(0);
  if (collect == NULL)
    return NULL;
  running_here = self;
  self->fds.changed = true;
  rc = loop_wait(self, limit, collect, &now);
  running_here = outer;
  if (rc == 0)
    rc = drain_pending(self, collect);
  if (rc == 0 && now != 0)
    rc = collect_timers(self, now, collect);
  if (rc < 0)
    Py_CLEAR(collect);
  return collect;
}

PyObject *
loop_dispatch(native_loop *self, PyObject *const *args, Py_ssize_t nargs)
{
  native_loop *outer = running_here;
  PyObject *object = NULL;
  uint64_t id;
  int kind, rc = 0;

  if (nargs != 2) {
    PyErr_Format(PyExc_TypeError, "_dispatch() takes 2 arguments (%zd given)", nargs);
    return NULL;
  }
  id = PyLong_AsUnsignedLongLong(args[0]);
  if (PyErr_Occurred())
    return NULL;
  kind = (int)PyLong_AsLong(args[1]);
  if (PyErr_Occurred())
    return NULL;
  running_here = self;
  if (kind >= LOOP_EVENT_SOURCE)
    rc = sources_run(self, id, kind);
  else if (kind == LOOP_EVENT_TIMER)
    object = take_timer(self, id);
  else if (id <= INT_MAX && (kind == LOOP_EVENT_READ || kind == LOOP_EVENT_WRITE))
    object = Py_XNewRef(readers_server(self, (int)id, (uint32_t)kind));
  if (object != NULL)
    rc = run_object(self, object);
  Py_XDECREF(object);
  if (self->corked.len > 0)
    rc = streams_uncork(self);
  running_here = outer;
  if (rc < 0 || PyErr_Occurred())
    return NULL;
  Py_RETURN_NONE;
}
