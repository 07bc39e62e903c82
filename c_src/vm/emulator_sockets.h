/* The sockets that the emulator had before us and that no Erlang process knows by a number, such as the one
 * to the process that starts its port programs: whoever takes one over ends the node.  Plain C; any thread.
 */
#ifndef BEAMLOOP_VM_EMULATOR_SOCKETS_H
#define BEAMLOOP_VM_EMULATOR_SOCKETS_H

/* Once, before any other use: notes what there is. */
void emulator_sockets_note(void);

/* Whether the descriptor is of one of them. */
int emulator_sockets_has(int fd);

#endif
