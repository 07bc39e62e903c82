"""The capsule and the names by which channels drive the loop, as a C user reaches them."""

import asyncio
import ctypes
import gc
import socket
import threading
import time
import weakref

import pytest

import erlang
from erlang import _loop

READ, WRITE, TIMER, SOURCE = 1, 2, 3, 4


class Api(ctypes.Structure):
    """loop_api of c_src/loop/loop_api.h.  PYFUNCTYPE keeps the GIL, CFUNCTYPE releases it."""

    _fields_ = (
        ("version", ctypes.c_uint32),
        ("size", ctypes.c_uint32),
        ("core_of", ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object)),
        ("core_incref", ctypes.CFUNCTYPE(None, ctypes.c_void_p)),
        ("core_decref", ctypes.CFUNCTYPE(None, ctypes.c_void_p)),
        ("post", ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_int)),
        (
            "source_add",
            ctypes.PYFUNCTYPE(ctypes.c_uint64, ctypes.py_object, ctypes.c_void_p, ctypes.py_object),
        ),
        ("source_remove", ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.c_uint64)),
        ("running", ctypes.PYFUNCTYPE(ctypes.c_void_p)),
    )


# int (*loop_source_fn)(PyObject *owner, int kind): calls owner(kind).
@ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.c_int)
def call_owner(owner, kind):
    owner(kind)
    return 0


CALL_OWNER = ctypes.cast(call_owner, ctypes.c_void_p)


@pytest.fixture(scope="module")
def api():
    get_pointer = ctypes.pythonapi.PyCapsule_GetPointer
    get_pointer.restype = ctypes.POINTER(Api)
    get_pointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
    return get_pointer(_loop._C_API, b"erlang._loop._C_API").contents


@pytest.fixture
def core(api, erlang_loop):
    core = api.core_of(erlang_loop)
    yield core
    api.core_decref(core)


def test_the_capsule_tells_its_version_and_size(api):
    assert api.version == 1
    assert api.size == ctypes.sizeof(Api)


def test_the_module_imports_without_the_vm():
    assert erlang._loop.__name__ == "erlang._loop"
    with pytest.raises(ImportError):
        import _beamloop_vm  # noqa: F401


def test_a_posted_source_event_runs_the_source(api, core, erlang_loop):
    kinds = []
    ident = api.source_add(erlang_loop, CALL_OWNER, kinds.append)
    assert ident != 0
    for kind in (SOURCE, SOURCE, SOURCE + 1):
        assert api.post(core, ident, kind) == 0
    erlang_loop.call_later(0.001, erlang_loop.stop)
    erlang_loop.run_forever()
    assert kinds == [SOURCE, SOURCE, SOURCE + 1]
    assert api.source_remove(erlang_loop, ident) == 1


def test_a_late_event_for_a_removed_source_is_ignored(api, core, erlang_loop):
    called = []
    ident = api.source_add(erlang_loop, CALL_OWNER, called.append)
    assert api.post(core, ident, SOURCE) == 0
    assert api.source_remove(erlang_loop, ident) == 1
    assert api.source_remove(erlang_loop, ident) == 0
    reused = api.source_add(erlang_loop, CALL_OWNER, called.append)
    assert reused not in (0, ident)
    assert api.post(core, ident, SOURCE) == 0
    erlang_loop.call_later(0.001, erlang_loop.stop)
    erlang_loop.run_forever()
    assert called == []
    api.source_remove(erlang_loop, reused)


def test_a_source_removed_by_another_of_the_same_batch_is_not_run(api, core, erlang_loop):
    called = []
    idents = []

    def owner(kind):
        called.append(kind)
        for ident in idents:
            api.source_remove(erlang_loop, ident)

    idents += [api.source_add(erlang_loop, CALL_OWNER, owner) for _ in range(3)]
    for ident in idents:
        api.post(core, ident, SOURCE)
    erlang_loop.call_later(0.001, erlang_loop.stop)
    erlang_loop.run_forever()
    assert len(called) == 1


def test_a_source_holds_its_owner_until_removed_or_the_loop_closes(api, erlang_loop):
    class Owner:
        def __call__(self, kind):
            pass

    owners = [Owner(), Owner()]
    references = [weakref.ref(owner) for owner in owners]
    idents = [api.source_add(erlang_loop, CALL_OWNER, owner) for owner in owners]
    del owners
    assert all(reference() is not None for reference in references)
    api.source_remove(erlang_loop, idents[0])
    assert references[0]() is None and references[1]() is not None
    erlang_loop.close()
    assert references[1]() is None


