/* Messages from Python to Erlang processes.  Plain C; implemented over erl_nif. */
#ifndef BEAMLOOP_VM_SEND_H
#define BEAMLOOP_VM_SEND_H

#include <stddef.h>
#include <stdint.h>

enum send_result {
  SEND_OK = 0,       /* sent, or the process is gone, which a sender in Erlang is not told either */
  SEND_NO_NAME = -1, /* no process is registered under the name */
  SEND_BAD_TERM = -2, /* the emulator does not take the encoded message */
  SEND_NO_RELAY = -3, /* remote, and the relay process does not run */
  SEND_NO_MEMORY = -4,
};

/* Any thread; no GIL needed.  Sends the encoded term (with its version byte) to the pid whose
 * encoding (tag byte included, no version byte) is given.  A remote pid goes through the relay
 * process, since only a process may send to another node. */
int send_to_pid(const uint8_t *pid, size_t pid_size, uint8_t *message, size_t size);

/* Any thread; no GIL needed.  Sends it to a registered name, UTF-8. */
int send_to_name(const char *name, size_t name_size, uint8_t *message, size_t size);

#endif
