"""The page about a set of scans: good ones and one of each defect, as image and as relief, with the true outline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

import numpy as np

from blemish.report.overlays import draw_mask
from blemish.report.page import Markup, element, facts, figure, page, section, write_page
from blemish.report.relief import shaded_relief
from blemish.scoring.describe import count_in_words
from blemish.types import Sample

NOTE = (
    "Left the picture, right the measured points as a shaded relief, dark where nothing was measured. "
    "The blue line is the true outline of the defect, whichever side shows it."
)


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
    when = (made or datetime.now()).strftime("%Y-%m-%d %H:%M")
    head = element(
        "header",
        element("p", f"blemish generate · {when}", class_="brand"),
        element("h1", title),
        element("p", about, class_="lead") if about else None,
        facts(dict(counts)) if counts else None,
    )
    parts = [
        section(
            name.capitalize(),
            element("div", *(_scan(sample) for sample in samples), class_="grid large scans"),
            note=NOTE if number == 0 else None,
            id_=name,
        )
        for number, (name, samples) in enumerate(categories.items())
    ]
    repeat = section("How to repeat it", element("pre", element("code", command))) if command else None
    foot = element("footer", f"Made by blemish on {when}. This file needs no network and no other file.")
    return write_page(path, page(title, head, *parts, repeat, foot))


def _scan(sample: Sample) -> Markup:
    image, relief = np.asarray(sample.image), shaded_relief(np.asarray(sample.points))
    area, mask = "", None if sample.mask is None else np.asarray(sample.mask)
    if mask is not None:
        area = f", {count_in_words(int(mask.sum()), 'pixel')}"
        relief = draw_mask(relief, mask, tint=0)
    both = np.concatenate([image, np.full((len(image), 4, 3), 255, np.uint8), relief], axis=1)
    kind = sample.defect or "good"
    alt = f"{sample.category}, {kind}: picture and relief"
    return element("figure", figure(both, alt, data_zoom=True), element("figcaption", element("b", kind), area))
