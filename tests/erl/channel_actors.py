"""Python's side of channel_statem: the answers are as its model has them."""

from erlang import Atom
from erlang.channel import Channel

OK, BUSY, EMPTY = Atom("ok"), Atom("busy"), Atom("empty")


def try_send(ref, message):
    return OK if Channel(ref).try_send(message) else BUSY


def send(ref, message):
    Channel(ref).send(message)
    return OK


async def async_send(ref, message):
    await Channel(ref).async_send(message)
    return OK


def try_receive(ref):
    message = Channel(ref).try_receive(EMPTY)
    return EMPTY if message is EMPTY else (OK, message)


def receive(ref):
    return OK, Channel(ref).receive()


async def async_receive(ref):
    return OK, await Channel(ref).async_receive()
