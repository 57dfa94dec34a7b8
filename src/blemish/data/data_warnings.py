"""Warnings about images: given while they are read, collected by whoever shows them, summed up in plain words."""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from blemish.errors import DataWarning

# What a summary says of each kind: for one file, and for several.
_SUMMARIES = {
    "scale": ("picture does not fit the full scale of the others", "pictures do not fit the full scale of the others"),
    "range": ("picture uses a few per cent of its range", "pictures use a few per cent of their range"),
    "constant": ("picture is of one single colour", "pictures are of one single colour"),
    "two-level": ("picture has two levels alone, as a mask has", "pictures have two levels alone, as masks have"),
    "resolution": ("picture is of another resolution or shape", "pictures are of another resolution or shape"),
    "size": ("scan is of another size than the good ones", "scans are of another size than the good ones"),
    "pages": ("file has more pages than the one looked at", "files have more pages than the one looked at"),
    "incomplete": ("scan lacks its picture or its points", "scans lack their picture or their points"),
    "near-duplicate": ("picture is nearly the same as another", "pictures are nearly the same as others"),
}


def warn(kind: str, file: str, text: str) -> None:
    """Give a DataWarning; `text` goes on after the file's name."""
    warnings.warn(DataWarning(kind, file, text), stacklevel=3)


@contextmanager
def collected_warnings() -> Iterator[list[DataWarning]]:
    """A list that takes up every DataWarning given inside, by any thread, instead of showing it; others pass.

    Not for use by several threads at once: Python's warning filters are the process's.
    """
    found: list[DataWarning] = []
    with warnings.catch_warnings():
        warnings.simplefilter("always", DataWarning)
        usual = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *place: Any, **further: Any) -> None:
            if isinstance(message, DataWarning):
                found.append(message)
            else:
                usual(message, category, *place, **further)

        warnings.showwarning = show  # catch_warnings puts the usual one back
        yield found


def summary(found: Sequence[DataWarning]) -> list[str]:
    """One line for each kind of warning: how many files, the first of them, and what is said of it."""
    files: dict[str, dict[str, DataWarning]] = defaultdict(dict)
    for i, warning in enumerate(found):
        # A file may be read twice; arrays have no name to know them by.
        files[warning.kind].setdefault(f"array {i}" if warning.file == "array" else warning.file, warning)
    lines = []
    for kind, by_file in files.items():
        first = next(iter(by_file.values()))
        one, many = _SUMMARIES.get(kind, (kind, kind))
        lines.append(f"{len(by_file)} {one if len(by_file) == 1 else many}: {first}")
    return lines
