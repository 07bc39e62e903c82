"""Where asyncio's transport classes are not laid out as the native types expect."""

import subprocess
import sys
import textwrap

import pytest

CHANGES = {
    "many slots": "__slots__ = tuple(f'slot{i}' for i in range(20))",
    "a dict": "__slots__ = ('__dict__',)",
    "weak references": "__slots__ = ('__weakref__',)",
}

SCRIPT = """
import asyncio, os, socket, sys
from asyncio import transports

class Other(transports.BASE):
    CHANGE

transports.BASE = Other

import erlang
from erlang import _loop

types = ("StreamTransport", "DatagramTransport", "ReadPipeTransport", "WritePipeTransport")
print([name for name in types if getattr(_loop, name) is None])

class Echo(asyncio.Protocol, asyncio.DatagramProtocol):
    def connection_made(self, transport):
        self.transport = transport
    def data_received(self, data):
        self.transport.write(data)
    def datagram_received(self, data, addr):
        self.transport.sendto(data, addr)

async def main():
    server = await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(b"x" * 300_000)
    assert await reader.readexactly(300_000) == b"x" * 300_000
    writer.close()
    await writer.wait_closed()
    server.close()
    await server.wait_closed()
    endpoint, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        Echo, local_addr=("127.0.0.1", 0))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.sendto(b"datagram", endpoint.get_extra_info("sockname"))
        assert await asyncio.get_running_loop().sock_recv(sock, 100) == b"datagram"
    endpoint.close()
    child = await asyncio.create_subprocess_exec(
        "cat", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE)
    assert await child.communicate(b"y" * 300_000) == (b"y" * 300_000, None)

erlang.run(main())
print("served")
"""


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("base", ["_FlowControlMixin", "ReadTransport"])
def test_asyncios_own_transports_serve_then(base, change):
    source = SCRIPT.replace("BASE", base).replace("CHANGE", CHANGES[change])
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-c", textwrap.dedent(source)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    expected = {
        "_FlowControlMixin": ["StreamTransport", "DatagramTransport", "WritePipeTransport"],
        "ReadTransport": ["ReadPipeTransport"],
    }
    assert done.stdout.splitlines() == [str(expected[base]), "served"]
