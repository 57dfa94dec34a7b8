"""The row of one image: its columns, and what a prediction or an error writes into them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from blemish.utils.optional import need

if TYPE_CHECKING:
    import pyarrow

    from blemish.batch.source import Entry
    from blemish.types import Prediction

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What all rows of one model say alike: sha256 of its settings, of its calibration (12 letters), the program."""

    model_sha256: str
    calibration_version: str
    blemish_version: str

    def to_dict(self) -> dict[str, str]:
        return asdict(self)


@cache
def schema() -> pyarrow.Schema:
    """The columns of all result files. Of an image that could not be inspected, `error` says why and others are null.

    `regions` are boxes in image pixels with their area (pixels), peak score and sentence; `overlay` is the path below
    the results' folder of the picture drawn for an alarm; `seconds` what inspecting the image took.
    """
    pa: Any = need("pyarrow", "batch", "result files")
    region = pa.struct(
        [
            *((name, pa.int32()) for name in ("x", "y", "w", "h")),
            ("area", pa.int64()),
            ("peak", pa.float64()),
            ("words", pa.string()),
        ]
    )
    texts, numbers = pa.string(), pa.float64()
    found: pyarrow.Schema = pa.schema(
        [
            ("id", texts),
            ("uri", texts),
            ("category", texts),
            ("score", numbers),
            ("p_value", numbers),
            ("verdict", texts),
            ("threshold", numbers),
            ("regions", pa.list_(region)),
            ("model_sha256", texts),
            ("calibration_version", texts),
            ("blemish_version", texts),
            ("seconds", numbers),
            ("error", texts),
            ("overlay", texts),
        ]
    )
    return found


def table_of(rows: Sequence[Mapping[str, Any]]) -> pyarrow.Table:
    """Rows as a table of `schema`; what a row does not say is null."""
    pa: Any = need("pyarrow", "batch", "result files")
    columns = {name: [row.get(name) for row in rows] for name in schema().names}
    table: pyarrow.Table = pa.table(columns, schema=schema())
    return table


def row_of(entry: Entry, prediction: Prediction, origin: Origin, overlay: str | None = None) -> Row:
    """What a prediction says, as the row of its entry."""
    regions = [
        {
            "x": int(region.box[0]),
            "y": int(region.box[1]),
            "w": int(region.box[2] - region.box[0]),
            "h": int(region.box[3] - region.box[1]),
            "area": int(region.area),
            "peak": float(region.peak),
            "words": region.words,
        }
        for region in prediction.regions
    ]
    return {
        "id": entry.id,
        "uri": entry.uri,
        "category": entry.category if prediction.category is None else prediction.category,
        "score": float(prediction.score),
        "p_value": float(prediction.p_value),
        "verdict": prediction.verdict,
        "threshold": float(prediction.threshold),
        "regions": regions,
        **origin.to_dict(),
        "seconds": float(prediction.seconds),
        "error": None,
        "overlay": overlay,
    }


def failure_row(entry: Entry, error: str, origin: Origin) -> Row:
    """The row of an image that could not be inspected."""
    facts = {"id": entry.id, "uri": entry.uri, "category": entry.category}
    return facts | origin.to_dict() | {"verdict": None, "error": error}
