"""A run at work in this terminal is asked to end."""

import os
import signal
import time

import pytest

from popcorn_assets.commands import working


@pytest.fixture
def handlers():
    """Those of a terminal; whoever started these tests may have had hang-ups ignored."""
    before = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    for one, handler in before.items():
        signal.signal(one, handler)


def test_of_a_terminal_that_is_closed_a_request_that_is_lost_is_repeated(handlers, monkeypatch):
    monkeypatch.setattr(working, "ASKED_AGAIN_SECONDS", 0.05)
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGHUP)
    heard = []

    def loses_the_first(*_: object) -> None:
        heard.append(time.monotonic())
        if len(heard) > 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), working.ending_when_asked():
        signal.signal(signal.SIGINT, loses_the_first)
        os.kill(os.getpid(), signal.SIGHUP)
        time.sleep(20)
    assert len(heard) == 2
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGHUP)) == before
    time.sleep(0.2)  # nobody asks any more
    assert len(heard) == 2
