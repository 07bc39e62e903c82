/* The type erlang.reactor.Protocol: what an application derives its protocols from. */
#include "reactor.h"

#include <errno.h>

#define READ_MOST (1024 * 1024) /* bytes that one read() gives */

/* The connection; NULL with an exception when there is none, or when this is not its thread. */
static connection *
connected(reactor_protocol *self, const char *method)
{
  connection *served = self->connection;
  unsigned long thread = PyThread_get_thread_ident();
  native_loop *loop;

  if (served == NULL) {
    PyErr_Format(PyExc_ConnectionError, "%s() without a connection", method);
    return NULL;
  }
  loop = served->reactor->loop;
  /* A loop that is driven by hand does not run, but calls. */
  if (served->in_callback ? served->thread_id != thread
                          : loop->running && loop->thread_id != thread) {
    PyErr_Format(PyExc_RuntimeError, "%s() on another thread than the loop's", method);
    return NULL;
  }
  return served;
}

static PyObject *
none_if(int rc)
{
  if (rc < 0)
    return NULL;
  Py_RETURN_NONE;
}

/* --- what a protocol calls --------------------------------------------------------------------- */

static PyObject *
protocol_write(reactor_protocol *self, PyObject *data)
{
  connection *served = connected(self, "write");
  Py_ssize_t size;

  if (served == NULL)
    return NULL;
  if (served->shut) {
    PyErr_SetString(PyExc_ConnectionError, "write() after the connection's end");
    return NULL;
  }
  size = connection_write(served, data);
  return size < 0 ? NULL : PyLong_FromSsize_t(size);
}

static PyObject *
protocol_read(reactor_protocol *self, PyObject *const *args, Py_ssize_t nargs)
{
  connection *served;
  Py_ssize_t size = 65536;

  if (nargs > 1) {
    PyErr_Format(PyExc_TypeError, "read() takes at most 1 argument (%zd given)", nargs);
    return NULL;
  }
  /* An __index__ may do anything, and end the connection: it comes first. */
  if (nargs == 1)
    size = PyNumber_AsSsize_t(args[0], PyExc_OverflowError);
  if (size < 0) {
    if (!PyErr_Occurred())
      PyErr_SetString(PyExc_ValueError, "read() of a negative size");
    return NULL;
  }
  served = connected(self, "read");
  if (served == NULL)
    return NULL;
  if (served->lost) {
    PyErr_SetString(PyExc_ConnectionError, "read() after the connection's end");
    return NULL;
  }
  if (served->reserved)
    /* What comes first has not come yet. */
    Py_RETURN_NONE;
  if (served->early != NULL) {
    PyObject *early = served->early;
    PyObject *first = PySequence_GetSlice(early, 0, size);

    if (first != NULL && PyBytes_GET_SIZE(first) < PyBytes_GET_SIZE(early)) {
      served->early = PySequence_GetSlice(early, size, PyBytes_GET_SIZE(early));
      if (served->early == NULL) {
        served->early = early;
        Py_DECREF(first);
        return NULL;
      }
      Py_DECREF(early);
    } else if (first != NULL) {
      Py_CLEAR(served->early);
    }
    return first;
  }
  if (size > READ_MOST)
    size = READ_MOST;
  return connection_read(served, size);
}

static PyObject *
protocol_close(reactor_protocol *self, PyObject *Py_UNUSED(ignored))
{
  if (self->connection == NULL)
    Py_RETURN_NONE;
  if (connected(self, "close") == NULL)
    return NULL;
  return none_if(connection_close(self->connection));
}

static PyObject *
protocol_abort(reactor_protocol *self, PyObject *Py_UNUSED(ignored))
{
  if (self->connection == NULL)
    Py_RETURN_NONE;
  if (connected(self, "abort") == NULL)
    return NULL;
  self->connection->shut = true;
  return none_if(connection_abort(self->connection, NULL));
}

static PyObject *
protocol_pause_reading(reactor_protocol *self, PyObject *Py_UNUSED(ignored))
{
  if (self->connection == NULL)
    Py_RETURN_NONE;
  if (connected(self, "pause_reading") == NULL)
    return NULL;
  self->connection->paused = true;
  Py_RETURN_NONE;
}

static PyObject *
protocol_resume_reading(reactor_protocol *self, PyObject *Py_UNUSED(ignored))
{
  if (self->connection == NULL)
    Py_RETURN_NONE;
  if (connected(self, "resume_reading") == NULL)
    return NULL;
  self->connection->paused = false;
  return none_if(connection_schedule(self->connection));
}

