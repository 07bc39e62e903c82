"""Byte channels: raw bytes between Erlang processes and Python.

    from erlang import ByteChannel

    async def serve(channel_ref):
        channel = ByteChannel(channel_ref)
        async for chunk in channel:
            await channel.async_send_bytes(chunk.upper())

Outside the Erlang VM everything here imports and raises `erlang.NotInVM` when it is used.
"""

from .errors import ByteChannelClosed, NotInVM
from .vm import in_vm

if in_vm():
    from _beamloop_channel import ByteChannel
else:

    class ByteChannel:
        """Sends and receives through a byte channel; inside the Erlang VM only."""

        def __new__(cls, *args, **kwargs):
            raise NotInVM(
                "erlang.ByteChannel needs the Erlang VM; this is an ordinary Python process"
            )


__all__ = ["ByteChannel", "ByteChannelClosed"]
