"""Measure an experiment's cells one by one: finished ones stay, each new one is on disk before the next begins."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from blemish import __version__
from blemish.errors import SettingsError
from blemish.evaluation import CategoryData, Run, SharedEncoders
from blemish.evaluation.runs import check_names
from blemish.registry import EXPERIMENTS, lookup, resolve
from blemish.research.experiments.base import Cell, Experiment, Row, Tools
from blemish.research.experiments.row_store import RowStore, key_text
from blemish.utils.atomic import output_errors
from blemish.utils.executors import Executor
from blemish.utils.paths import shown
from blemish.utils.progress import Progress, progress_within

SCRATCH = ".work"


def configured(name: str, settings: Mapping[str, Any] | None = None, full: bool = False) -> Experiment:
    """The experiment of that name (see `registry.EXPERIMENTS`) with these options; SettingsError for unknown ones."""
    made: Experiment = resolve(lookup(name, EXPERIMENTS, "experiment").target).configured(settings or {}, full)
    return made


class ExperimentRunner:
    """An experiment and what is known so far: `cells` planned, `store` of finished rows, `stale` cells dropped.

    Only one at a time may work in a folder, see `utils.locking.exclusive`.
    """

    def __init__(self, name: str, experiment: Experiment, categories: Sequence[CategoryData], folder: Path) -> None:
        """Plans all cells and reads finished rows. Raises SettingsError, DatasetError, WeightsError before any work."""
        self.name, self.experiment, self.folder = name, experiment, folder
        settings = {**experiment.common, "blemish": __version__}
        self.store = RowStore(folder, name, experiment.KEY, experiment.MEASURES, settings).open()
        given = [*categories, *experiment.own_categories(folder, categories)]
        check_names([Run((category,), "") for category in given])
        planned: dict[str, Cell] = {}  # several options may mean the same cell: more shots than there are pictures
        for cell in experiment.cells(given):
            planned.setdefault(key_text(cell.key), cell)
        self.cells: list[Cell] = list(planned.values())
        self._refuse_other_encoders()
        self.stale = self.store.forget([cell.key for cell in self.cells], "data")
        self.waiting = self._unfinished()

    @property
    def finished(self) -> int:
        """Planned cells whose rows are there."""
        return len(self.cells) - len(self.waiting)

    @property
    def rows(self) -> list[Row]:
        """All finished rows, as a page shows them; see `told_apart`."""
        return told_apart(self.store.rows)

    def run(self, progress: Progress, executor: Executor | None = None) -> None:
        """Measure the cells that wait, several at a time by an `executor`, else one by one.

        Whatever ends this early, the rows of finished cells stay.
        """
        if not self.waiting:
            return
        if executor is not None:
            self._run_by(executor, progress)
            return
        scratch = self.folder / SCRATCH  # a killed run's leftovers are cleared away by the next
        shutil.rmtree(scratch, ignore_errors=True)
        with output_errors(scratch):
            scratch.mkdir(parents=True)
        try:
            with SharedEncoders(scratch) as encoders:
                for cell in list(self.waiting):
                    part = progress_within(progress, self.finished, len(self.cells), name_of(cell))
                    self.store.add(cell.key, list(cell.compute(Tools(encoders, part))))
                    self.waiting.remove(cell)
        except BaseException:
            self.waiting = self._unfinished()  # it may have come between writing rows and taking note of them
            raise
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def _run_by(self, executor: Executor, progress: Progress) -> None:
        cells = list(self.waiting)
        try:
            with closing(executor.map_ready(rows_of, cells)) as ready:
                for place, rows in ready:
                    self.store.add(cells[place].key, rows)
                    self.waiting.remove(cells[place])
                    progress(self.finished, len(self.cells), {"step": name_of(cells[place])})
        except BaseException:
            self.waiting = self._unfinished()
            raise

    def _refuse_other_encoders(self) -> None:
        """Raise SettingsError where a method has rows by another encoder than "auto" means now.

        An experiment that compares encoders without naming variants after them has rows of each.
        """
        compares = hasattr(self.experiment, "encoders")
        named = [cell.key for cell in self.cells if "variant" in cell.key or not compares]
        before = [json.loads(key) for key in self.store.alike(named, {"encoder", "image_size", "data"})]
        meant = {(method_of(key), key["seed"]): key["encoder"] for key in named}
        for key in before:
            if key["encoder"] != (now := meant[method_of(key), key["seed"]]):
                raise SettingsError(
                    f"{method_of(key)} by the encoder {key['encoder']}, as in the rows in {shown(self.folder)}",
                    f"by {now}",
                    "bring that encoder back, or name another folder with -o",
                )

    def _unfinished(self) -> list[Cell]:
        finished = self.store.keys()
        return [cell for cell in self.cells if key_text(cell.key) not in finished]


def rows_of(cell: Cell) -> list[Row]:
    """The rows of a cell, measured by a process that shares nothing with others."""
    with SharedEncoders() as encoders:
        return list(cell.compute(Tools(encoders, lambda done, total, facts: None)))


def told_apart(rows: Sequence[Row]) -> list[Row]:
    """The rows, with the dataset in the name of a category that several datasets have: means are over seeds alone."""
    datasets: dict[str, set[str]] = {}
    for row in rows:
        datasets.setdefault(str(row["category"]), set()).add(str(row["dataset"]))
    return [
        {**row, "category": f"{row['dataset']}/{row['category']}"} if len(datasets[str(row["category"])]) > 1 else row
        for row in rows
    ]


def method_of(key: Mapping[str, Any]) -> str:
    """What of a cell's key names its method."""
    return str(key.get("variant", key.get("detector")))


def name_of(cell: Cell) -> str:
    """What a cell is about, in a few words."""
    named = ("variant", "encoder", "bottleneck", "masking", "shots", "seed")
    return ", ".join(f"{k} {cell.key[k]}" if k != "variant" else str(cell.key[k]) for k in named if k in cell.key)
