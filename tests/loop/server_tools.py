"""What the tests of servers share: a recording protocol, blocking clients, an end."""

import asyncio
import socket

import erlang


def current():
    return asyncio.get_running_loop()


def is_ours():
    return isinstance(current(), erlang.ErlangEventLoop)


class Recorder(asyncio.Protocol):
    """Notes what it is told, in `events`; all those of a test are in `made`."""

    made = None

    def __init__(self):
        self.events = []
        self.lost = current().create_future()

    def connection_made(self, transport):
        self.transport = transport
        self.events.append("made")
        if self.made is not None:
            self.made.append(self)

    def data_received(self, data):
        self.events.append(data)

    def connection_lost(self, exc):
        self.events.append("lost")
        self.lost.set_result(exc)


def recorder_type():
    """A subclass of Recorder for one test."""
    return type("Recorder", (Recorder,), {"made": []})


def address_of(server):
    return server.sockets[0].getsockname()


def connect(server):
    """A blocking socket that is connected; nobody has accepted it yet."""
    return socket.create_connection(address_of(server), timeout=10)


async def until(condition):
    """Returns when condition() is true; the test's time limit is the other end."""
    while not condition():
        await asyncio.sleep(0.001)


async def end_of(client):
    """True when the peer has closed the blocking socket client, which is closed then."""

    def work():
        with client:
            try:
                while client.recv(65536):
                    pass
            except ConnectionResetError:
                pass
        return True

    return await asyncio.to_thread(work)


async def close(server, recorders=()):
    server.close()
    for recorder in recorders:
        recorder.transport.abort()
        await recorder.lost
    await server.wait_closed()
