"""How servers accept, and what they do when that fails, on our loop and on asyncio's."""

import asyncio
import contextlib
import gc
import os
import socket
import sys

import pytest
from server_tools import close, connect, current, end_of, is_ours, recorder_type, until

# Where nobody serves a connection, asyncio leaves it to the collector.
left_by_asyncio = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")


def collect_what_asyncio_left():
    if not is_ours():
        gc.collect()


@pytest.fixture
def recorder():
    return recorder_type()


# --- accepting -----------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_a_burst_lets_others_run_in_between(recorder):
    server = await current().create_server(recorder, "127.0.0.1", 0, backlog=500)
    if not is_ours():
        await close(server)
        pytest.skip("asyncio accepts up to the backlog at once")
    turns = []

    def turn():
        turns.append(len(recorder.made))
        if len(recorder.made) < 300:
            current().call_soon(turn)

    clients = [connect(server) for _ in range(300)]
    turn()
    await until(lambda: len(recorder.made) == 300)
    assert len(set(turns)) > 3
    for client in clients:
        client.close()
    for one in recorder.made:
        await one.lost
    await close(server)


@pytest.mark.parametrize("backlog", [0, 1, 3])
@pytest.mark.asyncio
async def test_more_clients_than_the_backlog_are_served_in_turn(recorder, backlog):
    if backlog == 0 and not is_ours():
        pytest.skip("asyncio accepts as many as the backlog says: none")
    server = await current().create_server(recorder, "127.0.0.1", 0, backlog=backlog)
    for count in range(1, 8):
        client = await asyncio.to_thread(connect, server)
        await until(lambda count=count: len(recorder.made) == count)
        client.close()
    for one in recorder.made:
        await one.lost
    await close(server)


@left_by_asyncio
@pytest.mark.asyncio
async def test_a_factory_that_closes_the_server_gets_no_connection(recorder):
    def factory():
        server.close()
        return recorder()

    server = await current().create_server(factory, "127.0.0.1", 0)
    clients = [connect(server) for _ in range(5)]
    await asyncio.sleep(0.01)
    # Accepted or not, nobody serves them.
    collect_what_asyncio_left()
    for client in clients:
        assert await end_of(client)
    await server.wait_closed()
    assert recorder.made == []


@pytest.mark.asyncio
async def test_a_server_closed_while_clients_wait_refuses_them(recorder):
    server = await current().create_server(recorder, "127.0.0.1", 0)
    clients = [connect(server) for _ in range(5)]
    await close(server)
    for client in clients:
        assert await end_of(client)
    assert recorder.made == []


@left_by_asyncio
@pytest.mark.parametrize("error", [ValueError, asyncio.CancelledError, GeneratorExit])
@pytest.mark.asyncio
async def test_a_factory_that_fails_loses_that_connection_only(recorder, error):
    reports = []
    current().set_exception_handler(lambda loop, context: reports.append(context))
    calls = []

    def factory():
        calls.append(None)
        if len(calls) % 2:
            raise error("no protocol today")
        return recorder()

    server = await current().create_server(factory, "127.0.0.1", 0)
    clients = []
    for count in range(1, 7):
        clients.append(connect(server))
        await until(lambda count=count: len(calls) == count)
    await until(lambda: len(recorder.made) == 3)
    for lost in clients[0::2]:
        assert await end_of(lost)
    for one in recorder.made:
        one.transport.write(b"served")
    for served in clients[1::2]:
        assert await asyncio.to_thread(served.recv, 10) == b"served"
        served.close()
    for one in recorder.made:
        await one.lost
    await close(server)
    assert reports == []


@left_by_asyncio
@pytest.mark.asyncio
async def test_a_failing_factory_is_reported_in_debug_mode():
    reports = []
    current().set_debug(True)
    current().set_exception_handler(lambda loop, context: reports.append(context))

    def factory():
        raise ValueError("no protocol today")

    server = await current().create_server(factory, "127.0.0.1", 0)
    client = connect(server)
    await until(lambda: reports)
    assert reports[0]["message"] == "Error on transport creation for incoming connection"
    assert isinstance(reports[0]["exception"], ValueError)
    reports.clear()
    collect_what_asyncio_left()
    assert await end_of(client)
    await close(server)


@left_by_asyncio
@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_a_factory_may_end_the_loop(loop, error):
    counted = recorder_type()

    def factory():
        if errors:
            raise errors.pop()
        return counted()

    async def open_server():
        return await loop.create_server(factory, "127.0.0.1", 0)

    async def serve_the_next():
        await until(lambda: counted.made)
        for client in clients:
            client.close()
        for one in counted.made:
            await one.lost
        await close(server)

    errors = []
    loop.set_exception_handler(lambda loop, context: None)
    server = loop.run_until_complete(open_server())
    errors.append(error("over"))
    clients = [connect(server), connect(server)]
    with pytest.raises(error):
        loop.run_forever()
    loop.run_until_complete(serve_the_next())
    gc.collect()


@left_by_asyncio
@pytest.mark.asyncio
async def test_what_is_no_protocol_is_dropped():
    reports = []
    current().set_exception_handler(lambda loop, context: reports.append(context))
    server = await current().create_server(lambda: None, "127.0.0.1", 0)
    client = connect(server)
    await asyncio.sleep(0.01)
    collect_what_asyncio_left()
    assert await end_of(client)
    server.close()
    # asyncio's own servers count it until 3.12 and would wait for ever.
    if is_ours():
        await server.wait_closed()
    assert reports == []


