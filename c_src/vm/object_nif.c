/* Opaque Python objects on the Erlang side: a resource type with one reference each. */
#include "object_nif.h"

#include "../term/handles.h"
#include "../term/nif_encode.h"
#include "object_handle.h"

#include <stdatomic.h>
#include <stdlib.h>

typedef struct object_handle {
  PyObject *object;  /* owned; never changes */
  object_drop *drop; /* made beforehand, so that the destructor cannot fail */
} object_handle;

static ErlNifResourceType *object_type;
static atomic_size_t live_objects;

/* Any thread; no GIL may be taken here. */
static void
object_destroyed(ErlNifEnv *env, void *resource)
{
  (void)env;
  object_handle *handle = resource;
  handles_remove(handle);
  handle->drop->object = handle->object;
  object_drop_later(handle->drop);
  atomic_fetch_sub(&live_objects, 1);
}

int
object_nif_load(ErlNifEnv *env, ErlNifResourceFlags flags)
{
  ErlNifResourceTypeInit init = {.dtor = object_destroyed};
  object_type = enif_open_resource_type_x(env, "beamloop_object", &init, flags, NULL);
  return object_type == NULL ? -1 : nif_encode_register_type(object_type);
}

void *
object_handle_new(PyObject *object)
{
  object_drop *drop = malloc(sizeof(*drop));
  if (drop == NULL) {
    return NULL; /* nothing is left to remember the object with: it leaks */
  }
  object_handle *handle = enif_alloc_resource(object_type, sizeof(*handle));
  if (handle == NULL) {
    drop->object = object;
    object_drop_later(drop);
    return NULL;
  }
  handle->object = object;
  handle->drop = drop;
  atomic_fetch_add(&live_objects, 1);
  if (handles_add(handle, HANDLE_OBJECT) != 0) {
    enif_release_resource(handle); /* which drops the object, later */
    return NULL;
  }
  return handle;
}

PyObject *
object_handle_get(void *handle)
{
  return ((object_handle *)handle)->object;
}

size_t
object_handle_count(void)
{
  return atomic_load(&live_objects);
}
