/* See shortage.h.  For ELF on a 64-bit machine whose arguments go by registers. */
#define _GNU_SOURCE
#include "shortage.h"

#include <dlfcn.h>
#include <elf.h>
#include <errno.h>
#include <link.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* How a call says that it failed; a resource is counted by others. */
enum answer {
  NO_MEMORY,
  NO_RESOURCE,
  NO_BINARY,
  NO_OBJECT,
  NO_SUCCESS,
  NO_THREAD,
  NO_DESCRIPTOR,
  RELEASES
};

/* All arguments are integers or pointers, and at most six. */
#define FUNCTIONS(F)                                                                               \
  F(malloc, NO_MEMORY)                                                                             \
  F(calloc, NO_MEMORY)                                                                             \
  F(realloc, NO_MEMORY)                                                                            \
  F(aligned_alloc, NO_MEMORY)                                                                      \
  F(PyMem_Malloc, NO_MEMORY)                                                                       \
  F(PyMem_Calloc, NO_MEMORY)                                                                       \
  F(PyMem_Realloc, NO_MEMORY)                                                                      \
  F(free, RELEASES)                                                                                \
  F(PyMem_Free, RELEASES)                                                                          \
  F(enif_free_env, RELEASES)                                                                       \
  F(enif_alloc_env, NO_MEMORY)                                                                     \
  F(enif_alloc, NO_RESOURCE)                                                                       \
  F(enif_alloc_resource, NO_RESOURCE)                                                              \
  F(enif_alloc_binary, NO_BINARY)                                                                  \
  F(pthread_create, NO_THREAD)                                                                     \
  F(eventfd, NO_DESCRIPTOR)                                                                        \
  F(epoll_create1, NO_DESCRIPTOR)                                                                  \
  F(accept4, NO_DESCRIPTOR)                                                                        \
  F(PyBytes_FromStringAndSize, NO_OBJECT)                                                          \
  F(PyBytes_FromObject, NO_OBJECT)                                                                 \
  F(PyByteArray_FromStringAndSize, NO_OBJECT)                                                      \
  F(PyTuple_New, NO_OBJECT)                                                                        \
  F(PyDict_New, NO_OBJECT)                                                                         \
  F(PyDict_Copy, NO_OBJECT)                                                                        \
  F(PyList_New, NO_OBJECT)                                                                         \
  F(PyList_AsTuple, NO_OBJECT)                                                                     \
  F(PySet_New, NO_OBJECT)                                                                          \
  F(PySequence_List, NO_OBJECT)                                                                    \
  F(PySequence_Fast, NO_OBJECT)                                                                    \
  F(PySequence_GetSlice, NO_OBJECT)                                                                \
  F(PyLong_FromLong, NO_OBJECT)                                                                    \
  F(PyLong_FromSize_t, NO_OBJECT)                                                                  \
  F(PyLong_FromSsize_t, NO_OBJECT)                                                                 \
  F(PyLong_FromUnsignedLong, NO_OBJECT)                                                            \
  F(PyLong_FromUnsignedLongLong, NO_OBJECT)                                                        \
  F(PyUnicode_FromString, NO_OBJECT)                                                               \
  F(PyUnicode_InternFromString, NO_OBJECT)                                                         \
  F(PyUnicode_FromObject, NO_OBJECT)                                                               \
  F(PyUnicode_DecodeUTF8, NO_OBJECT)                                                               \
  F(PyUnicode_DecodeLatin1, NO_OBJECT)                                                             \
  F(PyUnicode_DecodeFSDefault, NO_OBJECT)                                                          \
  F(PyUnicode_DecodeFSDefaultAndSize, NO_OBJECT)                                                   \
  F(PyUnicode_AsUTF8String, NO_OBJECT)                                                             \
  F(PyUnicode_AsUTF8AndSize, NO_OBJECT)                                                            \
  F(PyUnicode_Join, NO_OBJECT)                                                                     \
  F(PyUnicode_Split, NO_OBJECT)                                                                    \
  F(PyMemoryView_FromObject, NO_OBJECT)                                                            \
  F(PyMemoryView_FromMemory, NO_OBJECT)                                                            \
  F(_PyObject_GC_New, NO_OBJECT)                                                                   \
  F(_PyObject_New, NO_OBJECT)                                                                      \
  F(_PyObject_NewVar, NO_OBJECT)                                                                   \
  F(PyCMethod_New, NO_OBJECT)                                                                      \
  F(PyContext_Copy, NO_OBJECT)                                                                     \
  F(PyContext_CopyCurrent, NO_OBJECT)                                                              \
  F(PyContext_New, NO_OBJECT)                                                                      \
  F(PyWeakref_NewRef, NO_OBJECT)                                                                   \
  F(PyCapsule_New, NO_OBJECT)                                                                      \
  F(PyObject_Call, NO_OBJECT)                                                                      \
  F(PyObject_CallNoArgs, NO_OBJECT)                                                                \
  F(PyObject_CallOneArg, NO_OBJECT)                                                                \
  F(PyObject_CallObject, NO_OBJECT)                                                                \
  F(PyObject_Vectorcall, NO_OBJECT)                                                                \
  F(PyObject_VectorcallMethod, NO_OBJECT)                                                          \
  F(PyObject_GetAttr, NO_OBJECT)                                                                   \
  F(PyObject_GetAttrString, NO_OBJECT)                                                             \
  F(PyObject_GetIter, NO_OBJECT)                                                                   \
  F(PyImport_ImportModule, NO_OBJECT)                                                              \
  F(PyObject_Str, NO_OBJECT)                                                                       \
  F(PyObject_Repr, NO_OBJECT)                                                                      \
  F(PyNumber_Index, NO_OBJECT)                                                                     \
  F(PyList_Append, NO_SUCCESS)                                                                     \
  F(PyDict_SetItem, NO_SUCCESS)                                                                    \
  F(PyDict_SetItemString, NO_SUCCESS)                                                              \
  F(PyDict_Update, NO_SUCCESS)                                                                     \
  F(PySet_Add, NO_SUCCESS)                                                                         \
  F(PyObject_SetAttr, NO_SUCCESS)                                                                  \
  F(PyObject_SetAttrString, NO_SUCCESS)                                                            \
  F(PyByteArray_Resize, NO_SUCCESS)                                                                \
  F(PyContext_Enter, NO_SUCCESS)                                                                   \
  F(PyObject_GetBuffer, NO_SUCCESS)

