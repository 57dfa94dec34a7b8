"""Executors: every item once, results by place, errors handed on."""

from __future__ import annotations

import os
import signal
import time
import weakref
from collections.abc import Iterator

import numpy as np
import pytest

from blemish.utils.executors import Processes, executor_of, in_order


def square(number: int) -> tuple[int, int]:
    if number < 0:
        raise ValueError(f"{number} is below 0")
    return number * number, os.getpid()


def sleep(seconds: float) -> bool:
    """Whether Ctrl-C has been blocked since the process began."""
    time.sleep(seconds)
    return signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_in_order() -> None:
    assert list(in_order(iter([(2, "c"), (0, "a"), (1, "b"), (3, "d")]))) == ["a", "b", "c", "d"]


def test_in_order_gives_what_is_ready_before_an_error() -> None:
    def ready() -> Iterator[tuple[int, str]]:
        yield from [(3, "d"), (0, "a"), (2, "c")]
        raise ValueError("item 1")

    found: list[str] = []
    with pytest.raises(ValueError, match="item 1"):
        found.extend(in_order(ready()))
    assert found == ["a", "c", "d"]


def test_serial_is_no_executor() -> None:
    assert executor_of("serial") is None
    local = executor_of("local", workers=3, threads=2)
    assert isinstance(local, Processes)
    assert (local.workers, local.threads) == (3, 2)


@pytest.mark.slow
def test_processes_do_every_item_once() -> None:
    found = dict(Processes(2, 1).map_ready(square, [3, 1, 2]))
    assert {place: result[0] for place, result in found.items()} == {0: 9, 1: 1, 2: 4}
    assert os.getpid() not in {result[1] for result in found.values()}
    with pytest.raises(ValueError, match="-1 is below 0"):
        list(Processes(1, 1).map_ready(square, [1, -1]))
    assert list(Processes(1, 1).map_ready(square, [])) == []


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_ctrl_c_is_not_for_processes_and_ends_them_at_once() -> None:
    ready = Processes(2, 1).map_ready(sleep, [0.0, 60.0])
    assert next(ready) == (0, True)
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        ready.throw(KeyboardInterrupt())
    assert time.monotonic() - began < 30


def image(number: int) -> np.ndarray:
    return np.full((64, 64), number)


@pytest.mark.slow
def test_results_that_were_handed_on_are_not_kept() -> None:
    alive = []
    for _, result in Processes(1, 1).map_ready(image, range(4)):
        alive.append(weakref.ref(result))
        del result
    assert [one() is None for one in alive] == [True] * 4
    alive.clear()
    for place, result in Processes(1, 1).map_ready(image, range(4)):
        alive.append(weakref.ref(result))
        assert sum(one() is not None for one in alive) == 1, place
