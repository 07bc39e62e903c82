/* erlang.byte_channel.ByteChannel: what a channel of bytes has instead of terms. */
#include "channel_python.h"

#include <structmember.h>

#include "byte_read.h"
#include "channel_outgoing.h"

PyObject *
byte_channel_decode(const message *m)
{
  const message_attachment *a = m->attachment;
  if (a == NULL) {
    return PyBytes_FromStringAndSize((const char *)m->data, (Py_ssize_t)m->size);
  }
  PyObject *bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)m->size);
  if (bytes == NULL) {
    return NULL;
  }
  char *end = PyBytes_AS_STRING(bytes);
  for (size_t i = 0; i < a->part_count; i++) {
    memcpy(end, a->parts[i].data, a->parts[i].size);
    end += a->parts[i].size;
  }
  return bytes;
}

/* --- arguments --- */

int
byte_parse_timeout(const char *name, PyObject *const *args, Py_ssize_t count, PyObject *names,
                   Py_ssize_t needed, int64_t *timeout)
{
  PyObject *given = NULL;
  Py_ssize_t named = names == NULL ? 0 : PyTuple_GET_SIZE(names);
  if (count < needed || count + named > needed + 1) {
    PyErr_Format(PyExc_TypeError, "%s() takes %zd to %zd arguments (%zd given)", name, needed,
                 needed + 1, count + named);
    return -1;
  }
  if (named > 0 && PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(names, 0), "timeout") != 0) {
    PyErr_Format(PyExc_TypeError, "%s() got an unexpected keyword argument %R", name,
                 PyTuple_GET_ITEM(names, 0));
    return -1;
  }
  if (count + named > needed) {
    given = args[needed];
  }
  return channel_parse_timeout(given, timeout);
}

/* --- receiving --- */

/* The message as an object, or what there is instead:  NULL with an exception. */
static PyObject *
received(channel_object *self, int result, message *m)
{
  if (result == QUEUE_OK) {
    return channel_decode(self->channel, m);
  }
  if (result == QUEUE_CLOSED) {
    channel_set_closed(self);
  }
  return NULL;
}

static PyObject *
receive_bytes(PyObject *object, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
  channel_object *self = (channel_object *)object;
  int64_t timeout;
  message m;
  if (byte_parse_timeout("receive_bytes", args, count, names, 0, &timeout) < 0) {
    return NULL;
  }
  return received(self, channel_receive_message(self, timeout, &m), &m);
}

static PyObject *
try_receive_bytes(PyObject *object, PyObject *Py_UNUSED(ignored))
{
  channel_object *self = (channel_object *)object;
  message m;
  int result = queue_take(&self->channel->to_python, &m);
  if (result == QUEUE_EMPTY) {
    Py_RETURN_NONE;
  }
  return received(self, result, &m);
}

static PyObject *
async_receive_bytes(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
  int64_t timeout;
  if (byte_parse_timeout("async_receive_bytes", args, count, names, 0, &timeout) < 0) {
    return NULL;
  }
  return channel_await_new((channel_object *)self, AWAIT_RECEIVE, timeout);
}

/* --- sending --- */

/* Sends what out holds and empties it: None, or NULL with an exception. */
static PyObject *
send_out(channel_object *self, channel_outgoing *out, int64_t timeout)
{
  int result = channel_send_on_thread(self, out, timeout);
  outgoing_clear(out);
  if (result == QUEUE_OK) {
    Py_RETURN_NONE;
  }
  return result < 0 ? NULL : channel_set_send_error(self, result);
}

static PyObject *
send_bytes(PyObject *object, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
  channel_object *self = (channel_object *)object;
  channel_outgoing out = {.size = 0};
  Py_buffer view;
  int64_t timeout;
  PyObject *answer = NULL;
  if (byte_parse_timeout("send_bytes", args, count, names, 1, &timeout) < 0 ||
      PyObject_GetBuffer(args[0], &view, PyBUF_SIMPLE) < 0) {
    return NULL;
  }
  if (outgoing_bytes(&out, view.buf, (size_t)view.len, 0) == 0) {
    answer = send_out(self, &out, timeout);
  }
  PyBuffer_Release(&view);
  return answer;
}

static PyObject *
try_send_bytes(PyObject *object, PyObject *data)
{
  channel_object *self = (channel_object *)object;
  channel_outgoing out = {.size = 0};
  Py_buffer view;
  if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0) {
    return NULL;
  }
  int result = -1;
  if (outgoing_bytes(&out, view.buf, (size_t)view.len, 0) == 0) {
    result = outgoing_send(&out, self->channel);
    outgoing_clear(&out);
  }
  PyBuffer_Release(&view);
  if (result == QUEUE_OK || result == QUEUE_BUSY) {
    return PyBool_FromLong(result == QUEUE_OK);
  }
  return result < 0 ? NULL : channel_set_send_error(self, result);
}

