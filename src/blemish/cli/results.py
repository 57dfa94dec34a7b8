"""Answers written one by one: a line of JSON, a row of CSV, an overlay, a map; memory stays flat however many come."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from blemish.types import Prediction, Sample

# `regions` is JSON inside its cell; what follows `error` was added for people and may grow.
COLUMNS = (
    *("file", "category", "score", "p_value", "is_defective", "regions", "seconds", "error"),
    *("threshold", "is_known", "overlay", "map", "verdict"),
)


class ResultWriter:
    """Writes `results.jsonl`, `results.csv`, `overlays/` and `maps/` into a folder; a context manager.

    With `reliefs` an overlay shows the measured surface beside the image.
    """

    def __init__(self, folder: Path, overlays: bool = True, maps: bool = False, reliefs: bool = False) -> None:
        self.folder = folder
        self.reliefs = reliefs
        self.overlays = overlays
        self.maps = maps
        self.taken: Counter[str] = Counter()

    def __enter__(self) -> Self:
        for name in ["overlays"] * self.overlays + ["maps"] * self.maps:
            (self.folder / name).mkdir()
        self.lines = (self.folder / "results.jsonl").open("w", encoding="utf-8")
        self.table = (self.folder / "results.csv").open("w", encoding="utf-8", newline="", errors="backslashreplace")
        self.rows = csv.DictWriter(self.table, COLUMNS)
        self.rows.writeheader()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.lines.close()
        self.table.close()

    def write(self, prediction: Prediction, sample: Sample | None = None) -> dict[str, Any]:
        """Write one answer about `sample` (None: its file); gives back what its line of JSON holds."""
        facts = prediction.to_dict() | {"error": None, "overlay": None, "map": None}
        name = self.free_name(prediction.source) if self.overlays or self.maps else ""
        if self.overlays:
            facts["overlay"] = f"overlays/{name}.jpg"
            from PIL import Image

            drawn = overlay_of(prediction, sample or Sample(Path(prediction.source)), self.reliefs)
            Image.fromarray(drawn).save(self.folder / facts["overlay"], quality=90)
        if self.maps:
            facts["map"] = f"maps/{name}.npy"
            np.save(self.folder / facts["map"], prediction.map.astype(np.float32, copy=False))
        return self.put(facts)

    def write_failure(self, file: str, error: str) -> dict[str, Any]:
        """Write that a picture could not be read, and why."""
        return self.put(dict.fromkeys(COLUMNS) | {"file": file, "regions": [], "error": error})

    def put(self, facts: dict[str, Any]) -> dict[str, Any]:
        self.lines.write(json.dumps({name: facts[name] for name in COLUMNS}) + "\n")
        self.rows.writerow({name: cell(facts[name]) for name in COLUMNS})
        return facts

    def free_name(self, source: str) -> str:
        """The picture's name without its ending, cut to a sane length; `-2`, `-3`… when it was taken already."""
        stem = Path(source).stem.encode("utf-8", "replace")[:120].decode("utf-8", "ignore") or "picture"
        while True:
            self.taken[stem.casefold()] += 1
            count = self.taken[stem.casefold()]
            if count == 1:
                return stem
            stem = f"{stem}-{count}"


def overlay_of(prediction: Prediction, sample: Sample, reliefs: bool) -> np.ndarray:
    """The verdict drawn on the picture, and with `reliefs` on the measured surface beside it."""
    from blemish.report import draw_overlay
    from blemish.report.views import image_view, relief_view, side_by_side

    drawn = draw_overlay(image_view(sample), prediction)
    relief = relief_view(sample) if reliefs and sample.image is not None else None
    return drawn if relief is None else side_by_side([drawn, draw_overlay(relief, prediction, strip=False)])


def cell(value: Any) -> Any:
    """A value as a spreadsheet cell: nothing for None, lists as JSON, true and false in small letters."""
    if isinstance(value, bool | list):
        return json.dumps(value)
    return value
