"""Independent pieces of work on processes of this machine, or as tasks of Ray; results come as they are ready."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, Literal, Protocol, TypeVar

from blemish.utils.cores import usable_cores
from blemish.utils.optional import need
from blemish.utils.signals import ctrl_c_blocked

Item = TypeVar("Item")
Result = TypeVar("Result")
EngineName = Literal["serial", "local", "ray"]
_ATTEMPTS = 2  # more for a task of Ray whose process died


class Executor(Protocol):
    """Something that runs a function over items, several at a time. Function, items and results must be picklable."""

    def map_ready(self, function: Callable[[Item], Result], items: Sequence[Item]) -> Generator[tuple[int, Result]]:
        """The place of each item and its result, in the order in which they are ready.

        What a piece of work raises is raised here, and no further one is begun; those that run are ended.
        """
        ...


def executor_of(
    engine: EngineName, workers: int | None = None, threads: int | None = None, address: str | None = None
) -> Executor | None:
    """The executor of that name; None for "serial", which has the work done where it is asked for.

    `workers` and `threads` of each are a half of the usable cores and two where None; `address` is a Ray cluster's.
    """
    cores = usable_cores()
    workers = workers or max(1, cores // 2)
    threads = threads or max(1, cores // workers)
    if engine == "ray":
        return RayTasks(threads, address)
    return Processes(workers, threads) if engine == "local" else None


def in_order(ready: Iterator[tuple[int, Result]]) -> Iterator[Result]:
    """Results in the order of their items, as soon as all before them are there.

    Where `ready` raises, all that were ready come first, still in order, though some before them are missing.
    """
    waiting: dict[int, Result] = {}
    following = 0
    while True:
        try:
            place, result = next(ready)
        except StopIteration:
            return
        except BaseException:
            for place in sorted(waiting):
                yield waiting[place]
            raise
        waiting[place] = result
        while following in waiting:
            yield waiting.pop(following)
            following += 1


class Processes:
    """`workers` processes of this machine, begun anew (torch does not survive a fork), of so many `threads` each."""

    def __init__(self, workers: int, threads: int) -> None:
        self.workers, self.threads = workers, threads

    def map_ready(self, function: Callable[[Item], Result], items: Sequence[Item]) -> Generator[tuple[int, Result]]:
        import multiprocessing
        from concurrent.futures import ProcessPoolExecutor, as_completed

        pool = ProcessPoolExecutor(
            min(self.workers, max(1, len(items))),
            multiprocessing.get_context("spawn"),
            initializer=_begin,
            initargs=(self.threads,),
        )
        try:
            with ctrl_c_blocked():
                places = {pool.submit(function, item): place for place, item in enumerate(items)}
            for future in as_completed(places):
                yield places.pop(future), future.result()  # not kept here: results may be large, and many
        except BaseException:
            for process in list((pool._processes or {}).values()):  # no public name before Python 3.14
                process.terminate()
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


class RayTasks:
    """Tasks of Ray that take so many `threads` each, in the cluster at `address` or the one that has been begun."""

    def __init__(self, threads: int, address: str | None = None) -> None:
        self.threads, self.address = threads, address

    def map_ready(self, function: Callable[[Item], Result], items: Sequence[Item]) -> Generator[tuple[int, Result]]:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        ray: Any = need("ray", "ray", "--engine ray")
        is_ours = not ray.is_initialized()
        if is_ours:
            ray.init(address=self.address, include_dashboard=None if self.address else False, log_to_driver=False)
        waiting: dict[Any, int] = {}
        try:
            task = ray.remote(num_cpus=self.threads, max_retries=_ATTEMPTS)(_call)
            waiting = {task.remote(function, item, self.threads): place for place, item in enumerate(items)}
            while waiting:
                (ready,), _ = ray.wait(list(waiting), num_returns=1)
                yield waiting.pop(ready), ray.get(ready)
        finally:
            for left in waiting:
                ray.cancel(left)
            if is_ours:
                ray.shutdown()


def _begin(threads: int) -> None:
    """What a new process does first."""
    os.environ["OMP_NUM_THREADS"] = str(threads)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all processes of a terminal: the first one acts on it
    _set_threads(threads)


def _call(function: Callable[[Item], Result], item: Item, threads: int) -> Result:
    _set_threads(threads)
    return function(item)


def _set_threads(threads: int) -> None:
    """Have torch use so many threads: Ray sets one where it was not told."""
    import torch

    torch.set_num_threads(threads)
