"""The Python half of the quick start: the same handler, blocking and as a coroutine."""

import erlang
from erlang.channel import Channel, reply


def shout(data):
    return data.upper()


def process_messages(channel_ref):
    """Blocking: for a worker thread of its own, `py:call(handlers, process_messages, [Ch])`."""
    for _, sender_pid, data in Channel(channel_ref):
        reply(sender_pid, ("response", shout(data)))


async def process_messages_async(channel_ref):
    """A coroutine: any number of them share one event loop."""
    async for _, sender_pid, data in Channel(channel_ref):
        reply(sender_pid, ("response", shout(data)))


def run_async(channel_ref):
    erlang.run(process_messages_async(channel_ref))
