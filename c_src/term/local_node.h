/* What was made while the node had no name, as it is called now.
 *
 * A node may get its name late (net_kernel:start).  To Erlang its pids stay the same ones, but their
 * encoding names the node: bytes that were kept from before name no node that there is any more.
 * Plain C over erl_nif (local_node_nif.c).
 */
#ifndef BEAMLOOP_LOCAL_NODE_H
#define BEAMLOOP_LOCAL_NODE_H

#include <stddef.h>
#include <stdint.h>

/* Threads of ours, not schedulers; GIL or not.  When ext is a pid, port or reference (tag byte
 * included, no version byte) of a node without a name and this node has one by now: writes it with
 * that name to out and returns its size.  0 when there is nothing to rename, or no room. */
size_t local_node_rename(const uint8_t *ext, size_t size, uint8_t *out, size_t capacity);

#endif
