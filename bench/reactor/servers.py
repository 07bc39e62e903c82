"""The reactor's echo server: a plain Python that accepts and adopts; servers.py prints its port.

In the Erlang VM, echo.erl accepts and hands over to the same `Echo`.
"""

import asyncio
import socket

import erlang
from erlang import reactor


class Echo(reactor.Protocol):
    __slots__ = ()

    def data_received(self, data):
        self.write(data)


async def serve():
    # As the servers of bench/echo do.
    del [bytes(1 << 20)][0]
    loop = asyncio.get_running_loop()
    served = reactor.Reactor(loop, Echo)
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        listener.setblocking(False)
        print(listener.getsockname()[1], flush=True)
        while True:
            connection, _ = await loop.sock_accept(listener)
            served.adopt(connection)


if __name__ == "__main__":
    erlang.run(serve())
