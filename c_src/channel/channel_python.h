/* What the files of the Python face of channels share: the built-in module _beamloop_channel.
 *
 * Python.h side; the GIL is held in every function here unless it says otherwise.
 */
#ifndef BEAMLOOP_CHANNEL_PYTHON_H
#define BEAMLOOP_CHANNEL_PYTHON_H

#include <Python.h>

#include "channel_core.h"
#include "queue_select.h"
#include "thread_wait.h"
#include "../loop/loop_api.h"

typedef struct channel_await channel_await;
typedef struct channel_gate channel_gate;
typedef struct channel_outgoing channel_outgoing;
typedef struct byte_read byte_read;

/* Of the module; alive as long as any instance of its types.  Guarded by the GIL. */
typedef struct channel_state {
  PyTypeObject *ref_type;
  PyTypeObject *channel_type;
  PyTypeObject *byte_channel_type;
  PyTypeObject *await_type;
  PyTypeObject *gate_type;
  PyTypeObject *view_type;
  PyTypeObject *callback_type;
  /* Looked up at first use, so that importing the module imports nothing: */
  PyObject *channel_closed;      /* erlang.ChannelClosed */
  PyObject *byte_channel_closed; /* erlang.ByteChannelClosed */
  PyObject *channel_full;        /* erlang.ChannelFull */
  PyObject *message_too_large;   /* erlang.MessageTooLarge */
  PyObject *call_cancelled;      /* erlang.CallCancelled */
  const loop_api *loop_api;
  PyObject *get_running_loop; /* asyncio._get_running_loop */
  PyObject *cancelled_error;  /* asyncio.CancelledError */
  PyObject *finalize;         /* weakref.finalize */
  /* Interned names: */
  PyObject *name_call_soon, *name_call_later, *name_cancel, *name_add_reader, *name_get_debug;
  PyObject *call_soon_keywords; /* ("context",) */
  channel_gate *gates;          /* one for each loop that has awaited a channel */
  channel_await *free_awaits;
  unsigned free_await_count;
  uint64_t select_seed; /* of which channel select() looks at first */
} channel_state;

/* erlang.channel.Channel, and erlang.byte_channel.ByteChannel */
typedef struct channel_object {
  PyObject_HEAD
  PyObject *weakrefs;
  channel_state *state; /* constant; the type keeps the module alive */
  channel *channel;     /* counted; NULL only before __new__ is through */
  int poll;             /* wait on foreign loops by polling */
  unsigned burst;       /* messages received since somebody last had to wait */
  unsigned streak;      /* messages awaited in a row without giving the loop a turn */
  int64_t turn;         /* coarse time of the last such turn */
  size_t limit; /* of a byte channel: bytes in which readuntil() finds a separator; constant */
  int reading;  /* of a byte channel: somebody reads it as a stream */
} channel_object;

/* After so many messages without a wait the next one is probably about to come: worth a moment before
 * falling asleep, which costs both sides much more. */
#define CHANNEL_BURST_MIN 4

/* channel_module.c */
PyMODINIT_FUNC PyInit__beamloop_channel(void);
channel_state *channel_state_of(PyTypeObject *type); /* a type of the module or a subclass */
int channel_state_open(channel_state *state);        /* errors; 0 or -1 with an exception */
int channel_state_open_loops(channel_state *state);  /* the loop API and asyncio; likewise */

/* channel_ref.c: erlang.channel.ChannelRef, a live handle as it came from Erlang. */
extern PyType_Spec channel_ref_spec;
PyObject *channel_ref_wrap(channel_state *state, void *resource);   /* takes over the count */
void *channel_ref_resource(channel_state *state, PyObject *object); /* borrowed, or NULL */

/* channel_create.c: tp_new of Channel and ByteChannel. */
PyObject *channel_new(PyTypeObject *type, PyObject *args, PyObject *kwargs);
PyObject *byte_channel_new(PyTypeObject *type, PyObject *args, PyObject *kwargs);

/* channel_send.c: methods of Channel; and what a queue_result other than QUEUE_OK raises, NULL. */
PyObject *channel_send_method(PyObject *self, PyObject *args, PyObject *kwargs);
PyObject *channel_try_send_method(PyObject *self, PyObject *term);
PyObject *channel_async_send_method(PyObject *self, PyObject *args, PyObject *kwargs);
PyObject *channel_close_write_method(PyObject *self, PyObject *ignored);
PyObject *channel_set_send_error(const channel_object *self, int result);

/* Sends, and waits for room where that stops no loop: a queue_result, or -1 with an exception. */
int channel_send_on_thread(channel_object *self, channel_outgoing *out, int64_t timeout);

/* channel_wait.c: the loop that runs on this thread, as a new reference; NULL, with an exception when
 * looking for it failed. */
PyObject *channel_running_loop(channel_state *state);

/* channel_type.c */
extern PyType_Spec channel_type_spec;
PyObject *channel_decode(channel *c, message *m); /* consumes m; NULL with an exception */
PyObject *channel_decode_kept(channel *c, const message *m); /* m stays the caller's */
void channel_set_closed(const channel_object *self);
int channel_parse_timeout(PyObject *timeout, int64_t *out); /* nanoseconds, or -1 for none */

