"""The Python half of health_cases."""

from erlang import ByteChannel
from erlang.channel import Channel


def drain(ref, number):
    channel, received = Channel(ref), 0
    while received < number:
        received += len(channel.receive_many(min(1000, number - received)))
    return received


def drain_bytes(ref, number):
    channel = ByteChannel(ref)
    for _ in range(number):
        channel.receive_bytes()
    return number


def send_bytes(ref, size):
    ByteChannel(ref).send_bytes(bytes(size))


def fill(ref, number):
    channel = Channel(ref)
    for i in range(number):
        channel.send(i)


def fill_4k(ref, number):
    channel, term = Channel(ref), list(range(1000, 1790))
    for _ in range(number):
        channel.send(term)


def fill_bytes(ref, number):
    channel, chunk = ByteChannel(ref), bytes(4000)
    for _ in range(number):
        channel.send_bytes(chunk)


def objects(number):
    return [object() for _ in range(number)]


def result(number):
    return list(range(number))


def send_result(ref, number):
    Channel(ref).send(list(range(number)))


def send_parts(ref, size):
    Channel(ref).send([bytes(size), bytes(size)])
