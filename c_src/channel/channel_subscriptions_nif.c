#include "channel_subscriptions.h"

#include <stdlib.h>

#include "channel_nif.h"
#include "channel_nif_internal.h"

struct subscription {
  subscription *next;
  ErlNifPid subscriber;
  ErlNifPid deliverer;
};

void
subscriptions_init(subscriptions *all)
{
  pthread_mutex_init(&all->mutex, NULL);
  all->first = NULL;
}

/* The last user. */
void
subscriptions_clear(subscriptions *all)
{
  subscription *s;
  while ((s = all->first) != NULL) {
    all->first = s->next;
    free(s);
  }
  pthread_mutex_destroy(&all->mutex);
}

/* Lock held. */
static subscription *
find(subscriptions *all, const ErlNifPid *subscriber)
{
  subscription *s = all->first;
  while (s != NULL && enif_compare_pids(&s->subscriber, subscriber) != 0) {
    s = s->next;
  }
  return s;
}

int
subscriptions_find(subscriptions *all, const ErlNifPid *subscriber, ErlNifPid *deliverer)
{
  pthread_mutex_lock(&all->mutex);
  subscription *s = find(all, subscriber);
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
  subscription *s = find(all, subscriber);
  if (s == NULL && (s = malloc(sizeof(*s))) != NULL) {
    s->subscriber = *subscriber;
    s->next = all->first;
    all->first = s;
  }
  if (s != NULL) {
    s->deliverer = *deliverer;
  }
  pthread_mutex_unlock(&all->mutex);
  return s == NULL ? -1 : 0;
}

void
subscriptions_remove(subscriptions *all, const ErlNifPid *deliverer)
{
  pthread_mutex_lock(&all->mutex);
  subscription **at = &all->first;
  while (*at != NULL && enif_compare_pids(&(*at)->deliverer, deliverer) != 0) {
    at = &(*at)->next;
  }
  subscription *found = *at;
  if (found != NULL) {
    *at = found->next;
  }
  pthread_mutex_unlock(&all->mutex);
  free(found);
}

/* --- NIFs --- */

ERL_NIF_TERM
nif_channel_subscription(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{ /* (Channel) */
  channel_handle *h = channel_nif_get(env, argv[0]);
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
{ /* (Channel, Deliverer) */
  channel_handle *h = channel_nif_get(env, argv[0]);
  ErlNifPid self, deliverer;
  (void)argc;
  if (h == NULL || !enif_get_local_pid(env, argv[1], &deliverer)) {
    return enif_make_badarg(env);
  }
  enif_self(env, &self);
  return subscriptions_put(channel_nif_subscriptions(h), &self, &deliverer) == 0
             ? channel_atoms.ok
             : channel_make_error(env, channel_atoms.system_limit);
}

ERL_NIF_TERM
nif_channel_unsubscribe(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{ /* (Channel), by the deliverer */
  channel_handle *h = channel_nif_get(env, argv[0]);
  ErlNifPid self;
  (void)argc;
  if (h == NULL) {
    return enif_make_badarg(env);
  }
  enif_self(env, &self);
  subscriptions_remove(channel_nif_subscriptions(h), &self);
  return channel_atoms.ok;
}
