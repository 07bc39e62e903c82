/* The cork: what is written inside one callback leaves in one system call when that returns.
 *
 * What a protocol writes to its own transport while it is given data leaves when it returns; what
 * anything else writes, at the end of that batch of ready callbacks, before the loop waits.  Outside
 * the running loop, beyond a limit, and wherever somebody could tell the difference (the size of the
 * buffer is asked for, the transport is closed), it leaves at once. */
#include "transport.h"

#define CORK_MAX (64 * 1024)

bool
stream_may_cork(const stream *self, size_t size)
{
  size_t limit = self->high_water < CORK_MAX ? (size_t)self->high_water : CORK_MAX;

  if (size > limit || self->loop == NULL)
    return false;
  return self->in_callback || (PyObject *)self->loop == loop_running();
}

static int
list_append(struct corked_list *list, PyObject *transport)
{
  if (list->len == list->capacity) {
    size_t capacity = list->capacity ? list->capacity * 2 : 16;
    PyObject **items = PyMem_Realloc(list->items, capacity * sizeof(*items));

    if (items == NULL) {
      PyErr_NoMemory();
      return -1;
    }
    list->items = items;
    list->capacity = capacity;
  }
  list->items[list->len++] = Py_NewRef(transport);
  return 0;
}

int
stream_cork(stream *self)
{
  if (!self->in_callback) {
    /* Should the kernel not take all, the protocol resumes in the writer's context. */
    transport_take_context(self, &self->write_context);
    if (list_append(&self->loop->corked, (PyObject *)self) < 0) {
      /* It has been taken already, and nobody would send it. */
      PyErr_Clear();
      return stream_flush(self);
    }
  }
  self->corked = true;
  return 0;
}

/* Sends what a transport holds back, in the context of who wrote it. */
static int
uncork(native_loop *loop, stream *self)
{
  PyObject *context, *message;
  int rc;

  if (!self->corked || self->write_context == NULL)
    return 0;
  context = Py_NewRef(self->write_context);
  rc = PyContext_Enter(context);
  if (rc == 0) {
    rc = stream_flush(self);
    if (PyContext_Exit(context) < 0)
      rc = -1;
  }
  Py_DECREF(context);
  if (rc == 0)
    return 0;
  message = PyUnicode_FromString("Exception while sending what was written");
  rc = message == NULL ? -1 : loop_report_exception(loop, message, NULL);
  Py_XDECREF(message);
  return rc;
}

int
streams_uncork(native_loop *loop)
{
  struct corked_list list = loop->corked;
  PyObject *type, *value, *traceback;
  int rc = 0;

  loop->corked = (struct corked_list){0};
  PyErr_Fetch(&type, &value, &traceback);
  for (size_t i = 0; i < list.len; i++) {
    if (uncork(loop, (stream *)list.items[i]) < 0) {
      rc = -1;
      if (type != NULL)
        PyErr_WriteUnraisable(list.items[i]);
    }
    Py_DECREF(list.items[i]);
  }
  if (type != NULL) {
    PyErr_Restore(type, value, traceback);
    rc = -1;
  }
  list.len = 0;
  if (loop->corked.items == NULL)
    loop->corked = list;
  else
    PyMem_Free(list.items);
  return rc;
}
