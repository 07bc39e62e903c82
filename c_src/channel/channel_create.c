/* Channel(...): of a ChannelRef, or a new one with limits of its own. */
#include "channel_python.h"

#define READ_LIMIT 65536 /* asyncio's */

static int
set_option_error(const char *name, const char *what)
{
  PyErr_Format(PyExc_ValueError, "%s must be None or an integer %s", name, what);
  return -1;
}

/* None (or nothing) for no limit, or an integer from least on. */
static int
parse_limit(PyObject *value, const char *name, size_t least, size_t *out)
{
  *out = QUEUE_UNBOUNDED;
  if (value == NULL || value == Py_None) {
    return 0;
  }
  PyObject *number = PyNumber_Index(value);
  if (number == NULL) {
    return -1;
  }
  int overflow;
  long long parsed = PyLong_AsLongLongAndOverflow(number, &overflow);
  Py_DECREF(number);
  if (overflow < 0 || (overflow == 0 && (parsed < 0 || (size_t)parsed < least))) {
    return set_option_error(name, least > 0 ? "from 1 on" : "from 0 on");
  }
  if (overflow == 0) {
    *out = (size_t)parsed;
  }
  return 0;
}

/* The rules of py_channel:new/1. */
static int
parse_limits(PyObject *const options[4], queue_limits *limits)
{
  if (parse_limit(options[0], "max_size", 1, &limits->max_size) < 0 ||
      parse_limit(options[1], "max_messages", 1, &limits->max_messages) < 0 ||
      parse_limit(options[2], "high_watermark", 1, &limits->high_watermark) < 0 ||
      parse_limit(options[3], "low_watermark", 0, &limits->low_watermark) < 0) {
    return -1;
  }
  if (limits->low_watermark == QUEUE_UNBOUNDED && limits->high_watermark != QUEUE_UNBOUNDED) {
    limits->low_watermark = limits->high_watermark / 2;
  }
  if (limits->low_watermark != QUEUE_UNBOUNDED &&
      (limits->low_watermark >= limits->high_watermark ||
       limits->low_watermark >= limits->max_size)) {
    PyErr_SetString(PyExc_ValueError,
                    "low_watermark must be less than high_watermark and max_size");
    return -1;
  }
  return 0;
}

/* "bytes" or "str". */
static int
parse_binaries(PyObject *value, int *as_str)
{
  *as_str = 0;
  if (value == NULL || value == Py_None) {
    return 0;
  }
  if (PyUnicode_Check(value)) {
    *as_str = PyUnicode_CompareWithASCIIString(value, "str") == 0;
    if (*as_str || PyUnicode_CompareWithASCIIString(value, "bytes") == 0) {
      return 0;
    }
  }
  PyErr_SetString(PyExc_ValueError, "binaries must be 'bytes' or 'str'");
  return -1;
}

/* A new channel with one count. */
static channel *
create(PyObject *const options[4], PyObject *binaries, int bytes)
{
  queue_limits limits;
  int as_str;
  if (parse_limits(options, &limits) < 0 || parse_binaries(binaries, &as_str) < 0) {
    return NULL;
  }
  channel *c = channel_create(&limits, bytes);
  if (c == NULL) {
    PyErr_NoMemory();
    return NULL;
  }
  c->binaries_as_str = as_str;
  return c;
}

/* That of a ChannelRef, with one count more. */
static channel *
channel_of_ref(channel_state *state, PyObject *ref, int options_given, int bytes)
{
  channel_handle *handle = channel_ref_resource(state, ref);
  if (handle == NULL) {
    PyErr_Format(PyExc_TypeError, "%s() takes an erlang.ChannelRef, not %.100s",
                 bytes ? "ByteChannel" : "Channel", Py_TYPE(ref)->tp_name);
    return NULL;
  }
  if (handle->channel->bytes != bytes) {
    PyErr_SetString(PyExc_TypeError, bytes ? "this is a channel of terms: Channel() takes it"
                                           : "this is a byte channel: ByteChannel() takes it");
    return NULL;
  }
  if (options_given) {
    PyErr_SetString(PyExc_TypeError, "only a new channel takes limits and binaries");
    return NULL;
  }
  channel_incref(handle->channel);
  return handle->channel;
}

/* The object of the channel; takes over its count.  c may be NULL, with an exception. */
static PyObject *
new_object(PyTypeObject *type, channel_state *state, channel *c, int poll)
{
  if (c == NULL) {
    return NULL;
  }
  channel_object *self = (channel_object *)type->tp_alloc(type, 0);
  if (self == NULL) {
    channel_decref(c);
    return NULL;
  }
  self->state = state;
  self->channel = c;
  self->poll = poll;
  return (PyObject *)self;
}

PyObject *
channel_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
  static char *keywords[] = {
      "ref",           "poll",     "max_size", "max_messages", "high_watermark",
      "low_watermark", "binaries", NULL};
  PyObject *ref = NULL, *options[4] = {NULL}, *binaries = NULL;
  int poll = 0;
  channel_state *state = channel_state_of(type);
  if (state == NULL || channel_state_open(state) < 0 ||
      !PyArg_ParseTupleAndKeywords(args, kwargs, "|O$pOOOOO:Channel", keywords, &ref, &poll,
                                   &options[0], &options[1], &options[2], &options[3], &binaries)) {
    return NULL;
  }
  int options_given = options[0] || options[1] || options[2] || options[3] || binaries;
  channel *c =
      ref == NULL ? create(options, binaries, 0) : channel_of_ref(state, ref, options_given, 0);
  return new_object(type, state, c, poll);
}

PyObject *
byte_channel_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
  static char *keywords[] = {"ref",           "poll",  "max_size", "max_messages", "high_watermark",
                             "low_watermark", "limit", NULL};
  PyObject *ref = NULL, *options[4] = {NULL};
  int poll = 0;
  Py_ssize_t limit = READ_LIMIT;
  channel_state *state = channel_state_of(type);
  if (state == NULL || channel_state_open(state) < 0 ||
      !PyArg_ParseTupleAndKeywords(args, kwargs, "|O$pOOOOn:ByteChannel", keywords, &ref, &poll,
                                   &options[0], &options[1], &options[2], &options[3], &limit)) {
    return NULL;
  }
  if (limit <= 0) {
    PyErr_SetString(PyExc_ValueError, "limit must be at least 1");
    return NULL;
  }
  int options_given = options[0] || options[1] || options[2] || options[3];
  channel *c =
      ref == NULL ? create(options, NULL, 1) : channel_of_ref(state, ref, options_given, 1);
  channel_object *self = (channel_object *)new_object(type, state, c, poll);
  if (self != NULL) {
    self->limit = (size_t)limit;
  }
  return (PyObject *)self;
}
