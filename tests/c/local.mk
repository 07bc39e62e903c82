# C unit tests: programs that `make check` runs, each with the sources that it needs.
#
#   check_PROGRAMS += tests/c/test_queue
#   tests_c_test_queue_SOURCES = tests/c/test_queue.c c_src/channel/queue.c
check_PROGRAMS += tests/c/test_pending
tests_c_test_pending_SOURCES = tests/c/test_pending.c c_src/loop/pending.c \
	c_src/loop/waker_eventfd.c
tests_c_test_pending_LDADD = -lpthread

check_PROGRAMS += tests/c/test_queue
tests_c_test_queue_SOURCES = tests/c/test_queue.c c_src/channel/cpu_relax.h \
	c_src/channel/message_heap.c c_src/channel/message_heap.h \
	c_src/channel/channel_chores.c c_src/channel/channel_chores.h \
	c_src/channel/message_pool.c c_src/channel/message_pool.h \
	c_src/channel/message_store.c c_src/channel/message_store.h \
	c_src/channel/queue.c c_src/channel/queue.h c_src/channel/queue_drain.c \
	c_src/channel/queue_internal.h \
	c_src/channel/queue_senders.c \
	c_src/channel/thread_wait.c c_src/channel/thread_wait.h

check_PROGRAMS += tests/c/test_pool
tests_c_test_pool_SOURCES = tests/c/test_pool.c c_src/vm/pool.c c_src/vm/pool.h \
	c_src/vm/thread.c c_src/vm/thread.h
tests_c_test_pool_LDADD = -lpthread

check_PROGRAMS += tests/c/test_queue_senders
tests_c_test_queue_senders_SOURCES = tests/c/test_queue_senders.c c_src/channel/cpu_relax.h \
	c_src/channel/message_heap.c c_src/channel/message_heap.h \
	c_src/channel/channel_chores.c c_src/channel/channel_chores.h \
	c_src/channel/message_pool.c c_src/channel/message_pool.h \
	c_src/channel/message_store.c c_src/channel/message_store.h \
	c_src/channel/queue.c c_src/channel/queue.h c_src/channel/queue_drain.c \
	c_src/channel/queue_internal.h \
	c_src/channel/queue_senders.c \
	c_src/channel/thread_wait.c c_src/channel/thread_wait.h

check_PROGRAMS += tests/c/test_queue_select
tests_c_test_queue_select_SOURCES = tests/c/test_queue_select.c c_src/channel/cpu_relax.h \
	c_src/channel/message_heap.c c_src/channel/message_heap.h \
	c_src/channel/channel_chores.c c_src/channel/channel_chores.h \
	c_src/channel/message_pool.c c_src/channel/message_pool.h \
	c_src/channel/message_store.c c_src/channel/message_store.h \
	c_src/channel/queue.c c_src/channel/queue.h c_src/channel/queue_drain.c \
	c_src/channel/queue_internal.h \
	c_src/channel/queue_select.c c_src/channel/queue_select.h c_src/channel/queue_senders.c \
	c_src/channel/thread_wait.c c_src/channel/thread_wait.h

check_PROGRAMS += tests/c/test_queue_crowds
tests_c_test_queue_crowds_SOURCES = tests/c/test_queue_crowds.c \
	c_src/channel/channel_chores.c c_src/channel/channel_chores.h \
	c_src/channel/cpu_relax.h c_src/channel/message_heap.c c_src/channel/message_heap.h \
	c_src/channel/message_pool.c c_src/channel/message_pool.h \
	c_src/channel/message_store.c c_src/channel/message_store.h \
	c_src/channel/queue.c c_src/channel/queue.h c_src/channel/queue_drain.c \
	c_src/channel/queue_internal.h \
	c_src/channel/queue_senders.c
tests_c_test_queue_crowds_LDADD = -lpthread

check_PROGRAMS += tests/c/test_queue_return
tests_c_test_queue_return_SOURCES = tests/c/test_queue_return.c c_src/channel/cpu_relax.h \
	c_src/channel/message_heap.c c_src/channel/message_heap.h \
	c_src/channel/channel_chores.c c_src/channel/channel_chores.h \
	c_src/channel/message_pool.c c_src/channel/message_pool.h \
	c_src/channel/message_store.c c_src/channel/message_store.h \
	c_src/channel/queue.c c_src/channel/queue.h c_src/channel/queue_drain.c \
	c_src/channel/queue_internal.h \
	c_src/channel/queue_senders.c
tests_c_test_queue_return_LDADD = -lpthread

check_PROGRAMS += tests/c/test_message_pool
tests_c_test_message_pool_SOURCES = tests/c/test_message_pool.c \
	c_src/channel/channel_chores.c c_src/channel/channel_chores.h \
	c_src/channel/cpu_relax.h c_src/channel/message_heap.c c_src/channel/message_heap.h \
	c_src/channel/message_pool.c c_src/channel/message_pool.h \
	c_src/channel/message_store.c c_src/channel/message_store.h \
	c_src/channel/queue.c c_src/channel/queue.h c_src/channel/queue_drain.c c_src/channel/queue_internal.h \
	c_src/channel/queue_senders.c
tests_c_test_message_pool_LDADD = -lpthread

check_PROGRAMS += tests/c/test_descriptors
tests_c_test_descriptors_SOURCES = tests/c/test_descriptors.c c_src/vm/descriptors.c \
	c_src/vm/descriptors.h
tests_c_test_descriptors_LDADD = -lpthread
