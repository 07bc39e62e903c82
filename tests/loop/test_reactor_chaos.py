"""Many clients, good and bad, against a reactor: resets, half-open ends, nonsense, slow readers.

The clients and what the server does for them are test_chaos's; their programs are drawn from a
fixed seed.
"""

import asyncio
import contextlib
import gc
import socket
import threading

import pytest
from test_chaos import CLIENTS, PATIENCE, Chaos, Session, count_objects, visit

import erlang
from erlang import reactor


class Served(reactor.Protocol):
    """A session whose transport is the protocol itself."""

    chaos = None

    def connection_made(self, fd, info):
        self.session = Session(self.chaos, self)

    def data_received(self, data):
        self.session.feed(data)
        return reactor.CONTINUE

    def connection_lost(self, exc):
        self.session.lost()
        self.session = None

    # What sessions ask of transports.

    def writelines(self, pieces):
        for piece in pieces:
            self.write(piece)

    def can_write_eof(self):
        return False


class AsksToWrite(Served):
    """Sends what there is in write_ready(), and reads on one turn later."""

    def connection_made(self, fd, info):
        self.unsent = []
        super().connection_made(fd, info)

    def data_received(self, data):
        self.session.feed(bytes(data))
        return reactor.WRITE_PENDING if self.unsent else reactor.READ_PENDING

    def write(self, data):
        self.unsent.append(bytes(data))

    def write_ready(self):
        while self.unsent:
            piece = self.unsent.pop(0)
            assert super().write(piece) == len(piece)
        return reactor.READ_PENDING

    def close(self):
        self.write_ready()
        super().close()


class ReactorServer:
    """A reactor and what accepts for it, as a server of asyncio's looks to the clients."""

    def __init__(self, served, listener):
        self.sockets = [listener]
        self._served = served
        self._task = asyncio.get_running_loop().create_task(self._accept(listener))

    async def _accept(self, listener):
        loop = asyncio.get_running_loop()
        while True:
            accepted, _ = await loop.sock_accept(listener)
            try:
                self._served.adopt(accepted)
            except OSError:
                # It was reset before.
                accepted.close()

    def close(self):
        self._task.cancel()
        self.sockets[0].close()

    async def wait_closed(self):
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        await self._served.stop(PATIENCE)


class ReactorChaos(Chaos):
    async def start(self, kind, context):
        protocol = type(kind.__name__, (kind,), {"chaos": self})
        served = reactor.Reactor(asyncio.get_running_loop(), protocol, read_size=10_000)
        self.watch(served)
        listener = socket.create_server(("127.0.0.1", 0), backlog=1000)
        listener.setblocking(False)
        return ReactorServer(served, listener)


@pytest.mark.parametrize("kind", [Served, AsksToWrite])
def test_bad_clients_leave_nothing_behind(kind):
    loop = erlang.new_event_loop()
    chaos = ReactorChaos()
    loop.set_exception_handler(lambda loop, context: chaos.errors.append(context))
    threads = threading.active_count()
    loop.run_until_complete(asyncio.sleep(0))
    before = count_objects()
    watched = loop._stats()["watched"]
    loop.run_until_complete(visit(chaos, kind, None, None))
    loop.run_until_complete(asyncio.sleep(0))
    gc.collect()
    assert chaos.errors == []
    assert chaos.made > CLIENTS
    assert chaos.left_behind() == []
    assert count_objects() == before
    assert threading.active_count() == threads
    assert not reactor._loop._adopted
    stats = loop._stats()
    assert (stats["ready"], stats["timers"], stats["pending"], stats["watched"]) == (
        0,
        0,
        0,
        watched,
    )
    loop.close()
