/* select() and select_sync(): a message of whichever of several channels has one first. */
#include "channel_await.h"

/* --- both forms --- */

/* The state's next random number; any thread with the GIL. */
static uint64_t
next_random(channel_state *state)
{
  uint64_t x = state->select_seed;
  x ^= x << 13;
  x ^= x >> 7;
  x ^= x << 17;
  state->select_seed = x;
  return x;
}

/* Checks the arguments: 0, or -1 with an exception. */
static int
parse(channel_state *state, PyObject *channels, PyObject *kwargs, int64_t *timeout)
{
  static char *keywords[] = {"timeout", NULL};
  PyObject *seconds = NULL;
  PyObject *none = PyTuple_New(0);
  if (none == NULL) {
    return -1;
  }
  int good = PyArg_ParseTupleAndKeywords(none, kwargs, "|$O:select", keywords, &seconds);
  Py_DECREF(none);
  if (!good || channel_parse_timeout(seconds, timeout) < 0) {
    return -1;
  }
  if (PyTuple_GET_SIZE(channels) == 0) {
    PyErr_SetString(PyExc_ValueError, "select() needs a channel");
    return -1;
  }
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(channels); i++) {
    PyObject *channel = PyTuple_GET_ITEM(channels, i);
    if (!channel_check(state, channel)) {
      PyErr_Format(PyExc_TypeError, "select() takes channels, not %.100s",
                   Py_TYPE(channel)->tp_name);
      return -1;
    }
  }
  return 0;
}

/* NULL with an exception. */
static queue_select *
make_select(PyObject *channels, enum queue_kind kind)
{
  queue_select *s = queue_select_new((size_t)PyTuple_GET_SIZE(channels), kind);
  if (s == NULL) {
    PyErr_NoMemory();
    return NULL;
  }
  for (size_t i = 0; i < s->count; i++) {
    s->arms[i].queue =
        &((channel_object *)PyTuple_GET_ITEM(channels, (Py_ssize_t)i))->channel->to_python;
  }
  return s;
}

PyObject *
channel_select_result(PyObject *channel, message *m)
{
  PyObject *object = channel_decode(((channel_object *)channel)->channel, m);
  if (object == NULL) {
    return NULL;
  }
  PyObject *pair = PyTuple_Pack(2, channel, object);
  Py_DECREF(object);
  return pair;
}

/* --- in a coroutine --- */

size_t
select_first(channel_await *self)
{
  return (size_t)(next_random(self->state) % self->select->count);
}

void
select_clear(channel_await *self)
{
  queue_select_free(self->select);
  self->select = NULL;
  Py_CLEAR(self->channels);
}

PyObject *
channel_select(PyObject *module, PyObject *args, PyObject *kwargs)
{
  channel_state *state = PyModule_GetState(module);
  int64_t timeout;
  if (parse(state, args, kwargs, &timeout) < 0) {
    return NULL;
  }
  queue_select *s = make_select(args, QUEUE_COROUTINE);
  return s == NULL ? NULL : channel_await_new_select(s, args, timeout);
}

/* --- on a thread --- */

/* Queue's lock held, no GIL. */
static int
wake_thread(queue_select *s, queue_laters *laters)
{
  channel_wake_thread(s->owner, laters);
  return 0;
}

/* Sleeps until it has a message: QUEUE_OK, QUEUE_CLOSED, or -1 with an exception. */
static int
sleep_for_message(channel_state *state, queue_select *s, int64_t deadline, message *m, size_t *arm)
{
  thread_wait *wait = s->owner;
  for (;;) {
    int slept;
    Py_BEGIN_ALLOW_THREADS
    slept = thread_wait_sleep(wait, deadline);
    Py_END_ALLOW_THREADS
    if (thread_wait_end(wait)) {
      PyErr_SetString(state->call_cancelled, "the caller is gone or has cancelled the call");
      return -1;
    }
    thread_wait_begin(wait);
    int result = queue_select_claim(s, m, arm);
    if (result != QUEUE_EMPTY) {
      return result;
    }
    if (slept == THREAD_WAIT_TIMEOUT) {
      PyErr_SetString(PyExc_TimeoutError, "no message came in time");
      return -1;
    }
  }
}

/* As sleep_for_message, but looks first. */
static int
select_message(channel_state *state, queue_select *s, int64_t timeout, message *m, size_t *arm)
{
  size_t first = (size_t)(next_random(state) % s->count);
  int result = queue_select_take(s, first, m, arm);
  if (result != QUEUE_EMPTY) {
    return result;
  }
  if (channel_warn_of_loop(state, "select_sync", "select") < 0) {
    return -1;
  }
  thread_wait *wait = thread_wait_current();
  if (wait == NULL) {
    PyErr_NoMemory();
    return -1;
  }
  int64_t deadline = timeout < 0 ? THREAD_WAIT_FOREVER : thread_wait_clock() + timeout;
  s->wake = wake_thread;
  s->owner = wait;
  thread_wait_begin(wait);
  result = queue_select_wait(s, first, m, arm);
  if (result == QUEUE_EMPTY) {
    result = sleep_for_message(state, s, deadline, m, arm);
  }
  thread_wait_end(wait);
  queue_select_cancel(s);
  return result;
}

PyObject *
channel_select_sync(PyObject *module, PyObject *args, PyObject *kwargs)
{
  channel_state *state = PyModule_GetState(module);
  int64_t timeout;
  message m;
  size_t arm;
  if (parse(state, args, kwargs, &timeout) < 0) {
    return NULL;
  }
  queue_select *s = make_select(args, QUEUE_THREAD);
  if (s == NULL) {
    return NULL;
  }
  int result = select_message(state, s, timeout, &m, &arm);
  queue_select_free(s);
  if (result == QUEUE_OK) {
    return channel_select_result(PyTuple_GET_ITEM(args, (Py_ssize_t)arm), &m);
  }
  if (result == QUEUE_CLOSED) {
    PyErr_SetString(state->channel_closed, "all channels are closed");
  }
  return NULL;
}
