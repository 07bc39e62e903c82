/* The registry of live handles.
 *
 * Finding a resource must be exact (number, node and creation, and the node's name may change) and
 * safe: the reference may be forged, or so old that the resource's last count went a moment ago and
 * its destructor runs right now on another thread.  Keeping a resource in that state is undefined,
 * and no lock of ours can prevent it, since the last count goes before the destructor is entered.
 *
 * So it is the emulator that finds it: decoding the reference in an environment of our own makes a
 * term that holds a count, taken atomically and only when there is still one, and enif_get_resource
 * refuses a term whose resource is gone (documented in erl_nif since OTP 20).  Our own table only
 * answers two questions, by the reference's number: could this be one of ours at all (most
 * references are not, and cost one look-up), and of which kind is it.
 *
 * A resource's number never changes and is never used again, so that the table needs no update when
 * the node gets a name; a reference encoded before that is looked for under the new name. */
#include <erl_nif.h>
#include <pthread.h>
#include <stdlib.h>

#include "handles.h"
#include "local_node.h"
#include "nif_terms.h"
#include "term_buf.h"
#include "term_ext.h"

#define WORDS 3 /* the words of a resource's reference */

typedef struct entry {
  struct entry *next_by_number;
  struct entry *next_by_resource;
  void *resource;
  enum handle_kind kind;
  uint32_t number[WORDS];
  size_t ext_size;
  uint8_t ext[]; /* the reference, without its version byte */
} entry;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* Two chained hash tables over the same entries. */
typedef struct tables {
  entry **by_number;
  entry **by_resource;
  size_t buckets; /* of each; a power of two, or 0 */
} tables;

/* All guarded by lock.  Tables that are full get successors twice as large, to which each further addition
 * moves a few buckets, so that none takes long: those below moved are empty in the old ones. */
static tables current;
static tables old;
static size_t moved;
static size_t entries;

#define MOVES_AT_ONCE 4

static size_t
hash_number(const uint32_t *number)
{
  uint64_t h = number[0] * 0x9e3779b97f4a7c15u;
  h = (h ^ number[1]) * 0xff51afd7ed558ccdu;
  h = (h ^ number[2]) * 0xc4ceb9fe1a85ec53u;
  return (size_t)(h ^ h >> 32);
}

static size_t
hash_resource(const void *resource)
{
  uint64_t h = (uint64_t)(uintptr_t)resource * 0x9e3779b97f4a7c15u;
  return (size_t)(h ^ h >> 32);
}

/* Call with the lock held, when there are tables.  Where entries of that hash are: in the tables that are given
 * of one kind. */
static entry **
head_of(entry **new_heads, entry **old_heads, size_t hash)
{
  if (old.buckets > 0 && (hash & (old.buckets - 1)) >= moved) {
    return &old_heads[hash & (old.buckets - 1)];
  }
  return &new_heads[hash & (current.buckets - 1)];
}

static entry **
number_head(const uint32_t *number)
{
  return head_of(current.by_number, old.by_number, hash_number(number));
}

static entry **
resource_head(const void *resource)
{
  return head_of(current.by_resource, old.by_resource, hash_resource(resource));
}

static void
link_number(entry *e)
{
  entry **head = number_head(e->number);
  e->next_by_number = *head;
  *head = e;
}

static void
link_resource(entry *e)
{
  entry **head = resource_head(e->resource);
  e->next_by_resource = *head;
  *head = e;
}

/* Call with the lock held, while there are old tables.  Moves their next bucket. */
static void
move_bucket(void)
{
  entry *next;
  entry *numbers = old.by_number[moved];
  entry *resources = old.by_resource[moved];
  moved++;
  for (entry *e = numbers; e != NULL; e = next) {
    next = e->next_by_number;
    link_number(e);
  }
  for (entry *e = resources; e != NULL; e = next) {
    next = e->next_by_resource;
    link_resource(e);
  }
}

