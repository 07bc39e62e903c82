/* The names that the C code looks up in Python objects: interned once, kept in the module's state as
 * str_NAME. */
#ifndef BEAMLOOP_NAMES_H
#define BEAMLOOP_NAMES_H

#define LOOP_NAMES(apply)                                                                          \
  apply(str_accept, "accept");                                                                     \
  apply(str_await, "__await__");                                                                   \
  apply(str_call_at, "call_at");                                                                   \
  apply(str_call_exception_handler, "call_exception_handler");                                     \
  apply(str_cancelled, "_cancelled");                                                              \
  apply(str_check_in, "_check_in");                                                                \
  apply(str_check_thread, "_check_thread");                                                        \
  apply(str_close, "close");                                                                       \
  apply(str_connect, "connect");                                                                   \
  apply(str_context, "context");                                                                   \
  apply(str_current_handle, "_current_handle");                                                    \
  apply(str_dict, "__dict__");                                                                     \
  apply(str_done, "done");                                                                         \
  apply(str_ensure_resolved, "_ensure_resolved");                                                  \
  apply(str_family, "family");                                                                     \
  apply(str_fileno, "fileno");                                                                     \
  apply(str_future_blocking, "_asyncio_future_blocking");                                          \
  apply(str_gettimeout, "gettimeout");                                                             \
  apply(str_loop, "loop");                                                                         \
  apply(str_name, "name");                                                                         \
  apply(str_proto, "proto");                                                                       \
  apply(str_recv, "recv");                                                                         \
  apply(str_recv_into, "recv_into");                                                               \
  apply(str_recvfrom, "recvfrom");                                                                 \
  apply(str_recvfrom_into, "recvfrom_into");                                                       \
  apply(str_run, "_run");                                                                          \
  apply(str_run_once, "_run_once");                                                                \
  apply(str_send, "send");                                                                         \
  apply(str_sendto, "sendto");                                                                     \
  apply(str_set_result, "set_result");                                                             \
  apply(str_setblocking, "setblocking");                                                           \
  apply(str_slow_callback_duration, "slow_callback_duration");                                     \
  apply(str_throw, "throw");                                                                       \
  apply(str_time, "time");                                                                         \
  apply(str_type, "type")

#endif