static PyObject *
async_send_bytes(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
  channel_outgoing out = {.size = 0};
  Py_buffer view;
  int64_t timeout;
  if (byte_parse_timeout("async_send_bytes", args, count, names, 1, &timeout) < 0 ||
      PyObject_GetBuffer(args[0], &view, PyBUF_SIMPLE) < 0) {
    return NULL;
  }
  int failed = outgoing_bytes(&out, view.buf, (size_t)view.len, 1);
  PyBuffer_Release(&view);
  return failed ? NULL : channel_await_new_send((channel_object *)self, &out, timeout);
}

static PyObject *
async_drained(PyObject *self, PyObject *mark)
{
  size_t size = PyLong_AsSize_t(mark);
  if (size == (size_t)-1 && PyErr_Occurred()) {
    return NULL;
  }
  return channel_await_new_drained((channel_object *)self, size);
}

static PyObject *
get_unsent(PyObject *self, void *Py_UNUSED(closure))
{
  queue_info info;
  queue_get_info(&((channel_object *)self)->channel->to_erlang, &info);
  return PyLong_FromSize_t(info.size);
}

static PyObject *
get_max_size(PyObject *self, void *Py_UNUSED(closure))
{
  size_t size = ((channel_object *)self)->channel->to_erlang.limits.max_size;
  if (size == QUEUE_UNBOUNDED) {
    Py_RETURN_NONE;
  }
  return PyLong_FromSize_t(size);
}

/* --- the type --- */

#define KEYWORDS (METH_FASTCALL | METH_KEYWORDS)
#define METHOD(name, function, flags, doc)                                                         \
  {                                                                                                \
    name, (PyCFunction)(void (*)(void))function, flags, doc                                        \
  }

