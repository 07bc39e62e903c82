/* Which atoms exist in the VM, for the side that cannot ask it (plain C over erl_nif, nif_terms.c). */
#ifndef BEAMLOOP_ATOMS_H
#define BEAMLOOP_ATOMS_H

#include <stddef.h>

/* Any thread, GIL or not.  Is there an atom of this UTF-8 text (at most 1,020 bytes)?  1 or 0; an
 * atom that exists exists for ever.  Never makes one. */
int atoms_exist(const char *utf8, size_t size);

#endif
