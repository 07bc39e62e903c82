"""What ErlangEventLoop has beyond asyncio's contract: events that any thread posts to it."""

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


@pytest.fixture
def native():
    loop = erlang.new_event_loop()
    yield loop
    loop.close()


@pytest.fixture
def pair():
    left, right = socket.socketpair()
    left.setblocking(False)
    right.setblocking(False)
    yield left, right
    left.close()
    right.close()


# --- _run_once_native_for, _dispatch, _timers ------------------------------------------------


def test_a_wait_without_events_lasts_its_timeout_and_gives_nothing(native):
    begin = time.monotonic()
    assert native._run_once_native_for(20) == []
    assert time.monotonic() - begin >= 0.020


@pytest.mark.parametrize("watches", [False, True])
def test_a_loop_that_waits_is_not_closed_by_another_thread(native, pair, watches):
    if watches:
        native.add_reader(pair[0], lambda: None)
    events = []
    waiter = threading.Thread(target=lambda: events.extend(native._run_once_native_for(None)))
    waiter.start()
    while not native.is_running():
        time.sleep(0.001)
    with pytest.raises(RuntimeError, match="running"):
        native.close()
    assert native._post(7, 3)
    waiter.join()
    assert events == [(7, 3)]
    assert not native.is_running() and not native.is_closed()


def test_a_posted_timer_event_fires_its_handle_once(native):
    fired = []
    native._timers[7] = native.call_later(3600, fired.append, "fired")
    assert native._post(7, _loop.TIMER)
    assert native._run_once_native_for(0) == [(7, _loop.TIMER)]
    assert fired == []
    native._dispatch(7, _loop.TIMER)
    native._dispatch(7, _loop.TIMER)
    assert fired == ["fired"] and 7 not in native._timers


def test_a_posted_timer_event_is_run_by_the_loop_itself(native):
    native._timers[9] = asyncio.Handle(native.stop, (), native)
    threading.Timer(0.01, native._post, (9, _loop.TIMER)).start()
    native.run_forever()
    assert native._timers == {}


def test_a_due_timer_is_an_event_of_its_own(native):
    fired = []
    native.call_later(0.005, fired.append, 1)
    ((callback_id, kind),) = native._run_once_native_for(1000)
    assert kind == _loop.TIMER and fired == []
    native._dispatch(callback_id, kind)
    assert fired == [1]


def test_readiness_is_an_event_named_by_its_descriptor(native, pair):
    left, right = pair
    read = []
    native.add_reader(left, lambda: read.append(left.recv(10)))
    right.send(b"x")
    events = native._run_once_native_for(1000)
    assert events == [(left.fileno(), _loop.READ)] and read == []
    native._dispatch(*events[0])
    assert read == [b"x"]


def test_a_reader_whose_handle_was_cancelled_is_watched_no_longer(native, pair):
    left, right = pair
    native._add_reader(left, native.stop).cancel()
    right.send(b"x")
    native.call_later(0.01, native.stop)
    native.run_forever()
    assert left.fileno() not in native._watched()


def test_an_event_that_stands_for_nothing_is_ignored(native):
    for kind in (_loop.READ, _loop.WRITE, _loop.TIMER, _loop.SOURCE):
        assert native._post(12345, kind)
    native.call_soon(native.stop)
    native.run_forever()
    for kind in (_loop.READ, _loop.WRITE, _loop.TIMER, _loop.SOURCE, 7):
        native._dispatch(12345, kind)
    native._dispatch(2**63, _loop.READ)


def test_a_post_ends_a_wait_in_either_mode(native, pair):
    for watch in (False, True):
        if watch:
            native.add_reader(pair[0], print)
        threading.Timer(0.02, native._post, (5, _loop.TIMER)).start()
        begin = time.monotonic()
        assert native._run_once_native_for(10_000) == [(5, _loop.TIMER)]
        assert time.monotonic() - begin < 5


