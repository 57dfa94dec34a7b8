"""Doing an experiment's cells one by one: finished ones stay, each new one is on disk before the next begins."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from blemish import __version__
from blemish.evaluation.evaluation import Part, SharedEncoders
from blemish.registry import EXPERIMENTS, lookup, resolve
from blemish.research.experiments.base import Cell, Experiment, Tools
from blemish.research.experiments.rows import RowBook

# Told (words, work done, all work) while a run goes on; work counts cells.
Told = Callable[[str, float, int], None]
_WORK = ".work"


def configured(name: str, settings: Mapping[str, Any] | None = None, full: bool = False) -> Experiment:
    """The experiment of that name (see `registry.EXPERIMENTS`) with these options; SettingsError for unknown ones."""
    made: Experiment = resolve(lookup(name, EXPERIMENTS, "experiment").target).configured(settings or {}, full)
    return made


class Notebook:
    """An experiment and what is known so far: `cells` planned, `book` of finished rows, `stale` rows dropped.

    Only one at a time may work in a folder (see locking.py).
    """

    def __init__(self, name: str, experiment: Experiment, parts: Sequence[Part], folder: Path) -> None:
        """Plans all cells and reads finished rows. Raises SettingsError, DatasetError, WeightsError before any work."""
        self.name, self.experiment, self.folder = name, experiment, folder
        settings = {**experiment.common, "blemish": __version__}
        self.book = RowBook(folder, name, experiment.KEY, experiment.MEASURES, settings).open()
        self.waiting: list[Cell] = []
        self.cells: list[Cell] = list(experiment.cells([*parts, *experiment.own_parts(folder, parts)]))
        self.stale = sum(self.book.forget(cell.key, "data") for cell in self.cells)
        self._recount()

    @property
    def finished(self) -> int:
        """Planned cells whose rows are there."""
        return len(self.cells) - len(self.waiting)

    def work(self, told: Told) -> None:
        """Do the cells that wait. Whatever ends this early, the rows of finished cells stay."""
        if not self.waiting:
            return
        work = self.folder / _WORK  # a killed run's leftovers are cleared away by the next
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        try:
            with SharedEncoders(work) as encoders:
                for cell in list(self.waiting):
                    tell = partial(self._tell, told, cell)
                    self.book.add(cell.key, list(cell.compute(Tools(encoders, tell))))
                    self.waiting.remove(cell)
        except BaseException:
            self._recount()  # what ended the work may have done so between writing rows and taking note of them
            raise
        finally:
            shutil.rmtree(work, ignore_errors=True)

    def _recount(self) -> None:
        """Learn from the folder which cells are finished."""
        self.book.open()
        self.waiting = [cell for cell in self.cells if not self.book.has(cell.key)]

    def _tell(self, told: Told, cell: Cell, words: str, at: int, of: int) -> None:
        shown = ("variant", "encoder", "bottleneck", "masking", "shots", "seed")
        name = ", ".join(f"{k} {cell.key[k]}" if k != "variant" else str(cell.key[k]) for k in shown if k in cell.key)
        told(f"{name}: {words}", self.finished + min(at / max(of, 1), 1), len(self.cells))
