/* What a debug build (./configure --enable-debug) asserts of locks.  Plain C. */
#ifndef BEAMLOOP_LOCK_CHECK_H
#define BEAMLOOP_LOCK_CHECK_H

#include <assert.h>
#include <pthread.h>

#ifndef NDEBUG
/* For assert alone: somebody holds the lock.  That it is this thread is not told apart, yet a function
 * that was called without it fails as soon as nobody else happens to be inside. */
static inline int
lock_is_held(pthread_mutex_t *mutex)
{
  return pthread_mutex_trylock(mutex) != 0;
}
#endif

#endif