/* Claims the next message: QUEUE_OK, QUEUE_CLOSED, or -1 with an exception.  Releases the GIL while it
 * waits. */
int channel_receive_message(channel_object *self, int64_t timeout, message *m);

/* About to wait on this thread: in debug mode warns when that stops the loop that runs here.  0, or -1
 * with an exception. */
int channel_warn_of_loop(channel_state *state, const char *what, const char *instead);

/* Whether it is a Channel or a ByteChannel. */
int channel_check(const channel_state *state, PyObject *object);

/* Slots, methods and attributes that both have. */
void channel_dealloc(PyObject *object);
PyObject *channel_iternext(PyObject *self);
PyObject *channel_anext(PyObject *self);
PyObject *channel_close_method(PyObject *self, PyObject *ignored);
PyObject *channel_enter(PyObject *self, PyObject *ignored);
PyObject *channel_exit(PyObject *self, PyObject *args);
PyObject *channel_aenter(PyObject *self, PyObject *ignored);
PyObject *channel_aexit(PyObject *self, PyObject *args);
Py_ssize_t channel_length(PyObject *self);
PyObject *channel_get_closed(PyObject *self, void *closure);
int channel_bool(PyObject *self);
PyObject *channel_repr(PyObject *self);
Py_hash_t channel_hash(PyObject *self);
PyObject *channel_compare(PyObject *self, PyObject *other, int op);

/* byte_type.c */
extern PyType_Spec byte_channel_type_spec;
PyObject *byte_channel_decode(const message *m); /* m stays the caller's */

/* channel_many.c: receive_many() and async_receive_many(). */
PyObject *channel_receive_many(PyObject *self, PyObject *args, PyObject *kwargs);
PyObject *channel_async_receive_many(PyObject *self, PyObject *args, PyObject *kwargs);
/* The list of m, which is consumed, and of what else is there, max in all; NULL with an exception. */
PyObject *channel_gather(channel_object *self, message *m, Py_ssize_t max);

/* channel_select.c: functions of the module. */
PyObject *channel_select(PyObject *module, PyObject *args, PyObject *kwargs);
PyObject *channel_select_sync(PyObject *module, PyObject *args, PyObject *kwargs);
PyObject *channel_select_result(PyObject *channel, message *m); /* consumes m */

/* channel_callback.c: the method _channel_wait and what it returns. */
extern PyType_Spec channel_callback_spec;
PyObject *channel_wait_method(PyObject *self, PyObject *args);

/* A queue's lock held, no GIL needed.  Wakes the thread later, when the lock is free. */
void channel_wake_thread(thread_wait *wait, queue_laters *laters);

/* channel_await.c: what async_receive(), __anext__(), async_send() and their like return. */
enum channel_await_kind {
  AWAIT_RECEIVE,
  AWAIT_NEXT,
  AWAIT_SEND,
  AWAIT_MANY,
  AWAIT_SELECT,
  AWAIT_READ,
  AWAIT_DRAINED,
};
extern PyType_Spec channel_await_spec;
PyObject *channel_await_new(channel_object *channel, enum channel_await_kind kind, int64_t timeout);
/* Takes over what is to be sent. */
PyObject *channel_await_new_send(channel_object *channel, channel_outgoing *out, int64_t timeout);
PyObject *channel_await_new_many(channel_object *channel, Py_ssize_t max, int64_t timeout);
/* Until Erlang has no more than so many bytes left to receive. */
PyObject *channel_await_new_drained(channel_object *channel, size_t mark);
/* Takes over the read (of PyMem_Malloc). */
PyObject *channel_await_new_read(channel_object *channel, byte_read *read, int64_t timeout);
/* Takes over select, made for the tuple of channels. */
PyObject *channel_await_new_select(queue_select *select, PyObject *channels, int64_t timeout);
PyObject *channel_await_done(channel_state *state, PyObject *value); /* gives value at once */
void channel_await_free_all(channel_state *state);
int channel_await_run(channel_await *self);          /* woken: runs the task's callback; 0 or -1 */
void channel_await_loop_closed(channel_await *self); /* gives back; nobody wakes it any more */

/* channel_gate.c: through which a queue wakes the coroutines that wait on one loop. */
extern PyType_Spec channel_gate_spec;

/* Links of an awaitable into its gate. */
typedef struct gate_link {
  channel_await *await;
  channel_gate *gate;     /* borrowed; NULL when not linked.  Guarded by the GIL */
  struct gate_link *next; /* all that wait; guarded by the GIL */
  struct gate_link *prev;
  struct gate_link *woken_next; /* guarded by the gate's mutex */
  struct gate_link *woken_prev;
  int woken;
} gate_link;

/* The running loop's gate, borrowed from the loop.  NULL: without an exception when the loop has no
 * add_reader (then one polls), with one when something failed. */
channel_gate *channel_gate_for(channel_state *state, PyObject *loop);

void gate_enter(channel_gate *gate,
                gate_link *link); /* the gate holds a reference to the awaitable */
void gate_leave(gate_link *link); /* drops it; harmless when not entered */

/* Any thread, no GIL; a queue's lock held; takes the gate's mutex, then the loop's pending lock.
 * 0, or -1 when the loop is closed. */
int gate_wake(gate_link *link);

#endif