static PyMethodDef byte_channel_methods[] = {
    METHOD(
        "receive_bytes", receive_bytes, KEYWORDS,
        "receive_bytes(timeout=None)\n\nThe next chunk, as bytes; waits for it without the GIL.  "
        "ByteChannelClosed\nwhen the channel is closed and drained; TimeoutError after timeout "
        "seconds."),
    METHOD("try_receive_bytes", try_receive_bytes, METH_NOARGS,
           "try_receive_bytes()\n\nThe next chunk, or None when none is there.  ByteChannelClosed "
           "when the channel\nis closed and drained."),
    METHOD("async_receive_bytes", async_receive_bytes, KEYWORDS,
           "async_receive_bytes(timeout=None)\n\nAwait it for the next chunk; raises as "
           "receive_bytes().  Cancelling loses nothing."),
    METHOD(
        "receive_into", byte_receive_into, KEYWORDS,
        "receive_into(buffer, timeout=None)\n\nReceives a chunk into the buffer; how many bytes.  "
        "What does not fit is the next\nchunk.  Raises as receive_bytes()."),
    METHOD("async_receive_into", byte_async_receive_into, KEYWORDS,
           "async_receive_into(buffer, timeout=None)\n\nAwait it for what receive_into() returns.  "
           "Cancelling loses nothing."),
    METHOD("receive_view", byte_receive_view, KEYWORDS,
           "receive_view(timeout=None)\n\nThe next chunk as a read-only memoryview; a large one is "
           "the Erlang binary itself, which\nis kept as long as the view is.  Raises as "
           "receive_bytes()."),
    METHOD("async_receive_view", byte_async_receive_view, KEYWORDS,
           "async_receive_view(timeout=None)\n\nAwait it for what receive_view() returns.  "
           "Cancelling loses nothing."),
    METHOD(
        "readexactly", byte_readexactly, KEYWORDS,
        "readexactly(n, timeout=None)\n\nThe next n bytes, of as many chunks as it takes.  "
        "asyncio.IncompleteReadError, with\nwhat there was, when the channel is closed before; "
        "TimeoutError loses nothing.  One thread\nor coroutine may read at a time: RuntimeError."),
    METHOD("async_readexactly", byte_async_readexactly, KEYWORDS,
           "async_readexactly(n, timeout=None)\n\nAwait it for what readexactly() returns.  "
           "Cancelling loses nothing."),
    METHOD(
        "readuntil", byte_readuntil, KEYWORDS,
        "readuntil(separator=b'\\n', timeout=None)\n\nThe bytes up to the separator and with it.  "
        "asyncio.IncompleteReadError, with what\nthere was, when the channel is closed before; "
        "asyncio.LimitOverrunError when there is no\nseparator within the limit, and nothing is "
        "taken then."),
    METHOD("async_readuntil", byte_async_readuntil, KEYWORDS,
           "async_readuntil(separator=b'\\n', timeout=None)\n\nAwait it for what readuntil() "
           "returns.  Cancelling loses nothing."),
    METHOD("readline", byte_readline, KEYWORDS,
           "readline(timeout=None)\n\nThe next line with its \\n; what is left when the channel is "
           "closed, b'' at its end.\nValueError for a line that is longer than the limit, which is "
           "gone then, as with asyncio."),
    METHOD(
        "async_readline", byte_async_readline, KEYWORDS,
        "async_readline(timeout=None)\n\nAwait it for what readline() returns.  Cancelling loses "
        "nothing."),
    METHOD("send_bytes", send_bytes, KEYWORDS,
           "send_bytes(data, timeout=None)\n\nSends a chunk to Erlang: bytes or another contiguous "
           "buffer.  Waits for room without\nthe GIL, unless an event loop runs on this thread, "
           "which waiting would stop: then ChannelFull.\nByteChannelClosed when the channel is "
           "closed; MessageTooLarge when there will never be room;\nTimeoutError after timeout "
           "seconds.  What raises was not sent."),
    METHOD("try_send_bytes", try_send_bytes, METH_O,
           "try_send_bytes(data)\n\nSends a chunk to Erlang if there is room, and says whether.  "
           "Raises as send_bytes()."),
    METHOD("async_send_bytes", async_send_bytes, KEYWORDS,
           "async_send_bytes(data, timeout=None)\n\nAwait it to send a chunk to Erlang as soon as "
           "there is room; raises as send_bytes().\nThe data is copied at once.  Cancelled, it was "
           "not sent."),
    METHOD(
        "_async_drained", async_drained, METH_O,
        "_async_drained(size)\n\nAwait it until no more than size bytes wait for Erlang, or raise "
        "ByteChannelClosed\nwhen the direction is closed with more than that in it."),
    METHOD("close", channel_close_method, METH_NOARGS,
           "close()\n\nCloses both directions: refuses further chunks; what is queued can still be "
           "received.\nIdempotent."),
    METHOD("close_write", channel_close_write_method, METH_NOARGS,
           "close_write()\n\nCloses the direction to Erlang only.  Idempotent."),
    METHOD("_channel_wait", channel_wait_method, METH_VARARGS,
           "_channel_wait(callback_id, loop)\n\nAs Channel._channel_wait()."),
    METHOD("__enter__", channel_enter, METH_NOARGS, NULL),
    METHOD("__exit__", channel_exit, METH_VARARGS, NULL),
    METHOD("__aenter__", channel_aenter, METH_NOARGS, NULL),
    METHOD("__aexit__", channel_aexit, METH_VARARGS, NULL),
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef byte_channel_getset[] = {
    {"closed", channel_get_closed, NULL,
     "Whether the direction to Python is closed, from either side.", NULL},
    {"unsent", get_unsent, NULL, "Bytes that were sent and that Erlang has not received yet.",
     NULL},
    {"max_size", get_max_size, NULL, "The largest chunk that fits, in bytes, or None.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef byte_channel_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(channel_object, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot byte_channel_slots[] = {
    {Py_tp_doc,
     "ByteChannel(ref, *, poll=False, limit=65536)\n"
     "ByteChannel(*, max_size=None, max_messages=None, high_watermark=None, low_watermark=None,\n"
     "            poll=False, limit=65536)\n\n"
     "Of the byte channel that ref, an erlang.ChannelRef, names; or of a new one, with the "
     "options\n"
     "of py_byte_channel:new/1.  Sent to Erlang it is the same channel there.\n\n"
     "Iterating over it, or `async for`, takes chunks until it is closed and drained.  Boundaries\n"
     "are kept; an empty chunk is a chunk.  Any number of threads and coroutines may receive and\n"
     "send; each chunk reaches one receiver.  poll asks for polling where a coroutine waits on a\n"
     "foreign event loop.  limit bounds what readuntil() and readline() look through, in bytes."},
    {Py_tp_new, byte_channel_new},
    {Py_tp_dealloc, channel_dealloc},
    {Py_tp_repr, channel_repr},
    {Py_tp_hash, channel_hash},
    {Py_tp_richcompare, channel_compare},
    {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, channel_iternext},
    {Py_am_aiter, PyObject_SelfIter},
    {Py_am_anext, channel_anext},
    {Py_sq_length, channel_length},
    {Py_nb_bool, channel_bool},
    {Py_tp_methods, byte_channel_methods},
    {Py_tp_getset, byte_channel_getset},
    {Py_tp_members, byte_channel_members},
    {0, NULL},
};

PyType_Spec byte_channel_type_spec = {
    .name = "erlang.byte_channel.ByteChannel",
    .basicsize = sizeof(channel_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .slots = byte_channel_slots,
};
