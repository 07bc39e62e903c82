"""Channels: messages between Erlang processes and Python.

    from erlang.channel import Channel, reply

    async def serve(channel_ref):
        async for _, sender, data in Channel(channel_ref):
            reply(sender, ("response", data.upper()))

Outside the Erlang VM everything here imports and raises `erlang.NotInVM` when it is used.
"""

from .errors import ChannelClosed, ChannelFull, NotInVM

try:
    from _beamloop_channel import Channel, ChannelRef
    from _beamloop_vm import reply, send
except ImportError:

    def _refuse(what):
        raise NotInVM(f"{what} needs the Erlang VM; this is an ordinary Python process")

    class Channel:
        """Receives from a channel; inside the Erlang VM only."""

        def __new__(cls, *args, **kwargs):
            _refuse("erlang.channel.Channel")

        def __class_getitem__(cls, item):
            return cls

    class ChannelRef:
        """A channel's handle as it came from Erlang; inside the Erlang VM only."""

        def __new__(cls, *args, **kwargs):
            _refuse("erlang.channel.ChannelRef")

    def reply(pid, term):
        """Sends a term to an Erlang process; inside the Erlang VM only."""
        _refuse("erlang.channel.reply")

    def send(destination, term):
        """Sends a term to a pid or registered name; inside the Erlang VM only."""
        _refuse("erlang.channel.send")


__all__ = ["Channel", "ChannelClosed", "ChannelFull", "ChannelRef", "reply", "send"]
