/* The tags of the external term format, and its big-endian numbers.  Plain C, for both sides.
 *
 * Semantics: "External Term Format" in the ERTS User's Guide.
 */
#ifndef BEAMLOOP_TERM_EXT_H
#define BEAMLOOP_TERM_EXT_H

#include <stdint.h>
#include <string.h>

enum ext_tag {
  EXT_VERSION = 131,
  EXT_COMPRESSED = 80,
  EXT_NEW_FLOAT = 70,
  EXT_BIT_BINARY = 77,
  EXT_NEW_PID = 88,
  EXT_NEW_PORT = 89,
  EXT_NEWER_REFERENCE = 90,
  EXT_SMALL_INTEGER = 97,
  EXT_INTEGER = 98,
  EXT_FLOAT = 99,
  EXT_ATOM = 100,
  EXT_REFERENCE = 101,
  EXT_PORT = 102,
  EXT_PID = 103,
  EXT_SMALL_TUPLE = 104,
  EXT_LARGE_TUPLE = 105,
  EXT_NIL = 106,
  EXT_STRING = 107,
  EXT_LIST = 108,
  EXT_BINARY = 109,
  EXT_SMALL_BIG = 110,
  EXT_LARGE_BIG = 111,
  EXT_NEW_FUN = 112,
  EXT_EXPORT = 113,
  EXT_NEW_REFERENCE = 114,
  EXT_SMALL_ATOM = 115,
  EXT_MAP = 116,
  EXT_FUN = 117,
  EXT_ATOM_UTF8 = 118,
  EXT_SMALL_ATOM_UTF8 = 119,
  EXT_V4_PORT = 120,
  EXT_LOCAL = 121,
};

/* An atom has at most this many characters, each of at most four bytes. */
#define EXT_ATOM_MAX_CHARS 255
#define EXT_ATOM_MAX_BYTES (4 * EXT_ATOM_MAX_CHARS)

/* The emulator's limit on the words of a reference; more is malformed. */
#define EXT_REFERENCE_MAX_WORDS 5

/* The length of a FLOAT_EXT: a number printed by "%.20e", padded with zero bytes. */
#define EXT_FLOAT_TEXT 31

static inline uint16_t
ext_get_u16(const uint8_t *p)
{
  return (uint16_t)(p[0] << 8 | p[1]);
}

static inline uint32_t
ext_get_u32(const uint8_t *p)
{
  return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static inline uint64_t
ext_get_u64(const uint8_t *p)
{
  return (uint64_t)ext_get_u32(p) << 32 | ext_get_u32(p + 4);
}

static inline void
ext_put_u16(uint8_t *p, uint16_t v)
{
  p[0] = (uint8_t)(v >> 8);
  p[1] = (uint8_t)v;
}

static inline void
ext_put_u32(uint8_t *p, uint32_t v)
{
  p[0] = (uint8_t)(v >> 24);
  p[1] = (uint8_t)(v >> 16);
  p[2] = (uint8_t)(v >> 8);
  p[3] = (uint8_t)v;
}

static inline void
ext_put_u64(uint8_t *p, uint64_t v)
{
  ext_put_u32(p, (uint32_t)(v >> 32));
  ext_put_u32(p + 4, (uint32_t)v);
}

static inline double
ext_get_double(const uint8_t *p)
{
  uint64_t bits = ext_get_u64(p);
  double value;
  memcpy(&value, &bits, sizeof(value));
  return value;
}

static inline void
ext_put_double(uint8_t *p, double value)
{
  uint64_t bits;
  memcpy(&bits, &value, sizeof(bits));
  ext_put_u64(p, bits);
}

#endif
