#include "handle_bundle_nif.h"

#include "handle_bundle.h"
#include "handles.h"
#include "nif_terms.h"

typedef struct bundle {
  size_t count;
  void *resources[]; /* one count each */
} bundle;

static ErlNifResourceType *bundle_type;

static void
bundle_destroyed(ErlNifEnv *env, void *resource)
{
  bundle *self = resource;
  (void)env;
  for (size_t i = 0; i < self->count; i++) {
    handle_release(self->resources[i]);
  }
}

int
handle_bundle_nif_load(ErlNifEnv *env, ErlNifResourceFlags flags)
{
  ErlNifResourceTypeInit init = {.dtor = bundle_destroyed};
  bundle_type = enif_open_resource_type_x(env, "py_handle_bundle", &init, flags, NULL);
  return bundle_type == NULL ? -1 : 0;
}

void *
handle_bundle_new(void *const *resources, size_t count)
{
  bundle *self = enif_alloc_resource(bundle_type, sizeof(*self) + count * sizeof(void *));
  if (self == NULL) {
    return NULL;
  }
  self->count = count;
  for (size_t i = 0; i < count; i++) {
    handle_keep(resources[i]);
    self->resources[i] = resources[i];
  }
  return self;
}

void *
handle_or_bundle(ErlNifEnv *env, ERL_NIF_TERM term)
{
  void *resource = nif_term_resource(env, term);
  if (resource != NULL) {
    return resource;
  }
  return enif_get_resource(env, term, bundle_type, &resource) ? resource : NULL;
}

ERL_NIF_TERM
nif_handle_bundle(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{ /* (References) */
  void *resources[HANDLE_BUNDLE_MAX];
  ERL_NIF_TERM head, list = argv[0];
  size_t count = 0;
  unsigned length;
  (void)argc;
  if (!enif_get_list_length(env, list, &length) || length > HANDLE_BUNDLE_MAX) {
    return enif_make_badarg(env);
  }
  while (enif_get_list_cell(env, list, &head, &list)) {
    void *resource = nif_term_resource(env, head);
    if (resource != NULL) {
      resources[count++] = resource;
    }
  }
  if (count == 0) {
    return enif_make_list(env, 0);
  }
  void *made = handle_bundle_new(resources, count);
  if (made == NULL) {
    return enif_raise_exception(env, enif_make_atom(env, "system_limit"));
  }
  ERL_NIF_TERM bundles = enif_make_list1(env, enif_make_resource(env, made));
  handle_release(made);
  /* In parts of a millisecond, by estimate. */
  enif_consume_timeslice(env, 1 + (int)(count / 50));
  return bundles;
}
