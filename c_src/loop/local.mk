# The extension module erlang._loop.
LOOP_SOURCES = \
	c_src/loop/loop_api.h
