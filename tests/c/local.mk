# C unit tests: programs that `make check` runs, each with the sources that it needs.
#
#   check_PROGRAMS += tests/c/test_queue
#   tests_c_test_queue_SOURCES = tests/c/test_queue.c c_src/channel/queue.c
check_PROGRAMS += tests/c/test_pending
tests_c_test_pending_SOURCES = tests/c/test_pending.c c_src/loop/pending.c \
	c_src/loop/waker_eventfd.c
tests_c_test_pending_LDADD = -lpthread

check_PROGRAMS += tests/c/test_queue
tests_c_test_queue_SOURCES = tests/c/test_queue.c \
	c_src/channel/message_store.c c_src/channel/message_store.h \
	c_src/channel/queue.c c_src/channel/queue.h \
	c_src/channel/thread_wait.c c_src/channel/thread_wait.h
