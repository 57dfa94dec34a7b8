"""Solar cells under electroluminescence: the images of the PyPI package elpv-dataset.

2,624 grey images of 300x300 pixels, mono- and polycrystalline, each with the probability of a defect that experts
gave it: 0, 1/3, 2/3 or 1 (Buerhop-Lutz et al., EU PVSEC 2018; Deitsch et al., Solar Energy 185, 2019).
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np

from blemish.errors import DatasetError, MissingPackageError, SettingsError
from blemish.types import Sample

PACKAGE = "elpv_dataset"
TYPES = ("mono", "poly")


def solar_cells(folder: Path | str | None = None) -> list[Sample]:
    """All cells in the order of labels.csv: label 0 where the probability is 0, else 1.

    `category` is "mono" or "poly"; `defect` is empty for good cells, else "probability 0.33", "… 0.67" or "… 1.00".
    `folder` holds labels.csv; None finds it in the installed package, whose code is not run.

    Raises MissingPackageError without the package, DatasetError when labels.csv is absent or not as expected.
    """
    folder = _installed() if folder is None else Path(folder)
    table = folder / "labels.csv"
    if not table.is_file():
        raise DatasetError(f"labels.csv in '{folder}'", "no such file", "install elpv-dataset again")
    rows = [line.replace(",", " ").split() for line in table.read_text(encoding="utf-8").splitlines() if line.strip()]
    rows = rows[1:] if rows and rows[0][0] == "path" else rows
    try:
        return [_cell(folder / path, float(probability), kind) for path, probability, kind, *_ in rows]
    except ValueError as error:
        raise DatasetError(
            f"lines of path, probability and type in '{table}'", str(error), "install elpv-dataset again"
        ) from error


def draw_cells(
    n_learn: int = 40, n_inspect: int = 60, seed: int = 0, folder: Path | str | None = None
) -> tuple[list[Sample], list[Sample]]:
    """Normal cells to fit on, and others to inspect, half of them defective; half mono, half poly in each group.

    Only cells on which the experts agreed are drawn (probability 0 or 1), so that the labels are known. The samples of
    the second list come in shuffled order; odd counts give the extra cell to normal and to mono.
    """
    random = np.random.RandomState(seed)
    pools = {
        (label, kind): [cells[i] for i in random.permutation(len(cells))]
        for label in (0, 1)
        for kind in TYPES
        if (cells := [c for c in solar_cells(folder) if c.label == label and _is_agreed(c) and c.category == kind])
    }
    n_defective = n_inspect // 2
    learn = _take(pools, 0, n_learn)
    inspect = _take(pools, 0, n_inspect - n_defective) + _take(pools, 1, n_defective)
    return learn, [inspect[i] for i in random.permutation(len(inspect))]


def _take(pools: dict[tuple[int, str], list[Sample]], label: int, count: int) -> list[Sample]:
    """Remove `count` cells from the pools of `label`, evenly over the types."""
    taken: list[Sample] = []
    for kind, share in zip(TYPES, (count - count // 2, count // 2), strict=True):
        pool = pools.get((label, kind), [])
        if share > len(pool):
            raise SettingsError(f"at most {len(pool)} more {kind} cells of label {label}", str(share), "ask for fewer")
        taken += pool[:share]
        del pool[:share]
    return taken


def _cell(image: Path, probability: float, kind: str) -> Sample:
    label = int(probability > 0)
    return Sample(image, label=label, category=kind, defect=f"probability {probability:.2f}" if label else "")


def _is_agreed(cell: Sample) -> bool:
    return cell.defect in ("", "probability 1.00")


def _installed() -> Path:
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise MissingPackageError(
            "the package 'elpv-dataset' with the demo's pictures", "none", "run: pip install 'blemish[demo]'"
        )
    return Path(spec.submodule_search_locations[0]) / "data"
