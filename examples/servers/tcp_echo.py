"""A TCP echo server: what a client sends comes back.

./run example tcp_echo [--port 7000]                    inside the Erlang VM
./run python examples/servers/tcp_echo.py [--loop uvloop]
nc 127.0.0.1 7000
"""

import asyncio

import serving

PIECE = 65536


async def main(arguments):
    parser = serving.Parser("tcp_echo", "TCP echo server", port=7000)
    parser.add_limits()
    options = parser.parse_args(arguments)

    async def echo(reader, writer):
        # A client that does not read makes drain() wait: then nothing is read from it either, and
        # after the time-out it is gone.
        while True:
            async with asyncio.timeout(options.timeout):
                data = await reader.read(PIECE)
                if not data:
                    return
                writer.write(data)
                await writer.drain()

    server = serving.StreamServer("tcp_echo", echo, options.connections)
    await server.serve(options.host, options.port, backlog=1024)


if __name__ == "__main__":
    serving.run(main)