static PyObject *
protocol_is_closing(reactor_protocol *self, PyObject *Py_UNUSED(ignored))
{
  connection *served = self->connection;

  return PyBool_FromLong(served == NULL || served->closing || served->lost);
}

static PyObject *
protocol_fileno(reactor_protocol *self, PyObject *Py_UNUSED(ignored))
{
  return PyLong_FromLong(self->connection == NULL ? -1 : self->connection->fd);
}

static PyObject *
protocol_get_write_buffer_size(reactor_protocol *self, PyObject *Py_UNUSED(ignored))
{
  connection *served = self->connection;
  size_t size = 0;

  if (served != NULL)
    size = served->out.bytes;
  if (served != NULL && served->reactor->gather.owner == served)
    size += served->reactor->gather.bytes;
  return PyLong_FromSize_t(size);
}

/* --- what is called, unless the application overrides it --------------------------------------- */

static PyObject *
protocol_connection_made(PyObject *Py_UNUSED(self), PyObject *const *Py_UNUSED(args),
                         Py_ssize_t nargs)
{
  if (nargs == 2)
    Py_RETURN_NONE;
  return PyErr_Format(PyExc_TypeError, "connection_made() takes 2 arguments (%zd given)", nargs);
}

static PyObject *
protocol_data_received(PyObject *self, PyObject *Py_UNUSED(data))
{
  return PyErr_Format(PyExc_NotImplementedError, "%s has no data_received()",
                      _PyType_Name(Py_TYPE(self)));
}

static PyObject *
protocol_does_nothing(PyObject *Py_UNUSED(self), PyObject *Py_UNUSED(argument))
{
  Py_RETURN_NONE;
}

#define METHOD(name, function, flags, doc)                                                         \
  {                                                                                                \
    name, (PyCFunction)(void (*)(void))function, flags, PyDoc_STR(doc)                             \
  }

static PyMethodDef protocol_methods[] = {
    METHOD("connection_made", protocol_connection_made, METH_FASTCALL,
           "connection_made($self, fd, info)\n--\n\nThe descriptor is served from now on; info is "
           "what came with it.  Returns an action."),
    METHOD("data_received", protocol_data_received, METH_O,
           "data_received($self, data)\n--\n\nData, a read-only memoryview, has come.  Returns an "
           "action."),
    METHOD("eof_received", protocol_does_nothing, METH_NOARGS,
           "The peer has ended its side.  Unless an action says otherwise the connection closes."),
    METHOD("write_ready", protocol_does_nothing, METH_NOARGS,
           "All that was written has left, and there is room.  Returns an action."),
    METHOD("connection_lost", protocol_does_nothing, METH_O,
           "connection_lost($self, exc)\n--\n\nThe last call: the connection ended, by the "
           "exception exc or in order (None)."),
    METHOD("write", protocol_write, METH_O,
           "write($self, data, /)\n--\n\nSend data, any buffer; never blocks.  Its size: all is "
           "taken.  ConnectionError after the end."),
    METHOD("read", protocol_read, METH_FASTCALL,
           "read($self, n=65536, /)\n--\n\nReceive at most n bytes now, and never more than 1 MB: "
           "b'' at the end of the stream, None when nothing has come."),
    METHOD("close", protocol_close, METH_NOARGS, "Close once all is sent; nothing is read."),
    METHOD("abort", protocol_abort, METH_NOARGS, "Close at once; what is not sent is lost."),
    METHOD("pause_reading", protocol_pause_reading, METH_NOARGS, "Receive nothing for now."),
    METHOD("resume_reading", protocol_resume_reading, METH_NOARGS,
           "Receive again, after pause_reading() or the action async_pending."),
    METHOD("is_closing", protocol_is_closing, METH_NOARGS,
           "True unless connected and not closing."),
    METHOD("fileno", protocol_fileno, METH_NOARGS, "The descriptor; -1 without a connection."),
    METHOD("get_write_buffer_size", protocol_get_write_buffer_size, METH_NOARGS,
           "How many bytes the kernel has not taken yet."),
    {NULL, NULL, 0, NULL},
};

static PyType_Slot protocol_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("The protocol of one descriptor: derive from it.")},
    {Py_tp_methods, protocol_methods},
    {0, NULL},
};

PyType_Spec reactor_protocol_spec = {
    .name = "erlang.reactor.Protocol",
    .basicsize = sizeof(reactor_protocol),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .slots = protocol_slots,
};
