"""The Ray engine: Ray Data sends entries to actors that load the model once, and writes the rows that come back.

Entries (ids and uris) go through Ray's object store, and rows of some hundred bytes; images never do. Ray Data keeps
the ids that are done in a checkpoint beside the rows, in two phases around each file, so that a job that is started
again writes each id once. The results' folder must be one that every node sees.
"""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blemish.batch.inspecting import MakerSpec
from blemish.batch.rows import table_of
from blemish.batch.shards import ShardPlan
from blemish.batch.source import entries_in
from blemish.errors import DataWarning
from blemish.utils.optional import need
from blemish.utils.progress import Progress

if TYPE_CHECKING:
    import pyarrow

ROWS_AT_A_TIME = 64  # of one call of an actor: entries and rows are small, and a dead actor's are done again
LARGEST_BLOCK = 4096  # rows: what a job that is ended early does again, for each actor, at most
ATTEMPTS = 2  # more for an actor that died and the rows that it was at; Ray's own default has no end
LIGHT = 0.1  # of a core: reading entries and writing rows; with a whole one each, two cores would have none to inspect
_EVERY = 2.0  # seconds between two counts of finished rows


class InspectActor:
    """One worker of Ray Data: entries in, rows out, as Arrow tables."""

    def __init__(self, maker: MakerSpec, threads: int) -> None:
        os.environ["OMP_NUM_THREADS"] = str(threads)  # Ray sets 1 where it was not told
        warnings.simplefilter("ignore", DataWarning)  # as in worker.py
        self.maker = maker.build(threads)

    def __call__(self, table: pyarrow.Table) -> pyarrow.Table:
        return table_of(list(self.maker.rows(entries_in(table))))


@dataclass(frozen=True, kw_only=True)
class RayEngine:
    """Makes the rows of all entries in `input`, and writes them into `out`; `checkpoint` is a folder beside them.

    Joins the cluster at `address`; where none is given, the one that the program has begun or RAY_ADDRESS names, or
    else one of this machine alone, which ends with the job.
    """

    maker: MakerSpec
    input: Path
    out: Path
    checkpoint: Path
    workers: int
    threads: int
    address: str | None = None

    def finish(self, plan: ShardPlan, progress: Progress | None = None) -> None:
        """Make all rows that are not there yet. Raises what an actor could not go on from."""
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        data: Any = need("ray.data", "ray", "--engine ray")
        with self._cluster(), self._context(data), _counted(self.out, plan.rows, progress):
            entries = data.read_parquet(str(self.input), num_cpus=LIGHT)
            # Ray Data would join entries, which are small, into very large blocks; what is written and noted as done is
            # a whole block.
            entries = entries.repartition(target_num_rows_per_block=min(plan.size, LARGEST_BLOCK))
            rows = entries.map_batches(
                InspectActor,
                fn_constructor_kwargs={"maker": self.maker, "threads": self.threads},
                batch_format="pyarrow",
                batch_size=ROWS_AT_A_TIME,
                compute=data.ActorPoolStrategy(min_size=1, max_size=self.workers),
                num_cpus=self.threads,
                max_restarts=ATTEMPTS,
                max_task_retries=ATTEMPTS,
            )
            rows.write_parquet(str(self.out), compression="zstd", ray_remote_args={"num_cpus": LIGHT})

    @contextmanager
    def _cluster(self) -> Iterator[None]:
        """Ray, begun unless it runs in this program already."""
        ray: Any = need("ray", "ray", "--engine ray")
        if ray.is_initialized():
            yield
            return
        ray.init(address=self.address, include_dashboard=None if self.address else False, log_to_driver=False)
        try:
            yield
        finally:
            ray.shutdown()

    @contextmanager
    def _context(self, data: Any) -> Iterator[None]:
        """Ray Data's settings of this job, in place of those that were there."""
        checkpoint: Any = need("ray.data.checkpoint", "ray", "--engine ray")
        context = data.DataContext.get_current()
        old = context.checkpoint_config, context.enable_progress_bars
        context.enable_progress_bars = False
        context.checkpoint_config = checkpoint.CheckpointConfig(
            id_column="id", checkpoint_path=str(self.checkpoint), delete_checkpoint_on_success=False
        )
        try:
            yield
        finally:
            context.checkpoint_config, context.enable_progress_bars = old


@contextmanager
def _counted(out: Path, total: int, progress: Progress | None) -> Iterator[None]:
    """Report now and then how many rows the finished files hold, by a thread."""
    end = threading.Event()

    def count() -> None:
        from pyarrow import parquet

        known: dict[str, int] = {}
        while not end.wait(_EVERY):
            for path in out.glob("[!._]*.parquet"):
                if path.name not in known:
                    try:
                        known[path.name] = parquet.read_metadata(path).num_rows
                    except (OSError, ValueError):  # it is being written
                        continue
            if progress is not None:
                progress(min(sum(known.values()), total), total, {})

    thread = threading.Thread(target=count, name="count-rows", daemon=True)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()
