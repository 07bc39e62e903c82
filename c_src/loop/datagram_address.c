/* Addresses of datagrams, between the kernel's form and Python's. */
#include "datagram.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stddef.h>
#include <string.h>
#include <sys/un.h>

static PyObject *
inet_object(const struct sockaddr_in *address)
{
  char host[INET_ADDRSTRLEN];

  if (inet_ntop(AF_INET, &address->sin_addr, host, sizeof(host)) == NULL)
    return PyErr_SetFromErrno(PyExc_OSError);
  return Py_BuildValue("si", host, (int)ntohs(address->sin_port));
}

static PyObject *
inet6_object(const struct sockaddr_in6 *address)
{
  char host[INET6_ADDRSTRLEN];

  if (inet_ntop(AF_INET6, &address->sin6_addr, host, sizeof(host)) == NULL)
    return PyErr_SetFromErrno(PyExc_OSError);
  return Py_BuildValue("siII", host, (int)ntohs(address->sin6_port),
                       (unsigned)ntohl(address->sin6_flowinfo), (unsigned)address->sin6_scope_id);
}

static PyObject *
unix_object(const struct sockaddr_un *address, socklen_t size)
{
  size_t length = size - offsetof(struct sockaddr_un, sun_path);

  if (size <= offsetof(struct sockaddr_un, sun_path))
    return PyUnicode_FromString("");
  /* An abstract name may hold any byte. */
  if (address->sun_path[0] == '\0')
    return PyBytes_FromStringAndSize(address->sun_path, (Py_ssize_t)length);
  return PyUnicode_DecodeFSDefaultAndSize(address->sun_path,
                                          (Py_ssize_t)strnlen(address->sun_path, length));
}

PyObject *
address_new(const struct sockaddr *address, socklen_t size)
{
  if (size == 0)
    Py_RETURN_NONE;
  if (address->sa_family == AF_UNIX)
    return unix_object((const struct sockaddr_un *)(const void *)address, size);
  if (address->sa_family == AF_INET)
    return inet_object((const struct sockaddr_in *)(const void *)address);
  return inet6_object((const struct sockaddr_in6 *)(const void *)address);
}

static struct address_pair *
keep(struct address_cache *cache, PyObject *object, const void *raw, socklen_t size)
{
  struct address_pair *pair = &cache->pairs[cache->next++ % ADDRESSES_KEPT];

  memcpy(pair->raw.bytes, raw, size);
  pair->size = size;
  Py_XSETREF(pair->object, Py_NewRef(object));
  return pair;
}

PyObject *
address_object(struct address_cache *cache, const struct sockaddr *address, socklen_t size)
{
  PyObject *object;

  if (size == 0 || address->sa_family == AF_UNIX)
    return address_new(address, size);
  for (int i = 0; i < ADDRESSES_KEPT; i++) {
    struct address_pair *pair = &cache->pairs[i];

    if (pair->object != NULL && pair->size == size && memcmp(pair->raw.bytes, address, size) == 0)
      return Py_NewRef(pair->object);
  }
  object = address_new(address, size);
  if (object != NULL && size <= sizeof(cache->pairs[0].raw))
    keep(cache, object, address, size);
  return object;
}

/* True when object[index] is an int between 0 and limit, or is not there. */
static bool
number_at(PyObject *object, Py_ssize_t index, unsigned long limit, unsigned long *number)
{
  *number = 0;
  if (index >= PyTuple_GET_SIZE(object))
    return true;
  if (!PyLong_CheckExact(PyTuple_GET_ITEM(object, index)))
    return false;
  *number = PyLong_AsUnsignedLong(PyTuple_GET_ITEM(object, index));
  if (!PyErr_Occurred())
    return *number <= limit;
  PyErr_Clear();
  return false;
}

static const struct address_pair *
parse_inet(struct address_cache *cache, const char *host, unsigned long port, PyObject *object)
{
  struct sockaddr_in raw = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};

  if (PyTuple_GET_SIZE(object) != 2 || inet_pton(AF_INET, host, &raw.sin_addr) != 1)
    return NULL;
  return keep(cache, object, &raw, sizeof(raw));
}

static const struct address_pair *
parse_inet6(struct address_cache *cache, const char *host, unsigned long port, PyObject *object)
{
  struct sockaddr_in6 raw = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port)};
  unsigned long flow, scope;

  if (!number_at(object, 2, 0xfffff, &flow) || !number_at(object, 3, UINT32_MAX, &scope) ||
      inet_pton(AF_INET6, host, &raw.sin6_addr) != 1)
    return NULL;
  raw.sin6_flowinfo = htonl((uint32_t)flow);
  raw.sin6_scope_id = (uint32_t)scope;
  return keep(cache, object, &raw, sizeof(raw));
}

const struct address_pair *
address_raw(struct address_cache *cache, int family, PyObject *object)
{
  unsigned long port;
  const char *host;
  Py_ssize_t length;

  for (int i = 0; i < ADDRESSES_KEPT; i++) {
    if (cache->pairs[i].object == object)
      return &cache->pairs[i];
  }
  if ((family != AF_INET && family != AF_INET6) || !PyTuple_CheckExact(object) ||
      PyTuple_GET_SIZE(object) < 2 || PyTuple_GET_SIZE(object) > 4 ||
      !PyUnicode_CheckExact(PyTuple_GET_ITEM(object, 0)) || !number_at(object, 1, 65535, &port))
    return NULL;
  host = PyUnicode_AsUTF8AndSize(PyTuple_GET_ITEM(object, 0), &length);
  if (host == NULL)
    PyErr_Clear();
  if (host == NULL || strlen(host) != (size_t)length)
    return NULL;
  return family == AF_INET ? parse_inet(cache, host, port, object)
                           : parse_inet6(cache, host, port, object);
}

void
address_cache_clear(struct address_cache *cache)
{
  for (int i = 0; i < ADDRESSES_KEPT; i++)
    Py_CLEAR(cache->pairs[i].object);
}