/* Call with the lock held.  Goes on moving. */
static void
move_some(void)
{
  for (int i = 0; i < MOVES_AT_ONCE && moved < old.buckets; i++) {
    move_bucket();
  }
  if (old.buckets > 0 && moved == old.buckets) {
    free(old.by_number);
    free(old.by_resource);
    old = (tables){NULL, NULL, 0};
  }
}

/* Call with the lock held, before an addition.  Begins to double the tables when they are full; 0 or -1. */
static int
grow(void)
{
  move_some();
  if (entries < current.buckets || old.buckets > 0) {
    return 0;
  }
  size_t buckets = current.buckets == 0 ? 64 : 2 * current.buckets;
  tables larger = {calloc(buckets, sizeof(entry *)), calloc(buckets, sizeof(entry *)), buckets};
  if (larger.by_number == NULL || larger.by_resource == NULL) {
    free(larger.by_number);
    free(larger.by_resource);
    return -1;
  }
  old = current;
  moved = 0;
  current = larger;
  return 0;
}

/* The emulator's memory: the C library would some time join thousands of small blocks at once, on a scheduler. */
static entry *
new_entry(size_t ext_size)
{
  return enif_alloc(sizeof(entry) + ext_size);
}

static void
free_entry(entry *e)
{
  if (e != NULL) {
    enif_free(e);
  }
}

/* The number in an encoded reference of three words: 1, or 0 when it is no such reference. */
static int
parse_number(const uint8_t *ext, size_t size, uint32_t *number)
{
  if (size < 6 || ext[0] != EXT_NEWER_REFERENCE || ext_get_u16(ext + 1) != WORDS) {
    return 0;
  }
  size_t node = ext[3] == EXT_SMALL_ATOM_UTF8 || ext[3] == EXT_SMALL_ATOM
                    ? 2 + (size_t)ext[4]
                    : 3 + (size_t)ext_get_u16(ext + 4);
  if (size != 3 + node + 4 + 4 * WORDS) {
    return 0;
  }
  for (unsigned i = 0; i < WORDS; i++) {
    number[i] = ext_get_u32(ext + size - 4 * WORDS + 4 * i);
  }
  return 1;
}

/* The encoded reference of a resource, version byte included, in a binary to release; 0 or -1. */
static int
encode_resource(void *resource, ErlNifBinary *out)
{
  ErlNifEnv *env = enif_alloc_env();
  if (env == NULL) {
    return -1;
  }
  int good = enif_term_to_binary(env, enif_make_resource(env, resource), out);
  enif_free_env(env);
  return good ? 0 : -1;
}

/* Any thread; takes the lock.  The caller holds a count of the resource. */
int
handles_add(void *resource, enum handle_kind kind)
{
  ErlNifBinary ext;
  if (encode_resource(resource, &ext) != 0) {
    return -1;
  }
  entry *e = new_entry(ext.size);
  int result = -1;
  if (e != NULL) {
    e->resource = resource;
    e->kind = kind;
    e->ext_size = ext.size - 1;
    memcpy(e->ext, ext.data + 1, e->ext_size);
    result = parse_number(e->ext, e->ext_size, e->number) ? 0 : -1;
  }
  enif_release_binary(&ext);
  if (result == 0) {
    pthread_mutex_lock(&lock);
    result = grow();
    if (result == 0) {
      link_number(e);
      link_resource(e);
      entries++;
    }
    pthread_mutex_unlock(&lock);
  }
  if (result != 0) {
    free_entry(e);
  }
  return result;
}

/* Any thread, the resource's destructor too; takes the lock. */
void
handles_remove(void *resource)
{
  entry *e = NULL;
  pthread_mutex_lock(&lock);
  if (current.buckets > 0) {
    entry **link = resource_head(resource);
    while (*link != NULL && (*link)->resource != resource) {
      link = &(*link)->next_by_resource;
    }
    e = *link;
    if (e != NULL) {
      *link = e->next_by_resource;
      link = number_head(e->number);
      while (*link != e) {
        link = &(*link)->next_by_number;
      }
      *link = e->next_by_number;
      entries--;
    }
  }
  pthread_mutex_unlock(&lock);
  free_entry(e);
}

