"""The pixels of each region of a prediction, for programs that draw or measure them."""

from __future__ import annotations

import numpy as np

from blemish.numeric import raster
from blemish.types import Prediction


def region_masks(prediction: Prediction) -> np.ndarray:
    """Masks `(n, H, W)` bool of the image's own size, one for each of the n regions, in their order; none overlap."""
    above = prediction.map >= prediction.region_threshold  # (H, W)
    masks = np.zeros((len(prediction.regions), *above.shape), dtype=bool)
    if not prediction.regions:
        return masks
    labels, _ = raster.label(above, diagonal=True)
    boxes = raster.find_objects(labels)
    for mask, region in zip(masks, prediction.regions, strict=True):
        left, top, right, bottom = region.box
        place = slice(top, bottom), slice(left, right)
        for index in np.unique(labels[place][prediction.map[place] == region.peak]):
            if index and (boxes[index - 1][0], boxes[index - 1][1]) == place:
                mask[place] = labels[place] == index
    return masks
