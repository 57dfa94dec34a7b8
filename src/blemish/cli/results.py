"""The result files of an inspection: rows in results.jsonl and results.csv, overlays, maps; and rows read back.

A row is on disk, in both files, before the next image is inspected. Memory stays flat however many come.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from blemish.data.samples import as_rgb
from blemish.types import VERDICTS, ImageOrScan, Prediction, Scan
from blemish.utils.atomic import atomic_file, output_errors
from blemish.utils.spreadsheet import cell

# What people look for comes first. `regions` is JSON inside its cell. Rows are read by these names, in any order.
COLUMNS = (
    *("file", "verdict", "reason", "score", "threshold", "unsure_threshold", "p_value", "category", "error"),
    *("is_defective", "is_known", "alarm", "overlay", "map", "map_threshold", "ignored_share", "seconds"),
    *("regions", "identity"),
)
ROWS, TABLE, OVERLAYS, MAPS = "results.jsonl", "results.csv", "overlays", "maps"
NO_MAP = np.zeros((0, 0), dtype=np.float32)  # of a prediction that was read back from its row

Row = dict[str, Any]


class ResultWriter:
    """Appends to `results.jsonl` and `results.csv` of a folder, and writes `overlays/` and `maps/`; a context manager.

    `names` are the overlays' and maps' names (without suffix) that earlier rows have taken. Both files must be there
    with their heads, as `begin_results` writes them. Raises OutputError where something cannot be written.
    """

    def __init__(
        self, folder: Path, overlays: bool = True, maps: bool = False, names: Iterator[str] = iter(())
    ) -> None:
        self.folder, self.overlays, self.maps = folder, overlays, maps
        self._taken = {name.casefold() for name in names}
        self._next: dict[str, int] = {}  # by stem: the number to try next, for stems that came twice

    def __enter__(self) -> Self:
        with output_errors(self.folder):
            for name in [OVERLAYS] * self.overlays + [MAPS] * self.maps:
                (self.folder / name).mkdir(exist_ok=True)
            self._lines = (self.folder / ROWS).open("a", encoding="utf-8")
            self._table = (self.folder / TABLE).open("a", encoding="utf-8", newline="", errors="backslashreplace")
            self._cells = csv.DictWriter(self._table, COLUMNS)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with output_errors(self.folder):
            self._lines.close()
            self._table.close()

    def write(self, prediction: Prediction, image: ImageOrScan, identity: str = "") -> Row:
        """Write the row, overlay and map of one prediction about a decoded image; gives back the row."""
        row = prediction.to_dict() | {"error": None, "overlay": None, "map": None}
        row |= {"map_threshold": prediction.region_threshold, "identity": identity, "alarm": None}
        row |= {"reason": max(prediction.regions, key=lambda region: region.peak).words if prediction.regions else ""}
        with output_errors(self.folder):
            name = self._free_name(prediction.source) if self.overlays or self.maps else ""
            if self.overlays:
                row["overlay"] = f"{OVERLAYS}/{name}.jpg"
                from PIL import Image

                with _new_file(self.folder / row["overlay"]) as file:
                    Image.fromarray(overlay_of(prediction, image)).save(file, "JPEG", quality=90)
            if self.maps:
                row["map"] = f"{MAPS}/{name}.npy"
                with _new_file(self.folder / row["map"]) as file:
                    np.save(file, prediction.map.astype(np.float32, copy=False), allow_pickle=False)
            return self._put(row)

    def write_failure(self, file: str, error: str) -> Row:
        """Write the row of an image that could not be read, and why."""
        with output_errors(self.folder):
            return self._put(dict.fromkeys(COLUMNS) | {"file": file, "regions": [], "error": error, "identity": ""})

    def flush(self) -> None:
        """Have the system bring the rows to the disk."""
        with output_errors(self.folder):
            os.fsync(self._lines.fileno())
            os.fsync(self._table.fileno())

    def _put(self, row: Row) -> Row:
        self._lines.write(line_of(row))
        self._lines.flush()
        self._cells.writerow(cells_of(row))
        self._table.flush()
        return row

    def _free_name(self, source: str) -> str:
        """The image's name without its suffix, cut to a sane length; `-2`, `-3`… where it was taken already."""
        stem = Path(source).stem.encode("utf-8", "replace")[:120].decode("utf-8", "ignore") or "picture"
        name, key = stem, stem.casefold()
        while name.casefold() in self._taken:
            self._next[key] = self._next.get(key, 1) + 1
            name = f"{stem}-{self._next[key]}"
        self._taken.add(name.casefold())
        return name


