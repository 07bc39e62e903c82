CHANNEL_SOURCES = \
  c_src/channel/thread_wait.c \
  c_src/channel/thread_wait.h
