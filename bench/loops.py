"""The loops that the benchmarks compare, by name."""

import asyncio


def new_loop(name):
    if name == "erlang":
        import erlang

        return erlang.new_event_loop()
    if name == "uvloop":
        import uvloop

        return uvloop.new_event_loop()
    if name == "aiofastnet":
        import aiofastnet
        import uvloop

        return aiofastnet.patch_loop(uvloop.new_event_loop())
    if name == "rloop":
        import rloop

        return rloop.new_event_loop()
    if name == "asyncio":
        return asyncio.SelectorEventLoop()
    raise ValueError(f"no loop {name}")
