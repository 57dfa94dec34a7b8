from __future__ import annotations

import os
import signal
import threading

import pytest

from blemish.cli.interrupts import deferred_interrupts

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals")


def test_ctrl_c_is_heard_when_the_block_has_ended() -> None:
    before, done = signal.signal(signal.SIGINT, signal.default_int_handler), []
    try:
        with pytest.raises(KeyboardInterrupt):
            write_while_interrupted(done)
        assert done == ["written"]
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


def write_while_interrupted(done: list[str]) -> None:
    with deferred_interrupts():
        signal.raise_signal(signal.SIGINT)  # to this thread, at once
        done.append("written")


def test_signals_that_are_ignored_stay_so() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with deferred_interrupts():
            signal.raise_signal(signal.SIGINT)  # to this thread, at once
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_other_threads_are_let_alone() -> None:
    errors: list[BaseException] = []

    def work() -> None:
        try:
            with deferred_interrupts():
                pass
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert not errors