@pytest.mark.asyncio
async def test_an_exception_of_connection_made_is_reported_and_reading_begins(recorder):
    reports = []
    current().set_exception_handler(lambda loop, context: reports.append(context))

    class Failing(recorder):
        def connection_made(self, transport):
            super().connection_made(transport)
            raise ValueError("unhappy")

    server = await current().create_server(Failing, "127.0.0.1", 0)
    client = connect(server)
    client.sendall(b"all the same")
    await until(lambda: recorder.made and len(recorder.made[0].events) == 2)
    assert recorder.made[0].events == ["made", b"all the same"]
    assert len(reports) == 1
    assert reports[0]["message"].startswith("Exception in callback ")
    assert "Failing.connection_made(" in reports[0]["message"]
    assert str(reports[0]["exception"]) == "unhappy"
    assert reports[0]["handle"] is not None
    client.close()
    await recorder.made[0].lost
    await close(server)


# --- out of descriptors --------------------------------------------------------------------------

STARVED = """
import resource, socket
from asyncio import constants
constants.ACCEPT_RETRY_DELAY = SECONDS
reports, made = [], []
class Serve(asyncio.Protocol):
    def connection_made(self, transport):
        made.append(transport)
        transport.close()
async def main():
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda loop, context: reports.append(context))
    server = await loop.create_server(Serve, "127.0.0.1", 0, backlog=1)
    address = server.sockets[0].getsockname()
    clients = [socket.create_connection(address) for _ in range(2)]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    def starve(on):
        limit = clients[-1].fileno() + 1 if on else soft
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    starve(True)
    while not reports:
        await asyncio.sleep(0.001)
    assert reports[0]["message"] == "socket.accept() out of system resource", reports
    assert reports[0]["exception"].errno == 24, reports
    assert reports[0]["socket"].getsockname() == address
    await then(loop, server, starve, clients)
    for client in clients:
        client.close()
    server.close()
"""

RUN = """
with asyncio.Runner(loop_factory=new_loop, debug=False) as runner:
    runner.run(main())
print("done")
"""


def starved(run_script, delay, then):
    """A server that has just reported that it is out of descriptors, two clients waiting."""
    done = run_script(STARVED.replace("SECONDS", delay) + then + RUN)
    assert done.stdout == "done\n", done.stderr


def test_a_starved_server_reports_once_and_sleeps(run_script, loop_name):
    if loop_name != "erlang":
        pytest.skip("the counters are ours")
    starved(
        run_script,
        "1000",
        """
async def then(loop, server, starve, clients):
    before = loop._stats()["iterations"]
    for _ in range(20):
        await asyncio.sleep(0.001)
    assert len(reports) == 1, reports
    assert loop._stats()["iterations"] - before < 100
    starve(False)
""",
    )


def test_a_starved_server_tries_again_until_it_can(run_script):
    starved(
        run_script,
        "0.01",
        """
async def then(loop, server, starve, clients):
    while len(reports) < 3:
        await asyncio.sleep(0.001)
    assert made == []
    starve(False)
    while len(made) < 2:
        await asyncio.sleep(0.001)
""",
    )


def test_a_starved_server_may_be_closed(run_script, loop_name):
    if loop_name != "erlang":
        pytest.skip("asyncio starts serving on the closed socket, and fails")
    starved(
        run_script,
        "0.01",
        """
async def then(loop, server, starve, clients):
    server.close()
    starve(False)
    await server.wait_closed()
    timers = loop._stats()["timers"]
    await asyncio.sleep(0.05)
    assert timers == 0, timers
    assert len(reports) == 1, reports
    assert made == []
""",
    )


# --- Unix sockets --------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_a_unix_server_accepts_and_ends(recorder, tmp_path):
    path = str(tmp_path / "listening")
    server = await current().create_unix_server(recorder, path, start_serving=False)
    assert isinstance(server, asyncio.Server)
    with socket.socket(socket.AF_UNIX) as client, pytest.raises(ConnectionRefusedError):
        client.connect(path)
    await server.start_serving()
    clients = []
    for _ in range(5):
        clients.append(socket.socket(socket.AF_UNIX))
        clients[-1].connect(path)
        clients[-1].sendall(b"hello")
    await until(lambda: [one.events for one in recorder.made] == [["made", b"hello"]] * 5)
    for client in clients:
        client.close()
    for one in recorder.made:
        assert await one.lost is None
    await close(server)
    assert os.path.exists(path) is (sys.version_info < (3, 13))


# --- over and over -------------------------------------------------------------------------------


def test_servers_leave_nothing_behind(loop):
    kinds = ("StreamTransport", "_SelectorSocketTransport", "Listener", "Clients", "Server")

    def count():
        gc.collect()
        return sum(type(each).__name__ in kinds for each in gc.get_objects())

    class Closing(asyncio.Protocol):
        def connection_made(self, transport):
            transport.get_extra_info("socket")
            transport.write(b"bye")
            transport.close()

    async def visit():
        server = await loop.create_server(Closing, "127.0.0.1", 0)
        clients = [connect(server) for _ in range(10)]
        waiting = connect(server)
        for client in clients:
            assert await end_of(client)
        await close(server)
        with contextlib.suppress(ConnectionResetError):
            waiting.recv(10)
        waiting.close()

    loop.run_until_complete(visit())
    before = count()
    for _ in range(5):
        loop.run_until_complete(visit())
    assert count() <= before
