/* Which process delivers a channel's messages to which subscriber.  Belongs to a channel's handle.
 *
 * erl_nif side.  What a call costs grows with the logarithm of their number.  Lock: its own, a leaf.
 */
#ifndef BEAMLOOP_CHANNEL_SUBSCRIPTIONS_H
#define BEAMLOOP_CHANNEL_SUBSCRIPTIONS_H

#include <erl_nif.h>
#include <pthread.h>

typedef struct subscription subscription;

typedef struct subscriptions {
  pthread_mutex_t mutex;
  subscription *root; /* guarded by mutex */
} subscriptions;

void subscriptions_init(subscriptions *all);
void subscriptions_clear(subscriptions *all);

/* The deliverer of that subscriber: 1, or 0 when it has none. */
int subscriptions_find(subscriptions *all, const ErlNifPid *subscriber, ErlNifPid *deliverer);

/* Adds one, or gives the subscriber another deliverer.  0, or -1 when memory is short. */
int subscriptions_put(subscriptions *all, const ErlNifPid *subscriber, const ErlNifPid *deliverer);

/* Removes the subscriber's, if it has that deliverer. */
void subscriptions_remove(subscriptions *all, const ErlNifPid *subscriber,
                          const ErlNifPid *deliverer);

#endif
