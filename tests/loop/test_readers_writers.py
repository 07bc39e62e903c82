"""add_reader and add_writer: level-triggered, replaceable, at ease with reused numbers."""

import asyncio
import contextvars
import gc
import os
import socket
import weakref

import pytest


@pytest.fixture
def pair():
    left, right = socket.socketpair()
    left.setblocking(False)
    right.setblocking(False)
    yield left, right
    left.close()
    right.close()


def run_for(loop, seconds=0.01):
    loop.call_later(seconds, loop.stop)
    loop.run_forever()


def fill(sock):
    """Writes until the socket takes no more; the number of bytes."""
    total = 0
    try:
        while True:
            total += sock.send(b"x" * 65536)
    except BlockingIOError:
        return total


def test_a_reader_is_called_as_long_as_data_is_there(loop, pair):
    """Level-triggered: one byte is read at a time, and every one is announced."""
    left, right = pair
    got = []

    def read():
        got.append(left.recv(1))
        if len(got) == 100:
            loop.stop()

    loop.add_reader(left, read)
    right.send(b"x" * 100)
    loop.run_forever()
    assert got == [b"x"] * 100
    assert loop.remove_reader(left) is True


def test_a_reader_that_reads_nothing_is_called_again(loop, pair):
    left, right = pair
    calls = []

    def ignore():
        calls.append(1)
        if len(calls) == 5:
            loop.stop()

    right.send(b"x")
    loop.add_reader(left, ignore)
    loop.run_forever()
    loop.remove_reader(left)
    assert len(calls) == 5


def test_a_reader_takes_arguments_and_its_context(loop, pair):
    left, right = pair
    var = contextvars.ContextVar("var", default="outside")
    got = []

    def read(*args):
        left.recv(10)
        got.append((args, var.get()))
        loop.stop()

    def in_context():
        var.set("inside")
        loop.add_reader(left, read, 1, 2, 3)

    contextvars.copy_context().run(in_context)
    right.send(b"x")
    loop.run_forever()
    loop.remove_reader(left)
    assert got == [((1, 2, 3), "inside")]


def test_a_writer_is_called_while_there_is_room_and_not_when_there_is_none(loop, pair):
    left, right = pair
    calls = []
    loop.add_writer(left, calls.append, 1)
    run_for(loop)
    assert len(calls) > 1
    fill(left)
    run_for(loop, 0.002)
    del calls[:]
    run_for(loop)
    assert calls == []
    while True:
        try:
            right.recv(1 << 20)
        except BlockingIOError:
            break
    run_for(loop)
    assert calls
    assert loop.remove_writer(left) is True


def test_adding_again_replaces_the_callback(loop, pair):
    left, right = pair
    got = []
    loop.add_reader(left, got.append, "old")
    loop.add_reader(left, lambda: (got.append("new"), left.recv(1), loop.stop()))
    right.send(b"x")
    loop.run_forever()
    assert got == ["new"]
    assert loop.remove_reader(left) is True
    assert loop.remove_reader(left) is False


def test_reader_and_writer_of_one_descriptor_are_independent(loop, pair):
    left, right = pair
    got = []
    loop.add_reader(left, lambda: got.append(left.recv(10)))
    loop.add_writer(left, lambda: (got.append("writable"), loop.remove_writer(left)))
    run_for(loop)
    assert got == ["writable"]
    right.send(b"one")
    run_for(loop)
    assert got == ["writable", b"one"]
    loop.add_writer(left, lambda: (got.append("writable"), loop.remove_writer(left)))
    loop.remove_reader(left)
    right.send(b"two")
    run_for(loop)
    assert got == ["writable", b"one", "writable"]
    loop.add_reader(left, lambda: got.append(left.recv(10)))
    run_for(loop)
    assert got[-1] == b"two"
    loop.remove_reader(left)


def test_remove_tells_whether_something_was_there(loop, pair):
    left, _ = pair
    assert loop.remove_reader(left) is False
    assert loop.remove_writer(left) is False
    loop.add_reader(left, print)
    assert loop.remove_writer(left) is False
    assert loop.remove_reader(left) is True
    assert loop.remove_reader(left) is False


def test_a_removed_reader_is_not_called_even_when_it_is_ready_already(loop, pair):
    left, right = pair
    other_left, other_right = socket.socketpair()
    got = []

    def first(mine, others):
        got.append(mine)
        loop.remove_reader(others)
        loop.remove_reader(mine)

    loop.add_reader(left, first, left, other_left)
    loop.add_reader(other_left, first, other_left, left)
    right.send(b"x")
    other_right.send(b"x")
    run_for(loop)
    other_left.close()
    other_right.close()
    assert len(got) == 1


