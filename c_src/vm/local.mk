# The interpreter, its threads, calls and the NIF table.
VM_SOURCES = \
	c_src/vm/atoms_nif.c \
	c_src/vm/atoms_nif.h \
	c_src/vm/call.h \
	c_src/vm/call_nif.c \
	c_src/vm/call_nif.h \
	c_src/vm/call_python.c \
	c_src/vm/call_python.h \
	c_src/vm/child_python.c \
	c_src/vm/child_python.h \
	c_src/vm/inbox.c \
	c_src/vm/inbox.h \
	c_src/vm/inbox_python.c \
	c_src/vm/inbox_python.h \
	c_src/vm/interp_nif.c \
	c_src/vm/interp_nif.h \
	c_src/vm/interp_python.c \
	c_src/vm/interp_python.h \
	c_src/vm/module_python.c \
	c_src/vm/nif.c \
	c_src/vm/object_handle.h \
	c_src/vm/object_drops.c \
	c_src/vm/object_nif.c \
	c_src/vm/object_nif.h \
	c_src/vm/object_python.c \
	c_src/vm/pool.c \
	c_src/vm/pool.h \
	c_src/vm/runtime.c \
	c_src/vm/runtime.h \
	c_src/vm/send.h \
	c_src/vm/send_nif.c \
	c_src/vm/service.c \
	c_src/vm/service.h \
	c_src/vm/thread.c \
	c_src/vm/thread.h \
	c_src/vm/worker.h
