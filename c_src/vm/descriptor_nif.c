/* Descriptors that are handed to Python, on the Erlang side: a resource, with which goes what Python has
 * not got by then.
 *
 * A socket of Erlang's lives as long as its process wants; a copy made in the process's own NIF call
 * is of that very socket, whoever closes it meanwhile. */
#include "descriptor_nif.h"

#include "atoms_nif.h"
#include "descriptors.h"
#include "emulator_sockets.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

typedef struct descriptor {
  uint64_t number; /* in the table; 0 for none */
} descriptor;

static ErlNifResourceType *descriptor_type;

/* Any thread.  Whether it was in time. */
static int
withdraw(descriptor *held)
{
  int fd;
  int in_time = descriptors_withdraw(held->number, &fd);
  if (fd >= 0) {
    (void)close(fd);
  }
  return in_time;
}

/* Any thread. */
static void
descriptor_destroyed(ErlNifEnv *env, void *object)
{
  (void)env;
  (void)withdraw(object);
}

int
descriptor_nif_load(ErlNifEnv *env, ErlNifResourceFlags flags)
{
  ErlNifResourceTypeInit init = {.dtor = descriptor_destroyed};
  descriptor_type = enif_open_resource_type_x(env, "beamloop_descriptor", &init, flags, NULL);
  return descriptor_type == NULL ? -1 : 0;
}

static ERL_NIF_TERM
make_error(ErlNifEnv *env, const char *name)
{
  return enif_make_tuple2(env, vm_atoms.error, enif_make_atom(env, name));
}

/* Puts the descriptor into the table, and {ok, Descriptor, Number} into *out.  0, or -1 when memory is
 * short. */
static int
offer(ErlNifEnv *env, int fd, int owned, ERL_NIF_TERM *out)
{
  descriptor *held = enif_alloc_resource(descriptor_type, sizeof(*held));
  if (held == NULL) {
    return -1;
  }
  held->number = descriptors_put(fd, owned);
  if (held->number != 0) {
    *out = enif_make_tuple3(env, vm_atoms.ok, enif_make_resource(env, held),
                            enif_make_uint64(env, held->number));
  }
  int result = held->number != 0 ? 0 : -1;
  enif_release_resource(held);
  return result;
}

ERL_NIF_TERM
nif_descriptor_offer(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{ /* (Fd, copy | same): {ok, Descriptor, Number} | {error, ebadf | emfile | enomem | emulator} */
  int fd;
  ERL_NIF_TERM result = 0;
  (void)argc;
  if (!enif_get_int(env, argv[0], &fd)) {
    return enif_make_badarg(env);
  }
  int copies = enif_is_identical(argv[1], enif_make_atom(env, "copy"));
  if (!copies && emulator_sockets_has(fd)) {
    return make_error(env, "emulator");
  }
  if (copies && (fd = fcntl(fd, F_DUPFD_CLOEXEC, 0)) < 0) {
    return make_error(env, errno == EBADF ? "ebadf" : errno == EMFILE ? "emfile" : "enomem");
  }
  if (offer(env, fd, copies, &result) < 0) {
    if (copies) {
      (void)close(fd);
    }
    return make_error(env, "enomem");
  }
  return result;
}

ERL_NIF_TERM
nif_descriptor_withdraw(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{ /* (Descriptor): true, or false when it is Python's already */
  void *held;
  (void)argc;
  if (!enif_get_resource(env, argv[0], descriptor_type, &held)) {
    return enif_make_badarg(env);
  }
  return enif_make_atom(env, withdraw(held) ? "true" : "false");
}
