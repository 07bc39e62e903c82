"""The web server, by aiohttp's own client on the loop of the host's name."""

import asyncio
import contextlib
import json
import signal
import socket
import urllib.request

import aiohttp
import pytest

TIMEOUT = aiohttp.ClientTimeout(total=30)
NAMES = {
    "vm": "ErlangEventLoop",
    "erlang": "ErlangEventLoop",
    "uvloop": "Loop",
}


def url(server):
    return f"http://127.0.0.1:{server.port}"


def test_web_greets_on_the_loop_that_was_asked_for(host, shared_server):
    with urllib.request.urlopen(f"{url(shared_server('web'))}/hello/you", timeout=30) as answer:
        assert json.load(answer) == {"hello": "you", "loop": NAMES[host]}


@pytest.mark.asyncio
async def test_web_answers_many_clients_at_once(shared_server):
    server = shared_server("web")
    async with aiohttp.ClientSession(timeout=TIMEOUT) as session:

        async def ask(number):
            async with session.get(f"{url(server)}/hello/{number}") as response:
                return (await response.json())["hello"]

        assert await asyncio.gather(*map(ask, range(200))) == [str(i) for i in range(200)]


@pytest.mark.asyncio
async def test_web_echoes_bodies_to_a_limit(shared_server):
    server = shared_server("web")
    async with aiohttp.ClientSession(timeout=TIMEOUT) as session:
        data = b"0123456789" * 300_000
        async with session.post(f"{url(server)}/echo", data=data) as response:
            assert await response.read() == data
        with contextlib.suppress(aiohttp.ClientConnectionError):
            async with session.post(f"{url(server)}/echo", data=b"x" * (1 << 25)) as response:
                assert response.status == 413


@pytest.mark.asyncio
async def test_web_speaks_websocket(shared_server):
    server = shared_server("web")
    async with (
        aiohttp.ClientSession(timeout=TIMEOUT) as session,
        session.ws_connect(f"{url(server)}/websocket") as connection,
    ):
        for i in range(20):
            await connection.send_str(f"message {i}")
            assert await connection.receive_str() == f"MESSAGE {i}"
        await connection.send_str("x" * 100_000)
        assert (await connection.receive()).type is aiohttp.WSMsgType.CLOSE
        assert connection.close_code == aiohttp.WSCloseCode.MESSAGE_TOO_BIG


def test_web_answers_nonsense_with_an_error(shared_server):
    server = shared_server("web")
    for nonsense, status in (
        (b"\x00\x01\r\n\r\n", b" 400 "),
        (b"GET /no HTTP/1.0\r\n\r\n", b" 404 "),
    ):
        with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
            connection.sendall(nonsense)
            assert status in connection.recv(4096)


def test_web_gives_up_on_bodies_that_do_not_come(start):
    server = start("web", "--timeout", "0.3")
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n12")
        received = b""
        while piece := connection.recv(4096):
            received += piece
    assert b"12" in received


def test_web_refuses_requests_beyond_its_limit(start):
    server = start("web", "--connections", "1")
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as waiting:
        waiting.sendall(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n12")
        assert b" 200 " in waiting.recv(4096)
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"{url(server)}/hello/you", timeout=30)
        assert refused.value.code == 503


@pytest.mark.asyncio
async def test_web_ends_in_order(start):
    server = start("web")
    async with (
        aiohttp.ClientSession(timeout=TIMEOUT) as session,
        session.ws_connect(f"{url(server)}/websocket") as connection,
    ):
        await connection.send_str("hello")
        assert await connection.receive_str() == "HELLO"
        server.process.send_signal(signal.SIGTERM)
        message = await connection.receive()
        assert (message.type, message.data) == (aiohttp.WSMsgType.CLOSE, 1001)
        await connection.close()
        assert await asyncio.to_thread(server.process.wait, 30) == 0
