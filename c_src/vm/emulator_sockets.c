#include "emulator_sockets.h"

#include <stddef.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

/* They are opened when the emulator starts, so that their numbers are small. */
#define FIRST 3 /* not the standard ones, which may be sockets of whoever started it */
#define LAST 255
#define MOST 16

static struct {
  dev_t device;
  ino_t inode;
} noted[MOST];
static size_t count;

/* A pair of sockets has no address; sockets of gen_tcp and the like are looked for elsewhere. */
static int
is_of_a_pair(int fd)
{
  struct sockaddr_storage address;
  socklen_t size = sizeof(address);
  return getsockname(fd, (struct sockaddr *)&address, &size) == 0 && address.ss_family == AF_UNIX &&
         size <= offsetof(struct sockaddr_un, sun_path);
}

void
emulator_sockets_note(void)
{
  struct stat status;
  for (int fd = FIRST; fd <= LAST && count < MOST; fd++) {
    if (fstat(fd, &status) == 0 && S_ISSOCK(status.st_mode) && is_of_a_pair(fd)) {
      noted[count].device = status.st_dev;
      noted[count++].inode = status.st_ino;
    }
  }
}

int
emulator_sockets_has(int fd)
{
  struct stat status;
  if (fstat(fd, &status) != 0) {
    return 0;
  }
  for (size_t i = 0; i < count; i++) {
    if (noted[i].inode == status.st_ino && noted[i].device == status.st_dev) {
      return 1;
    }
  }
  return 0;
}
