"""What people look at: a sample's image, and its measured points as a shaded relief."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from blemish.data.full_scale import FullScale
from blemish.data.loading import ImageInput, as_sample
from blemish.data.samples import image_of
from blemish.data.scans import load_scan
from blemish.report.overlays import draw_overlay
from blemish.types import Prediction, Sample


def image_view(sample: Sample, full_scale: FullScale | None = None) -> np.ndarray:
    """The image `(H, W, 3)` uint8; the relief where there are points alone. Raises ImageError.

    `full_scale` says which level of more than 8 bits is white: that of the model, so that people see what it saw.
    """
    relief = relief_view(sample) if sample.image is None else None
    return image_of(sample, full_scale) if relief is None else relief


def overlay(image: ImageInput, prediction: Prediction, full_scale: FullScale | None = None) -> np.ndarray:
    """The image with the prediction about it drawn on it, `(H, W, 3)` uint8, to show or to save.

    Regions are outlined, tinted and numbered, the verdict stands along an edge (see `draw_overlay`). `image` is what
    was inspected: a file, an array, a PIL image or a sample. `full_scale` says which level of more than 8 bits is
    white: that of the model, `inspector.model_.full_scale`, where people should see what it saw. Raises ImageError.
    """
    return draw_overlay(image_view(as_sample(image), full_scale), prediction)


def relief_view(sample: Sample) -> np.ndarray | None:
    """The points as `(H, W, 3)` uint8, lit from one side; None for an image alone. Raises ImageError."""
    if sample.points is None:
        return None
    from blemish.report.relief import shaded_relief

    points = load_scan(sample).xyz
    return None if points is None else shaded_relief(points)


def side_by_side(panels: Sequence[np.ndarray], gap: int = 6) -> np.ndarray:
    """Images `(h, w, 3)` uint8 in a row, all as high as the first, `gap` white pixels between them."""
    height = panels[0].shape[0]
    row: list[np.ndarray] = []
    for panel in panels:
        if panel.shape[0] != height:
            width = max(1, round(panel.shape[1] * height / panel.shape[0]))
            panel = np.asarray(Image.fromarray(panel).resize((width, height), Image.Resampling.BILINEAR))
        row += [np.full((height, gap, 3), 255, np.uint8), panel]
    return np.concatenate(row[1:], axis=1)
