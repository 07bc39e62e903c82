# The NIF library with a clock around each call, for scheduler_health_SUITE: the product's objects, but
# for the table of NIFs, which nif_clock.c includes.  `make clocked` puts it into a copy of the application
# whose other files are the product's.
EXTRA_PROGRAMS += clocked.so
clocked_so_SOURCES = tests/erl/nif_clock.c
clocked_so_CPPFLAGS = $(beamloop_so_CPPFLAGS)
clocked_so_CFLAGS = $(beamloop_so_CFLAGS)
clocked_so_LDFLAGS = $(beamloop_so_LDFLAGS) -Wl,--wrap=enif_open_resource_type_x
clocked_so_LDADD = $(filter-out %/beamloop_so-nif.$(OBJEXT),$(beamloop_so_OBJECTS)) $(beamloop_so_LDADD)

clocked_app = clocked/beamloop

clocked: $(PRODUCTS) clocked.so
	$(AM_V_GEN)$(MKDIR_P) $(clocked_app)/priv && cp -f clocked.so $(clocked_app)/priv/beamloop.so && \
	ln -sfn ../../$(app)/ebin $(clocked_app)/ebin && \
	ln -sfn ../../../$(app)/priv/python $(clocked_app)/priv/python
.PHONY: clocked
