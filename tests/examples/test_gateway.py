"""aiohttp over byte channels, with Erlang's gen_tcp in front: `./run gateway`."""

import asyncio
import os
import signal
import socket
import subprocess
from pathlib import Path

import aiohttp
import pytest

TOP = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def port():
    process = subprocess.Popen(
        [str(TOP / "run"), "gateway", "0"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with process:
        line = process.stdout.readline()
        assert "listening on" in line
        yield int(line.rpartition(":")[2])
        os.killpg(process.pid, signal.SIGTERM)


@pytest.mark.asyncio
async def test_requests_bodies_and_websockets_pass(port):
    url = f"http://127.0.0.1:{port}"
    body = os.urandom(3_000_000)
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as session:

        async def hello(number):
            async with session.get(f"{url}/hello/{number}") as response:
                return (await response.json())["hello"]

        assert await asyncio.gather(*map(hello, range(100))) == [str(n) for n in range(100)]
        async with session.post(f"{url}/echo", data=body) as response:
            assert await response.read() == body
        async with session.ws_connect(f"{url}/websocket") as connection:
            for number in range(20):
                await connection.send_str(f"message {number}")
                assert await connection.receive_str() == f"MESSAGE {number}"


def test_a_client_that_ends_its_side_is_answered(port):
    with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
        client.sendall(b"GET /hello/you HTTP/1.0\r\n\r\n")
        answer = b""
        while piece := client.recv(4096):
            answer += piece
        assert answer.endswith(b'{"hello": "you"}')


def test_a_client_that_goes_away_disturbs_nobody(port):
    for _ in range(10):
        with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
            client.sendall(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\nx")
    test_a_client_that_ends_its_side_is_answered(port)
