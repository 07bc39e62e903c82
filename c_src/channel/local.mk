# Channels: the queue core (plain C), the Erlang face and the Python face.
CHANNEL_SOURCES = \
	c_src/channel/channel_attachment.c \
	c_src/channel/channel_attachment.h \
	c_src/channel/channel_await.c \
	c_src/channel/channel_await.h \
	c_src/channel/channel_core.c \
	c_src/channel/channel_core.h \
	c_src/channel/channel_future.c \
	c_src/channel/channel_gate.c \
	c_src/channel/channel_module.c \
	c_src/channel/channel_nif.c \
	c_src/channel/channel_nif.h \
	c_src/channel/channel_nif_internal.h \
	c_src/channel/channel_python.h \
	c_src/channel/channel_ref.c \
	c_src/channel/channel_send_nif.c \
	c_src/channel/channel_send_wait_nif.c \
	c_src/channel/channel_type.c \
	c_src/channel/channel_wait.c \
	c_src/channel/cpu_relax.h \
	c_src/channel/message_store.c \
	c_src/channel/message_store.h \
	c_src/channel/queue.c \
	c_src/channel/queue.h \
	c_src/channel/queue_internal.h \
	c_src/channel/queue_senders.c \
	c_src/channel/thread_wait.c \
	c_src/channel/thread_wait.h
