# Modules and their headers, in alphabetical order.
ERL_MODULES = \
	erl/beamloop_handles.erl \
	erl/py_channel.erl
