# The extension module erlang._loop.
LOOP_SOURCES = \
	c_src/loop/calls.c \
	c_src/loop/debug.c \
	c_src/loop/handle.c \
	c_src/loop/handle_internal.h \
	c_src/loop/handle_type.c \
	c_src/loop/loop_api.h \
	c_src/loop/loop_internal.h \
	c_src/loop/loop_run.c \
	c_src/loop/loop_type.c \
	c_src/loop/methods.c \
	c_src/loop/module.c \
	c_src/loop/names.h \
	c_src/loop/pending.c \
	c_src/loop/pending.h \
	c_src/loop/poller.h \
	c_src/loop/poller_epoll.c \
	c_src/loop/readers.c \
	c_src/loop/ready.c \
	c_src/loop/sock_calls.c \
	c_src/loop/sock_calls.h \
	c_src/loop/sock_ops.c \
	c_src/loop/sources.c \
	c_src/loop/stream_transport.c \
	c_src/loop/stream_write.c \
	c_src/loop/timers.c \
	c_src/loop/transport.h \
	c_src/loop/transport_base.c \
	c_src/loop/transport_state.h \
	c_src/loop/waker.h \
	c_src/loop/waker_eventfd.c
