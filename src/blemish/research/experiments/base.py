"""What an experiment is: a question, its options, cells that are measured one by one, and what their rows say.

An experiment is a frozen dataclass. Its fields are its options, with defaults that suit two processor cores for some
minutes; `FULL` holds what replaces them at full size. Those in `AXES` may grow from run to run, because they only add
cells; any other one changes what a cell means, so that rows under different values never share a table.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Self

from blemish.errors import SettingsError
from blemish.evaluation import CategoryData, SharedEncoders
from blemish.utils.progress import Progress
from blemish.utils.validation import LARGEST_SEED

Row = Mapping[str, Any]
Values = tuple[float, ...]  # of one measure, one a repetition (category, seed)


@dataclass(frozen=True)
class Tools:
    """What computing a cell may use: encoders shared with other cells, and the function that reports its progress."""

    encoders: SharedEncoders
    progress: Progress


@dataclass(frozen=True)
class Cell:
    """One independent piece of work: the columns that identify it, and the function that measures its rows.

    What `compute` gives may hold further columns, and may replace those of the key (a pooled model's categories).
    """

    key: Mapping[str, Any]
    compute: Callable[[Tools], Iterable[Row]]


@dataclass(frozen=True)
class Verdict:
    """What the rows say, in sentences, and the rule by which they were worked out from the numbers."""

    sentences: tuple[str, ...]
    rule: str


@dataclass(frozen=True)
class Curve:
    """Values by the name of their place on the x axis."""

    name: str
    values: Mapping[str, Values]


@dataclass(frozen=True)
class CurveChart:
    """Curves over named places `x`, evenly spaced in this order; `threshold` is a named line to compare with."""

    title: str
    x_label: str
    y_label: str
    x: tuple[str, ...]
    curves: tuple[Curve, ...]
    threshold: tuple[str, float] | None = None


@dataclass(frozen=True)
class BarChart:
    """Values by name, as bars from 0 to `maximum`."""

    title: str
    bars: Mapping[str, Values]
    maximum: float | None = 1.0


@dataclass(frozen=True)
class Matrix:
    """A table of means: values by (name of the line, name of the column)."""

    title: str
    corner: str
    cells: Mapping[tuple[str, str], Values]
    higher_is_better: bool | None = True


Chart = CurveChart | BarChart


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """The promise of every experiment; options that all of them share.

    `seeds`: repetitions; standard deviations are over them. `most_test`: test images of each kind (normal, defective)
    that are inspected, None for all. `device`: where encoders run.
    """

    QUESTION: ClassVar[str] = ""
    SOURCE: ClassVar[str] = ""  # who asked it, and what they published
    KEY: ClassVar[tuple[str, ...]] = ()  # columns that identify a row
    MEASURES: ClassVar[tuple[str, ...]] = ()  # columns of numbers
    AXES: ClassVar[frozenset[str]] = frozenset({"seeds", "device"})
    FULL: ClassVar[Mapping[str, Any]] = {"most_test": None}
    BRINGS_DATA: ClassVar[bool] = False  # where no dataset is given, it makes one

    seeds: tuple[int, ...] = (0, 1, 2)
    most_test: int | None = 20
    device: str = "auto"

    @classmethod
    def configured(cls, settings: Mapping[str, Any], full: bool = False) -> Self:
        """The experiment with these options; raises SettingsError for an unknown one or an impossible value."""
        known = {each.name: each for each in fields(cls)}
        unknown = sorted(set(settings) - set(known))
        if unknown:
            raise SettingsError(f"options of this experiment: {', '.join(known)}", ", ".join(unknown), "use these")
        chosen = {**(cls.FULL if full else {}), **settings}
        made = cls(**{name: _fitting(name, value, str(known[name].type)) for name, value in chosen.items()})
        made.check()
        return made

    def check(self) -> None:
        """Raise SettingsError for options that cannot be."""
        at_least("seeds", self.seeds, 0)
        if any(seed > LARGEST_SEED for seed in self.seeds):
            raise SettingsError(f"seeds of at most {LARGEST_SEED}", ", ".join(map(str, self.seeds)), "lower them")
        for name in (each.name for each in fields(self)):
            if getattr(self, name) == () and name not in self.may_be_empty:
                raise SettingsError(f"at least one of {name}", "none", "name one, or leave the option out")
        if self.most_test is not None:
            at_least("most_test", (self.most_test,), 2)

    @property
    def may_be_empty(self) -> frozenset[str]:
        """Options where nothing means: choose for me."""
        return frozenset()

    @property
    def common(self) -> dict[str, Any]:
        """The options that change what a row means, ready for JSON."""
        values = {each.name: getattr(self, each.name) for each in fields(self) if each.name not in self.AXES}
        return json.loads(json.dumps(values))

    def own_categories(self, folder: Path, given: Sequence[CategoryData]) -> tuple[CategoryData, ...]:
        """Categories that the experiment brings along, made inside `folder`, beside those that are `given`."""
        return ()

    def cells(self, categories: Sequence[CategoryData]) -> Sequence[Cell]:
        """All work on these categories, that on the same images in a row. Raises what would stop it later."""
        raise NotImplementedError

    def verdict(self, rows: Sequence[Row]) -> Verdict:
        """What the rows say in answer to the question."""
        raise NotImplementedError

    def charts(self, rows: Sequence[Row]) -> list[Chart]:
        """What the page draws of the rows."""
        raise NotImplementedError

    def tables(self, rows: Sequence[Row]) -> list[Matrix]:
        """Tables of means over the rows."""
        raise NotImplementedError

    def notes(self, rows: Sequence[Row]) -> list[str]:
        """What a reader must know to judge the numbers."""
        return []


_KINDS: Mapping[str, type] = {"int": int, "float": float, "str": str, "bool": bool, "None": type(None)}


def _fitting(name: str, value: Any, annotation: str) -> Any:
    """`value` in the type of the option, as written in the class; a single value stands for a list of one."""
    allowed = {kind for word, kind in _KINDS.items() if word in annotation}
    several = annotation.startswith("tuple")
    values = tuple(value) if several and isinstance(value, list | tuple) else (value,)
    if float in allowed:
        values = tuple(float(one) if type(one) is int else one for one in values)
    if any(type(one) not in allowed for one in values):
        kinds = " or ".join(sorted("nothing" if kind is type(None) else kind.__name__ for kind in allowed))
        raise SettingsError(f"{name} as {'a list of ' if several else ''}{kinds}", repr(value), "correct the value")
    return tuple(dict.fromkeys(values)) if several else values[0]


def at_least(name: str, values: Sequence[Any], least: float) -> None:
    """Raise SettingsError when one of the numbers (None: no limit) lies below `least`."""
    wrong = [one for one in values if one is not None and not (isinstance(one, int | float) and one >= least)]
    if wrong:
        raise SettingsError(f"{name} of at least {least:g}", ", ".join(map(str, wrong)), "raise it")


def gathered(rows: Iterable[Row], measure: str, *by: str) -> dict[tuple[str, ...], Values]:
    """The finite values of a measure, by the columns `by` as text, in the order in which they come."""
    found: dict[tuple[str, ...], list[float]] = {}
    for row in rows:
        value = float(row[measure])
        if value == value:
            found.setdefault(tuple(str(row[name]) for name in by), []).append(value)
    return {key: tuple(values) for key, values in found.items()}


def matrix(rows: Iterable[Row], measure: str, down: str, across: str, title: str, **options: Any) -> Matrix:
    """The measure by two columns."""
    cells = {(key[0], key[1]): values for key, values in gathered(rows, measure, down, across).items()}
    return Matrix(title, down.replace("_", " "), cells, **options)


def curves(rows: Iterable[Row], measure: str, line: str, x: str) -> tuple[Curve, ...]:
    """One curve for each value of the column `line`, over the values of the column `x`."""
    found: dict[str, dict[str, Values]] = {}
    for (name, place), values in gathered(rows, measure, line, x).items():
        found.setdefault(name, {})[place] = values
    return tuple(Curve(name, values) for name, values in found.items())


def places(rows: Iterable[Row], x: str) -> tuple[str, ...]:
    """The values of the column `x`, numbers by size, then words."""
    values = {row[x] for row in rows}
    numbers = sorted(value for value in values if isinstance(value, int | float))
    return tuple(str(value) for value in [*numbers, *sorted(str(v) for v in values if isinstance(v, str))])