/* Takes the lock.  Is a handle of ours known by this number, and of which kind? */
static int
find_number(const uint32_t *number, enum handle_kind *kind)
{
  entry *e = NULL;
  pthread_mutex_lock(&lock);
  if (current.buckets > 0) {
    e = *number_head(number);
    while (e != NULL && memcmp(e->number, number, sizeof(e->number)) != 0) {
      e = e->next_by_number;
    }
    if (e != NULL) {
      *kind = e->kind;
    }
  }
  pthread_mutex_unlock(&lock);
  return e != NULL;
}

/* The live resource that the emulator finds by these bytes, kept; or NULL. */
static void *
keep_by_emulator(ErlNifEnv *env, const uint8_t *ext, size_t size)
{
  ERL_NIF_TERM term;
  if (!nif_term_from_bare(env, ext, size, &term)) {
    return NULL;
  }
  void *resource = nif_term_resource(env, term);
  if (resource != NULL) {
    enif_keep_resource(resource);
  }
  return resource;
}

/* The live resource of a reference that the table knows, under whatever name the node has now. */
static void *
keep_known(const uint8_t *ext, size_t size, int *short_of_memory)
{
  ErlNifEnv *env = enif_alloc_env();
  if (env == NULL) {
    *short_of_memory = 1;
    return NULL;
  }
  void *resource = keep_by_emulator(env, ext, size);
  if (resource == NULL) {
    uint8_t renamed[NIF_TERM_BARE_MAX];
    size_t renamed_size = local_node_rename(ext, size, renamed, sizeof(renamed));
    if (renamed_size > 0) {
      resource = keep_by_emulator(env, renamed, renamed_size);
    }
  }
  enif_free_env(env);
  return resource;
}

/* Takes the lock, and holds it while nothing else is called. */
void *
handles_find(const uint8_t *ext, size_t size, enum handle_kind *kind, int *short_of_memory)
{
  *short_of_memory = 0;
  uint32_t number[WORDS];
  if (!parse_number(ext, size, number) || !find_number(number, kind)) {
    return NULL;
  }
  return keep_known(ext, size, short_of_memory);
}

/* Takes the lock. */
void
handles_number(void *resource, handle_number *out)
{
  pthread_mutex_lock(&lock);
  entry *e = *resource_head(resource);
  while (e->resource != resource) {
    e = e->next_by_resource;
  }
  memcpy(out->words, e->number, sizeof(out->words));
  pthread_mutex_unlock(&lock);
}

int
handles_has_number(const uint8_t *ext, size_t size, const handle_number *number)
{
  uint32_t words[WORDS];
  return parse_number(ext, size, words) && memcmp(words, number->words, sizeof(words)) == 0;
}

/* Takes the lock, and holds it while nothing else is called. */
void *
handles_keep(void *resource)
{
  uint8_t ext[NIF_TERM_BARE_MAX];
  size_t size = 0;
  pthread_mutex_lock(&lock);
  if (current.buckets > 0) {
    entry *e = *resource_head(resource);
    while (e != NULL && e->resource != resource) {
      e = e->next_by_resource;
    }
    if (e != NULL && e->ext_size <= sizeof(ext)) {
      size = e->ext_size;
      memcpy(ext, e->ext, size);
    }
  }
  pthread_mutex_unlock(&lock);
  /* Where memory is short the caller makes another handle, or finds that it cannot. */
  int short_of_memory;
  return size == 0 ? NULL : keep_known(ext, size, &short_of_memory);
}

/* Any thread that holds a count of the resource, or a term that does. */
void
handle_keep(void *resource)
{
  enif_keep_resource(resource);
}

/* Any thread.  The resource's destructor may run, here or later. */
void
handle_release(void *resource)
{
  enif_release_resource(resource);
}

/* Any thread that holds a count of the resource. */
int
handle_encode(void *resource, term_buf *out)
{
  ErlNifBinary ext;
  if (encode_resource(resource, &ext) != 0) {
    return -1;
  }
  int result = term_buf_append(out, ext.data + 1, ext.size - 1);
  enif_release_binary(&ext);
  return result;
}