typedef uintptr_t word;
typedef word (*function)(word, word, word, word, word, word);

#define NUMBER(name, answer) N_##name,
enum { FUNCTIONS(NUMBER) COUNT };

/* Set once, before the function that uses it is in any table. */
static function originals[COUNT];
static void (*no_memory)(void); /* PyErr_NoMemory */

static atomic_long turn, counted, failed, held;
static atomic_int is_lasting;
static atomic_uint armed_kinds;
static atomic_uintptr_t only_thread;
static const char *_Atomic last_name;

static unsigned
kind_of(enum answer answer)
{
  switch (answer) {
  case NO_OBJECT:
  case NO_SUCCESS:
    return SHORT_OF_OBJECTS;
  case NO_THREAD:
    return SHORT_OF_THREADS;
  case NO_DESCRIPTOR:
    return SHORT_OF_DESCRIPTORS;
  case RELEASES:
    return 0;
  default:
    return SHORT_OF_MEMORY;
  }
}

static int
is_its_turn(enum answer answer, const char *name)
{
  uintptr_t thread = atomic_load(&only_thread);
  if ((atomic_load(&armed_kinds) & kind_of(answer)) == 0 ||
      (thread != 0 && thread != (uintptr_t)pthread_self())) {
    return 0;
  }
  long number = atomic_fetch_add(&counted, 1) + 1, nth = atomic_load(&turn);
  if (nth == 0 || number < nth || (number > nth && !atomic_load(&is_lasting))) {
    return 0;
  }
  atomic_fetch_add(&failed, 1);
  atomic_store(&last_name, name);
  return 1;
}

static word
failure(enum answer answer)
{
  switch (answer) {
  case NO_OBJECT:
    no_memory();
    return 0;
  case NO_SUCCESS:
    no_memory();
    return (word)-1;
  case NO_THREAD:
    return EAGAIN;
  case NO_DESCRIPTOR:
    errno = EMFILE;
    return (word)-1;
  default:
    errno = ENOMEM;
    return 0;
  }
}

/* Which change what is held: all that give memory but realloc of what was there. */
static void
note(enum answer answer, int number, word first, word result)
{
  int grows = number == N_realloc || number == N_PyMem_Realloc;
  if (answer == NO_MEMORY && result != 0 && !(grows && first != 0)) {
    atomic_fetch_add(&held, 1);
  } else if (answer == RELEASES && first != 0) {
    atomic_fetch_sub(&held, 1);
  }
}

