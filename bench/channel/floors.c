/* What the primitives under a channel cost here and now: a NIF library of the benchmark. */
#include <erl_nif.h>
#include <pthread.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

static int64_t
now_ns(void)
{
  struct timespec ts;
  clock_gettime(CLOCK_MONOTONIC, &ts);
  return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

static ERL_NIF_TERM
nothing(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{ /* (Any) */
  (void)env, (void)argc;
  return argv[0];
}

#define KEPT_MAX 1000000

/* By the one process that measures. */
static ErlNifIOVec *kept[KEPT_MAX];
static unsigned kept_count;

/* The smallest thing that keeps a binary by reference beyond the call. */
static ERL_NIF_TERM
pin(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{ /* (Binary) */
  ErlNifIOVec *iovec = NULL;
  ERL_NIF_TERM tail;
  (void)argc;
  if (kept_count == KEPT_MAX ||
      !enif_inspect_iovec(NULL, 1, enif_make_list1(env, argv[0]), &tail, &iovec)) {
    return enif_make_badarg(env);
  }
  kept[kept_count++] = iovec;
  return argv[0];
}

/* Lets go of all that is kept. */
static ERL_NIF_TERM
unpin(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{ /* () */
  (void)argc, (void)argv;
  while (kept_count > 0) {
    enif_free_iovec(kept[--kept_count]);
  }
  return enif_make_atom(env, "ok");
}

/* Nanoseconds for writing one KB of memory that the process did not have before. */
static ERL_NIF_TERM
fresh_memory(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{ /* () */
  enum { SIZE = 64 << 20 };
  (void)argc, (void)argv;
  char *p = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED) {
    return enif_make_badarg(env);
  }
  int64_t start = now_ns();
  for (size_t i = 0; i < SIZE; i += 4096) {
    p[i] = 1;
  }
  double each = (double)(now_ns() - start) / (SIZE >> 10);
  munmap(p, SIZE);
  return enif_make_double(env, each);
}

/* Nanoseconds for one copy of Size bytes that are in the cache. */
static ERL_NIF_TERM
copy(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{ /* (Size, Times) */
  static uint8_t from[1 << 20], to[1 << 20];
  unsigned size, times;
  (void)argc;
  if (!enif_get_uint(env, argv[0], &size) || size > sizeof(from) ||
      !enif_get_uint(env, argv[1], &times)) {
    return enif_make_badarg(env);
  }
  int64_t start = now_ns();
  for (unsigned i = 0; i < times; i++) {
    from[i % size]++;
    memcpy(to, from, size);
    __asm__ volatile("" : : "r"(to) : "memory");
  }
  return enif_make_double(env, (double)(now_ns() - start) / times);
}

/* A place where one side puts a token and the other waits for it. */
typedef struct mailbox {
  pthread_mutex_t lock;
  pthread_cond_t cond;
  int full; /* guarded by lock */
} mailbox;

#define MAILBOX_INIT                                                                               \
  {                                                                                                \
    PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0                                         \
  }

static void
put(mailbox *box)
{
  pthread_mutex_lock(&box->lock);
  box->full = 1;
  pthread_mutex_unlock(&box->lock);
  pthread_cond_signal(&box->cond);
}

static void
take(mailbox *box)
{
  pthread_mutex_lock(&box->lock);
  while (!box->full) {
    pthread_cond_wait(&box->cond, &box->lock);
  }
  box->full = 0;
  pthread_mutex_unlock(&box->lock);
}

typedef struct echo {
  mailbox to, back;
  unsigned rounds;
} echo;

static void *
echo_main(void *arg)
{
  echo *e = arg;
  for (unsigned i = 0; i < e->rounds; i++) {
    take(&e->to);
    put(&e->back);
  }
  return NULL;
}

/* Round trips between two threads that wake each other by condition variables, not pinned: a list of
 * nanoseconds.  On a dirty scheduler. */
static ERL_NIF_TERM
ping_pong(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{ /* (Rounds) */
  echo e = {MAILBOX_INIT, MAILBOX_INIT, 0};
  pthread_t thread;
  ERL_NIF_TERM times = enif_make_list(env, 0);
  (void)argc;
  if (!enif_get_uint(env, argv[0], &e.rounds) ||
      pthread_create(&thread, NULL, echo_main, &e) != 0) {
    return enif_make_badarg(env);
  }
  for (unsigned i = 0; i < e.rounds; i++) {
    int64_t start = now_ns();
    put(&e.to);
    take(&e.back);
    times = enif_make_list_cell(env, enif_make_int64(env, now_ns() - start), times);
  }
  pthread_join(thread, NULL);
  return times;
}

typedef struct flood {
  ErlNifPid to;
  size_t size;
  unsigned count;
} flood;

static void *
flood_main(void *arg)
{
  flood *f = arg;
  ErlNifEnv *env = enif_alloc_env();
  for (unsigned i = 0; i < f->count; i++) {
    ERL_NIF_TERM binary;
    memset(enif_make_new_binary(env, f->size, &binary), 'x', f->size);
    enif_send(NULL, &f->to, env, binary);
    enif_clear_env(env);
  }
  enif_free_env(env);
  enif_free(f);
  return NULL;
}

/* Has a thread send that many binaries of that size: ok. */
static ERL_NIF_TERM
send_binaries(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{ /* (Pid, Size, Count) */
  flood *f = enif_alloc(sizeof(*f));
  ErlNifUInt64 size;
  pthread_t thread;
  (void)argc;
  if (!enif_get_local_pid(env, argv[0], &f->to) || !enif_get_uint64(env, argv[1], &size) ||
      !enif_get_uint(env, argv[2], &f->count)) {
    enif_free(f);
    return enif_make_badarg(env);
  }
  f->size = size;
  if (pthread_create(&thread, NULL, flood_main, f) != 0) {
    enif_free(f);
    return enif_make_badarg(env);
  }
  pthread_detach(thread);
  return enif_make_atom(env, "ok");
}

static ErlNifFunc functions[] = {
    {"nothing", 1, nothing, 0},
    {"pin", 1, pin, 0},
    {"unpin", 0, unpin, ERL_NIF_DIRTY_JOB_CPU_BOUND},
    {"fresh_memory", 0, fresh_memory, ERL_NIF_DIRTY_JOB_CPU_BOUND},
    {"copy", 2, copy, 0},
    {"send_binaries", 3, send_binaries, 0},
    {"ping_pong", 1, ping_pong, ERL_NIF_DIRTY_JOB_IO_BOUND},
};

ERL_NIF_INIT(channel_bench, functions, NULL, NULL, NULL, NULL)
