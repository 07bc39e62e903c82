# Modules and their headers, in alphabetical order.
ERL_MODULES = \
	erl/py_channel.erl
