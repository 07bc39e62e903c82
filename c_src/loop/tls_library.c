/* Finds OpenSSL: exactly the one that CPython's _ssl uses, without being linked to any. */
#define _GNU_SOURCE
#include "tls_io.h"

#include <dlfcn.h>
#include <pthread.h>
#include <string.h>

#define VERSION_MIN 0x10101000UL /* 1.1.1 */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct tls_library library; /* written under lock, once, before found is set */
static const struct tls_library *found;

/* Looks a function up in the module and what it is linked to.  One that another library or the
 * program offers to everybody is what _ssl calls itself, so that must be the same. */
static bool
look_up(void *module, const char *name, void *place)
{
  void *symbol = dlsym(module, name);
  void *global = dlsym(RTLD_DEFAULT, name);

  memcpy(place, &symbol, sizeof(symbol));
  return symbol != NULL && (global == NULL || global == symbol);
}

static bool
look_up_all(void *module)
{
  const struct {
    const char *name;
    void *place;
  } functions[] = {
      {"SSL_read", &library.read},
      {"SSL_write", &library.write},
      {"SSL_has_pending", &library.has_pending},
      {"SSL_get_error", &library.get_error},
      {"SSL_get_shutdown", &library.get_shutdown},
      {"SSL_get_rbio", &library.get_rbio},
      {"SSL_get_wbio", &library.get_wbio},
      {"SSL_get_SSL_CTX", &library.get_ctx},
      {"SSL_set_bio", &library.set_bio},
      {"ERR_peek_error", &library.peek_error},
      {"ERR_clear_error", &library.clear_errors},
      {"OpenSSL_version_num", &library.version},
      {"BIO_new", &library.bio_new},
      {"BIO_set_data", &library.bio_set_data},
      {"BIO_get_data", &library.bio_get_data},
      {"BIO_set_init", &library.bio_set_init},
      {"BIO_set_flags", &library.bio_set_flags},
      {"BIO_clear_flags", &library.bio_clear_flags},
      {"BIO_meth_new", &library.method_new},
      {"BIO_meth_set_read", &library.method_set_read},
      {"BIO_meth_set_write", &library.method_set_write},
      {"BIO_meth_set_ctrl", &library.method_set_ctrl},
      {"BIO_get_new_index", &library.new_index},
  };

  for (size_t i = 0; i < sizeof(functions) / sizeof(functions[0]); i++) {
    if (!look_up(module, functions[i].name, functions[i].place))
      return false;
  }
  return true;
}

/* Call with the lock held.  The module stays open for good: our BIOs may outlive everybody. */
static const char *
find(const char *path, unsigned long version)
{
  void *module = dlopen(path, RTLD_LAZY | RTLD_LOCAL | RTLD_NOLOAD);

  if (module == NULL)
    return "_ssl is not a loaded library";
  if (!look_up_all(module))
    return "_ssl's OpenSSL does not offer what is needed";
  if (version < VERSION_MIN || library.version() != version)
    return "an OpenSSL of another version was found";
  library.method = tls_bio_method_new(&library);
  if (library.method == NULL)
    return "OpenSSL refuses a BIO";
  return NULL;
}

const struct tls_library *
tls_library_find(const char *path, unsigned long version, const char **reason)
{
  const struct tls_library *result;

  pthread_mutex_lock(&lock);
  *reason = NULL;
  if (found == NULL)
    *reason = find(path, version);
  if (*reason == NULL)
    __atomic_store_n(&found, &library, __ATOMIC_RELEASE);
  result = found;
  pthread_mutex_unlock(&lock);
  return result;
}

const struct tls_library *
tls_library_found(void)
{
  return __atomic_load_n(&found, __ATOMIC_ACQUIRE);
}
