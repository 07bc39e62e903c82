CHANNEL_SOURCES = \
  c_src/channel/message_store.c \
  c_src/channel/message_store.h \
  c_src/channel/queue.c \
  c_src/channel/queue.h \
  c_src/channel/thread_wait.c \
  c_src/channel/thread_wait.h
