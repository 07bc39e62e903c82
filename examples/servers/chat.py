"""A chat server: each line that a member sends goes to all others.

    ./run example chat [--port 7001]                        inside the Erlang VM
    ./run python examples/servers/chat.py [--loop uvloop]
    nc 127.0.0.1 7001

The first line of a client is its name.  `/who` lists the members, `/quit` leaves.
"""

import asyncio
import collections

import serving

LINE = 1024  # bytes of a line, at most
NAME = 32  # characters of a name, at most
BEHIND = 1000  # lines that a member may be behind, at most


class Member:
    """One client.  Lines for it wait in a queue, which a task of its own writes out, so that one
    who reads slowly delays nobody; who falls too far behind is sent away."""

    def __init__(self, name, writer):
        self.name = name
        self._writer = writer
        self._lines = collections.deque()
        self._news = asyncio.Event()
        self._over = False

    def tell(self, line):
        if len(self._lines) >= BEHIND:
            serving.log(f"chat: {self.name} does not read")
            self._writer.transport.abort()
        else:
            self._lines.append(line)
            self._news.set()

    def leave(self):
        """Let write_lines() end when it has written what is there."""
        self._over = True
        self._news.set()

    async def write_lines(self):
        while True:
            await self._news.wait()
            self._news.clear()
            while self._lines:
                self._writer.write(self._lines.popleft().encode() + b"\r\n")
                await self._writer.drain()
            if self._over:
                return


class Room:
    def __init__(self, timeout):
        self._timeout = timeout
        self._members = {}

    async def handle(self, reader, writer):
        """The whole visit of a client."""
        writer.write(b"Your name?\r\n")
        name = await self._read_line(reader)
        if name is None:
            return
        if not name or len(name) > NAME or name in self._members:
            writer.write(b"That name is not free.\r\n")
            raise serving.BadClient("bad name")
        member = self._members[name] = Member(name, writer)
        lines = asyncio.ensure_future(member.write_lines())
        try:
            self._tell_all(f"* {name} is here", besides=member)
            member.tell(f"* hello {name}, {len(self._members)} here")
            await self._converse(member, reader)
        except asyncio.CancelledError:
            member.tell("* the server ends")
            raise
        finally:
            del self._members[name]
            self._tell_all(f"* {name} has left")
            await self._finish(member, lines)

    async def _converse(self, member, reader):
        while (line := await self._read_line(reader)) not in (None, "/quit"):
            if line == "/who":
                member.tell("* " + ", ".join(sorted(self._members)))
            elif line:
                self._tell_all(f"{member.name}: {line}", besides=member)

    async def _read_line(self, reader):
        """The text of the next line without what terminals would obey; None at the end."""
        try:
            async with asyncio.timeout(self._timeout):
                line = await reader.readuntil(b"\n")
        except asyncio.IncompleteReadError:
            return None
        except asyncio.LimitOverrunError:
            raise serving.BadClient("a line that is too long") from None
        text = line.decode(errors="replace").strip()
        return "".join(character for character in text if character.isprintable())

    def _tell_all(self, line, besides=None):
        for member in list(self._members.values()):
            if member is not besides:
                member.tell(line)

    async def _finish(self, member, lines):
        """Write what the member has not got yet, for a while."""
        member.leave()
        try:
            async with asyncio.timeout(serving.GRACE / 2):
                await lines
        except (OSError, TimeoutError):
            pass


async def main(arguments):
    parser = serving.Parser("chat", "Chat server", port=7001)
    parser.add_limits(timeout=3600.0)
    options = parser.parse_args(arguments)
    room = Room(options.timeout)
    server = serving.StreamServer("chat", room.handle, options.connections)
    await server.serve(options.host, options.port, limit=LINE)


if __name__ == "__main__":
    serving.run(main)