def test_a_closed_loop_refuses_posts(native):
    native.close()
    assert native._post(1, _loop.TIMER) is False
    with pytest.raises(RuntimeError, match="closed"):
        native._run_once_native_for(0)


@pytest.mark.parametrize("arguments", [(), (1,), ("1", 2), (1, "2"), (-1, 3), (2**64, 3)])
def test_wrong_arguments_of_dispatch_are_errors(native, arguments):
    with pytest.raises((TypeError, OverflowError)):
        native._dispatch(*arguments)


def test_many_threads_post_and_nothing_is_lost(native):
    each, threads = 20_000, 4
    counts = [0] * threads
    total = 0

    def fired(index):
        nonlocal total
        counts[index] += 1
        total += 1
        if total == each * threads:
            native.stop()

    def post(index):
        for _ in range(each):
            native.call_soon_threadsafe(fired, index)

    workers = [threading.Thread(target=post, args=(index,)) for index in range(threads)]
    for worker in workers:
        worker.start()
    native.run_forever()
    for worker in workers:
        worker.join()
    assert counts == [each] * threads


# --- the C API -------------------------------------------------------------------------------

Post = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_int)
SourceFn = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.c_int)


class Api(ctypes.Structure):
    """struct loop_api of loop_api.h."""

    _fields_ = [
        ("version", ctypes.c_uint32),
        ("size", ctypes.c_uint32),
        ("core_of", ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object)),
        ("core_incref", ctypes.CFUNCTYPE(None, ctypes.c_void_p)),
        ("core_decref", ctypes.CFUNCTYPE(None, ctypes.c_void_p)),
        ("post", Post),
        (
            "source_add",
            ctypes.PYFUNCTYPE(ctypes.c_uint64, ctypes.py_object, SourceFn, ctypes.py_object),
        ),
        ("source_remove", ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.c_uint64)),
        ("running", ctypes.PYFUNCTYPE(ctypes.c_void_p)),
    ]


@pytest.fixture(scope="module")
def api():
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype = ctypes.c_void_p
    get.argtypes = [ctypes.py_object, ctypes.c_char_p]
    table = Api.from_address(get(_loop._C_API, b"erlang._loop._C_API"))
    assert table.version == 1 and table.size == ctypes.sizeof(Api)
    return table


class Owner:
    pass


def test_a_source_runs_for_each_event_posted_from_a_thread(api, native):
    owner = Owner()
    seen = []

    @SourceFn
    def source(given, kind):
        seen.append((given is owner, kind, api.running() == id(native)))
        if len(seen) == 100:
            native.stop()
        return 0

    source_id = api.source_add(native, source, owner)
    core = api.core_of(native)
    assert source_id and core

    def post():
        for _ in range(100):
            assert api.post(core, source_id, _loop.SOURCE) == 0

    thread = threading.Thread(target=post)
    thread.start()
    native.run_forever()
    thread.join()
    api.core_decref(core)
    assert seen == [(True, _loop.SOURCE, True)] * 100
    assert api.running() is None


def test_a_removed_source_does_not_run_and_its_id_is_not_used_again(api, native):
    seen = []

    @SourceFn
    def source(given, kind):
        seen.append(given)
        return 0

    ids = set()
    for _ in range(100):
        source_id = api.source_add(native, source, "owner")
        native._post(source_id, _loop.SOURCE)
        assert api.source_remove(native, source_id) == 1
        assert api.source_remove(native, source_id) == 0
        ids.add(source_id)
    native.call_soon(native.stop)
    native.run_forever()
    assert seen == [] and len(ids) == 100 and 0 not in ids


def test_the_loop_holds_an_owner_until_the_source_goes(api, native):
    source = SourceFn(lambda given, kind: 0)
    owner = Owner()
    alive = weakref.ref(owner)
    source_id = api.source_add(native, source, owner)
    del owner
    gc.collect()
    assert alive() is not None
    api.source_remove(native, source_id)
    assert alive() is None


