/* Starting threads of ours, and what a child process inherits from them. */
#define _GNU_SOURCE
#include "thread.h"

#include <pthread.h>
#include <unistd.h>

static sigset_t child_mask; /* written once at load */
static pid_t vm_pid;        /* written once at load */

int
thread_spawn(void *(*fn)(void *), void *arg)
{
  pthread_attr_t attr;
  int error = pthread_attr_init(&attr);
  if (error != 0) {
    return error;
  }
  pthread_attr_setstacksize(&attr, VM_STACK_SIZE);
  pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);

  /* The new thread inherits the mask of its creator; set first, no signal can slip in between. */
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  pthread_t thread;
  error = pthread_create(&thread, &attr, fn, arg);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  pthread_attr_destroy(&attr);
  return error;
}

void
thread_set_name(const char *name)
{
#ifdef __linux__
  pthread_setname_np(pthread_self(), name);
#else
  (void)name;
#endif
}

struct timespec
thread_deadline(int64_t milliseconds)
{
  struct timespec when;
  clock_gettime(CLOCK_MONOTONIC, &when);
  when.tv_sec += milliseconds / 1000;
  when.tv_nsec += (long)(milliseconds % 1000) * 1000000L;
  if (when.tv_nsec >= 1000000000L) {
    when.tv_sec++;
    when.tv_nsec -= 1000000000L;
  }
  return when;
}

int
thread_cond_init(pthread_cond_t *cond)
{
  pthread_condattr_t attr;
  int error = pthread_condattr_init(&attr);
  if (error != 0) {
    return error;
  }
  pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
  error = pthread_cond_init(cond, &attr);
  pthread_condattr_destroy(&attr);
  return error;
}

void
thread_remember_signal_mask(void)
{
  /* Those that the emulator handles itself are open in a process that it did not start. */
  static const int handled[] = {SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGCHLD};
  pthread_sigmask(SIG_SETMASK, NULL, &child_mask);
  for (size_t i = 0; i < sizeof(handled) / sizeof(handled[0]); i++) {
    sigdelset(&child_mask, handled[i]);
  }
  vm_pid = getpid();
}

const sigset_t *
thread_child_signal_mask(void)
{
  return &child_mask;
}

int
thread_in_forked_child(void)
{
  return getpid() != vm_pid;
}
