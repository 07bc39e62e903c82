"""Erlang and asyncio in one process.

Everything here imports in an ordinary Python too.  The event loop and the term types work there;
channels, `reply` and `send` need the Erlang VM and raise `NotInVM` without it.
"""

from . import reactor
from ._term import Atom, BitString, Fun, ImproperList, Pid, Port, Reference
from .byte_channel import ByteChannel
from .byte_transport import connect_byte_channel, open_byte_channel
from .channel import Channel, ChannelRef, reply, send
from .errors import (
    ByteChannelClosed,
    CallCancelled,
    ChannelClosed,
    ChannelFull,
    MessageTooLarge,
    NotInVM,
    TermError,
)
from .loop import ErlangEventLoop, EventLoopPolicy, new_event_loop, run

__all__ = [
    "Atom",
    "BitString",
    "ByteChannel",
    "ByteChannelClosed",
    "CallCancelled",
    "Channel",
    "ChannelClosed",
    "ChannelFull",
    "ChannelRef",
    "ErlangEventLoop",
    "EventLoopPolicy",
    "Fun",
    "ImproperList",
    "MessageTooLarge",
    "NotInVM",
    "Pid",
    "Port",
    "Reference",
    "TermError",
    "connect_byte_channel",
    "new_event_loop",
    "open_byte_channel",
    "reactor",
    "reply",
    "run",
    "send",
]