def test_a_core_outlives_its_loop_and_refuses(api):
    loop = erlang.new_event_loop()
    core = api.core_of(loop)
    loop.close()
    assert api.post(core, 1, _loop.SOURCE) == -1
    with pytest.raises(RuntimeError, match="closed"):
        api.source_add(loop, SourceFn(lambda given, kind: 0), None)
    assert api.source_remove(loop, 1) == 0
    del loop
    gc.collect()
    assert api.post(core, 1, _loop.SOURCE) == -1
    api.core_decref(core)


def test_only_native_loops_have_a_core(api):
    foreign = asyncio.SelectorEventLoop()
    assert api.core_of(foreign) is None and api.core_of(1) is None
    foreign.close()


def test_running_is_none_inside_a_foreign_loop(api):
    async def main():
        return api.running()

    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        assert runner.run(main()) is None


# --- handles and loops as the collector sees them --------------------------------------------


@pytest.mark.parametrize("how", ["run", "fired", "cancelled", "queued", "timed"])
def test_a_cycle_through_a_handle_is_collected(how):
    class Holder:
        def callback(self):
            pass

    loop = erlang.new_event_loop()
    holder = Holder()
    alive = weakref.ref(holder)
    if how in ("run", "queued"):
        holder.handle = loop.call_soon(holder.callback)
    else:
        holder.handle = loop.call_later(0 if how == "fired" else 3600, holder.callback)
    if how in ("run", "fired"):
        loop._run_once()
    elif how == "cancelled":
        holder.handle.cancel()
    loop.close()
    del holder
    gc.collect()
    assert alive() is None


def test_an_abandoned_loop_is_collected_with_what_it_was_to_run(pair):
    loop = erlang.new_event_loop()
    alive = weakref.ref(loop)
    loop.call_soon(loop.stop)
    loop.call_later(3600, loop.stop)
    loop.add_reader(pair[0], loop.stop)
    with pytest.warns(ResourceWarning, match="unclosed"):
        del loop
        gc.collect()
    assert alive() is None


# --- socket operations as coroutines ---------------------------------------------------------


def test_a_socket_operation_is_a_coroutine_to_asyncio(native, pair):
    operation = native.sock_recv(pair[0], 10)
    assert asyncio.iscoroutine(operation)
    assert "sock_recv" in repr(operation) and operation.__name__ == "sock_recv"
    operation.close()
    with pytest.raises(RuntimeError, match="already awaited"):
        operation.send(None)


@pytest.mark.parametrize("turns", range(6))
def test_a_receive_cancelled_at_any_moment_loses_nothing(native, pair, turns):
    left, right = pair

    async def main():
        task = asyncio.ensure_future(native.sock_recv(left, 10))
        await asyncio.sleep(0)
        right.send(b"kept")
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        try:
            return await task
        except asyncio.CancelledError:
            return left.recv(10)

    assert native.run_until_complete(main()) == b"kept"
    assert left.fileno() not in native._watched()


def test_a_closed_operation_stops_watching(native, pair):
    async def main():
        operation = native.sock_recv(pair[0], 10)
        operation.send(None)
        assert pair[0].fileno() in native._watched()
        operation.close()
        assert pair[0].fileno() not in native._watched()

    native.run_until_complete(main())


def test_throw_ends_an_operation_with_that_exception(native, pair):
    async def main():
        operation = native.sock_recv(pair[0], 10)
        operation.send(None)
        with pytest.raises(ZeroDivisionError):
            operation.throw(ZeroDivisionError("thrown"))
        assert pair[0].fileno() not in native._watched()

    native.run_until_complete(main())


def test_a_socket_method_that_comes_back_is_refused(native):
    class Strange(socket.socket):
        def recv(self, size):
            operation.close()

    with Strange(socket.AF_UNIX) as strange:
        strange.setblocking(False)
        operation = native.sock_recv(strange, 10)
        with pytest.raises(ValueError, match="already executing"):
            native.run_until_complete(operation)
