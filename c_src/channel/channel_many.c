/* receive_many() and async_receive_many(): what is there, in one go. */
#include "channel_python.h"

#define BATCH 64 /* messages at once, so that the queue's lock is not taken for each */

/* Appends the messages as objects: how many it could. */
static size_t
append_objects(channel *c, PyObject *list, const message *batch, size_t count)
{
  for (size_t i = 0; i < count; i++) {
    PyObject *object = channel_decode_kept(c, &batch[i]);
    int failed = object == NULL || PyList_Append(list, object) < 0;
    Py_XDECREF(object);
    if (failed) {
      PyErr_Clear();
      return i;
    }
  }
  return count;
}

/* Appends what is there, at most max.  What has no Python value stays the first of the queue, for the
 * next receive to tell. */
static void
append_there(channel *c, PyObject *list, size_t max)
{
  message batch[BATCH];
  size_t count, good;
  do {
    count = queue_hand_some(&c->to_python, batch, max < BATCH ? max : BATCH);
    if (count == 0) {
      return;
    }
    good = append_objects(c, list, batch, count);
    queue_claim_some(&c->to_python, batch, good, count);
    for (size_t i = 0; i < good; i++) {
      message_release(&batch[i]);
    }
    max -= count;
  } while (good == count && max > 0);
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
  if (max > 1) {
    append_there(self->channel, list, (size_t)max - 1);
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
    channel_set_closed(self);
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