def test_a_source_in_a_cycle_with_its_loop_is_collected(api):
    loop = erlang.new_event_loop()

    class Owner:
        def __call__(self, kind):
            pass

    owner = Owner()
    owner.loop = loop
    reference = weakref.ref(owner)
    assert api.source_add(loop, CALL_OWNER, owner)
    loop._closed = True  # No ResourceWarning; close() would drop the source.
    del owner, loop
    gc.collect()
    assert reference() is None


def test_posting_to_a_closed_loop_is_refused_and_safe(api):
    loop = erlang.new_event_loop()
    core = api.core_of(loop)
    assert api.post(core, 5, SOURCE) == 0
    loop.close()
    assert api.post(core, 5, SOURCE) == -1
    with pytest.raises(RuntimeError):
        api.source_add(loop, CALL_OWNER, print)
    assert api.source_remove(loop, 5) == 0
    del loop
    gc.collect()
    assert api.post(core, 5, SOURCE) == -1
    api.core_decref(core)


def test_posting_from_threads_without_the_gil_while_the_loop_closes(api):
    """Many rounds of a race: every post is accepted or refused, and the core outlives the loop."""
    for _ in range(50):
        loop = erlang.new_event_loop()
        core = api.core_of(loop)
        ident = api.source_add(loop, CALL_OWNER, lambda kind: None)
        go = threading.Barrier(3)
        outcomes = []

        def post(core=core, ident=ident, go=go, outcomes=outcomes):
            api.core_incref(core)
            go.wait()
            while api.post(core, ident, SOURCE) == 0:
                pass
            outcomes.append("refused")
            api.core_decref(core)

        threads = [threading.Thread(target=post) for _ in range(2)]
        for thread in threads:
            thread.start()
        go.wait()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
        del loop
        for thread in threads:
            thread.join()
        assert outcomes == ["refused"] * 2
        api.core_decref(core)


def test_a_post_wakes_the_loop_whatever_it_sleeps_in(api):
    """On the main thread the poller, on another thread the condition variable."""

    def ping_pong():
        loop = erlang.new_event_loop()
        core = api.core_of(loop)
        woken = threading.Semaphore(0)
        ident = api.source_add(loop, CALL_OWNER, lambda kind: woken.release())

        def poke():
            for _ in range(300):
                assert api.post(core, ident, SOURCE) == 0
                assert woken.acquire(timeout=10)
            loop.call_soon_threadsafe(loop.stop)

        thread = threading.Thread(target=poke)
        thread.start()
        loop.run_forever()
        thread.join()
        loop.close()
        api.core_decref(core)

    ping_pong()
    other = threading.Thread(target=ping_pong)
    other.start()
    other.join(30)
    assert not other.is_alive()


def test_an_exception_of_a_source_goes_to_the_exception_handler(api, core, erlang_loop):
    """The source is PyObject_Hash here: -1 and a TypeError for an owner that is a list."""
    fails = ctypes.cast(ctypes.pythonapi.PyObject_Hash, ctypes.c_void_p)
    ran, contexts = [], []
    erlang_loop.set_exception_handler(lambda loop, context: contexts.append(context))
    ident = api.source_add(erlang_loop, fails, [])
    api.post(core, ident, SOURCE)
    erlang_loop.call_later(0.002, ran.append, 1)
    erlang_loop.call_later(0.004, erlang_loop.stop)
    erlang_loop.run_forever()
    (context,) = contexts
    assert isinstance(context["exception"], TypeError)
    assert ran == [1]


def test_running_names_the_loop_of_this_thread(api, erlang_loop):
    seen = []

    def look():
        seen.append(api.running())

    look()
    erlang_loop.call_soon(look)
    erlang_loop.call_soon(erlang_loop.stop)
    erlang_loop.run_forever()
    look()
    control = asyncio.SelectorEventLoop()
    control.call_soon(look)
    control.call_soon(control.stop)
    control.run_forever()
    control.close()
    assert seen == [None, id(erlang_loop), None, None]


def test_run_once_native_for_runs_nothing_and_dispatch_runs_one(erlang_loop):
    ran = []
    erlang_loop.call_later(0, ran.append, "timer")
    events = erlang_loop._run_once_native_for(100)
    assert ran == []
    ((callback_id, kind),) = events
    assert kind == TIMER
    assert callback_id in erlang_loop._timers
    erlang_loop._dispatch(callback_id, kind)
    assert ran == ["timer"]
    assert callback_id not in erlang_loop._timers
    erlang_loop._dispatch(callback_id, kind)
    assert ran == ["timer"]


