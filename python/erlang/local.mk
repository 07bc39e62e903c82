# The erlang package's Python files and their types, in alphabetical order.
PY_MODULES = \
	python/erlang/__init__.py \
	python/erlang/_term.pyi \
	python/erlang/byte_channel.py \
	python/erlang/byte_channel.pyi \
	python/erlang/byte_transport.py \
	python/erlang/byte_transport.pyi \
	python/erlang/channel.py \
	python/erlang/channel.pyi \
	python/erlang/children.py \
	python/erlang/errors.py \
	python/erlang/loop.py \
	python/erlang/loop.pyi \
	python/erlang/py.typed \
	python/erlang/reactor.py \
	python/erlang/reactor.pyi \
	python/erlang/server.py \
	python/erlang/tls.py \
	python/erlang/transports.py \
	python/erlang/vm.py
