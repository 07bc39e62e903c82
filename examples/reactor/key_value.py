"""A key-value store over TCP: Erlang accepts the connections, a reactor serves them.

A client sends lines and gets a line for each, in order:

    set KEY VALUE   ok
    get KEY         value VALUE, or none
    sum KEY...      sum CHECKSUM, of the values in that order; a coroutine works it out
    anything else   error WHY
"""

import asyncio
import zlib
from collections import deque

from erlang import reactor

LONGEST = 64 * 1024  # of a line, in bytes
AT_ONCE = 100  # values that a sum looks at before others have their turn

store = {}


class KeyValue(reactor.Protocol):
    def connection_made(self, fd, info):
        self.lines = deque()
        self.rest = b""

    def data_received(self, data):
        # The rest of a line is kept: a copy, as the view is only lent.
        *lines, self.rest = (self.rest + bytes(data)).split(b"\n")
        if len(self.rest) > LONGEST:
            self.write(b"error the line is too long\n")
            return reactor.CLOSE
        self.lines.extend(lines)
        return self.serve()

    def serve(self):
        """Answers the lines that are there, up to one whose answer takes its time."""
        while self.lines:
            command, _, rest = self.lines.popleft().partition(b" ")
            if command == b"sum":
                self.task = asyncio.get_running_loop().create_task(self.sum(rest.split()))
                return reactor.ASYNC_PENDING
            self.write(self.answer(command, rest))
        return reactor.CONTINUE

    def answer(self, command, rest):
        key, _, value = rest.partition(b" ")
        if command == b"set" and key:
            store[key] = value
            return b"ok\n"
        if command == b"get" and key:
            return b"value %b\n" % store[key] if key in store else b"none\n"
        return b"error no such command\n"

    async def sum(self, keys):
        checksum = 0
        for number, key in enumerate(keys, 1):
            checksum = zlib.crc32(store.get(key, b""), checksum)
            if number % AT_ONCE == 0:
                await asyncio.sleep(0)
        if self.is_closing():
            return  # the client is gone
        self.write(b"sum %d\n" % checksum)
        if self.serve() == reactor.CONTINUE:
            self.resume_reading()
