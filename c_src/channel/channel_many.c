/* receive_many() and async_receive_many(): what is there, in one go. */
#include "channel_python.h"

/* The next message that is there, as an object; NULL without an exception when there is none, or when it
 * has no Python value: then it stays the first of the queue, for the next receive to tell. */
static PyObject *
next_there(channel_object *self)
{
  queue *q = &self->channel->to_python;
  queue_waiter w = {.kind = QUEUE_THREAD};
  message m;
  if (!queue_hand_next(q, &w)) {
    return NULL;
  }
  PyObject *object = channel_decode_kept(self->channel, &w.handed);
  if (object == NULL) {
    PyErr_Clear();
    queue_cancel(q, &w);
    return NULL;
  }
  queue_claim(q, &w, &m);
  message_release(&m);
  return object;
}

PyObject *
channel_gather(channel_object *self, message *m, Py_ssize_t max)
{
  PyObject *object = channel_decode(self->channel, m);
  if (object == NULL) {
    return NULL;
  }
  PyObject *list = PyList_New(1);
  if (list == NULL) {
    Py_DECREF(object);
    return NULL;
  }
  PyList_SET_ITEM(list, 0, object);
  while (PyList_GET_SIZE(list) < max && (object = next_there(self)) != NULL) {
    int failed = PyList_Append(list, object);
    Py_DECREF(object);
    if (failed < 0) {
      Py_DECREF(list);
      return NULL;
    }
  }
  return list;
}

static int
parse(PyObject *args, PyObject *kwargs, Py_ssize_t *max, int64_t *timeout)
{
  static char *keywords[] = {"max", "timeout", NULL};
  PyObject *seconds = NULL;
  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "n|O:receive_many", keywords, max, &seconds)) {
    return -1;
  }
  if (*max < 1) {
    PyErr_SetString(PyExc_ValueError, "max must be at least 1");
    return -1;
  }
  return channel_parse_timeout(seconds, timeout);
}

PyObject *
channel_receive_many(PyObject *object, PyObject *args, PyObject *kwargs)
{
  channel_object *self = (channel_object *)object;
  Py_ssize_t max;
  int64_t timeout;
  message m;
  if (parse(args, kwargs, &max, &timeout) < 0) {
    return NULL;
  }
  int result = channel_receive_message(self, timeout, &m);
  if (result == QUEUE_OK) {
    return channel_gather(self, &m, max);
  }
  if (result == QUEUE_CLOSED) {
    channel_set_closed(self->state);
  }
  return NULL;
}

PyObject *
channel_async_receive_many(PyObject *self, PyObject *args, PyObject *kwargs)
{
  Py_ssize_t max;
  int64_t timeout;
  if (parse(args, kwargs, &max, &timeout) < 0) {
    return NULL;
  }
  return channel_await_new_many((channel_object *)self, max, timeout);
}
