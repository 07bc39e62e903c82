"""Tests that leak on purpose, which test_repeats.py shows, and one that does not."""

import ctypes
import os

import pytest

import erlang

kept = []


@pytest.fixture(scope="module")
def loop():
    loop = erlang.new_event_loop()
    yield loop
    loop.close()


def test_handle(loop):
    kept.append(loop.call_soon(int))


def test_core():
    loop = erlang.new_event_loop()
    # A reference that nobody gives back.
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(loop))
    loop.close()


def test_object():
    kept.append(object())


def test_malloc():
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    assert libc.malloc(100)


def test_nothing(loop):
    loop.call_soon(kept.clear).cancel()
    os.close(os.dup(0))
