/* What the fuzz targets share.  Each is a program that runs inputs: with libFuzzer where clang has it,
 * else with driver.c, which makes them up from a fixed seed. */
#ifndef BEAMLOOP_FUZZ_H
#define BEAMLOOP_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

/* Runs one input; returns 0.  What is wrong ends the process. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Once, before the first input; 0. */
int LLVMFuzzerInitialize(int *argc, char ***argv);

#define REQUIRE(condition)                                                                         \
  do {                                                                                             \
    if (!(condition)) {                                                                            \
      fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #condition);                    \
      abort();                                                                                     \
    }                                                                                              \
  } while (0)

/* An input that is read as numbers; zeros follow its end. */
typedef struct fuzz_input {
  const uint8_t *data;
  size_t left;
} fuzz_input;

static inline unsigned
fuzz_byte(fuzz_input *in)
{
  if (in->left == 0) {
    return 0;
  }
  in->left--;
  return *in->data++;
}

static inline unsigned
fuzz_below(fuzz_input *in, unsigned limit)
{
  return fuzz_byte(in) % limit;
}

#endif
