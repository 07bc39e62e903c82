"""Channels: messages between Erlang processes and Python.

    from erlang.channel import Channel, reply

    async def serve(channel_ref):
        async for _, sender, data in Channel(channel_ref):
            reply(sender, ("response", data.upper()))

Outside the Erlang VM everything here imports and raises `erlang.NotInVM` when it is used.
"""

from .errors import ChannelClosed, ChannelFull, MessageTooLarge, NotInVM
from .vm import in_vm, send

reply = send  # to the pid that a message carried

if in_vm():
    from _beamloop_channel import Channel, ChannelRef, select, select_sync
else:

    def _refuse(what):
        raise NotInVM(f"{what} needs the Erlang VM; this is an ordinary Python process")

    class Channel:
        """Sends and receives through a channel; inside the Erlang VM only."""

        def __new__(cls, *args, **kwargs):
            _refuse("erlang.channel.Channel")

        def __class_getitem__(cls, item):
            return cls

    class ChannelRef:
        """A channel's handle as it came from Erlang; inside the Erlang VM only."""

        def __new__(cls, *args, **kwargs):
            _refuse("erlang.channel.ChannelRef")

    def select(*channels, timeout=None):
        """The first message of several channels; inside the Erlang VM only."""
        _refuse("erlang.channel.select()")

    def select_sync(*channels, timeout=None):
        """As select(), for threads; inside the Erlang VM only."""
        _refuse("erlang.channel.select_sync()")


__all__ = [
    "Channel",
    "ChannelClosed",
    "ChannelFull",
    "ChannelRef",
    "MessageTooLarge",
    "reply",
    "select",
    "select_sync",
    "send",
]
