/* Live handles in groups, each group a resource that keeps them.
 *
 * Who has to keep very many keeps a few bundles, and where these are let go, the emulator runs their
 * destructors one by one: nobody has to go through all handles in one go.  Plain C interface over erl_nif
 * (handle_bundle_nif.c).
 */
#ifndef BEAMLOOP_HANDLE_BUNDLE_H
#define BEAMLOOP_HANDLE_BUNDLE_H

#include <stddef.h>

#define HANDLE_BUNDLE_MAX 500 /* in one */

/* Any thread that holds a count of each.  A bundle that keeps them, with one count, for handle_keep and
 * handle_release; NULL when memory is short. */
void *handle_bundle_new(void *const *resources, size_t count);

#endif
