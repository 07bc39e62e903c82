/* The type erlang._loop.DatagramTransport: a UDP or Unix datagram endpoint, dispatched in C. */
#include "datagram.h"
#include "transport_type.h"

static const transport_kind datagram_kind = {
    .name = "DatagramTransport",
    .error = "Fatal error on transport",
    .read_error = "Fatal read error on datagram transport",
    .write_error = "Fatal write error on datagram transport",
    .watches = POLLER_READ,
    .read = datagram_read,
    .write_ready = datagram_write_ready,
};

/* The descriptor's address family; AF_UNSPEC leaves everything to the socket's methods. */
static int
family_of(int fd)
{
  int family;
  socklen_t size = sizeof(family);

  return getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &family, &size) < 0 ? AF_UNSPEC : family;
}

static int
datagram_init(datagram *self, PyObject *args, PyObject *kwargs)
{
  static char *keywords[] = {"loop", "sock", "protocol", "address", "waiter", "extra", NULL};
  struct transport_parts parts = {.extra = Py_None, .server = Py_None};
  PyObject *address = Py_None, *waiter = Py_None;
  int truth;

  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOO|OOO:DatagramTransport", keywords, &parts.loop,
                                   &parts.sock, &parts.protocol, &address, &waiter, &parts.extra) ||
      transport_open(&self->base, &datagram_kind, parts) < 0)
    return -1;
  self->family = family_of(self->base.fd);
  truth = PyObject_IsTrue(address);
  if (truth < 0)
    return -1;
  Py_XSETREF(self->address, Py_NewRef(truth ? address : Py_None));
  self->connected = PyDict_GetItemString(self->base.extra, "peername") != Py_None;
  return transport_schedule_start(&self->base, waiter);
}

static PyMethodDef datagram_methods[] = {
    TRANSPORT_METHODS,
    TRANSPORT_BUFFER_METHODS,
    METHOD("sendto", datagram_sendto, METH_FASTCALL | METH_KEYWORDS,
           "Send one datagram, to addr or the peer; never blocks."),
    METHOD("_retry", datagram_retry, METH_NOARGS, ""),
    {NULL, NULL, 0, NULL},
};

static PyMemberDef datagram_members[] = {
    TRANSPORT_MEMBERS,
    {"_address", T_OBJECT, offsetof(datagram, address), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static int
datagram_traverse(datagram *self, visitproc visit, void *arg)
{
  Py_VISIT(self->address);
  for (size_t i = 0; i < self->base.out.count; i++)
    Py_VISIT(self->base.out.chunks[self->base.out.first + i].owner);
  for (int i = 0; i < self->held_count; i++) {
    Py_VISIT(self->held[self->held_first + i].data);
    Py_VISIT(self->held[self->held_first + i].address);
  }
  return transport_traverse(&self->base, visit, arg);
}

static int
datagram_clear(datagram *self)
{
  Py_CLEAR(self->address);
  datagram_drop_held(self);
  address_cache_clear(&self->addresses);
  return transport_clear(&self->base);
}

static PyType_Slot datagram_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("A UDP or Unix datagram endpoint.")},
    {Py_tp_init, datagram_init},
    {Py_tp_dealloc, transport_dealloc},
    {Py_tp_finalize, transport_finalize},
    {Py_tp_traverse, datagram_traverse},
    {Py_tp_clear, datagram_clear},
    {Py_tp_repr, transport_repr},
    {Py_tp_methods, datagram_methods},
    {Py_tp_members, datagram_members},
    {Py_tp_getset, transport_getset},
    {0, NULL},
};

static PyType_Spec datagram_spec = {
    .name = "erlang._loop.DatagramTransport",
    .basicsize = sizeof(datagram),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = datagram_slots,
};

int
datagram_type_init(PyObject *module, transport_state *state)
{
  static const char *const bases[] = {"_FlowControlMixin", "DatagramTransport", NULL};

  return transport_type_new(module, &datagram_spec, bases, &state->datagram_type);
}
