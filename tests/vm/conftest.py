"""What the channel tests share."""

import asyncio
import gc
import time

import channel_driver as driver
import pytest


@pytest.fixture
def nothing_is_left_alive():
    yield
    for _ in range(200):
        live = driver.call("beamloop_nif", "nif_channel_live")
        if live == (0, 0):
            return
        gc.collect()
        driver.call("channel_driver", "collect")
        time.sleep(0.01)
    pytest.fail(f"channels, blocks of payload left alive: {live}")


@pytest.fixture(params=driver.LOOPS)
def run(request):
    """Runs a coroutine on each kind of loop."""

    def run_on_new_loop(coroutine, **options):
        with asyncio.Runner(loop_factory=driver.LOOPS[request.param], **options) as runner:
            return runner.run(coroutine)

    return run_on_new_loop


@pytest.fixture(params=[False, True], ids=["event-driven", "polling"])
def poll(request):
    return request.param
