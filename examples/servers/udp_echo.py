"""A UDP echo server: each datagram goes back to where it came from.

./run example udp_echo [--port 7000]                    inside the Erlang VM
./run python examples/servers/udp_echo.py [--loop uvloop]
nc -u 127.0.0.1 7000
"""

import asyncio

import serving

# A datagram from such a port comes from a service of the system.  Two echo services that were made
# to talk to each other by a forged sender would never stop.
LAST_SYSTEM_PORT = 1023


class Echo(asyncio.DatagramProtocol):
    def __init__(self):
        self.transport = None
        self.paused = False
        self.dropped = 0

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, address):
        # While the network does not take what was sent, datagrams are dropped and not collected.
        if self.paused or address[1] <= LAST_SYSTEM_PORT:
            self.dropped += 1
        else:
            self.transport.sendto(data, address)

    def pause_writing(self):
        self.paused = True

    def resume_writing(self):
        self.paused = False

    def error_received(self, error):
        serving.log(f"udp_echo: {error}")


async def main(arguments):
    options = serving.Parser("udp_echo", "UDP echo server", port=7000).parse_args(arguments)
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.create_datagram_endpoint(
        Echo, local_addr=(options.host, options.port)
    )
    serving.announce("udp_echo", transport.get_extra_info("sockname"))
    try:
        await loop.create_future()
    finally:
        transport.close()
        if protocol.dropped:
            serving.log(f"udp_echo: {protocol.dropped} datagrams were dropped")


if __name__ == "__main__":
    serving.run(main)
