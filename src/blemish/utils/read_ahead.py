"""Prepare the next items of a stream in a thread while the reader works on earlier ones."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, Self, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class ReadAhead(Iterator[Result], Generic[Item, Result]):
    """`work` of every item, in order; a thread pulls items and works on them, at most `ahead` results wait.

    A result can be read as soon as it is there, whether or not the source has a next item. What the source or `work`
    raises comes after the results before it. The thread starts with the first read and stops at the end, at an error
    or at `close`; it is a daemon, so that a source that waits forever cannot hold up the end of the program.
    """

    def __init__(self, items: Iterable[Item], work: Callable[[Item], Result], ahead: int) -> None:
        self._items, self._work, self._ahead = items, work, max(1, ahead)
        self._change = threading.Condition()
        self._results: deque[Result] = deque()
        self._error: BaseException | None = None
        self._ended = self._closed = self._in_source = False
        self._thread: threading.Thread | None = None

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Result:
        if self._thread is None and not self._closed:
            self._thread = threading.Thread(target=self._run, name="read-ahead", daemon=True)
            self._thread.start()
        with self._change:
            self._change.wait_for(lambda: self._results or self._ended or self._closed)
            if self._results:
                result = self._results.popleft()
                self._change.notify_all()
                return result
            error, self._error = self._error, None
        if error is not None:
            raise error
        raise StopIteration

    @property
    def has_result(self) -> bool:
        """Whether the next read returns at once with a result."""
        return bool(self._results)

    def close(self) -> None:
        """Stop the thread; waits for it unless the source itself keeps it waiting."""
        with self._change:
            self._closed = True
            self._results.clear()
            self._change.notify_all()
        if self._thread is not None and self._thread is not threading.current_thread() and not self._in_source:
            self._thread.join()

    def _run(self) -> None:
        try:
            items = iter(self._items)
            while True:
                self._in_source = True
                try:
                    item = next(items)
                except StopIteration:
                    return
                finally:
                    self._in_source = False
                if self._closed:
                    return
                result = self._work(item)
                del item
                with self._change:
                    self._change.wait_for(lambda: len(self._results) < self._ahead or self._closed)
                    if self._closed:
                        return
                    self._results.append(result)
                    self._change.notify_all()
                del result
        except BaseException as error:  # handed to the reader, whatever it is
            self._error = error
        finally:
            with self._change:
                self._ended = True
                self._change.notify_all()