def test_end_of_file_wakes_a_reader(loop, pair):
    left, right = pair
    got = []
    loop.add_reader(left, lambda: (got.append(left.recv(10)), loop.stop()))
    right.close()
    loop.run_forever()
    loop.remove_reader(left)
    assert got == [b""]


def test_a_hang_up_wakes_a_writer(loop):
    """The writer must learn that its pipe has no reader any more; epoll reports ERR alone."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    try:
        while True:
            os.write(writing, b"x" * 65536)
    except BlockingIOError:
        pass
    called = []
    loop.add_writer(writing, lambda: (called.append(1), loop.stop()))
    loop.call_later(0.005, os.close, reading)
    loop.run_forever()
    loop.remove_writer(writing)
    os.close(writing)
    assert called == [1]


def test_a_number_reused_after_close_without_removal_is_served(loop):
    """A user closes a descriptor that is still registered, and the kernel reuses its number."""
    left, right = socket.socketpair()
    number = left.fileno()
    loop.add_reader(number, lambda: None)
    run_for(loop, 0.001)
    left.close()
    fresh_left, fresh_right = socket.socketpair()
    if fresh_left.fileno() != number:
        os.dup2(fresh_left.fileno(), number)
        fresh_left.close()
        fresh_left = socket.socket(fileno=number)
    got = []
    loop.remove_reader(number)
    loop.add_reader(number, lambda: (got.append(fresh_left.recv(10)), loop.stop()))
    fresh_right.send(b"fresh")
    guard = loop.call_later(10, loop.stop)
    loop.run_forever()
    guard.cancel()
    assert got == [b"fresh"]
    loop.remove_reader(number)
    for sock in (right, fresh_left, fresh_right):
        sock.close()


def test_a_reused_number_is_served_without_a_removal_in_between(erlang_loop):
    """The same, where the user does not even call remove_reader: MOD fails, ADD must follow."""
    left, right = socket.socketpair()
    number = left.fileno()
    erlang_loop.add_reader(number, lambda: None)
    run_for(erlang_loop, 0.001)
    fresh_left, fresh_right = socket.socketpair()
    os.dup2(fresh_left.fileno(), number)  # Closes what the number meant before.
    got = []
    erlang_loop.add_reader(number, lambda: (got.append(left.recv(10)), erlang_loop.stop()))
    fresh_right.send(b"fresh")
    guard = erlang_loop.call_later(5, erlang_loop.stop)
    erlang_loop.run_forever()
    guard.cancel()
    erlang_loop.remove_reader(number)
    for sock in (left, right, fresh_left, fresh_right):
        sock.close()
    assert got == [b"fresh"]


def test_removing_a_closed_descriptor_by_number_works(erlang_loop):
    """asyncio's own loop fails here with EBADF when both directions were watched."""
    left, right = socket.socketpair()
    number = left.fileno()
    erlang_loop.add_reader(number, print)
    erlang_loop.add_writer(number, print)
    left.close()
    right.close()
    assert erlang_loop.remove_reader(number) is True
    assert erlang_loop.remove_writer(number) is True
    run_for(erlang_loop, 0.001)


def test_a_duplicate_is_a_descriptor_of_its_own(loop, pair):
    left, right = pair
    twin = left.dup()
    got = []
    loop.add_reader(left, got.append, "left")
    loop.add_reader(twin, got.append, "twin")
    right.send(b"x")
    loop.call_later(0.005, loop.stop)
    loop.run_forever()
    assert set(got) == {"left", "twin"}
    loop.remove_reader(twin)
    twin.close()
    del got[:]
    loop.call_later(0.005, loop.stop)
    loop.run_forever()
    assert set(got) == {"left"}
    loop.remove_reader(left)


@pytest.mark.parametrize("method", ["add_reader", "add_writer"])
def test_bad_descriptors_are_refused(loop, method):
    add = getattr(loop, method)
    with pytest.raises(ValueError):
        add(-1, print)
    with pytest.raises(ValueError):
        add("text", print)
    for fd in (987654, 2**31 - 1):
        with pytest.raises(OSError):
            add(fd, print)
    with pytest.raises(OverflowError):
        add(2**31, print)


