"""Shared by the tests of batches: files to inspect, settings without a model, the rows of a folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from light_maker import ORIGIN

from blemish.batch import BatchSettings
from blemish.batch.inspecting import MakerSpec

HERE = str(Path(__file__).parent)


def write_files(folder: Path, count: int, **names: int) -> Path:
    """Files `0000.png` … of 1, 2, 3 … bytes: a light maker reads nothing but the size."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        (folder / f"{i:04}.png").write_bytes(bytes(i + 1))
    for name, size in names.items():
        (folder / f"{name}.png").write_bytes(bytes(size))
    return folder


def light(source: Path, out: Path, pause: float = 0.0, marks: Path | str = "", **changes: Any) -> BatchSettings:
    """Settings of a batch by `LightMaker`."""
    maker = MakerSpec(target="light_maker:LightMaker", arguments={"pause": pause, "marks": str(marks)})
    settings = BatchSettings(
        model=Path("no-model"), source=str(source), out=out, workers=1, threads=1, maker=maker, origin=ORIGIN
    )
    return replace(settings, **changes)


def rows_in(out: Path) -> list[Mapping[str, Any]]:
    """All rows of a folder, as any reader finds them, in the order of their ids."""
    import pyarrow.dataset

    return sorted(pyarrow.dataset.dataset(str(out)).to_table().to_pylist(), key=lambda row: row["id"])


def check_whole(out: Path, count: int) -> None:
    """One row a file, of the right score, and nothing left of unfinished runs."""
    rows = rows_in(out)
    assert [row["id"] for row in rows] == [f"{i:04}.png" for i in range(count)]
    assert [row["score"] for row in rows] == [i + 1.0 for i in range(count)]
    names = {path.name.split("-")[0] for path in out.iterdir()}
    assert names == {"part", "_input.parquet", "_run.json", "_manifest.json"}


def disc(seed: int, defective: bool = False) -> np.ndarray:
    """An image (64, 80, 3) uint8 of a disc; a defective one has a dark square."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:64, :80]
    image = np.where(np.hypot(y - 32, x - 40) < 20, 180.0, 90.0)[..., None] + random.normal(0, 4, (64, 80, 3))
    if defective:
        image[28:40, 32:44] = 5
    return image.clip(0, 255).astype(np.uint8)