#define REPLACEMENT(name, answer)                                                                  \
  static word short_##name(word a, word b, word c, word d, word e, word f)                         \
  {                                                                                                \
    if (is_its_turn(answer, #name)) {                                                              \
      return failure(answer);                                                                      \
    }                                                                                              \
    word result = originals[N_##name](a, b, c, d, e, f);                                           \
    note(answer, N_##name, a, result);                                                             \
    return result;                                                                                 \
  }
FUNCTIONS(REPLACEMENT)

#define ENTRY(name, answer) {#name, short_##name},
static const struct {
  const char *name;
  function replacement;
} table[] = {FUNCTIONS(ENTRY)};

static int
replace(function *slot, const char *name)
{
  for (int i = 0; i < COUNT; i++) {
    if (strcmp(table[i].name, name) == 0 && *slot != table[i].replacement) {
      uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
      void *start = (void *)((uintptr_t)slot & ~(page - 1));
      if (mprotect(start, page, PROT_READ | PROT_WRITE) != 0) {
        return 0;
      }
      if (originals[i] == NULL) {
        originals[i] = *slot;
      }
      __atomic_store_n(slot, table[i].replacement, __ATOMIC_RELEASE);
      return 1;
    }
  }
  return 0;
}

struct dynamic {
  const ElfW(Sym) * symbols;
  const char *strings;
  const ElfW(Rela) * relocations[2];
  size_t sizes[2];
};

static void
read_dynamic(const ElfW(Dyn) * entry, struct dynamic *out)
{
  for (; entry->d_tag != DT_NULL; entry++) {
    switch (entry->d_tag) {
    case DT_SYMTAB:
      out->symbols = (const ElfW(Sym) *)entry->d_un.d_ptr;
      break;
    case DT_STRTAB:
      out->strings = (const char *)entry->d_un.d_ptr;
      break;
    case DT_JMPREL:
      out->relocations[0] = (const ElfW(Rela) *)entry->d_un.d_ptr;
      break;
    case DT_PLTRELSZ:
      out->sizes[0] = entry->d_un.d_val;
      break;
    case DT_RELA:
      out->relocations[1] = (const ElfW(Rela) *)entry->d_un.d_ptr;
      break;
    case DT_RELASZ:
      out->sizes[1] = entry->d_un.d_val;
      break;
    default:
      break;
    }
  }
}

#if defined(__x86_64__)
#define IS_ADDRESS(type) ((type) == R_X86_64_JUMP_SLOT || (type) == R_X86_64_GLOB_DAT)
#elif defined(__aarch64__)
#define IS_ADDRESS(type) ((type) == R_AARCH64_JUMP_SLOT || (type) == R_AARCH64_GLOB_DAT)
#else
#error "which relocations have the addresses of functions?"
#endif

static int
is_ours(const char *path)
{
  const char *file = strrchr(path, '/');
  file = file == NULL ? path : file + 1;
  return strcmp(file, "beamloop.so") == 0 || strncmp(file, "_loop.", 6) == 0 ||
         strncmp(file, "_term.", 6) == 0;
}

static int
install_in(struct dl_phdr_info *info, size_t size, void *count)
{
  struct dynamic dynamic = {0};
  (void)size;
  if (!is_ours(info->dlpi_name)) {
    return 0;
  }
  for (int i = 0; i < info->dlpi_phnum; i++) {
    if (info->dlpi_phdr[i].p_type == PT_DYNAMIC) {
      read_dynamic((const ElfW(Dyn) *)(info->dlpi_addr + info->dlpi_phdr[i].p_vaddr), &dynamic);
    }
  }
  for (int which = 0; which < 2; which++) {
    const ElfW(Rela) *one = dynamic.relocations[which];
    for (size_t n = dynamic.sizes[which] / sizeof(*one); n > 0; n--, one++) {
      if (IS_ADDRESS(ELF64_R_TYPE(one->r_info))) {
        const ElfW(Sym) *symbol = &dynamic.symbols[ELF64_R_SYM(one->r_info)];
        function *slot = (function *)(info->dlpi_addr + one->r_offset);
        *(int *)count += replace(slot, dynamic.strings + symbol->st_name);
      }
    }
  }
  return 0;
}

int
shortage_install(void)
{
  int count = 0;
  no_memory = (void (*)(void))dlsym(RTLD_DEFAULT, "PyErr_NoMemory");
  dl_iterate_phdr(install_in, &count);
  return count;
}

void
shortage_arm(long nth, int lasting, unsigned kinds, int own)
{
  atomic_store(&armed_kinds, 0);
  atomic_store(&turn, nth);
  atomic_store(&is_lasting, lasting);
  atomic_store(&only_thread, own ? (uintptr_t)pthread_self() : 0);
  atomic_store(&counted, 0);
  atomic_store(&failed, 0);
  atomic_store(&last_name, "");
  atomic_store(&armed_kinds, kinds);
}

long
shortage_disarm(void)
{
  atomic_store(&armed_kinds, 0);
  return atomic_load(&counted);
}

long
shortage_failed(void)
{
  return atomic_load(&failed);
}

long
shortage_held(void)
{
  return atomic_load(&held);
}

const char *
shortage_name(void)
{
  return atomic_load(&last_name);
}
