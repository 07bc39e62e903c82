"""What holds for all tests of Python: nothing of ours is left alive at the end of a run."""

import leaks


def pytest_addoption(parser):
    parser.addoption(
        "--repeats",
        type=int,
        default=0,
        help="run each test so many times in one process and fail it if it leaves more each time",
    )


def pytest_configure(config):
    count = config.getoption("repeats")
    if count:
        config.pluginmanager.register(leaks.Repeats(count))


def pytest_sessionstart(session):
    session.alive_before = leaks.live_native()


def pytest_sessionfinish(session):
    # What failed is kept with all that it refers to.
    left = None if session.testsfailed else leaks.left_alive(session.alive_before)
    if left:
        reporter = session.config.pluginmanager.get_plugin("terminalreporter")
        reporter.write_line(f"\nERROR left alive: {left}", red=True)
        session.exitstatus = 1
