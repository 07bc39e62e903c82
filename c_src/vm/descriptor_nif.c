/* Copies of descriptors on the Erlang side: a resource that closes what nobody has taken.
 *
 * A socket of Erlang's lives as long as its process wants; a copy made in the process's own NIF call
 * is of that very socket, whoever closes it meanwhile. */
#include "descriptor_nif.h"

#include "atoms_nif.h"
#include "descriptors.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

typedef struct descriptor {
  uint64_t number; /* in the table; 0 for none */
} descriptor;

static ErlNifResourceType *descriptor_type;

/* Any thread. */
static void
descriptor_destroyed(ErlNifEnv *env, void *object)
{
  (void)env;
  descriptor *held = object;
  int fd = descriptors_take(held->number);
  if (fd >= 0) {
    (void)close(fd);
  }
}

int
descriptor_nif_load(ErlNifEnv *env, ErlNifResourceFlags flags)
{
  ErlNifResourceTypeInit init = {.dtor = descriptor_destroyed};
  descriptor_type = enif_open_resource_type_x(env, "beamloop_descriptor", &init, flags, NULL);
  return descriptor_type == NULL ? -1 : 0;
}

static ERL_NIF_TERM
make_error(ErlNifEnv *env, int error)
{
  const char *name = error == EBADF ? "ebadf" : error == EMFILE ? "emfile" : "enomem";
  return enif_make_tuple2(env, vm_atoms.error, enif_make_atom(env, name));
}

ERL_NIF_TERM
nif_descriptor_dup(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{ /* (Fd): {ok, Descriptor, Number} | {error, ebadf | emfile | enomem}; closed with Descriptor unless taken */
  int fd;
  (void)argc;
  if (!enif_get_int(env, argv[0], &fd)) {
    return enif_make_badarg(env);
  }
  descriptor *held = enif_alloc_resource(descriptor_type, sizeof(*held));
  if (held == NULL) {
    return make_error(env, ENOMEM);
  }
  held->number = 0;
  int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
  if (copy < 0) {
    int error = errno;
    enif_release_resource(held);
    return make_error(env, error);
  }
  held->number = descriptors_put(copy);
  if (held->number == 0) {
    (void)close(copy);
    enif_release_resource(held);
    return make_error(env, ENOMEM);
  }
  ERL_NIF_TERM term = enif_make_resource(env, held);
  ERL_NIF_TERM number = enif_make_uint64(env, held->number);
  enif_release_resource(held);
  return enif_make_tuple3(env, vm_atoms.ok, term, number);
}
