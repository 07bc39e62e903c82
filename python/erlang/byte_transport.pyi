"""The types of erlang.byte_transport; what each does is in the docstrings of the objects."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

from .byte_channel import ByteChannel
from .channel import ChannelRef

P = TypeVar("P", bound=asyncio.BaseProtocol)

class ByteChannelTransport(asyncio.Transport): ...

async def connect_byte_channel(
    protocol_factory: Callable[[], P],
    channel: ByteChannel | ChannelRef,
    *,
    loop: asyncio.AbstractEventLoop | None = None,
) -> tuple[ByteChannelTransport, P]: ...
async def open_byte_channel(
    channel: ByteChannel | ChannelRef, *, limit: int = 65536
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]: ...

__all__ = ["ByteChannelTransport", "connect_byte_channel", "open_byte_channel"]
