"""The local engine: processes of one machine that take shard after shard.

A worker that dies (the system's out-of-memory killer, a fault in a decoder) is replaced and its shard done once more;
where it dies again, its images are tried one by one, and one that a worker dies of gets a row that says so.
"""

from __future__ import annotations

import multiprocessing
import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from blemish.batch.rows import Origin, failure_row
from blemish.batch.shards import Journal, Shard, ShardPlan, finished_shards, tried
from blemish.batch.source import InputReader
from blemish.batch.worker import DONE, FAILED, READY, ROW, Task, WorkerSettings, work
from blemish.errors import BlemishError, OutputError
from blemish.utils.signals import ctrl_c_blocked, end_in_words

LOADING_DEATHS = 3  # of workers before they had loaded the model: more memory does not come by trying again
IDLE_DEATHS = 3  # of workers at a shard that each died of no picture
_PATIENCE = 10.0  # seconds that a worker has to end when it is asked to

Counted = Callable[[str | None, bool], None]  # called with each row's verdict (None: an error), and whether it is new


@dataclass(eq=False)
class _Worker:
    """A process, the pipe to it, and the task it is at."""

    process: BaseProcess
    pipe: Connection
    task: Task | None = None
    is_ready: bool = False


@dataclass
class LocalEngine:
    """Finishes all shards of a `plan` with so many `workers`. `counted` is called with each row.

    Raises the BlemishError that a worker could not go on from; OutputError where workers die before they are ready,
    or again and again at a shard without having died of a picture.
    """

    settings: WorkerSettings
    plan: ShardPlan
    workers: int
    origin: Origin
    counted: Counted
    run: str = field(default_factory=lambda: uuid.uuid4().hex[:8])
    _deaths: Counter[int] = field(default_factory=Counter)  # by shard
    _idle_deaths: Counter[int] = field(default_factory=Counter)  # by shard
    _loading_deaths: int = 0

    def finish(self) -> None:
        """Do all shards whose file is not there. Whatever ends it early, the same call goes on."""
        done = finished_shards(Path(self.settings.out))
        self._waiting = deque(
            Task(self.plan.shard(number), self.run) for number in range(len(self.plan)) if number not in done
        )
        self._open = len(self._waiting)
        if not self._open:
            return
        with self._running() as workers:
            while self._open:
                while len(workers) < min(self.workers, self._open):
                    workers.append(self._started())
                self._feed(workers)
                ready = wait([worker.pipe for worker in workers])
                for worker in [worker for worker in workers if worker.pipe in ready]:
                    if not self._heard(worker):
                        workers.remove(worker)
                        self._bury(worker)

    @contextmanager
    def _running(self) -> Iterator[list[_Worker]]:
        """The list of workers; at the end those in it are asked to end, after an error at once."""
        workers: list[_Worker] = []
        try:
            yield workers
        except BaseException:
            for worker in workers:
                worker.process.terminate()
            raise
        finally:
            for worker in workers:
                with suppress(OSError):
                    worker.pipe.send(None)
                worker.process.join(_PATIENCE)
                if worker.process.is_alive():
                    worker.process.kill()
                    worker.process.join()
                worker.pipe.close()

    def _started(self) -> _Worker:
        ours, theirs = multiprocessing.Pipe()
        context = multiprocessing.get_context("spawn")  # threads of torch do not survive a fork
        process = context.Process(target=work, args=(theirs, self.settings), name="blemish-batch", daemon=True)
        with ctrl_c_blocked():
            process.start()
        theirs.close()  # so that our end sees the end of the file when the worker dies
        return _Worker(process, ours)

    def _heard(self, worker: _Worker) -> bool:
        """Take one message of a worker; False where it is dead."""
        try:
            message: tuple[Any, ...] = worker.pipe.recv()
        except (EOFError, OSError):  # an OSError where it died in the middle of a message
            return False
        kind = message[0]
        if kind == FAILED:
            raise message[1]
        if kind == ROW:
            self.counted(message[1], message[2])
        if kind == DONE:
            self._open -= 1
        if kind in (READY, DONE):
            worker.is_ready, worker.task = True, None
        return True

    def _feed(self, workers: list[_Worker]) -> None:
        """Give a task to each worker that has none."""
        for worker in workers:
            if worker.is_ready and worker.task is None and self._waiting:
                worker.task = self._waiting.popleft()
                with suppress(ConnectionError):  # it died just now: the pipe's end is heard next
                    worker.pipe.send(worker.task)

    def _bury(self, worker: _Worker) -> None:
        """Put the task of a dead worker back in front, in the way that its number of deaths calls for."""
        worker.process.join()
        worker.pipe.close()
        code = worker.process.exitcode
        if not worker.is_ready:
            self._loading_deaths += 1
            if self._loading_deaths >= LOADING_DEATHS:
                raise OutputError(
                    "workers that can load the model",
                    f"{LOADING_DEATHS} that died at it ({end_in_words(code)})",
                    "give fewer --workers, or a machine with more memory",
                )
        if worker.task is None:
            return
        shard = worker.task.shard
        self._deaths[shard.number] += 1
        if worker.task.is_careful and not self._condemn(shard, worker.task.run, code):
            self._idle_deaths[shard.number] += 1
            if self._idle_deaths[shard.number] >= IDLE_DEATHS:
                raise OutputError(
                    f"a worker that finishes the pictures {shard.start + 1} to {shard.stop}",
                    f"{IDLE_DEATHS} that died at it, none of them of a picture ({end_in_words(code)})",
                    "give fewer --workers, or a machine with more memory",
                )
        attempt = self._deaths[shard.number]
        self._waiting.appendleft(Task(shard, f"{self.run}-{attempt}", is_careful=attempt > 1))

    def _condemn(self, shard: Shard, run: str, code: int | None) -> bool:
        """Write the row of the image that a worker died of when it was tried alone; whether there was one."""
        out = Path(self.settings.out)
        with (
            closing(InputReader(Path(self.settings.input))) as reader,
            Journal(out, shard, f"{self.run}-died") as journal,
        ):
            numbers = tried(out, shard, run)
            for number in numbers:
                (entry,) = reader.entries(number, number + 1)
                error = BlemishError(
                    "a picture that can be inspected",
                    f"the end of the process that tried it alone ({end_in_words(code)})",
                    "look at the file, or give workers more memory",
                )
                journal.add(number, failure_row(entry, str(error), self.origin))
        return bool(numbers)
