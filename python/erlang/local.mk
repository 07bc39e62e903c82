# The erlang package's Python files, in alphabetical order.
PY_MODULES = \
	python/erlang/__init__.py \
	python/erlang/channel.py \
	python/erlang/children.py \
	python/erlang/errors.py \
	python/erlang/loop.py \
	python/erlang/tls.py \
	python/erlang/transports.py \
	python/erlang/vm.py
