#include "channel_subscriptions.h"

#include <stdlib.h>

#include "channel_nif.h"
#include "channel_nif_internal.h"

/* A node of a search tree.  Its keys are pids with their bits mixed, so that it is as flat as if they had
 * come in random order. */
struct subscription {
  subscription *smaller;
  subscription *greater;
  uint64_t key;
  ErlNifPid deliverer;
};

/* Of a local process: each has one of its own. */
static uint64_t
key_of(const ErlNifPid *pid)
{
  uint64_t key = pid->pid;
  key = (key ^ key >> 33) * 0xff51afd7ed558ccdu;
  key = (key ^ key >> 33) * 0xc4ceb9fe1a85ec53u;
  return key ^ key >> 33;
}

void
subscriptions_init(subscriptions *all)
{
  pthread_mutex_init(&all->mutex, NULL);
  all->root = NULL;
}

/* Where the key's node is, or would be.  Lock held. */
static subscription **
place_of(subscriptions *all, uint64_t key)
{
  subscription **at = &all->root;
  while (*at != NULL && (*at)->key != key) {
    at = key < (*at)->key ? &(*at)->smaller : &(*at)->greater;
  }
  return at;
}

/* Takes the node at that place out of the tree.  Lock held. */
static subscription *
take_out(subscription **at)
{
  subscription *s = *at;
  if (s->smaller == NULL || s->greater == NULL) {
    *at = s->smaller != NULL ? s->smaller : s->greater;
    return s;
  }
  subscription **next = &s->greater;
  while ((*next)->smaller != NULL) {
    next = &(*next)->smaller;
  }
  subscription *heir = *next;
  *next = heir->greater;
  heir->smaller = s->smaller;
  heir->greater = s->greater;
  *at = heir;
  return s;
}

/* The last user. */
void
subscriptions_clear(subscriptions *all)
{
  while (all->root != NULL) {
    free(take_out(&all->root));
  }
  pthread_mutex_destroy(&all->mutex);
}

int
subscriptions_find(subscriptions *all, const ErlNifPid *subscriber, ErlNifPid *deliverer)
{
  pthread_mutex_lock(&all->mutex);
  subscription *s = *place_of(all, key_of(subscriber));
  if (s != NULL) {
    *deliverer = s->deliverer;
  }
  pthread_mutex_unlock(&all->mutex);
  return s != NULL;
}

int
subscriptions_put(subscriptions *all, const ErlNifPid *subscriber, const ErlNifPid *deliverer)
{
  pthread_mutex_lock(&all->mutex);
  uint64_t key = key_of(subscriber);
  subscription **at = place_of(all, key);
  if (*at == NULL && (*at = calloc(1, sizeof(**at))) != NULL) {
    (*at)->key = key;
  }
  int put = *at != NULL;
  if (put) {
    (*at)->deliverer = *deliverer;
  }
  pthread_mutex_unlock(&all->mutex);
  return put ? 0 : -1;
}

void
subscriptions_remove(subscriptions *all, const ErlNifPid *subscriber, const ErlNifPid *deliverer)
{
  subscription *found = NULL;
  pthread_mutex_lock(&all->mutex);
  subscription **at = place_of(all, key_of(subscriber));
  if (*at != NULL && enif_compare_pids(&(*at)->deliverer, deliverer) == 0) {
    found = take_out(at);
  }
  pthread_mutex_unlock(&all->mutex);
  free(found);
}

/* --- NIFs --- */

ERL_NIF_TERM
nif_channel_subscription(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{ /* (Channel, Kind) */
  channel_handle *h = channel_nif_get_kind(env, argv[0], argv[1]);
  ErlNifPid self, deliverer;
  (void)argc;
  if (h == NULL) {
    return enif_make_badarg(env);
  }
  enif_self(env, &self);
  return subscriptions_find(channel_nif_subscriptions(h), &self, &deliverer)
             ? enif_make_pid(env, &deliverer)
             : channel_atoms.none;
}

ERL_NIF_TERM
nif_channel_subscribe(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{ /* (Channel, Kind, Deliverer) */
  channel_handle *h = channel_nif_get_kind(env, argv[0], argv[1]);
  ErlNifPid self, deliverer;
  (void)argc;
  if (h == NULL || !enif_get_local_pid(env, argv[2], &deliverer)) {
    return enif_make_badarg(env);
  }
  enif_self(env, &self);
  return subscriptions_put(channel_nif_subscriptions(h), &self, &deliverer) == 0
             ? channel_atoms.ok
             : channel_make_error(env, channel_atoms.system_limit);
}

ERL_NIF_TERM
nif_channel_unsubscribe(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{ /* (Channel, Kind, Subscriber), by the deliverer */
  channel_handle *h = channel_nif_get_kind(env, argv[0], argv[1]);
  ErlNifPid self, subscriber;
  (void)argc;
  if (h == NULL || !enif_get_local_pid(env, argv[2], &subscriber)) {
    return enif_make_badarg(env);
  }
  enif_self(env, &self);
  subscriptions_remove(channel_nif_subscriptions(h), &subscriber, &self);
  return channel_atoms.ok;
}
