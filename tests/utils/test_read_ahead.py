"""Results come in order, as soon as they are there; what the source raises comes last; memory stays bounded."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from blemish.utils.read_ahead import ReadAhead


def test_results_come_in_order() -> None:
    assert list(ReadAhead(range(50), lambda i: i * i, 3)) == [i * i for i in range(50)]
    assert list(ReadAhead((), str, 3)) == []


def test_a_result_does_not_wait_for_the_next_item() -> None:
    gate = threading.Event()

    def live() -> Iterator[int]:
        yield 1
        assert gate.wait(timeout=30)
        yield 2

    stream = ReadAhead(live(), lambda i: i, 4)
    assert next(stream) == 1  # would never return if the next item had to be there
    gate.set()
    assert list(stream) == [2]


@pytest.mark.parametrize("ahead", [1, 5])
def test_what_the_source_raises_comes_after_all_results(ahead: int) -> None:
    def broken() -> Iterator[int]:
        yield from range(3)
        raise OSError("camera gone")

    stream = ReadAhead(broken(), lambda i: i, ahead)
    found = []
    with pytest.raises(OSError, match="camera gone"):
        found.extend(iter(stream.__next__, None))
    assert found == [] or found == [0, 1, 2]
    stream = ReadAhead(broken(), lambda i: i, ahead)
    assert [next(stream) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(OSError, match="camera gone"):
        next(stream)
    with pytest.raises(StopIteration):
        next(stream)


def test_no_more_than_a_few_are_read_ahead() -> None:
    drawn = 0

    def endless() -> Iterator[int]:
        nonlocal drawn
        while True:
            drawn += 1
            yield drawn

    stream = ReadAhead(endless(), lambda i: i, 3)
    for _ in range(10):
        next(stream)
    time.sleep(0.05)
    assert drawn <= 10 + 3 + 1
    stream.close()
    read = drawn
    time.sleep(0.05)
    assert drawn == read
    with pytest.raises(StopIteration):
        next(stream)


def test_closing_does_not_wait_for_a_source_that_waits() -> None:
    gate = threading.Event()

    def live() -> Iterator[int]:
        yield 1
        gate.wait(timeout=30)

    stream = ReadAhead(live(), lambda i: i, 4)
    assert next(stream) == 1
    started = time.perf_counter()
    stream.close()
    assert time.perf_counter() - started < 10
    gate.set()


def test_nothing_is_read_before_the_first_result_is_asked_for() -> None:
    items = iter(range(3))
    stream = ReadAhead(items, lambda i: i, 2)
    assert not stream.has_result
    assert next(items) == 0
    assert next(stream) == 1
