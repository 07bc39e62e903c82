"""The types of erlang.loop; the loop has asyncio's methods."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from .byte_channel import ByteChannel
from .byte_transport import ByteChannelTransport
from .channel import ChannelRef

T = TypeVar("T")
P = TypeVar("P", bound=asyncio.BaseProtocol)

class ErlangEventLoop(asyncio.SelectorEventLoop):
    _timers: dict[int, asyncio.Handle]
    def __init__(self) -> None: ...
    def _run_once_native_for(self, timeout_ms: int) -> list[tuple[int, int]]: ...
    async def connect_byte_channel(
        self, protocol_factory: Callable[[], P], channel: ByteChannel | ChannelRef
    ) -> tuple[ByteChannelTransport, P]: ...
    def _dispatch(self, callback_id: int, kind: int) -> None: ...

class EventLoopPolicy(asyncio.DefaultEventLoopPolicy): ...

def new_event_loop() -> ErlangEventLoop: ...
def run(main: Coroutine[Any, Any, T], *, debug: bool | None = None) -> T: ...

__all__ = ("ErlangEventLoop", "EventLoopPolicy", "new_event_loop", "run")
