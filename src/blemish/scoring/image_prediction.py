"""From an image's score and patch scores to its prediction: map, regions, verdict. numpy and pillow only.

The one way there, of a model, of a set without a model and of an exported bundle.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np

from blemish.preprocessing.framing import Frame
from blemish.preprocessing.ignored_area import resized_area
from blemish.scoring.anomaly_map import full_map, regions
from blemish.scoring.describe import region_in_words
from blemish.types import Prediction, Region, Verdict


class Thresholds(Protocol):
    """What a calibration says of scores: see `scoring.calibration.Calibration`."""

    @property
    def threshold(self) -> float: ...

    @property
    def unsure_threshold(self) -> float: ...

    @property
    def peak_threshold(self) -> float: ...

    @property
    def region_threshold(self) -> float: ...

    def verdict(self, score: float, is_known: bool = True) -> Verdict:
        """The decision about an image."""
        ...

    def p_value(self, score: float) -> float:
        """The share of normal parts that score at least `score`."""
        ...


def image_prediction(
    frame: Frame,
    score: float,
    patches: np.ndarray,
    calibration: Thresholds,
    *,
    is_known: bool = True,
    category: str | None = None,
    ignored: np.ndarray | None = None,
    with_shares: Callable[[Sequence[Region], np.ndarray], Sequence[Region]] = lambda found, above: found,
) -> Prediction:
    """The prediction about a framed image with a `score` and patch scores `(h, w)`.

    `ignored` `(h, w)` bool is the area of the whole image that is not judged. `with_shares` gives regions, found where
    the map `(H, W)` is `above` its threshold, each modality's share.
    """
    verdict = calibration.verdict(score, is_known)
    anomaly_map = map_of_image(patches, frame)  # (H, W)
    if ignored is not None:
        anomaly_map[resized_area(ignored, frame.original_size)] = 0
    # Verdict and regions agree. A part that is not good has at least one place to look at: where none is over the
    # limit, its strongest, however small; a good part has none.
    peak_threshold, region_threshold = calibration.peak_threshold, calibration.region_threshold
    strongest = float(anomaly_map.max())
    if score > calibration.unsure_threshold and strongest > 0:
        peak_threshold = min(peak_threshold, strongest)
        if strongest < region_threshold:  # what stands out of a map that is weak everywhere
            region_threshold = (float(np.median(anomaly_map)) + strongest) / 2
    region_threshold = min(region_threshold, peak_threshold)
    areas = () if verdict == "good" else regions(anomaly_map, region_threshold, peak_threshold)
    if not areas and verdict != "good" and peak_threshold == strongest:
        areas = regions(anomaly_map, region_threshold, strongest, smallest=0)[:1]
    found = with_shares(areas, anomaly_map >= region_threshold)
    return Prediction(
        score=score,
        p_value=calibration.p_value(score),
        threshold=calibration.threshold,
        unsure_threshold=calibration.unsure_threshold,
        verdict=verdict,
        map=anomaly_map,
        regions=tuple(
            replace(region, words=region_in_words(region, frame.original_size, region_threshold)) for region in found
        ),
        category=category,
        region_threshold=region_threshold,
        ignored=ignored,
    )


def map_of_image(patches: np.ndarray, frame: Frame) -> np.ndarray:
    """Patch values `(h, w)` as a map `(H, W)` of the image that was framed."""
    return full_map(
        patches, (frame.encoder_input.shape[0], frame.encoder_input.shape[1]), frame.original_size, frame.to_image
    )
