/* How deep the codec may recurse: a fixed number of levels, and never past the end of the stack,
 * which a thread made by somebody else may have made small. */
#include "term_internal.h"

#include <pthread.h>

/* What is left alone for what the innermost level calls: the interpreter, hooks, scratch space. */
#define STACK_RESERVE (128 * 1024)

/* Where the stack of this thread may grow to, downwards; 0 until asked for. */
static _Thread_local uintptr_t stack_floor;

static uintptr_t
find_floor(void)
{
  uintptr_t floor = 1; /* an unknown stack: the number of levels alone is the bound */
#ifdef __linux__
  pthread_attr_t attr;
  void *lowest;
  size_t size;
  if (pthread_getattr_np(pthread_self(), &attr) == 0) {
    if (pthread_attr_getstack(&attr, &lowest, &size) == 0) {
      /* At least half of a very small stack is for use. */
      floor = (uintptr_t)lowest + (size / 2 < STACK_RESERVE ? size / 2 : STACK_RESERVE);
    }
    pthread_attr_destroy(&attr);
  }
#endif
  return floor;
}

/* Any thread.  May a container at this depth, beyond the first TERM_SHALLOW levels, be entered? */
int
term_depth_allowed_slow(int depth)
{
  char here;
  if (depth >= TERM_MAX_DEPTH) {
    return 0;
  }
  if (stack_floor == 0) {
    stack_floor = find_floor();
  }
  return (uintptr_t)&here > stack_floor;
}
