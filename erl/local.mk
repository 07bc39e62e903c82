# Modules and their headers, in alphabetical order.
ERL_MODULES = \
	erl/beamloop_app.erl \
	erl/beamloop_call.erl \
	erl/beamloop_channel.erl \
	erl/beamloop_handles.erl \
	erl/beamloop_interpreter.erl \
	erl/beamloop_loop.erl \
	erl/beamloop_nif.erl \
	erl/beamloop_reactor.erl \
	erl/beamloop_relay.erl \
	erl/beamloop_subscription.erl \
	erl/beamloop_sup.erl \
	erl/py.erl \
	erl/py_byte_channel.erl \
	erl/py_channel.erl \
	erl/py_event_loop.erl \
	erl/py_reactor.erl
