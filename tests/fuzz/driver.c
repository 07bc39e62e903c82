/* Runs a fuzz target without libFuzzer: PROGRAM [-max_total_time=SECONDS] [-seed=NUMBER] [-seeds=FILE].
 *
 * The file has inputs to begin with, a line of hexadecimal digits each.
 * The inputs come from a seeded generator: most are changed copies of earlier ones, so that long runs
 * of one kind of operation occur.  The seed of the run and the number of the input that failed are
 * printed, and the same seed gives the same inputs. */
#include "fuzz.h"

#include <string.h>
#include <time.h>

#define INPUT_MAX 4096
#define KEPT 64

static uint64_t state;
static uint8_t kept[KEPT][INPUT_MAX];
static size_t kept_size[KEPT];

/* splitmix64 */
static uint64_t
next(void)
{
  uint64_t z = (state += UINT64_C(0x9e3779b97f4a7c15));
  z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
  z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
  return z ^ (z >> 31);
}

static size_t
below(size_t limit)
{
  return (size_t)(next() % limit);
}

/* Writes the next input over a kept one, of which parts may remain. */
static size_t
make_input(size_t slot)
{
  uint8_t *data = kept[slot];
  size_t size = kept_size[slot];
  if (size == 0 || below(8) == 0) {
    size = 1 + below(below(4) == 0 ? INPUT_MAX : 256);
    for (size_t i = 0; i < size; i++) {
      data[i] = (uint8_t)next();
    }
  }
  for (size_t i = below(8); i > 0; i--) {
    size_t from = below(size), to = below(size);
    size_t count = 1 + below(size - (from > to ? from : to));
    switch (below(3)) {
    case 0:
      data[to] = (uint8_t)next();
      break;
    case 1:
      memmove(data + to, data + from, count);
      break;
    default:
      memset(data + to, (int)below(256), count);
    }
  }
  kept_size[slot] = size;
  return size;
}

/* What follows the name of an option, or NULL. */
static const char *
option(int argc, char **argv, const char *name)
{
  size_t length = strlen(name);
  for (int i = 1; i < argc; i++) {
    if (strncmp(argv[i], name, length) == 0) {
      return argv[i] + length;
    }
  }
  return NULL;
}

static unsigned long
number_option(int argc, char **argv, const char *name, unsigned long otherwise)
{
  const char *text = option(argc, argv, name);
  return text == NULL ? otherwise : strtoul(text, NULL, 10);
}

/* Runs the inputs of the file as they are, and keeps the last of them. */
static unsigned long
run_seeds(const char *path)
{
  char line[2 * INPUT_MAX + 2];
  unsigned long runs = 0;
  FILE *file = fopen(path, "r");
  REQUIRE(file != NULL);
  while (fgets(line, sizeof(line), file) != NULL) {
    size_t slot = runs++ % KEPT, size = 0;
    unsigned byte;
    while (size < INPUT_MAX && sscanf(line + 2 * size, "%2x", &byte) == 1) {
      kept[slot][size++] = (uint8_t)byte;
    }
    kept_size[slot] = size;
    LLVMFuzzerTestOneInput(kept[slot], size);
  }
  fclose(file);
  return runs;
}

int
main(int argc, char **argv)
{
  unsigned long seconds = number_option(argc, argv, "-max_total_time=", 5);
  unsigned long seed = number_option(argc, argv, "-seed=", 1);
  const char *seeds = option(argc, argv, "-seeds=");
  unsigned long runs = 0;
  time_t end = time(NULL) + (time_t)seconds;
  state = seed;
  REQUIRE(LLVMFuzzerInitialize(&argc, &argv) == 0);
  setvbuf(stdout, NULL, _IOLBF, 0);
  printf("seed %lu\n", seed);
  if (seeds != NULL) {
    runs += run_seeds(seeds);
  }
  do {
    for (size_t slot = 0; slot < KEPT; slot++, runs++) {
      LLVMFuzzerTestOneInput(kept[slot], make_input(slot));
    }
  } while (time(NULL) < end);
  printf("Done %lu runs\n", runs);
  return 0;
}
