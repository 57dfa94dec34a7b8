"""The page about a set of scans: good ones and one of each defect, as image and as relief, with the true outline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np

from blemish.report.overlays import draw_mask
from blemish.report.page import Photo, facts_of, photo, render
from blemish.report.relief import shaded_relief
from blemish.scoring.describe import count_in_words
from blemish.types import Sample
from blemish.utils.atomic import write_text

_NOTE = (
    "Left the picture, right the measured points as a shaded relief, dark where nothing was measured. "
    "The blue line is the true outline of the defect, whichever side shows it."
)


@dataclass(frozen=True)
class _ScanView:
    """One scan: image and relief side by side, the kind of defect, and how large it is."""

    photo: Photo
    kind: str
    area: str


def write_scan_sheet(
    path: str | Path,
    title: str,
    categories: Mapping[str, Sequence[Sample]],
    *,
    about: str = "",
    counts: Mapping[str, object] | None = None,
    command: str = "",
    made: datetime | None = None,
) -> Path:
    """Write one self-contained HTML page that shows these samples by category, and return its path.

    Samples carry arrays: image `(H, W, 3)` uint8, points `(H, W, 3)`, mask `(H, W)` bool or None. Raises OutputError
    when the page cannot be written.
    """
    text = render(
        "scan_sheet.html",
        made=made,
        kind="generate",
        title=title,
        about=about,
        counts=facts_of(counts or {}),
        categories={name: [_scan(sample) for sample in samples] for name, samples in categories.items()},
        note=_NOTE,
        command=command,
    )
    return write_text(path, text)


def _scan(sample: Sample) -> _ScanView:
    image, relief = np.asarray(sample.image), shaded_relief(np.asarray(sample.points))
    area, mask = "", None if sample.mask is None else np.asarray(sample.mask)
    if mask is not None:
        area = f", {count_in_words(int(mask.sum()), 'pixel')}"
        relief = draw_mask(relief, mask, tint=0)
    both = np.concatenate([image, np.full((len(image), 4, 3), 255, np.uint8), relief], axis=1)
    kind = sample.defect or "good"
    return _ScanView(photo(both, f"{sample.category}, {kind}: picture and relief"), kind, area)
