"""What mypy has to find: one error in each line that says so."""

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
