/* The NIF library with a clock around everything of ours that a scheduler runs: NIFs, destructors of
 * resources, and what is called when a monitored process dies.  For scheduler_health_SUITE; linked with the
 * very objects of the product, of which only nif.c is compiled anew, into this file.
 *
 * The clock is the thread's own CPU time: what the operating system gives to others meanwhile does not
 * count.  The figures lie in a file that BEAMLOOP_NIF_CLOCK names, mapped, so that a test reads and clears
 * them from outside: for each function a record, below.
 */
#define nif_init beamloop_nif_init
#include "../../c_src/vm/nif.c"
#undef nif_init

#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define SLOTS 64      /* functions */
#define TYPE_SLOTS 16 /* resource types */
#define RECORDS (SLOTS + 2 * TYPE_SLOTS)

typedef struct record {
  char name[48];
  atomic_uint_fast64_t calls;
  atomic_uint_fast64_t longest; /* nanoseconds, as is the next */
  atomic_uint_fast64_t total;
  uint64_t unused;
} record;

static record
    *records; /* one for each function, then two for each type: its destructor, its down */
static const char *burning; /* what is to take 20 ms more, so that a test can fail */

#define BURN_NS 20000000

static uint64_t
now(void)
{
  struct timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void
count(record *r, uint64_t began)
{
  while (burning != NULL && strcmp(r->name, burning) == 0 && now() - began < BURN_NS) {
  }
  uint64_t took = now() - began;
  uint64_t longest = atomic_load(&r->longest);
  atomic_fetch_add(&r->calls, 1);
  atomic_fetch_add(&r->total, took);
  while (took > longest && !atomic_compare_exchange_weak(&r->longest, &longest, took)) {
  }
}

/* --- functions ------------------------------------------------------------------------------------- */

typedef ERL_NIF_TERM (*function)(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]);

static function real_functions[SLOTS];

static ERL_NIF_TERM
call(int slot, ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{
  uint64_t began = now();
  ERL_NIF_TERM result = real_functions[slot](env, argc, argv);
  count(&records[slot], began);
  return result;
}

#define FUNCTION(N)                                                                                \
  static ERL_NIF_TERM call_##N(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])                \
  {                                                                                                \
    return call(0##N, env, argc, argv);                                                            \
  }
#define EIGHT(F, N) F(N##0) F(N##1) F(N##2) F(N##3) F(N##4) F(N##5) F(N##6) F(N##7)
#define ALL(F)                                                                                     \
  EIGHT(F, 0) EIGHT(F, 1) EIGHT(F, 2) EIGHT(F, 3) EIGHT(F, 4) EIGHT(F, 5) EIGHT(F, 6) EIGHT(F, 7)

ALL(FUNCTION)

#define FUNCTION_NAME(N) call_##N,

static const function clocked_functions[SLOTS] = {ALL(FUNCTION_NAME)};

/* --- resource types -------------------------------------------------------------------------------- */

static ErlNifResourceTypeInit real_types[TYPE_SLOTS];
static char type_names[TYPE_SLOTS][32];
static unsigned types;

/* Destructors run on other threads too. */
static int
on_scheduler(void)
{
  return enif_thread_type() >= ERL_NIF_THR_NORMAL_SCHEDULER;
}

static void
destroy_type(int type, ErlNifEnv *env, void *object)
{
  uint64_t began = now();
  real_types[type].dtor(env, object);
  if (on_scheduler()) {
    count(&records[SLOTS + 2 * type], began);
  }
}

static void
down_type(int type, ErlNifEnv *env, void *object, ErlNifPid *pid, ErlNifMonitor *monitor)
{
  uint64_t began = now();
  real_types[type].down(env, object, pid, monitor);
  if (on_scheduler()) {
    count(&records[SLOTS + 2 * type + 1], began);
  }
}

#define TYPE(N)                                                                                    \
  static void destroy_##N(ErlNifEnv *env, void *object)                                            \
  {                                                                                                \
    destroy_type(0##N, env, object);                                                               \
  }                                                                                                \
  static void down_##N(ErlNifEnv *env, void *object, ErlNifPid *pid, ErlNifMonitor *monitor)       \
  {                                                                                                \
    down_type(0##N, env, object, pid, monitor);                                                    \
  }

EIGHT(TYPE, 0)
EIGHT(TYPE, 1)

#define DESTROY_NAME(N) destroy_##N,
#define DOWN_NAME(N) down_##N,

static ErlNifResourceDtor *const clocked_destroy[TYPE_SLOTS] = {EIGHT(DESTROY_NAME, 0)
                                                                    EIGHT(DESTROY_NAME, 1)};
static ErlNifResourceDown *const clocked_down[TYPE_SLOTS] = {EIGHT(DOWN_NAME, 0)
                                                                 EIGHT(DOWN_NAME, 1)};

ErlNifResourceType *__real_enif_open_resource_type_x(ErlNifEnv *, const char *,
                                                     const ErlNifResourceTypeInit *,
                                                     ErlNifResourceFlags, ErlNifResourceFlags *);
ErlNifResourceType *__wrap_enif_open_resource_type_x(ErlNifEnv *, const char *,
                                                     const ErlNifResourceTypeInit *,
                                                     ErlNifResourceFlags, ErlNifResourceFlags *);

/* The linker has every unit call this one. */
ErlNifResourceType *
__wrap_enif_open_resource_type_x(ErlNifEnv *env, const char *name,
                                 const ErlNifResourceTypeInit *init, ErlNifResourceFlags flags,
                                 ErlNifResourceFlags *tried)
{
  if (types == TYPE_SLOTS) {
    return NULL;
  }
  unsigned type = types++;
  ErlNifResourceTypeInit clocked = *init;
  real_types[type] = *init;
  snprintf(type_names[type], sizeof(type_names[type]), "%s", name);
  snprintf(records[SLOTS + 2 * type].name, sizeof(records->name), "destructor of %s",
           type_names[type]);
  snprintf(records[SLOTS + 2 * type + 1].name, sizeof(records->name), "down of %s",
           type_names[type]);
  clocked.dtor = init->dtor != NULL ? clocked_destroy[type] : NULL;
  clocked.down = init->down != NULL ? clocked_down[type] : NULL;
  return __real_enif_open_resource_type_x(env, name, &clocked, flags, tried);
}

/* --- the library ------------------------------------------------------------------------------------ */

static record *
map_records(void)
{
  const char *path = getenv("BEAMLOOP_NIF_CLOCK");
  int fd = path == NULL ? -1 : open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  void *map = MAP_FAILED;
  if (fd >= 0 && ftruncate(fd, (off_t)(RECORDS * sizeof(record))) == 0) {
    map = mmap(NULL, RECORDS * sizeof(record), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  }
  if (fd >= 0) {
    close(fd);
  }
  return map == MAP_FAILED ? NULL : map;
}

ERL_NIF_INIT_EXPORT ErlNifEntry *nif_init(void);

ERL_NIF_INIT_EXPORT ErlNifEntry *
nif_init(void)
{
  ErlNifEntry *entry = beamloop_nif_init();
  burning = getenv("BEAMLOOP_NIF_CLOCK_BURN");
  if (entry->num_of_funcs > SLOTS || (records = map_records()) == NULL) {
    return NULL;
  }
  for (int i = 0; i < entry->num_of_funcs; i++) {
    real_functions[i] = functions[i].fptr;
    functions[i].fptr = clocked_functions[i];
    snprintf(records[i].name, sizeof(records->name), "%s/%u", functions[i].name,
             functions[i].arity);
  }
  return entry;
}
