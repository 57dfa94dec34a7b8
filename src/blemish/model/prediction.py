"""From what was seen of an image and how it was scored to the answer: map, regions, verdict, words."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from blemish.detectors.base import Detector, Explains
from blemish.model.category_recognition import Recognised
from blemish.preprocessing.framing import Frame
from blemish.scoring.anomaly_map import full_map, regions
from blemish.scoring.calibration import Calibration
from blemish.scoring.describe import region_in_words
from blemish.types import Features, Prediction, Region


@dataclass(frozen=True)
class Failure:
    """An image that could not be inspected, and why."""

    file: str
    error: str


@dataclass(frozen=True)
class Opened:
    """A decoded image or scan, its frame where that is certain already, and the seconds that took."""

    name: str
    image: np.ndarray
    frame: Frame | None
    seconds: float


@dataclass(frozen=True)
class Seen:
    """What the encoder saw of one image, and which category it shows."""

    frame: Frame
    features: Features
    recognised: Recognised


def prediction_of(
    opened: Opened,
    seen: Seen,
    score: float,
    patches: np.ndarray,
    detector: Detector,
    calibration: Calibration,
    seconds: float,
) -> Prediction:
    """The answer for one image from its `score` and `patches` `(h, w)`; `seconds` is what scoring took."""
    started = time.perf_counter()
    frame, recognised = seen.frame, seen.recognised
    over = score > calibration.threshold
    pixels = in_image(patches, frame)
    # A defective part has at least one place to look at: where none is over the limit, its strongest.
    peak = min(calibration.peak_threshold, float(pixels.max())) if over else calibration.peak_threshold
    limit = min(calibration.map_threshold, peak)
    found = explained(regions(pixels, limit, peak), pixels >= limit, seen, detector)
    return Prediction(
        score=score,
        p_value=calibration.p_value(score),
        threshold=calibration.threshold,
        verdict="unknown" if not recognised.is_known else "defective" if over else "good",
        map=pixels,
        regions=tuple(replace(region, words=region_in_words(region, frame.original_size, limit)) for region in found),
        category=recognised.category or None,
        map_threshold=limit,
        seconds=opened.seconds + seconds + time.perf_counter() - started,
        source=opened.name,
    )


def in_image(patches: np.ndarray, frame: Frame) -> np.ndarray:
    """Patch values `(h, w)` as a map `(H, W)` of the image that was framed."""
    return full_map(patches, (frame.pixels.shape[0], frame.pixels.shape[1]), frame.original_size, frame.to_image)


def explained(found: Sequence[Region], above: np.ndarray, seen: Seen, detector: Detector) -> Sequence[Region]:
    """The regions with the share of each modality in their alarm, where the detector can tell; `above` `(H, W)` bool
    is where the map lies above its limit."""
    if not found or not isinstance(detector, Explains):
        return found
    maps = {
        modality: in_image(values[0].detach().float().cpu().numpy(), seen.frame)
        for modality, values in detector.explain(seen.features).items()
    }
    return [replace(region, modalities=shares_inside(maps, region, above)) for region in found]


def shares_inside(maps: Mapping[str, np.ndarray], region: Region, above: np.ndarray) -> dict[str, float]:
    """Each modality's part of what all `maps` `(H, W)` add up to inside a region; empty where that is nothing."""
    left, top, right, bottom = region.box
    place = slice(top, bottom), slice(left, right)
    sums = {modality: float(values[place][above[place]].sum(dtype=np.float64)) for modality, values in maps.items()}
    total = sum(sums.values())
    return {modality: value / total for modality, value in sums.items()} if total > 0 else {}