@pytest.mark.parametrize("method", ["remove_reader", "remove_writer"])
def test_removing_what_cannot_be_a_descriptor(loop, method):
    remove = getattr(loop, method)
    for fd in (987654, 2**31 - 1, 2**31, 2**100):
        assert remove(fd) is False
    for wrong in (-1, -(2**100), "text"):
        with pytest.raises(ValueError):
            remove(wrong)


def test_a_regular_file_is_refused_as_the_poller_cannot_watch_it(loop, tmp_path):
    with open(tmp_path / "file", "wb") as file:
        with pytest.raises(PermissionError):
            loop.add_reader(file, print)
        assert loop.remove_reader(file) is False


def test_a_closed_socket_object_is_refused(loop):
    left, right = socket.socketpair()
    left.close()
    right.close()
    with pytest.raises(ValueError):
        loop.add_reader(left, print)


def test_the_descriptor_of_a_transport_is_refused(loop):
    """Two owners of one descriptor would steal each other's events."""

    async def main():
        left, right = socket.socketpair()
        transport, _ = await loop.create_connection(asyncio.Protocol, sock=left)
        number = transport.get_extra_info("socket").fileno()
        for method in ("add_reader", "add_writer"):
            with pytest.raises(RuntimeError, match="is used by transport"):
                getattr(loop, method)(number, print)
        for method in ("remove_reader", "remove_writer"):
            with pytest.raises(RuntimeError, match="is used by transport"):
                getattr(loop, method)(number)
        transport.close()
        await asyncio.sleep(0)
        right.close()
        return True

    assert loop.run_until_complete(main())


def test_a_reader_that_raises_stays_registered(loop, pair):
    left, right = pair
    errors = []

    def note(loop, context):
        errors.append(context["exception"])
        if len(errors) == 2:
            loop.stop()

    def read():
        left.recv(1)
        raise KeyError("mine")

    loop.set_exception_handler(note)
    loop.add_reader(left, read)
    right.send(b"xx")
    loop.run_forever()
    loop.remove_reader(left)
    assert [type(error) for error in errors] == [KeyError, KeyError]


def test_many_descriptors_at_once(loop):
    pairs = [socket.socketpair() for _ in range(200)]
    got = []

    def read(sock, number):
        sock.recv(10)
        got.append(number)
        if len(got) == len(pairs):
            loop.stop()

    for number, (left, _) in enumerate(pairs):
        loop.add_reader(left, read, left, number)
    for _, right in pairs:
        right.send(b"x")
    loop.run_forever()
    for left, right in pairs:
        loop.remove_reader(left)
        left.close()
        right.close()
    assert sorted(got) == list(range(len(pairs)))


def test_a_busy_ready_queue_does_not_starve_readers(loop, pair):
    left, right = pair

    def spin():
        loop.call_soon(spin)

    loop.add_reader(left, loop.stop)
    loop.call_soon(spin)
    loop.call_later(0.002, right.send, b"x")
    loop.run_forever()
    loop.remove_reader(left)


def test_a_busy_reader_does_not_starve_another(loop, pair):
    left, right = pair
    other_left, other_right = socket.socketpair()
    loop.add_reader(left, lambda: None)  # Never reads: ready in every iteration.
    loop.add_reader(other_left, loop.stop)
    right.send(b"x")
    loop.call_later(0.002, other_right.send, b"x")
    loop.run_forever()
    loop.remove_reader(left)
    loop.remove_reader(other_left)
    other_left.close()
    other_right.close()


def test_a_pipe_and_an_eventfd_can_be_watched(loop):
    reading, writing = os.pipe()
    event = os.eventfd(0, os.EFD_NONBLOCK)
    got = []
    loop.add_reader(reading, lambda: got.append(os.read(reading, 10)))
    loop.add_reader(event, lambda: got.append(os.eventfd_read(event)))
    os.write(writing, b"pipe")
    os.eventfd_write(event, 7)
    run_for(loop)
    loop.remove_reader(reading)
    loop.remove_reader(event)
    for fd in (reading, writing, event):
        os.close(fd)
    assert sorted(map(str, got)) == ["7", "b'pipe'"]


def test_readers_left_at_close_do_not_keep_the_callback(loop, pair):
    class Thing:
        def method(self):
            pass

    left, _ = pair
    thing = Thing()
    reference = weakref.ref(thing)
    loop.add_reader(left, thing.method)
    del thing
    loop.close()
    gc.collect()
    assert reference() is None