def line_of(row: Mapping[str, Any]) -> str:
    """A row as its line of JSON."""
    return json.dumps({name: row[name] for name in COLUMNS}) + "\n"


def cells_of(row: Mapping[str, Any]) -> Row:
    """A row as the cells of its CSV line."""
    return {name: cell(row[name]) for name in COLUMNS}


def read_rows(folder: Path) -> Iterator[Row]:
    """The rows of `results.jsonl`; a line that a killed run left half-written, or of an older version, is left out."""
    try:
        with (folder / ROWS).open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                if (row := _row_in(line)) is not None:
                    yield row
    except FileNotFoundError:
        return


def mark_alarms(folder: Path, rate: float) -> int:
    """Fill the column `alarm` of all rows: which images raise one where at most `rate` of the alarms may be false.

    Returns how many do. Unreadable images have none. Raises OutputError.
    """
    from blemish.scoring.false_discovery import benjamini_hochberg

    p_values = np.array([np.nan if row["error"] is not None else row["p_value"] for row in read_rows(folder)])
    alarms = np.zeros(len(p_values), dtype=bool)
    alarms[~np.isnan(p_values)] = benjamini_hochberg(p_values[~np.isnan(p_values)], rate)
    with output_errors(folder), written_anew(folder) as write:
        for row, alarm in zip(read_rows(folder), alarms.tolist(), strict=True):
            write(row | {"alarm": None if row["error"] is not None else alarm})
    return int(alarms.sum())


@contextmanager
def written_anew(folder: Path) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Gives a function that writes one row into both files of results; they replace the old ones at the end."""
    with (
        atomic_file(folder / ROWS, durable=False) as lines,
        atomic_file(folder / TABLE, durable=False) as table,
        lines.open("w", encoding="utf-8") as line_file,
        table.open("w", encoding="utf-8", newline="", errors="backslashreplace") as table_file,
    ):
        cells = csv.DictWriter(table_file, COLUMNS)
        cells.writeheader()

        def write(row: Mapping[str, Any]) -> None:
            line_file.write(line_of(row))
            cells.writerow(cells_of(row))

        yield write


def prediction_of_row(row: Mapping[str, Any], ignored: np.ndarray | None = None) -> Prediction:
    """What a row says, as the prediction that it was, without its map; `ignored` is its image's area not judged."""
    return Prediction.from_dict(row, NO_MAP, row["map_threshold"], ignored)


def picture_of(image: ImageOrScan) -> np.ndarray:
    """What people look at, `(H, W, 3)` uint8: the image, or the relief of a scan that has points alone."""
    if isinstance(image, Scan) and image.image is None:
        relief = relief_of(image)
        assert relief is not None  # a scan has an image or points
        return relief
    return as_rgb(image)


def relief_of(image: ImageOrScan) -> np.ndarray | None:
    """The measured points of a scan lit from one side, `(H, W, 3)` uint8; None for an image alone."""
    if not isinstance(image, Scan) or image.xyz is None:
        return None
    from blemish.report.relief import shaded_relief

    return shaded_relief(image.xyz)


def overlay_of(prediction: Prediction, image: ImageOrScan) -> np.ndarray:
    """The verdict drawn on the picture, `(H, W, 3)` uint8, and on the relief of measured points beside it.

    Smaller than the picture where that has more pixels a side than a JPEG can hold, as one of a line-scan camera may.
    """
    from blemish.report.overlays import draw_overlay, fits_jpeg
    from blemish.report.views import side_by_side

    drawn = draw_overlay(picture_of(image), prediction)
    relief = relief_of(image) if isinstance(image, Scan) and image.image is not None else None
    if relief is not None:
        drawn = side_by_side([drawn, draw_overlay(relief, prediction, strip=False)])
    return fits_jpeg(drawn)


def _row_in(line: str) -> Row | None:
    """The row in a line of `results.jsonl`; None where it is not whole or has other columns.

    Rows that were written before there were reasons have none.
    """
    try:
        row = json.loads(line)
    except ValueError:
        return None
    if not isinstance(row, dict) or not line.endswith("\n"):
        return None
    row.setdefault("reason", "")
    whole = row.keys() >= set(COLUMNS)
    return row if whole and (row["error"] is not None or row["verdict"] in VERDICTS) else None


def _new_file(path: Path) -> Any:
    """A new file, open for writing; what lies at `path` goes, so that a link there is not followed."""
    path.unlink(missing_ok=True)
    return path.open("xb")
