"""What mypy has to find: one error in each line that says so."""

import erlang
from erlang.channel import Channel, ChannelRef, select

Channel("channel")  # error
Channel(max_size="10")  # error


async def wrong(ref: ChannelRef) -> None:
    channel = Channel[int](ref)
    channel.receive("soon")  # error
    text: str = await channel.async_receive()  # error
    await select(ref)  # error
    channel.closed = True  # error
    print(text)


def wrong_bytes(ref: ChannelRef) -> None:
    channel = erlang.ByteChannel(ref)
    channel.send_bytes("text")  # error
    text: str = channel.receive_bytes()  # error
    erlang.ByteChannel(binaries="str")  # error
    print(text)
