"""The Python half of the word count example.

Workers take lines from a channel with `async for` and answer each sender; a TCP server on the same
event loop tells whoever connects how far they have come.
"""

import asyncio
from collections import Counter

import erlang
from erlang.channel import Channel, reply

COUNTED = erlang.Atom("counted")
LISTENING = erlang.Atom("listening")


class Totals:
    """What has been counted so far, by all workers together."""

    def __init__(self):
        self.lines = 0
        self.words = Counter()
        self.by_worker = Counter()

    def add(self, worker, words):
        self.lines += 1
        self.words.update(words)
        self.by_worker[worker] += 1

    def line(self):
        return b"%d lines, %d words\n" % (self.lines, self.words.total())

    def report(self):
        return {
            "lines": self.lines,
            "words": self.words.total(),
            "top": self.words.most_common(3),
            "by_worker": dict(self.by_worker),
            "loop": type(asyncio.get_running_loop()).__name__,
        }


async def count_lines(channel_ref, worker, totals):
    """Counts lines until the channel is closed and drained; `channel_ref` carries
    `{line, Sender, Number, Text}` and each one is answered with `{counted, Number, Words}`."""
    async for _, sender, number, text in Channel(channel_ref):
        words = text.split()
        totals.add(worker, words)
        reply(sender, (COUNTED, number, len(words)))


async def answer(totals, reader, writer):
    """One client: each line that it sends is answered with the totals of that moment."""
    try:
        while await reader.readline():
            writer.write(totals.line())
            await writer.drain()
    finally:
        writer.close()
        await writer.wait_closed()


async def main(channel_ref, starter, workers):
    totals = Totals()

    async def on_client(reader, writer):
        await answer(totals, reader, writer)

    server = await asyncio.start_server(on_client, "127.0.0.1", 0)
    async with server:
        reply(starter, (LISTENING, server.sockets[0].getsockname()[1]))
        await asyncio.gather(*(count_lines(channel_ref, n, totals) for n in range(workers)))
    return totals.report()


def run(channel_ref, starter, workers):
    """Runs the workers and the server until the channel closes; returns the final totals."""
    return erlang.run(main(channel_ref, starter, workers))
