/* Which atoms exist in the VM, and how many more Python may make, for the side that cannot ask
 * it (plain C over erl_nif, nif_terms.c). */
#ifndef BEAMLOOP_ATOMS_H
#define BEAMLOOP_ATOMS_H

#include <stddef.h>

/* Any thread, GIL or not.  Is there an atom of this UTF-8 text (at most 1,020 bytes)?  1 or 0; an
 * atom that exists exists for ever.  Never makes one. */
int atoms_exist(const char *utf8, size_t size);

/* Any thread, GIL or not.  Makes the atom of this UTF-8 text (at most 255 characters) where there is
 * none yet, for an atom is never given back and the virtual machine ends when their table is full:  0,
 * or -1 when as many were made as atoms_set_limit() allows, or memory is short. */
int atoms_make(const char *utf8, size_t size);

/* Any thread.  How many atoms_make() may make in all, and how many it has made. */
void atoms_set_limit(size_t limit);
size_t atoms_made(void);

#endif