def test_run_once_native_for_returns_readiness(erlang_loop):
    left, right = socket.socketpair()
    got = []
    erlang_loop.add_reader(left, lambda: got.append(left.recv(10)))
    right.send(b"x")
    events = erlang_loop._run_once_native_for(1000)
    assert (left.fileno(), READ) in events
    assert got == []
    for event in events:
        erlang_loop._dispatch(*event)
    assert got == [b"x"]
    erlang_loop.remove_reader(left)
    erlang_loop.add_writer(left, got.append, "writable")
    for event in erlang_loop._run_once_native_for(1000):
        erlang_loop._dispatch(*event)
    assert got == [b"x", "writable"]
    erlang_loop.remove_writer(left)
    left.close()
    right.close()


def test_run_once_native_for_waits_no_longer_than_asked(erlang_loop):
    guard = erlang_loop.call_later(60, print)
    assert erlang_loop._run_once_native_for(0) == []
    assert erlang_loop._run_once_native_for(2) == []
    assert erlang_loop._run_once_native_for(0.5) == []
    guard.cancel()


def test_run_once_native_for_takes_only_numbers(erlang_loop):
    with pytest.raises(TypeError):
        erlang_loop._run_once_native_for("soon")
    erlang_loop.close()
    with pytest.raises(RuntimeError):
        erlang_loop._run_once_native_for(0)


def test_a_channel_wait_is_a_handle_under_its_id_in_timers(api, core, erlang_loop):
    """The documented way by which a channel wakes a coroutine on this loop."""
    ran = []
    handle = asyncio.Handle(ran.append, ("mine",), erlang_loop)
    erlang_loop._timers[77] = handle
    assert api.post(core, 77, TIMER) == 0
    assert api.post(core, 78, TIMER) == 0  # Nobody waits under this one.
    events = erlang_loop._run_once_native_for(1000)
    assert sorted(events) == [(77, TIMER), (78, TIMER)]
    for event in events:
        erlang_loop._dispatch(*event)
    assert ran == ["mine"]
    assert 77 not in erlang_loop._timers


def test_run_forever_serves_channel_waits_too(api, core, erlang_loop):
    ran = []
    erlang_loop._timers[77] = asyncio.Handle(ran.append, ("mine",), erlang_loop)
    erlang_loop._timers[78] = asyncio.Handle(ran.append, ("cancelled",), erlang_loop)
    erlang_loop._timers[78].cancel()
    for ident in (78, 77, 77):
        api.post(core, ident, TIMER)
    erlang_loop.call_later(0.002, erlang_loop.stop)
    erlang_loop.run_forever()
    assert ran == ["mine"]
    assert not erlang_loop._timers


def test_dispatch_ignores_what_is_not_there(erlang_loop):
    for kind in (READ, WRITE, TIMER, SOURCE, 99):
        erlang_loop._dispatch(12345, kind)
    erlang_loop._dispatch(2**63, READ)
    with pytest.raises((TypeError, OverflowError)):
        erlang_loop._dispatch(-1, READ)
    with pytest.raises(TypeError):
        erlang_loop._dispatch("1", READ)
    with pytest.raises(TypeError):
        erlang_loop._dispatch(1)


def test_a_coroutine_can_be_driven_one_iteration_at_a_time(erlang_loop):
    left, right = socket.socketpair()
    left.setblocking(False)

    async def main():
        await asyncio.sleep(0.001)
        right.send(b"x")
        return await erlang_loop.sock_recv(left, 10)

    task = erlang_loop.create_task(main())
    asyncio._set_running_loop(erlang_loop)
    try:
        while not task.done():
            erlang_loop._run_once()
    finally:
        asyncio._set_running_loop(None)
    assert task.result() == b"x"
    left.close()
    right.close()


def test_stats_count_what_is_there(erlang_loop):
    timers = [erlang_loop.call_later(60, print) for _ in range(5)]
    erlang_loop.call_soon(int)
    stats = erlang_loop._stats()
    assert stats["timers"] == 5
    assert stats["ready"] == 1
    for timer in timers:
        timer.cancel()
    erlang_loop.call_soon(erlang_loop.stop)
    erlang_loop.run_forever()
    after = erlang_loop._stats()
    assert after["timers"] == after["ready"] == after["pending"] == 0
    assert after["callbacks"] == 2


def test_stats_tell_how_long_an_iteration_took_and_how_late_a_timer_was(erlang_loop):
    seen = []

    def block():
        erlang_loop.call_later(0.001, int)
        time.sleep(0.02)
        erlang_loop.call_soon(read)

    def read():
        seen.append(erlang_loop._stats())
        erlang_loop.call_soon(erlang_loop.stop)

    erlang_loop.call_later(0.001, block)
    erlang_loop.run_forever()
    assert seen[0]["last_iteration"] >= 0.02
    assert seen[0]["max_lag"] >= 0.018
